"""What happened to an event, from all that is stored of it: its ledger item, its rows, their audit, the door's log.

Pure. What was sent where is told by ids; a target that could be somebody's number or address by a hash.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from functions.core.audit import MACHINE, AuditEvent, AuditType
from functions.core.decision import Action, Decision
from functions.core.event import digest
from functions.core.fallback import post_processing
from functions.core.ledger import ActionMark, ActionStatus, LedgerItem, LedgerStatus, key_parts
from functions.core.ports import DoorLine
from functions.core.recovery import OUTCOME_UNKNOWN, Row, Subject, action_recovery_id, event_recovery_id
from functions.core.switches import Integrations, SwitchView
from functions.core.whereabouts import Fate, Whereabouts, fate_of, whereabouts

MAX_STEPS = 200


class ActionState(StrEnum):
    """Of one action, whoever has it now. `unknown`: it may have happened, and nobody can tell. `missing`: a row should
    have it and is not there: it has expired, or was deleted.
    """

    TODO = "todo"
    UNDER_WAY = "under_way"
    WAITING = "waiting"
    DONE = "done"
    SUPERSEDED = "superseded"
    SUPPRESSED = "suppressed"
    NOT_NEEDED = "not_needed"
    DEAD = "dead"
    ENDED = "ended"
    UNKNOWN = "unknown"
    MISSING = "missing"


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that is stored of one event. `unreadable` names items that could not be read back."""

    tenant: str
    event_id: str
    is_shadow: bool = False
    item: LedgerItem | None = None
    rows: tuple[Row, ...] = ()
    audit: tuple[AuditEvent, ...] = ()
    door: DoorLine | None = None
    unreadable: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Received:
    """How it came in. Empty and 0: nothing that is stored says it (any more)."""

    at_ms: int
    request_id: str
    event_name: str
    source: str


@dataclass(frozen=True, slots=True)
class Decided:
    """What it was taken for. `mode` is how far automation went at that moment."""

    at_ms: int
    by: str
    version: str
    label: str
    confidence: float
    reason_codes: tuple[str, ...]
    flow: str
    mode: str


@dataclass(frozen=True, slots=True)
class Told:
    """One action, or the whole event where a row has it, as it stands. Times are epoch milliseconds, 0 for none.

    `next_at_ms` is when the machine looks again, `until_ms` until when it may still be done. `replays` counts what
    people asked for; `last_replay_by` is who asked last, `ended_by` who ended it.
    """

    name: str
    kind: str
    integration: str
    target: str
    recipient: str
    state: ActionState
    provider_id: str = ""
    recovery_id: str = ""
    status: str = ""
    attempts: int = 0
    waiting_for: str = ""
    waits_for: tuple[str, ...] = ()
    next_at_ms: int = 0
    until_ms: int = 0
    effect: str = ""
    failure_code: str = ""
    failure_detail: str = ""
    root_cause: str = ""
    hops: tuple[str, ...] = ()
    replays: int = 0
    last_replay_by: str = ""
    ended_by: str = ""
    job_id: str = ""
    incident_id: str = ""
    updated_at_ms: int = 0


@dataclass(frozen=True, slots=True)
class Step:
    """Something that happened, or was done by somebody. `what` is stable: one of ours, or an audit event's name."""

    at_ms: int
    what: str
    about: str
    by: str = ""
    detail: str = ""
    request_id: str = ""
    recovery_id: str = ""


@dataclass(frozen=True, slots=True)
class SwitchesNow:
    """What is in force for its flow, source and tenant now. `is_known`: false where it could not be read."""

    is_known: bool
    mode: str
    auto_reply: str
    classifier: str
    optional_calls: str
    replay: str
    disabled_integrations: tuple[str, ...]
    replay_blocked_integrations: tuple[str, ...]
    limits: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class EventTrace:
    """The whole story. `actions` in the order of the decision, then what came later; `steps` in the order of time."""

    event_id: str
    tenant: str
    is_shadow: bool
    state: Whereabouts
    summary: str
    received: Received
    decided: Decided | None
    actions: tuple[Told, ...]
    whole: tuple[Told, ...]
    steps: tuple[Step, ...]
    steps_left_out: int
    switches: SwitchesNow
    unreadable: tuple[str, ...] = field(default=())


# ---------------------------------------------------------------------------------------------------- where to look


def recovery_ids(tenant: str, event_id: str, item: LedgerItem | None) -> list[str]:
    """The rows that may be there: of the event, and of its actions. What came of a substitute is among them."""
    epochs = {0} if item is None else {0, item.epoch_ms}
    found = [event_recovery_id(tenant, event_id, epoch_ms) for epoch_ms in sorted(epochs)]
    if item is not None:
        for action in _decision(tenant, event_id, item).actions:
            later = post_processing(action).bound(tenant, event_id, item.epoch_ms)
            found += [action_recovery_id(action.action_id), action_recovery_id(later.action_id)]
    return found


def _decision(tenant: str, event_id: str, item: LedgerItem) -> Decision:
    return item.decision.bound(tenant, event_id, item.epoch_ms)


def audited_ids(tenant: str, event_id: str, item: LedgerItem | None, rows: Iterable[Row]) -> list[str]:
    """The recovery ids of which the audit may tell: of rows, and of actions that went another way without one."""
    found = [row.recovery_id for row in rows]
    if item is not None:
        for action in _decision(tenant, event_id, item).actions:
            mark = item.actions.get(action.name)
            if mark is not None and mark.hop:
                found.append(action_recovery_id(action.action_id))
    return list(dict.fromkeys(found))


def switch_names(flow: str, source: str, tenant: str, integrations: Iterable[str], known: Iterable[str]) -> list[str]:
    """Of the switches there are, those that can have had a say in an event."""
    scopes = ("", f"flow/{flow}/", f"source/{source}/", f"tenant/{tenant}/")
    plain = ("mode", "auto_reply", "classifier", "optional_calls", "replay")
    wanted = (
        *plain,
        "disabled_integrations",
        "replay_blocked_integrations",
        *(f"limits/{one}" for one in integrations),
    )
    return sorted(set(known) & {scope + name for scope in scopes for name in wanted})


# -------------------------------------------------------------------------------------------------------- the story


def trace_of(evidence: Evidence, switches: SwitchView | None, changes: Sequence[AuditEvent], now_ms: int) -> EventTrace:
    """The story of one event. `changes` are those of switches that may have had a say in it, by whomever; what was
    changed before it came, or after its end, is left out.
    """
    item, source = evidence.item, evidence.event_id.partition(":")[0]
    by_id = {row.recovery_id: row for row in evidence.rows}
    actions, used = _actions(evidence, by_id, now_ms)
    whole = tuple(
        _of_row(row, "event", evidence.audit, now_ms) for row in evidence.rows if row.subject is Subject.EVENT
    )
    later = tuple(
        _of_row(row, row.action.name, evidence.audit, now_ms)
        for row in evidence.rows
        if row.action is not None and row.recovery_id not in used
    )
    actions += later
    state = _state(evidence, actions, now_ms)
    is_over = state in (Whereabouts.SETTLED, Whereabouts.ENDED)
    ended_ms = max((told.updated_at_ms for told in (*actions, *whole)), default=0) + 1000 if is_over else now_ms
    steps = _steps(evidence, actions, [event for event in changes if event.at_ms <= ended_ms])
    return EventTrace(
        event_id=evidence.event_id,
        tenant=evidence.tenant,
        is_shadow=evidence.is_shadow,
        state=state,
        summary=_summary(state, evidence, actions, whole),
        received=_received(evidence, source),
        decided=None if item is None else _decided(item),
        actions=actions,
        whole=whole,
        steps=steps[-MAX_STEPS:],
        steps_left_out=max(0, len(steps) - MAX_STEPS),
        switches=_switches(switches),
        unreadable=evidence.unreadable,
    )


def _received(evidence: Evidence, source: str) -> Received:
    item, door = evidence.item, evidence.door
    row = next(iter(evidence.rows), None)
    at_ms = item.received_at_ms if item else row.received_at_ms if row else door.at_ms if door else 0
    request_id = (item.request_id if item else "") or (row.origin_request_id if row else "")
    name = (item.event_name if item else "") or (row.event_name if row else "")
    return Received(
        at_ms,
        request_id or (door.request_id if door else ""),
        name or (door.event_name if door else ""),
        source,
    )


def _decided(item: LedgerItem) -> Decided:
    decision, said = item.decision, item.decision.classification
    return Decided(
        decision.decided_at_ms,
        said.decided_by.value,
        said.version,
        said.label,
        said.confidence,
        said.reason_codes,
        decision.flow,
        decision.mode.value,
    )


def _actions(evidence: Evidence, by_id: Mapping[str, Row], now_ms: int) -> tuple[tuple[Told, ...], frozenset[str]]:
    """The decision's actions, by their rows where they have one; and the ids of these."""
    item = evidence.item
    if item is None:
        return (), frozenset()
    told: list[Told] = []
    used: set[str] = set()
    for action in _decision(evidence.tenant, evidence.event_id, item).actions:
        mark = item.actions.get(action.name, ActionMark(ActionStatus.TODO))
        recovery_id = action_recovery_id(action.action_id)
        row = by_id.get(recovery_id)
        if row is not None:
            used.add(recovery_id)
            told.append(_of_row(row, action.name, evidence.audit, now_ms))
        else:
            told.append(_of_mark(action, mark, item, now_ms))
    return tuple(told), frozenset(used)


_OF_MARK: Mapping[ActionStatus, ActionState] = {
    ActionStatus.TODO: ActionState.TODO,
    ActionStatus.TRYING: ActionState.UNDER_WAY,
    ActionStatus.DONE: ActionState.DONE,
    ActionStatus.SUPPRESSED: ActionState.SUPPRESSED,
    ActionStatus.SUPERSEDED: ActionState.SUPERSEDED,
    ActionStatus.RECOVERY: ActionState.MISSING,
    ActionStatus.NOT_NEEDED: ActionState.NOT_NEEDED,
}


def _of_mark(action: Action, mark: ActionMark, item: LedgerItem, now_ms: int) -> Told:
    state = _OF_MARK[mark.status]
    is_being_worked = item.status is LedgerStatus.PROCESSING and item.lease_until_ms > now_ms
    if state is ActionState.TODO and is_being_worked:
        state = ActionState.UNDER_WAY
    return Told(
        name=action.name,
        kind=action.kind,
        integration=action.integration,
        target=_target(action, action.kind),
        recipient=action.recipient,
        state=state,
        provider_id=mark.provider_id,
        hops=(f"hop {mark.hop}",) if mark.hop else (),
        updated_at_ms=item.written_at_ms,
    )


def _of_row(row: Row, name: str, audit: Iterable[AuditEvent], now_ms: int) -> Told:
    replayed_by, ended_by = "", ""
    for event in sorted(audit, key=lambda one: one.at_ms):
        if event.affected_id != row.recovery_id:
            continue
        if event.event_type is AuditType.REPLAYED:
            replayed_by = event.actor
        elif event.event_type is AuditType.DISMISSED:
            ended_by = event.actor
    return Told(
        name=name,
        kind=row.kind,
        integration=row.integration_id,
        target="" if row.action is None else _target(row.action, row.kind),
        recipient="" if row.action is None else row.action.recipient,
        state=_state_of_row(row, now_ms),
        provider_id=row.provider_id,
        recovery_id=row.recovery_id,
        status=row.status.value,
        attempts=row.attempt_count,
        waiting_for=_waits(row),
        waits_for=row.waits_for,
        next_at_ms=row.due_at_ms if row.is_open else 0,
        until_ms=0 if row.is_final else row.expires_at_ms,
        effect=row.effect.value,
        failure_code=row.failure_code,
        failure_detail=row.failure_detail,
        root_cause=row.root_cause,
        hops=row.hops,
        replays=row.replay_no,
        last_replay_by=replayed_by,
        ended_by=ended_by,
        job_id=row.job_id,
        incident_id=row.incident_id,
        updated_at_ms=row.updated_at_ms,
    )


def _waits(row: Row) -> str:
    """What it waits for: `person` where only somebody's replay lets it go on."""
    if row.is_open:
        return row.waiting_for.value
    return "person" if fate_of(row.status, row.result, row.failure_code) is Fate.OPEN else ""


def _state_of_row(row: Row, now_ms: int) -> ActionState:
    if row.is_open:
        return ActionState.UNDER_WAY if row.lease_until_ms > now_ms else ActionState.WAITING
    match fate_of(row.status, row.result, row.failure_code):
        case Fate.OPEN:  # held: only a person lets it go on
            return ActionState.WAITING
        case Fate.DONE:
            is_superseded = row.failure_detail.startswith("superseded: ")
            return ActionState.SUPERSEDED if is_superseded else ActionState.DONE
        case Fate.NOT_WANTED:
            return ActionState.SUPPRESSED
        case Fate.ENDED if row.is_final:
            return ActionState.ENDED
        case _:
            return ActionState.UNKNOWN if row.failure_code == OUTCOME_UNKNOWN else ActionState.DEAD


_TO_PEOPLE = ("sms.", "email.")


def _target(action: Action, kind: str) -> str:
    """As it is, but where it may be a person's number or address."""
    if action.target and (kind.startswith(_TO_PEOPLE) or "@" in action.target):
        return "sha256:" + digest("target", action.target)[:32]
    return action.target


def _state(evidence: Evidence, actions: Sequence[Told], now_ms: int) -> Whereabouts:
    item = evidence.item
    of_event = [
        fate_of(row.status, row.result, row.failure_code) for row in evidence.rows if row.subject is Subject.EVENT
    ]
    of_actions = [_FATES[told.state] for told in actions]
    found = whereabouts(
        None if item is None else item.status, 0 if item is None else item.lease_until_ms, of_event, of_actions, now_ms
    )
    return Whereabouts.ACCEPTED if found is None else found


_FATES: Mapping[ActionState, Fate] = {
    ActionState.TODO: Fate.OPEN,
    ActionState.UNDER_WAY: Fate.OPEN,
    ActionState.WAITING: Fate.OPEN,
    ActionState.DONE: Fate.DONE,
    ActionState.SUPERSEDED: Fate.DONE,
    ActionState.SUPPRESSED: Fate.NOT_WANTED,
    ActionState.NOT_NEEDED: Fate.NOT_WANTED,
    ActionState.DEAD: Fate.ENDED,
    ActionState.ENDED: Fate.ENDED,
    ActionState.UNKNOWN: Fate.ENDED,
    ActionState.MISSING: Fate.ENDED,
}


# ------------------------------------------------------------------------------------------------------- its steps


def _steps(evidence: Evidence, actions: Sequence[Told], changes: Sequence[AuditEvent]) -> tuple[Step, ...]:
    item = evidence.item
    received = _received(evidence, "")
    names = {told.recovery_id: told.name for told in actions if told.recovery_id}
    found: list[tuple[int, int, int, Step]] = []

    def add(order: int, step: Step, version: int = 0) -> None:
        found.append((step.at_ms, order, version, step))

    if received.at_ms:
        stored_in = evidence.door.stored_in if evidence.door else ""
        add(
            0,
            Step(received.at_ms, "received", "event", "", stored_in and f"stored in {stored_in}", received.request_id),
        )
    if item is not None:
        said, at_ms = item.decision.classification, item.decision.decided_at_ms
        add(1, Step(at_ms, "decided", "event", said.decided_by.value, f"{said.label} ({said.confidence:g})"))
        if item.status is LedgerStatus.SETTLED:
            # Known to the second: it cannot have been before it was decided.
            add(3, Step(max(item.written_at_ms, at_ms), "settled", "event", MACHINE, _marks(item)))
    for event in evidence.audit:
        add(2, _step(event, names.get(event.affected_id, "event")), _number(event.after_state, "version"))
    for event in changes:
        if event.at_ms >= received.at_ms:
            add(2, _step(event, f"{event.affected_entity} {event.affected_id}"))
    return tuple(entry[-1] for entry in sorted(found, key=lambda entry: entry[:3]))


def _step(event: AuditEvent, about: str) -> Step:
    parts: tuple[str, ...] = (event.reason, event.error, event.containment_action)
    if event.affected_entity != "recovery_item":
        parts = (f"{_value(event.before_state)} to {_value(event.after_state)}", event.reason)
    return Step(
        event.at_ms,
        event.event_type.value,
        about,
        event.actor,
        "; ".join(dict.fromkeys(part for part in parts if part)),
        event.request_id,
        event.affected_id if event.affected_entity == "recovery_item" else "",
    )


def _value(state: str) -> str:
    """What a switch was set to, of its audited state."""
    read = _read(state)
    return (state if read is None else str(read.get("value", ""))) or "nothing"


def _number(state: str, name: str) -> int:
    """A number of an audited state; what two steps of one row in the same millisecond are told apart by."""
    number = (_read(state) or {}).get(name, 0)
    return number if isinstance(number, int) else 0


def _read(state: str) -> dict[str, Any] | None:
    """An audited state that is a JSON object."""
    try:
        read = json.loads(state)
    except ValueError:
        return None
    return read if isinstance(read, dict) else None


def _marks(item: LedgerItem) -> str:
    return ", ".join(f"{name} {mark.status.value}" for name, mark in item.actions.items()) or "nothing to do"


# --------------------------------------------------------------------------------------------------------- in words


def _summary(state: Whereabouts, evidence: Evidence, actions: Sequence[Told], whole: Sequence[Told]) -> str:
    """One sentence for somebody who is tired."""
    about = (*whole, *actions)
    if evidence.is_shadow:
        return "Shadow: it was decided and logged, and nothing was sent."
    match state:
        case Whereabouts.ACCEPTED if evidence.item is None:
            return "Accepted and stored; no worker has taken it up yet."
        case Whereabouts.ACCEPTED:
            return "A worker had it and gave it back or died; it is in the queue, and another takes it up."
        case Whereabouts.PROCESSING:
            return "A worker has it right now."
        case Whereabouts.SETTLED if not actions:
            return "Settled: it called for nothing." if evidence.item else "Settled."
        case Whereabouts.SETTLED:
            return f"Settled: {_counted(actions)}."
        case Whereabouts.WAITING:
            return f"Waiting: {'; '.join(_waiting(told) for told in about if _FATES[told.state] is Fate.OPEN)}."
        case _:
            return f"Not all was done: {'; '.join(_ended(told) for told in about if _FATES[told.state] is Fate.ENDED)}."


def _counted(actions: Sequence[Told]) -> str:
    states = [told.state.value.replace("_", " ") for told in actions]
    return ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))


def _waiting(told: Told) -> str:
    if told.state is ActionState.UNDER_WAY:
        return f"{told.name} is under way"
    return f"{told.name} waits for {told.waiting_for or 'its turn'}"


def _ended(told: Told) -> str:
    why = f" ({told.failure_code})" if told.failure_code else ""
    return f"{told.name} {_ENDS[told.state]}{why}"


_ENDS: Mapping[ActionState, str] = {
    ActionState.DEAD: "is dead and can be replayed or dismissed",
    ActionState.ENDED: "was given up",
    ActionState.UNKNOWN: "may have happened: a person must look",
    ActionState.MISSING: "has no row any more",
}


def _switches(view: SwitchView | None) -> SwitchesNow:
    if view is None or view.age_ms is None:
        return SwitchesNow(False, "", "", "", "", "", (), (), {})
    on_off = {True: "on", False: "off"}
    return SwitchesNow(
        is_known=True,
        mode=view.mode.value,
        auto_reply=on_off[view.auto_reply],
        classifier="llm" if view.use_llm else "rules",
        optional_calls=on_off[view.optional_calls],
        replay=on_off[view.replay],
        disabled_integrations=_listed(view.disabled),
        replay_blocked_integrations=_listed(view.replay_blocked),
        limits=dict(sorted(view.limits.items())),
    )


def _listed(integrations: Integrations) -> tuple[str, ...]:
    return ("all",) if integrations.every else tuple(sorted(integrations.some))


def order_of(trace: EventTrace) -> tuple[int, str]:
    """Latest first, by when it came in."""
    return -trace.received.at_ms, trace.event_id


def whose(key: str) -> Evidence:
    """What a ledger key alone says of an event."""
    tenant, event_id, is_shadow = key_parts(key)
    return Evidence(tenant, event_id, is_shadow)


def with_item(evidence: Evidence, key: str, found: Mapping[str, LedgerItem | None]) -> Evidence:
    """With its ledger item, or that it could not be read."""
    if key in found and found[key] is None:
        return replace(evidence, unreadable=(*evidence.unreadable, key))
    return replace(evidence, item=found.get(key))
