"""Switches that are set for a time: what each says again afterwards. Pure; `ports.SwitchReturns` stores the promises.

The parameter store numbers versions, and cannot write "only if it is still that one". So a promise names the version
that it is about, before that is written: it is kept only while that version is the switch's last and is known by its
description to be ours. Whatever anybody has set since stays.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from enum import StrEnum
from typing import Any

from functions.core.audit import MACHINE, AuditEvent, AuditType, Severity, audit_id
from functions.core.compact import compact
from functions.core.failure import HoldfastError
from functions.core.ports import SwitchVersion
from functions.core.switch_history import REASON_LENGTH

MOST = 50  # all of them are one item
SHORTEST_MS = 60_000  # a request that sets a switch is over by then, and the evaluator looks each minute
LONGEST_MS = 30 * 86_400_000


class InvalidReturn(HoldfastError):
    """A promise that may not be made. The text says why."""


@dataclass(frozen=True, slots=True)
class Return:
    """One promise: `name`, which says `value` since `version`, says `back_to` again from `until_ms` on."""

    return_id: str
    name: str
    value: str
    version: int
    back_to: str
    until_ms: int
    actor: str
    reason: str
    description: str
    request_id: str

    def is_about(self, now: SwitchVersion | None) -> bool:
        """Whether that is what the switch says."""
        return now is not None and (now.name, now.version, now.value) == (self.name, self.version, self.value)


class Verdict(StrEnum):
    """What becomes of a promise that is due."""

    KEEP = "keep"
    DROP = "drop"
    WAIT = "wait"


def verdict(promise: Return, latest: SwitchVersion | None, kept: Sequence[SwitchVersion]) -> Verdict:
    """`kept` is the switch's history, which may be behind: then it waits for the next minute."""
    if not promise.is_about(latest):
        return Verdict.DROP
    own = next((one for one in kept if one.version == promise.version), None)
    if own is None:
        return Verdict.WAIT
    # A promise whose switch never moved must not be kept to somebody who set it so by hand.
    return Verdict.KEEP if own.reason == promise.description[:REASON_LENGTH] else Verdict.DROP


def returned(promise: Return) -> AuditEvent:
    """The audit's line of a kept promise: the same however often it is written."""
    return AuditEvent(
        id=audit_id(f"{promise.return_id}#returned", promise.version, AuditType.SWITCH_CHANGED),
        at_ms=promise.until_ms,
        event_type=AuditType.SWITCH_CHANGED,
        severity=Severity.WARNING,
        tenant="",
        actor=MACHINE,
        affected_entity="switch",
        affected_id=promise.name,
        request_id="",
        origin_request_id=promise.request_id,
        before_state=_state(promise.value, promise.version),
        after_state=_state(promise.back_to),
        reason=said(promise),
    )


def said(promise: Return) -> str:
    """Why the machine sets it, for the audit and the parameter's own history."""
    return f"its time is over, as {promise.actor} said: {promise.reason}"


@dataclass(frozen=True, slots=True)
class Returns:
    """Every promise. `version` is 0 where there never was one."""

    promises: tuple[Return, ...] = ()
    version: int = 0

    def of(self, now: SwitchVersion | None) -> Return | None:
        """The promise about what a switch says now, the newest if there are several."""
        return next((one for one in reversed(self.promises) if one.is_about(now)), None)

    def with_promise(
        self, promise: Return, before: SwitchVersion | None, now_ms: int, asked: AuditEvent
    ) -> ReturnsChange:
        """With one more. That about what the switch says until it is set stays: setting it may fail. Raises
        `InvalidReturn`.
        """
        if not now_ms + SHORTEST_MS <= promise.until_ms <= now_ms + LONGEST_MS:
            raise InvalidReturn("a switch is set for a time of 1m to 30d")
        if promise.back_to == promise.value:
            raise InvalidReturn(f"{promise.name} says {promise.value} already: nothing would come back")
        kept = tuple(one for one in self.promises if one.name != promise.name or one.is_about(before))
        if len(kept) >= MOST:
            raise InvalidReturn(f"{len(kept)} switches are set for a time already")
        return ReturnsChange(self, Returns((*kept, promise), self.version + 1), (asked,))

    def moved(self, promise: Return, version: int) -> ReturnsChange:
        """With the version that it got, where that is not the one it was going to be about."""
        others = tuple(one for one in self.promises if one.return_id != promise.return_id)
        return ReturnsChange(self, Returns((*others, replace(promise, version=version)), self.version + 1))

    def without(self, done: Collection[str]) -> ReturnsChange:
        """Without those of these ids."""
        left = tuple(one for one in self.promises if one.return_id not in done)
        return ReturnsChange(self, Returns(left, self.version + 1))

    def to_json(self) -> str:
        """Compact JSON, read back by `from_json`."""
        return compact([asdict(one) for one in self.promises])

    @staticmethod
    def from_json(text: str, version: int) -> Returns:
        """Read the promises back. Raises ValueError or TypeError for what was not written here."""
        stored = json.loads(text)
        if not isinstance(stored, list):
            raise TypeError("the promises are no list")
        return Returns(tuple(_promise(one) for one in stored), version)


@dataclass(frozen=True, slots=True)
class ReturnsChange:
    """What the promises become. The write needs the version of `before` still to be there."""

    before: Returns
    after: Returns
    audit: tuple[AuditEvent, ...] = ()


def _promise(stored: Any) -> Return:
    if not isinstance(stored, Mapping):
        raise TypeError("a promise is no object")
    for field in fields(Return):
        kind = int if field.name in ("version", "until_ms") else str
        if type(stored.get(field.name)) is not kind:
            raise TypeError(f"a promise's {field.name!r} is not what it may be")
    return Return(**stored)


def _state(value: str, version: int | None = None) -> str:
    state: dict[str, str | int] = {"value": value} if version is None else {"value": value, "version": version}
    return compact(state)
