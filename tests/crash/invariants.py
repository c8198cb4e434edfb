"""What must be true of a run when everything is quiet, whatever went wrong in it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from functions.core.audit import AuditEvent, AuditType
from functions.core.cap import WINDOW_MS
from functions.core.decision import Action, Decision, Repeat
from functions.core.event import Event
from functions.core.ledger import ActionStatus, LedgerItem, LedgerStatus, ledger_key
from functions.core.recovery import Row, Status, Subject
from tests.crash.providers import LATE_MS
from tests.crash.world import SKEW_MS, World

ONCE_ONLY = frozenset({Repeat.SETTING, Repeat.KEYED, Repeat.LOOKUP, Repeat.BLIND})
_UNSURE_MS = 2 * SKEW_MS + LATE_MS  # a send is counted by its own clock, before it is seen
_BEGINNINGS = frozenset(
    {
        AuditType.FAILURE_DETECTED,
        AuditType.ACTION_PARKED,
        AuditType.ACTION_SUPPRESSED,
        AuditType.DISMISSED,
    }
)


def broken_by(world: World) -> list[str]:
    """Every promise that the run broke, the ones seen while it went on first."""
    return [*world.broken, *_found(world)]


def _found(world: World) -> Iterator[str]:
    if world.broken:
        return  # what did not come to its end has no end to judge
    rows = list(world.tables.rows.values())
    by_event: dict[str, list[Row]] = {}
    for row in rows:
        by_event.setdefault(row.event_id, []).append(row)
    for event in world.accepted:
        yield from _of_event(world, event, by_event.get(event.event_id, []))
    for row in rows:
        yield from _of_row(world, row)
    for told in (one for one in world.tables.audit.values() if one.event_type is AuditType.EFFECT_DOUBLED):
        yield f"{told.entity} is said to have come about twice: {told.error}"
    for effect in world.side.effects:
        if effect.after_return:
            yield f"{effect.name} of {effect.event} came about after its handler had returned"


def _of_event(world: World, event: Event, rows: list[Row]) -> Iterator[str]:
    item = world.tables.ledger.get(ledger_key(event))
    whole = [row for row in rows if row.subject is Subject.EVENT]
    if item is None:
        if not whole:
            yield f"{event.event_id} was accepted and is nowhere"
        elif not any(_is_for_people(row) for row in whole):
            yield f"{event.event_id} was never claimed, and its row is {[row.status.value for row in whole]}"
        return
    if item.status is not LedgerStatus.SETTLED:
        if not any(_is_for_people(row) for row in whole):
            yield f"{event.event_id} was claimed, is not settled, and no person has it"
        return
    decision = item.decision.bound(event.tenant, event.event_id, item.epoch_ms)
    for action in decision.actions:
        row = next((one for one in rows if one.action and one.action.action_id == action.action_id), None)
        yield from _of_action(world, event, decision, item, action, row)
    yield from _too_many(world, event)
    known = {action.name for action in decision.actions}
    for name in {effect.name for effect in world.side.effects if effect.event == event.identity} - known:
        yield f"{name} of {event.event_id} was done and is not what was decided"


def _too_many(world: World, event: Event) -> Iterator[str]:
    """Automatic messages of one conversation, which all of an event's are, within less than an hour."""
    times = sorted(one.at_ms for one in world.side.effects if one.event == event.identity and one.customer_visible)
    most = world.scenario.most_automatic + world.replayed  # a person's replay is not counted
    for first in times:
        within = [at_ms for at_ms in times if first <= at_ms < first + WINDOW_MS - _UNSURE_MS]
        if len(within) > most:
            yield f"{len(within)} messages of {event.event_id} went out within an hour, and {most} are allowed"
            return


def _of_action(
    world: World, event: Event, decision: Decision, item: LedgerItem, action: Action, row: Row | None
) -> Iterator[str]:
    about = f"{action.name} of {event.event_id}"
    mark = item.actions[action.name].status
    effects = [one for one in world.side.effects if one.event == event.identity and one.name == action.name]
    if mark in (ActionStatus.TODO, ActionStatus.TRYING):
        yield f"{about} is {mark} in a settled event"
    if mark in (ActionStatus.RECOVERY, ActionStatus.SUPPRESSED) and row is None:
        yield f"{about} is {mark} and has no row"
    if mark is ActionStatus.NOT_NEEDED and row is None and effects:
        yield f"{about} was not called for, and was done"
    if action.repeat is Repeat.IDEMPOTENT:
        if len({one.action_id for one in effects}) > 1:
            yield f"{about} was decided twice, and done both ways"
    elif len(effects) > 1 and not (action.repeat is Repeat.SETTING and world.person_set(event.identity)):
        seen = ", ".join(f"{one.action_id[:6]} by p{one.process}" for one in effects)
        yield f"{about} happened {len(effects)} times: {seen}"
    is_over = mark is ActionStatus.DONE or (row is not None and _is_success(row))
    if is_over and not effects and not _was_superseded(row) and not world.person_set(event.identity):
        yield f"{about} counts as done and did not happen"
    if not effects and not _explains_nothing(mark, row):
        yield f"{about} did not happen, and neither a person nor a rule says why"
    sends = world.side.sends.get((event.identity, action.name), 0)
    ways = 1 + (len(row.hops) if row else int(item.actions[action.name].hop > 0))
    most = world.integrations[action.integration].policy.max_attempts
    allowed = most * ways + (row.replay_no if row else 0) + world.deaths
    if sends > allowed:
        yield f"{about} was sent {sends} times, and {allowed} are allowed"


def _explains_nothing(mark: ActionStatus, row: Row | None) -> bool:
    """Whether it is in order that nothing happened."""
    if mark in (ActionStatus.NOT_NEEDED, ActionStatus.SUPPRESSED, ActionStatus.SUPERSEDED):
        return True
    return row is not None and (_is_for_people(row) or bool(row.waits_for) or _was_superseded(row))


def _is_for_people(row: Row) -> bool:
    return row.status in (Status.FAILED, Status.DLQ)


def _is_success(row: Row) -> bool:
    return row.status is Status.SUCCEEDED or (row.status is Status.REPLAYED and row.result == "succeeded")


def _was_superseded(row: Row | None) -> bool:
    return row is not None and row.failure_detail.startswith("superseded")


def _of_row(world: World, row: Row) -> Iterator[str]:
    about = f"row of {row.action.name if row.action else 'event'} of {row.event_id} ({row.status.value})"
    if row.is_open and not row.due_at_ms and not row.waits_for:
        yield f"{about} is open, without a due time and without a parent"
    if world.moves(row):
        yield f"{about} still moves"
    events = [one for one in world.tables.audit.values() if one.affected_id == row.recovery_id]
    kinds = Counter(one.event_type for one in events)
    if not _BEGINNINGS & set(kinds):
        yield f"{about} began without a word in the audit"
    detected, contained = kinds[AuditType.FAILURE_DETECTED], kinds[AuditType.FAILURE_CONTAINED]
    is_only_aside = bool(row.hop) and not row.failure_class  # it went another way because of an integration's health
    if (bool(detected) != bool(contained) and not is_only_aside) or (row.failure_class and not detected):
        yield f"{about} was detected {detected} times and contained {contained} times"
    if not row.is_open and row.status.value not in _last_words(events):
        yield f"{about} ended, and the audit says {_last_words(events)}"
    if row.failure_code == "SUPPRESSED" and row.is_open and row.replay_no == 0:
        yield f"{about} was suppressed, and goes on by itself"
    if any(step["why"].startswith("auto_reply is off") and step["to"] != "failed" for step in row.history):
        yield f"{about} was stopped by the kill switch, and waited to be released"
    if row.action is not None:
        policy = world.integrations[row.integration_id].policy
        if row.attempt_count > policy.max_attempts + row.replay_no + row.takeovers:
            yield f"{about} counts {row.attempt_count} attempts"


def _last_words(events: list[AuditEvent]) -> set[str]:
    """The statuses that are said of the row's last audited version: the clocks of those who write differ."""
    last = max(map(_version, events), default=0)
    return {event.recovery_status for event in events if _version(event) == last}


def _version(event: AuditEvent) -> int:
    found = event.after_state.partition('"version":')[2]
    return int("".join(digit for digit in found[:8] if digit.isdigit()) or 0)
