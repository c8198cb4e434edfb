"""The ways in which a simulated provider can be told to fail."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Any

from ops.simulator.http import Call


class FaultMode(StrEnum):
    """How a call goes wrong, and whether its effect takes place all the same."""

    STATUS = "status"  # answers `status`; no effect
    STATUS_AFTER_EFFECT = "status_after_effect"  # does it, then answers `status`
    STORE_STATUS = "store_status"  # answers `status` and stores that under the caller's key; no effect
    LATENCY = "latency"  # waits `seconds`, then goes on as usual
    HANG = "hang"  # never answers: closes after `seconds` or when the simulator stops; no effect
    RESET = "reset"  # TCP reset; no effect
    DROP_RESPONSE = "drop_response"  # does it, then resets the connection without a word
    TWICE = "twice"  # does it twice, then resets the connection without a word
    MALFORMED = "malformed"  # does it, then answers a body that is not JSON
    TRUNCATE = "truncate"  # does it, then closes in the middle of the body
    WRONG_CONTENT_TYPE = "wrong_content_type"  # does it, then answers an HTML page
    SLOW_BODY = "slow_body"  # does it, then sends the body byte by byte over `seconds`


HAS_NO_EFFECT = frozenset({FaultMode.STATUS, FaultMode.STORE_STATUS, FaultMode.HANG, FaultMode.RESET})


class BadFault(Exception):
    """A fault that was asked for makes no sense."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One rule. `provider`, `operation` and `target` are shell patterns; the first rule that matches and fires is
    taken.

    `retry_after` goes out word for word. `seconds` is a wait. `times` bounds how often it fires (None: for ever).
    `probability` is drawn from a generator seeded with `seed`, so a run can be repeated. `body_code` is the error's
    code in the body.
    """

    provider: str
    mode: FaultMode
    operation: str = "*"
    target: str = "*"
    status: int = 503
    retry_after: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    times: int | None = None
    probability: float = 1.0
    seed: int = 0
    body_code: str = ""

    def to_json(self) -> dict[str, Any]:
        """As it travels to `POST /_sim/faults`."""
        return {**asdict(self), "headers": dict(self.headers)}


_FIELD_NAMES = frozenset(item.name for item in fields(Fault))


def fault_from_json(raw: Any) -> Fault:
    """Read one rule. Raises `BadFault` naming what is wrong."""
    if not isinstance(raw, dict):
        raise BadFault("a fault is a JSON object")
    unknown = sorted(set(raw) - _FIELD_NAMES)
    if unknown:
        raise BadFault(f"unknown fields: {', '.join(unknown)}")
    if "provider" not in raw or "mode" not in raw:
        raise BadFault("a fault names its provider and its mode")
    try:
        mode = FaultMode(raw["mode"])
    except ValueError as exc:
        raise BadFault(f"mode is one of {', '.join(FaultMode)}") from exc
    try:
        fault = Fault(**{**raw, "mode": mode})
        is_sound = (
            100 <= int(fault.status) <= 599
            and 0 <= float(fault.seconds) <= 600
            and 0 <= float(fault.probability) <= 1
            and (fault.times is None or int(fault.times) >= 0)
            and all(isinstance(text, str) for text in (fault.provider, fault.operation, fault.target, fault.body_code))
            and isinstance(fault.headers, dict)
            and (fault.retry_after is None or isinstance(fault.retry_after, str))
        )
    except (TypeError, ValueError) as exc:
        raise BadFault(f"a field has the wrong type: {exc}") from exc
    if not is_sound:
        raise BadFault("a field is out of range or of the wrong type")
    return fault


@dataclass(slots=True)
class _Rule:
    fault_id: str
    fault: Fault
    random: random.Random
    fired: int = 0

    def matches(self, call: Call) -> bool:
        fault = self.fault
        return (
            (fault.times is None or self.fired < fault.times)
            and fnmatchcase(call.provider, fault.provider)
            and fnmatchcase(call.operation, fault.operation)
            and fnmatchcase(call.target, fault.target)
            and (fault.probability >= 1 or self.random.random() < fault.probability)
        )


class FaultBook:
    """The rules in force, in the order they came. The caller holds the world's lock."""

    def __init__(self) -> None:
        self._rules: list[_Rule] = []
        self._made = 0

    def add(self, faults: list[Fault]) -> list[str]:
        """Put rules in force behind those that are. Gives their ids."""
        ids = []
        for fault in faults:
            self._made += 1
            fault_id = f"fault-{self._made}"
            self._rules.append(_Rule(fault_id, fault, random.Random(fault.seed)))  # noqa: S311  # a repeatable draw is the point
            ids.append(fault_id)
        return ids

    def remove(self, fault_id: str | None) -> int:
        """Take one rule out of force, or all with None. Gives how many that were."""
        before = len(self._rules)
        self._rules = [] if fault_id is None else [rule for rule in self._rules if rule.fault_id != fault_id]
        return before - len(self._rules)

    def take(self, call: Call) -> Fault | None:
        """The fault that this call meets, counted as fired."""
        for rule in self._rules:
            if rule.matches(call):
                rule.fired += 1
                return rule.fault
        return None

    def to_json(self) -> list[dict[str, Any]]:
        """Every rule with its id and how often it fired."""
        return [{"id": rule.fault_id, "fired": rule.fired, **rule.fault.to_json()} for rule in self._rules]
