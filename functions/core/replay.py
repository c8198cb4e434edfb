"""Bulk replay: which rows a filter means, and what would become of each of them (architecture §7). Pure.

A plan says of every row that the filter means what a replay would do with it, as far as that can be known without
calling anybody: its state, the switches, the health of its integration, the clock, its recipient, and the ledger, which
knows of effects that came about on another way. What may have happened already and can be found out, because the
provider takes the same key again or can be asked, is told apart: it is checked before it is sent.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from typing import Any

from functions.core.attempt import AskPerson, Effect, LookUp, ReadFirst, WaitUntil, next_step, settled_at
from functions.core.compact import compact
from functions.core.decision import Action, Mode
from functions.core.event import digest
from functions.core.failure import HoldfastError
from functions.core.gate import GateView, Health, IntegrationState, Park, Standing, Suppress, WaitingFor, check
from functions.core.integration import Integration
from functions.core.ledger import ActionStatus, LedgerItem, LedgerStatus
from functions.core.limiter import Limit
from functions.core.quarantine import QUARANTINED
from functions.core.recovery import (
    HELD,
    OUTCOME_UNKNOWN,
    PAYLOAD_MISMATCH,
    SUPPRESSED,
    TOO_OLD_TO_REPLAY_MS,
    Row,
    Status,
    action_recovery_id,
    history_of,
    replay_expires_at,
)
from functions.core.switches import SwitchView, scope_of

REPLAYABLE = (Status.FAILED, Status.DLQ)
SHARE = 0.25  # of an integration's rate, for all replays of it together: what is new comes first
SAMPLES = 5  # of each prediction, for people to look at
EVENT_CALLS = 3  # what a whole event will call is not known before its flow has read it


class UnknownFilter(HoldfastError):
    """A job's filter names what this version does not know: another has written it."""


class PlanLost(HoldfastError):
    """The stored plan is gone, cannot be read, or is not the one that was looked at: nobody may go by it any more."""


class Prediction(StrEnum):
    """What a replay would do with a row. The first two would be replayed, the others left alone."""

    WOULD_SEND = "would_send"
    WOULD_CHECK = "would_check"
    ALREADY_DONE = "already_done"
    UNKNOWN = "unknown"
    UNDER_WAY = "under_way"
    ENDED = "ended"
    EXPIRED = "expired"
    TOO_OLD = "too_old"
    SUPPRESSED = "suppressed"
    KEPT_ASIDE = "kept_aside"
    SWITCH_BLOCKS = "switch_blocks"
    HEALTH_BLOCKS = "health_blocks"
    SCHEMA_UNKNOWN = "schema_unknown"
    OTHER_PAYLOAD = "other_payload"
    OVER_CAP = "over_cap"
    NOT_FOUND = "not_found"


@dataclass(frozen=True, slots=True)
class Filter:
    """What is meant: every criterion that is given must hold; within one, any of its values. Ages are the event's;
    `detail` are texts that occur in the failure's detail, however they are cased.
    """

    integration: frozenset[str] = frozenset()
    status: frozenset[str] = frozenset()
    failure_code: frozenset[str] = frozenset()
    root_cause: frozenset[str] = frozenset()
    source: frozenset[str] = frozenset()
    tenant: frozenset[str] = frozenset()
    flow: frozenset[str] = frozenset()
    event_name: frozenset[str] = frozenset()
    incident: frozenset[str] = frozenset()
    detail: frozenset[str] = frozenset()
    recovery_id: frozenset[str] = frozenset()
    older_than_ms: int | None = None
    newer_than_ms: int | None = None

    @property
    def is_empty(self) -> bool:
        """Whether it means everything there is, which nobody may ask for."""
        return self == Filter()

    @property
    def statuses(self) -> tuple[Status, ...]:
        """In which statuses to look."""
        return tuple(status for status in REPLAYABLE if not self.status or status.value in self.status)

    def to_json(self) -> str:
        """What was asked for, for the record. Read back by `from_json`."""
        said: dict[str, Any] = {}
        for one in fields(self):
            value = getattr(self, one.name)
            if value is not None and value != frozenset():
                said[one.name] = sorted(value) if isinstance(value, frozenset) else value
        return compact(said)

    @staticmethod
    def from_json(text: str) -> Filter:
        """The filter of a record. Raises `UnknownFilter` for what was not written here."""
        try:
            said: dict[str, Any] = json.loads(text)
            read: dict[str, Any] = {
                name: frozenset(value) if isinstance(value, list) else value for name, value in said.items()
            }
            return Filter(**read)
        except (AttributeError, TypeError, ValueError) as exc:
            raise UnknownFilter("another version wrote its filter, and this one cannot read it") from exc


def matches(wanted: Filter, row: Row, now_ms: int) -> bool:
    """Whether the filter means the row. One named by its id is meant in any status, so that it can be told why not."""
    age_ms = now_ms - row.received_at_ms
    stated = (
        (wanted.integration, row.integration_id),
        (wanted.status, row.status.value),
        (wanted.failure_code, row.failure_code),
        (wanted.root_cause, row.root_cause),
        (wanted.source, row.source),
        (wanted.tenant, row.tenant),
        (wanted.flow, row.flow),
        (wanted.event_name, row.event_name),
        (wanted.incident, row.incident_id),
        (wanted.recovery_id, row.recovery_id),
    )
    detail = row.failure_detail.casefold()
    return (
        (row.status in REPLAYABLE or bool(wanted.recovery_id))
        and all(not allowed or value in allowed for allowed, value in stated)
        and (not wanted.detail or any(text.casefold() in detail for text in wanted.detail))
        and (wanted.older_than_ms is None or age_ms > wanted.older_than_ms)
        and (wanted.newer_than_ms is None or age_ms < wanted.newer_than_ms)
    )


# ---------------------------------------------------------------------------------------------------------- prediction


@dataclass(frozen=True, slots=True)
class Seen:
    """What is looked at beside the row. `switches` are those for its flow, source and tenant, just read; `known` is its
    integration in the catalog; `item` its event's ledger item; `standing` its recipient's on the integration's channel.
    `unknown` says why what is deployed could make nothing of the row; empty where it could (core.schema).
    `asked_for` are the failure codes that the filter names. `look_only`: nothing is to be sent, only to be found out.
    """

    now_ms: int
    switches: SwitchView
    state: IntegrationState
    known: Integration | None = None
    item: LedgerItem | None = None
    standing: Standing = Standing.ALLOWED
    unknown: str = ""
    asked_for: frozenset[str] = frozenset()
    look_only: bool = False
    scale: float = 1.0


@dataclass(frozen=True, slots=True)
class Predicted:
    """What would become of a row, and why. `calls`: how many the attempt would make of the integration."""

    prediction: Prediction
    why: str = ""
    calls: int = 1


def predict(row: Row, seen: Seen) -> Predicted:
    """What a replay of the row would do now. What holds for good is said before what may pass."""
    over = _over(row, seen)
    if over is not None:
        return over
    return _event(row, seen) if row.action is None else _action(row, row.action, seen)


def _over(row: Row, seen: Seen) -> Predicted | None:
    """What is done, ended, or in somebody's hands."""
    if row.effect is Effect.DONE or row.status is Status.SUCCEEDED or row.result == "succeeded":
        return Predicted(Prediction.ALREADY_DONE, "the row says so")
    if row.is_open:
        return Predicted(Prediction.UNDER_WAY, f"it is {row.status.value}")
    if row.is_final:
        is_late = row.failure_code == "EXPIRED"
        return Predicted(Prediction.EXPIRED if is_late else Prediction.ENDED, f"it ended as {row.failure_code}")
    if row.failure_code == PAYLOAD_MISMATCH and seen.item is not None:
        return Predicted(Prediction.OTHER_PAYLOAD, "its event's id was taken by another payload, and still is")
    if is_done_by_ledger(row, seen.item):
        return Predicted(Prediction.ALREADY_DONE, "the ledger says so")
    if row.failure_code in (HELD, QUARANTINED) and row.failure_code not in seen.asked_for:
        return Predicted(Prediction.KEPT_ASIDE, f"a person keeps it aside: name the code {row.failure_code} to mean it")
    return None


def is_done_by_ledger(row: Row, item: LedgerItem | None) -> bool:
    """Whether the event's ledger item says that what the row is about came about on another way: a dead event that was
    delivered again and settled, an action that is marked as done.
    """
    if item is None or item.epoch_ms != row.epoch_ms:
        return False
    if row.action is None:
        return item.status is LedgerStatus.SETTLED
    mark = item.actions.get(row.action.name)
    return mark is not None and mark.status in (ActionStatus.DONE, ActionStatus.SUPERSEDED)


def unfinished(row: Row, item: LedgerItem | None) -> list[str]:
    """The ids of the rows in which a processed event has left what it called for and is not done."""
    if item is None or item.epoch_ms != row.epoch_ms:
        return []
    left = {name for name, mark in item.actions.items() if mark.status is ActionStatus.RECOVERY}
    actions = item.decision.bound(row.tenant, row.event_id, row.epoch_ms).actions
    return [action_recovery_id(action.action_id) for action in actions if action.name in left]


def _event(row: Row, seen: Seen) -> Predicted:
    if seen.now_ms - row.received_at_ms > TOO_OLD_TO_REPLAY_MS:
        return Predicted(Prediction.TOO_OLD, "its event is over 30 days old")
    if seen.unknown:
        return Predicted(Prediction.SCHEMA_UNKNOWN, seen.unknown)
    blocked = replays_blocked(row.integration_id, seen.switches)
    if not blocked and seen.switches.mode in (Mode.HOLD, Mode.SHADOW):
        blocked = f"mode is {seen.switches.mode.value}"
    if blocked:
        return Predicted(Prediction.SWITCH_BLOCKS, blocked)
    return Predicted(Prediction.WOULD_SEND, calls=EVENT_CALLS)


def _action(row: Row, action: Action, seen: Seen) -> Predicted:
    if seen.now_ms >= replay_expires_at(row):
        return Predicted(Prediction.EXPIRED, "it was to happen earlier or not at all")
    rules = None if seen.known is None else seen.known.kinds.get(row.kind)
    if rules is None or seen.unknown:
        return Predicted(
            Prediction.SCHEMA_UNKNOWN, seen.unknown or f"the catalog has no {row.kind} on {row.integration_id}"
        )
    if row.failure_code == SUPPRESSED and SUPPRESSED not in seen.asked_for:
        return Predicted(Prediction.SUPPRESSED, f"name the code {SUPPRESSED} to mean it")
    is_unclear = row.effect is Effect.UNKNOWN
    step = next_step(rules, history_of(row), seen.now_ms, seen.scale)
    if is_unclear and (row.failure_code == OUTCOME_UNKNOWN or isinstance(step, AskPerson)):
        return Predicted(Prediction.UNKNOWN, "it may have happened, and nothing can tell: for a person")
    held = _held(row, action, seen)
    if held is not None:
        return held
    if not is_unclear:
        return Predicted(Prediction.WOULD_SEND, calls=2 if isinstance(step, ReadFirst) else 1)
    if seen.look_only and not rules.can_look_up:
        return Predicted(Prediction.UNKNOWN, "its provider cannot be asked")
    if seen.look_only and seen.now_ms < settled_at(rules, row.last_possible_send_ms, seen.scale):
        return Predicted(Prediction.UNKNOWN, "it is too soon to believe its provider")
    is_asked = isinstance(step, LookUp | WaitUntil)
    why = (
        "may have happened: its provider is asked first"
        if is_asked
        else "may have happened: its provider knows the key"
    )
    return Predicted(Prediction.WOULD_CHECK, why, calls=2 if is_asked and not seen.look_only else 1)


def _held(row: Row, action: Action, seen: Seen) -> Predicted | None:
    """What the gate would say to it now, on the way that it is on: the same gate that is asked before the send."""
    verdict = check(replace(action, integration=row.integration_id, kind=row.kind), _view(row, seen))
    match verdict:
        case Suppress(reason):
            return Predicted(Prediction.SUPPRESSED, reason)
        case Park(WaitingFor.HEALTH, reason):
            return Predicted(Prediction.HEALTH_BLOCKS, reason)
        case Park(WaitingFor.SWITCH | WaitingFor.LIMITER, reason):
            return Predicted(Prediction.SWITCH_BLOCKS, reason)
    return None  # what the provider asked to wait for, a replay waits for too


def _view(row: Row, seen: Seen) -> GateView:
    return GateView(
        now_ms=seen.now_ms,
        decision_mode=row.decision_mode,
        switches=replace(seen.switches, age_ms=0),  # whoever plans has read them; a plan is no send
        integration=seen.state,
        standing=seen.standing,
        expires_at_ms=max(row.expires_at_ms, replay_expires_at(row)),
        call_ends_at_ms=seen.now_ms,
        lease_until_ms=seen.now_ms,
        is_replay=True,
    )


def replays_blocked(integration: str, switches: SwitchView) -> str:
    """What keeps replays of an integration's rows from running, for people; empty where nothing does."""
    if not switches.replay:
        return "replay is off"
    return f"replay is blocked for {integration}" if integration in switches.replay_blocked else ""


# ---------------------------------------------------------------------------------------------------------------- plan


@dataclass(frozen=True, slots=True)
class PlanItem:
    """One row of a plan, as it was when the plan was made."""

    recovery_id: str
    version: int
    integration: str
    prediction: Prediction
    calls: int = 1
    why: str = ""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a job would do: the rows that go, oldest event first, and those that are left alone, with their reasons."""

    going: tuple[PlanItem, ...]
    others: tuple[PlanItem, ...]

    @property
    def counts(self) -> dict[str, int]:
        """How many rows of each prediction."""
        counted: dict[str, int] = {}
        for item in (*self.going, *self.others):
            counted[item.prediction.value] = counted.get(item.prediction.value, 0) + 1
        return dict(sorted(counted.items()))

    @property
    def samples(self) -> dict[str, tuple[tuple[str, str], ...]]:
        """A few ids of each prediction, each with its why."""
        chosen: dict[str, list[tuple[str, str]]] = {}
        for item in (*self.going, *self.others):
            some = chosen.setdefault(item.prediction.value, [])
            if len(some) < SAMPLES:
                some.append((item.recovery_id, item.why))
        return {name: tuple(some) for name, some in sorted(chosen.items())}

    @property
    def integrations(self) -> tuple[str, ...]:
        """Those that rows go to."""
        return tuple(sorted({item.integration for item in self.going}))

    @property
    def plan_hash(self) -> str:
        """Stands for the rows that go: in which order, in which versions, where to, and at which pace."""
        return digest(
            *(
                f"{item.recovery_id} {item.version} {item.integration} {item.prediction} {item.calls}"
                for item in self.going
            )
        )

    def to_json(self) -> str:
        """Compact JSON, read back by `from_json`."""
        parts = {
            name: [
                [item.recovery_id, item.version, item.integration, item.prediction.value, item.calls, item.why]
                for item in items
            ]
            for name, items in (("going", self.going), ("others", self.others))
        }
        return json.dumps(parts, separators=(",", ":"))

    @staticmethod
    def from_json(text: str) -> Plan:
        """Raises KeyError, TypeError or ValueError for what was not written here."""
        parts = json.loads(text)
        return Plan(*(tuple(_item(*one) for one in parts[name]) for name in ("going", "others")))

    @staticmethod
    def proven(text: str, plan_hash: str) -> Plan:
        """The stored plan, if it is the one of that hash. Raises `PlanLost`."""
        try:
            made = Plan.from_json(text)
        except (KeyError, TypeError, ValueError) as exc:
            raise PlanLost(f"the plan cannot be read back: {type(exc).__name__}") from exc
        if made.plan_hash != plan_hash:
            raise PlanLost("the plan that is stored is another than the one that was looked at")
        return made


def _item(recovery_id: str, version: int, integration: str, prediction: str, calls: int, why: str) -> PlanItem:
    return PlanItem(recovery_id, version, integration, Prediction(prediction), calls, why)


def goes(prediction: Prediction, *, look_only: bool) -> bool:
    """Whether a row of which that is predicted is replayed."""
    if look_only:
        return prediction is Prediction.WOULD_CHECK
    return prediction in (Prediction.WOULD_SEND, Prediction.WOULD_CHECK)


def plan(judged: Iterable[tuple[int, PlanItem]], cap: int, *, look_only: bool) -> Plan:
    """Sort what was predicted into a plan: by when the row's event was received, and no more than `cap` that go."""
    going: list[PlanItem] = []
    others: list[PlanItem] = []
    for _, item in sorted(judged, key=lambda one: (one[0], one[1].recovery_id)):
        if not goes(item.prediction, look_only=look_only):
            others.append(item)
        elif len(going) < cap:
            going.append(item)
        else:
            others.append(replace(item, prediction=Prediction.OVER_CAP, why=f"the job takes {cap}"))
    return Plan(tuple(going), tuple(others))


def moved(going: Sequence[PlanItem], versions: Mapping[str, int]) -> list[str]:
    """The rows of a plan that are not any more what they were when it was made."""
    return [item.recovery_id for item in going if versions.get(item.recovery_id) != item.version]


# ---------------------------------------------------------------------------------------------------------------- pace

Limits = Mapping[str, Limit | None]
"""By integration, what replays may take of its rate; None where it has none."""


def paced(items: Sequence[PlanItem], limits: Limits, window_ms: int) -> list[tuple[PlanItem, int]]:
    """The first of the items, each with how long it waits so that its integration is called no faster than its limit;
    no more of them than can be called within the window, and at least one.
    """
    later: dict[str, int] = {}
    chosen: list[tuple[PlanItem, int]] = []
    for item in items:
        limit = limits.get(item.integration)
        after_ms = later.get(item.integration, 0)
        taken_ms = 0 if limit is None else item.calls * limit.cost_ms
        if chosen and after_ms + taken_ms > window_ms:
            break
        later[item.integration] = after_ms + taken_ms
        chosen.append((item, after_ms))
    return chosen


def takes_ms(items: Iterable[PlanItem], limits: Limits) -> int:
    """How long the calls of the items take at the pace of the slowest integration."""
    needed: dict[str, int] = {}
    for item in items:
        limit = limits.get(item.integration)
        needed[item.integration] = needed.get(item.integration, 0) + (item.calls * limit.cost_ms if limit else 0)
    return max(needed.values(), default=0)


# -------------------------------------------------------------------------------------------------------------- ground

_WORSE = {Health.HEALTHY: 0, Health.DEGRADED: 1, Health.HARD_DOWN: 2}
_VALUES = ("mode", "auto_reply", "replay")
_LISTS = ("disabled_integrations", "replay_blocked_integrations")


@dataclass(frozen=True, slots=True)
class Ground:
    """What a job stands on: the health of its integrations and the switches that matter to it, when it was approved."""

    health: Mapping[str, str] = field(default_factory=dict)
    switches: Mapping[str, str] = field(default_factory=dict)


def ground_of(
    values: Mapping[str, str], states: Mapping[str, IntegrationState], integrations: Sequence[str], now_ms: int
) -> Ground:
    """The ground as it is now. `values` are the switches' parameters as they were just read."""
    health = {name: (states.get(name) or IntegrationState(name)).health_at(now_ms).value for name in integrations}
    switches: dict[str, str] = {}
    for name, value in values.items():
        switch = scope_of(name)[1]
        if switch in _VALUES:
            switches[name] = value.strip()
        elif switch in _LISTS:
            words = {word.strip() for word in value.split(",")}
            switches[name] = ",".join(one for one in integrations if one in words or "all" in words)
        elif switch.removeprefix("limits/") in integrations:
            switches[name] = "0" if value.strip() in ("0", "0.0") else "over 0"
    return Ground(health, switches)


def ground_lost(then: Ground, now: Ground) -> str:
    """What has changed so that a job must not go on: an integration that is worse, a switch that is another; or empty.

    An integration that is better is no reason.
    """
    for name, health in now.health.items():
        before = then.health.get(name, Health.HEALTHY.value)
        if _WORSE[Health(health)] > _WORSE[Health(before)]:
            return f"the health of {name} went from {before} to {health}"
    for name in sorted({*then.switches, *now.switches}):
        before, after = then.switches.get(name, ""), now.switches.get(name, "")
        if before != after:
            return f"the switch {name} went from {before or 'none'} to {after or 'none'}"
    return ""
