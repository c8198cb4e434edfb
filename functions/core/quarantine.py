"""Quarantine: rules by which events are kept aside instead of being processed (runbook 001, "DLQ and Replay Procedure":
"fix or temporary filter"). Pure; `ports.Quarantines` stores them.

A rule names a source, an event name, a version, and a tenant, or several of these: what it says must all be so. Without
a failure code it keeps new events aside; with one, what has failed with that code and would be tried again. Either way
they are rows that only a person's replay sends on, which no rule stops. A rule ends by itself.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from functions.core.audit import AuditEvent, AuditType, Severity, audit_id
from functions.core.compact import compact
from functions.core.failure import HoldfastError

QUARANTINED = "QUARANTINED"
ENTITY = "quarantine"
MOST_RULES = 50  # all of them are one item, which every batch of the worker reads
LONGEST_MS = 30 * 86_400_000  # a filter that is needed for longer wants a fix, or a source that is held


class InvalidRule(HoldfastError):
    """A rule that may not be made. The text says why."""


class NoSuchRule(HoldfastError):
    """There is no rule of that id, or it has ended."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule. An empty criterion says nothing. Times are epoch milliseconds."""

    rule_id: str
    author: str
    reason: str
    created_at_ms: int
    expires_at_ms: int
    source: str = ""
    event_name: str = ""
    event_version: str = ""
    tenant: str = ""
    failure_code: str = ""

    def is_in_force(self, now_ms: int) -> bool:
        """Whether it has not ended."""
        return now_ms < self.expires_at_ms

    def means(self, source: str, event_name: str, event_version: str, tenant: str) -> bool:
        """Whether all it says of events is so of this one."""
        stated = (
            (self.source, source),
            (self.event_name, event_name),
            (self.event_version, event_version),
            (self.tenant, tenant),
        )
        return all(not wanted or wanted == value for wanted, value in stated)

    @property
    def said(self) -> str:
        """Its criteria, for people: `source=shop, event_name=order.created`."""
        return ", ".join(f"{name}={value}" for name in CRITERIA if (value := getattr(self, name)))


CRITERIA = ("source", "event_name", "event_version", "tenant", "failure_code")


@dataclass(frozen=True, slots=True)
class Quarantine:
    """Every rule, the newest last. `version` is 0 where there never was one."""

    rules: tuple[Rule, ...] = ()
    version: int = 0

    def for_event(self, source: str, event_name: str, event_version: str, tenant: str, now_ms: int) -> Rule | None:
        """The rule that keeps such a new event aside, the oldest if several do."""
        return next(
            (
                rule
                for rule in self.rules
                if not rule.failure_code
                and rule.is_in_force(now_ms)
                and rule.means(source, event_name, event_version, tenant)
            ),
            None,
        )

    def for_failure(
        self, source: str, event_name: str, event_version: str, tenant: str, failure_code: str, now_ms: int
    ) -> Rule | None:
        """The rule that keeps aside what has failed with that code."""
        return next(
            (
                rule
                for rule in self.rules
                if rule.failure_code
                and rule.failure_code == failure_code
                and rule.is_in_force(now_ms)
                and rule.means(source, event_name, event_version, tenant)
            ),
            None,
        )

    def in_force(self, now_ms: int) -> tuple[Rule, ...]:
        """Those that have not ended."""
        return tuple(rule for rule in self.rules if rule.is_in_force(now_ms))

    def with_rule(self, rule: Rule, request_id: str, traceparent: str = "") -> QuarantineChange:
        """With one rule more. Those that have ended are left out. Raises `InvalidRule`."""
        now_ms = rule.created_at_ms
        kept = self.in_force(now_ms)
        if not rule.said:
            raise InvalidRule(
                f"a rule without a criterion would keep everything aside: give one of {', '.join(CRITERIA)}"
            )
        if not rule.reason.strip():
            raise InvalidRule("a rule needs a reason: whoever is paged tomorrow reads it")
        if not now_ms < rule.expires_at_ms <= now_ms + LONGEST_MS:
            raise InvalidRule(f"a rule ends, within {LONGEST_MS // 86_400_000} days")
        if len(kept) >= MOST_RULES:
            raise InvalidRule(f"there are {len(kept)} rules, and no more are read: remove one")
        after = Quarantine((*kept, rule), self.version + 1)
        return QuarantineChange(
            self, after, _event(rule, rule.author, now_ms, request_id, traceparent, rule.reason, is_new=True)
        )

    def without(
        self, rule_id: str, *, actor: str, reason: str, now_ms: int, request_id: str, traceparent: str = ""
    ) -> QuarantineChange:
        """Without that rule, from now on. Raises `NoSuchRule`."""
        gone = next((rule for rule in self.in_force(now_ms) if rule.rule_id == rule_id), None)
        if gone is None:
            raise NoSuchRule(f"no rule {rule_id} is in force")
        kept = tuple(rule for rule in self.in_force(now_ms) if rule.rule_id != rule_id)
        after = Quarantine(kept, self.version + 1)
        return QuarantineChange(self, after, _event(gone, actor, now_ms, request_id, traceparent, reason, is_new=False))

    def to_json(self) -> str:
        """Compact JSON of the rules, read back by `from_json`."""
        return compact(
            [{name: value for name, value in asdict(rule).items() if value} for rule in self.rules],
        )

    @staticmethod
    def from_json(text: str, version: int) -> Quarantine:
        """Read the rules back. Raises ValueError or TypeError for what was not written here."""
        stored = json.loads(text)
        if not isinstance(stored, list):
            raise TypeError("the rules are no list")
        return Quarantine(tuple(_rule(one) for one in stored), version)


@dataclass(frozen=True, slots=True)
class QuarantineChange:
    """What the rules become. The write needs the version of `before` still to be there."""

    before: Quarantine
    after: Quarantine
    audit: AuditEvent


def _rule(stored: Any) -> Rule:
    if not isinstance(stored, Mapping):
        raise TypeError("a rule is no object")
    kinds = {field.name: int if field.name.endswith("_ms") else str for field in fields(Rule)}
    for name, value in stored.items():
        if name not in kinds or type(value) is not kinds[name]:
            raise TypeError(f"a rule's {str(name)[:40]!r} is not what it may be")
    return Rule(**stored)


def _event(
    rule: Rule, actor: str, now_ms: int, request_id: str, traceparent: str, reason: str, *, is_new: bool
) -> AuditEvent:
    step = "made" if is_new else "removed"
    return AuditEvent(
        id=audit_id(f"{rule.rule_id}#{step}", 0, AuditType.QUARANTINE_CHANGED),
        at_ms=now_ms,
        event_type=AuditType.QUARANTINE_CHANGED,
        severity=Severity.WARNING,
        tenant=rule.tenant,
        actor=actor,
        affected_entity=ENTITY,
        affected_id=rule.rule_id,
        request_id=request_id,
        traceparent=traceparent,
        before_state="" if is_new else _state(rule),
        after_state=_state(rule) if is_new else "",
        containment_action=f"events are kept aside: {rule.said}" if is_new else "events go on",
        reason=reason,
    )


def _state(rule: Rule) -> str:
    said = {name: value for name, value in asdict(rule).items() if value}
    return compact(said)


def kept_aside(rule: Rule) -> str:
    """What a row says that was kept aside, and who to ask."""
    return (
        f"kept aside by rule {rule.rule_id} of {rule.author} ({rule.said}): {rule.reason}; replay it when it may go on"
    )
