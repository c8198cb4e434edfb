"""Gathers what is stored of events for whoever asks what happened, and has `core.trace` tell the story.

Everything is read at the moment of asking; nothing is changed. What could not be read is said, and never left out
silently.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Final, TypeVar

from functions.core.audit import AuditEvent
from functions.core.cursor import cursor_of, parts_of
from functions.core.ledger import Handle, LedgerItem, ticket_key
from functions.core.ports import DoorLine, Page, Sighting
from functions.core.recovery import Row
from functions.core.switches import FRESH_FOR_MS, Snapshot, SwitchView, view
from functions.core.trace import (
    EventTrace,
    Evidence,
    audited_ids,
    order_of,
    recovery_ids,
    switch_names,
    trace_of,
    whose,
    with_item,
)
from functions.operator_api.ports import Ports

DOOR_MS: Final = 24 * 3_600_000  # how far back the door's log is read: longer takes more than a call has
EVENTS_OF_REQUEST: Final = 100
AUDIT_OF_REQUEST: Final = 400  # read together; the record goes on page by page
AUDIT_OF_ROW: Final = 500  # its latest; more than a dozen is rare
CHANGES_OF_SOURCE: Final = 100
CHANGES_PER_SWITCH: Final = 20
STEPS_TOGETHER: Final = 2_000  # of all stories of one answer, which has an end too
FEWEST_STEPS: Final = 5  # of each
AT_ONCE: Final = 12
SOURCE: Final = "source"  # the entity under which changes of sources are recorded
ITEM: Final = "recovery_item"

_Told = TypeVar("_Told")


@dataclass(frozen=True, slots=True)
class Gathered:
    """What is known of what was asked for.

    `events`: the stories, latest first. `audit`: what a request has done besides. `door`: what the door's log says of
    it, where that was read: it is for requests and events that no table knows. `further`: of a ticket's or recipient's
    events. `is_complete`: false where more is on record of it than was read.
    """

    events: tuple[EventTrace, ...] = ()
    audit: tuple[AuditEvent, ...] = ()
    door: Sighting | None = None
    further: str = ""
    is_complete: bool = True


@dataclass(frozen=True, slots=True)
class Stories:
    """Of events, the last received first. `is_complete`: false where an item's record is longer than what was read."""

    events: tuple[EventTrace, ...] = ()
    is_complete: bool = True


class Tracing:
    """Answers by event, ticket, recipient and request."""

    def __init__(self, ports: Ports) -> None:
        self._ports = ports

    # ------------------------------------------------------------------------------------------------------- questions

    def by_handle(self, handle: Handle, value: str, limit: int, after: str) -> Gathered:
        """The events of a ticket or a recipient. Raises `BadCursor`, `StorageUnavailable`."""
        key = ticket_key(value) if handle is Handle.TICKET else value
        page = self._ports.index.find(handle, key, limit, after)
        found = self._stories([whose(key) for key in page.entries])
        return Gathered(found.events, further=page.further, is_complete=found.is_complete)

    def by_event(self, event_id: str, tenant: str) -> Gathered:
        """The event of that id, and its shadow: of this tenant, or of whichever the source has been. Raises
        `StorageUnavailable`.
        """
        tenants = [tenant] if tenant else self._tenants_of(event_id)
        stories = self._stories(_real_and_shadow((one, event_id) for one in tenants), only_known=True)
        if stories.events:
            return Gathered(stories.events, is_complete=stories.is_complete)
        seen = self._seen_at_the_door(event_id=event_id)
        line = seen.line
        if line is None or line.is_refused or (tenant and line.tenant != tenant):
            return Gathered(door=seen)
        return self._of_door(line, seen)

    def by_request(self, request_id: str) -> Gathered:
        """What one request was and did: the event that it brought, or the rows and other things that it changed. Raises
        `StorageUnavailable`.
        """
        keys = self._ports.index.find(Handle.REQUEST, request_id, EVENTS_OF_REQUEST).entries
        record = self._ports.audit_log.of_request(request_id, AUDIT_OF_REQUEST)
        audit = record.entries
        touched = self._ports.index.rows(
            list(dict.fromkeys(event.affected_id for event in audit if event.affected_entity == ITEM))
        )
        rows = [row for row in touched.values() if row is not None]
        known = [whose(key) for key in keys]
        names = {(one.tenant, one.event_id) for one in known}
        known += [
            Evidence(tenant, event_id)
            for tenant, event_id in dict.fromkeys((row.tenant, row.event_id) for row in rows)
            if (tenant, event_id) not in names
        ]
        others = tuple(event for event in audit if touched.get(event.affected_id) is None)
        stories = self._stories(known, rows)
        if stories.events or audit:
            return Gathered(stories.events, others, is_complete=stories.is_complete and not record.further)
        seen = self._seen_at_the_door(request_id=request_id)
        if seen.line is None or seen.line.is_refused or not seen.line.event_id:
            return Gathered(door=seen)
        return self._of_door(seen.line, seen)

    def audit_of(self, request_id: str, limit: int, after: str) -> Page[AuditEvent]:
        """A page of what is recorded of a request, oldest first: its own events, and what came of the rows that it
        began. A query finds both, `request_id` and `origin_request_id` (requirements.md). Raises `BadCursor`,
        `StorageUnavailable`.

        A bulk replay's own events are thousands: they are read part by part, and the cursor says in which part and
        behind which event the page before ended. What a delivery began follows from the first part.
        """
        seen, part = _place_of(after)
        head = self._ports.audit_log.of_request(request_id, AUDIT_OF_REQUEST)
        own = self._ports.audit_log.of_request(request_id, AUDIT_OF_REQUEST, part) if part else head
        rows = [one.affected_id for one in head.entries if one.affected_entity == ITEM and _is_its_own(one, request_id)]
        began = _at_once(self._record_of_row, list(dict.fromkeys(rows)))
        later = [event for record in began for event in record if _is_its_own(event, request_id)]
        merged = {_order(event): event for event in (*own.entries, *later)}
        last = _order(own.entries[-1]) if own.further and own.entries else None
        keys = [key for key in sorted(merged) if key > seen and (last is None or key <= last)]
        shown = tuple(merged[key] for key in keys[:limit])
        if len(keys) > limit:
            return Page(shown, cursor_of([*keys[limit - 1], part or START]))
        further = cursor_of([*(last or seen), own.further]) if own.further else ""
        return Page(shown, further, own.unreadable)

    # ------------------------------------------------------------------------------------------------------ gathering

    def _stories(self, wanted: Sequence[Evidence], rows: Iterable[Row] = (), *, only_known: bool = False) -> Stories:
        """Each one's story, with rows that are known already. `only_known` leaves out what is stored nowhere."""
        if not wanted:
            return Stories()
        found = self._with_rows(self._with_items(wanted), list(rows))
        if only_known:
            found = [one for one in found if one.item or one.rows or one.unreadable]
        found, is_complete = self._with_audit(found)
        now_ms, snapshot = self._ports.clock.now_ms(), self._ports.switches.snapshot(FRESH_FOR_MS)
        changes = self._switch_changes(found, snapshot)
        stories = [
            trace_of(
                one,
                _view(one, snapshot, now_ms),
                [event for name in _switches_of(one, snapshot) for event in changes[name]],
                now_ms,
            )
            for one in found
        ]
        most = max(FEWEST_STEPS, STEPS_TOGETHER // max(1, len(stories)))
        return Stories(tuple(_with_latest(one, most) for one in sorted(stories, key=order_of)), is_complete)

    def _with_items(self, wanted: Sequence[Evidence]) -> list[Evidence]:
        keys = [_key(one) for one in wanted]
        items = self._ports.index.items(keys)
        return [with_item(one, key, items) for one, key in zip(wanted, keys, strict=True)]

    def _with_rows(self, wanted: Sequence[Evidence], known: Sequence[Row]) -> list[Evidence]:
        """Shadow has none: its actions have the ids of the real ones."""
        ids = [
            [] if one.is_shadow else list(dict.fromkeys(recovery_ids(one.tenant, one.event_id, one.item)))
            for one in wanted
        ]
        rows: Mapping[str, Row | None] = self._ports.index.rows([each for some in ids for each in some])
        return [
            replace(
                one,
                rows=_rows_of(one, [*(row for each in some if (row := rows.get(each)) is not None), *known]),
                unreadable=(*one.unreadable, *(each for each in some if each in rows and rows[each] is None)),
            )
            for one, some in zip(wanted, ids, strict=True)
        ]

    def _with_audit(self, wanted: Sequence[Evidence]) -> tuple[list[Evidence], bool]:
        ids = [[] if one.is_shadow else audited_ids(one.tenant, one.event_id, one.item, one.rows) for one in wanted]
        events, is_complete = self._audit_of_rows(list(dict.fromkeys(each for some in ids for each in some)))
        return [
            replace(one, audit=tuple(event for event in events if event.affected_id in set(some)))
            for one, some in zip(wanted, ids, strict=True)
        ], is_complete

    def _audit_of_rows(self, recovery_ids: Sequence[str]) -> tuple[list[AuditEvent], bool]:
        """What is on record of them, and whether that is all of it: of a longer record, the latest."""

        def read(recovery_id: str) -> Page[AuditEvent]:
            return self._ports.audit_log.of_entity(f"{ITEM}#{recovery_id}", AUDIT_OF_ROW, latest_first=True)

        pages = _at_once(read, recovery_ids)
        return [event for page in pages for event in reversed(page.entries)], not any(page.further for page in pages)

    def _record_of_row(self, recovery_id: str) -> list[AuditEvent]:
        """All that is on record of it."""
        found: list[AuditEvent] = []
        after = ""
        while True:
            page = self._ports.audit_log.of_entity(f"{ITEM}#{recovery_id}", AUDIT_OF_ROW, after)
            found += page.entries
            after = page.further
            if not after:
                return found

    def _switch_changes(
        self, wanted: Sequence[Evidence], snapshot: Snapshot | None
    ) -> Mapping[str, tuple[AuditEvent, ...]]:
        names = sorted({name for one in wanted for name in _switches_of(one, snapshot)})

        def read(name: str) -> tuple[AuditEvent, ...]:
            return self._ports.audit_log.of_entity(f"switch#{name}", CHANGES_PER_SWITCH, latest_first=True).entries

        return dict(zip(names, _at_once(read, names), strict=True))

    # ------------------------------------------------------------------------------------------- what no table knows

    def _tenants_of(self, event_id: str) -> list[str]:
        """Whose the event's source is, and has been: by the record of its changes, else by the door's log."""
        source = event_id.partition(":")[0]
        changes = self._ports.audit_log.of_entity(f"{SOURCE}#{source}", CHANGES_OF_SOURCE, latest_first=True).entries
        tenants = list(dict.fromkeys(event.tenant for event in changes if event.tenant))
        if tenants:
            return tenants
        line = self._seen_at_the_door(event_id=event_id).line
        return [line.tenant] if line is not None and line.tenant else []

    def _seen_at_the_door(self, *, request_id: str = "", event_id: str = "") -> Sighting:
        now_ms = self._ports.clock.now_ms()
        return self._ports.door.sighting(now_ms - DOOR_MS, now_ms, request_id=request_id, event_id=event_id)

    def _of_door(self, line: DoorLine, seen: Sighting) -> Gathered:
        """The event that a request brought: it is another delivery of one that is known, or waits in the queue."""
        found = self._stories(_real_and_shadow([(line.tenant, line.event_id)]), only_known=True)
        if not found.events:
            found = self._stories([Evidence(line.tenant, line.event_id, door=line)])
        return Gathered(found.events, door=seen, is_complete=found.is_complete)


_Order = tuple[int, str, str]
START: Final = "-"  # the first part of a record: a cursor has no empty texts


def _order(event: AuditEvent) -> _Order:
    """As the index has them."""
    return event.at_ms, event.id, event.entity


def _with_latest(story: EventTrace, most: int) -> EventTrace:
    """With its latest steps, so many at most."""
    left_out = max(0, len(story.steps) - most)
    return replace(story, steps=story.steps[left_out:], steps_left_out=story.steps_left_out + left_out)


def _is_its_own(event: AuditEvent, request_id: str) -> bool:
    """Whether the request brought what the event is about: of what it only touched, the record names it."""
    return event.origin_request_id == request_id


def _place_of(cursor: str) -> tuple[_Order, str]:
    """Behind which event, and in which part of the record. Raises `BadCursor`."""
    if not cursor:
        return (0, START, START), ""
    at_ms, event_id, entity, part = parts_of(cursor, int, str, str, str)
    return (int(at_ms), str(event_id), str(entity)), "" if part == START else str(part)


def _at_once(read: Callable[[str], _Told], wanted: Sequence[str]) -> list[_Told]:
    """What each gives, in their order, a dozen at a time."""
    if not wanted:
        return []
    with ThreadPoolExecutor(max_workers=AT_ONCE) as pool:
        return list(pool.map(read, wanted))


def _key(one: Evidence) -> str:
    return f"{'S' if one.is_shadow else 'E'}#{one.tenant}#{one.event_id}"


def _real_and_shadow(wanted: Iterable[tuple[str, str]]) -> list[Evidence]:
    return [Evidence(tenant, event_id, is_shadow) for tenant, event_id in wanted for is_shadow in (False, True)]


def _rows_of(one: Evidence, rows: Iterable[Row]) -> tuple[Row, ...]:
    """Of these, the event's own, each once."""
    mine = {row.recovery_id: row for row in rows if (row.tenant, row.event_id) == (one.tenant, one.event_id)}
    return () if one.is_shadow else tuple(mine.values())


def _flow_of(item: LedgerItem | None, rows: Sequence[Row]) -> str:
    if item is not None:
        return item.decision.flow
    return rows[0].flow if rows else ""


def _view(one: Evidence, snapshot: Snapshot | None, now_ms: int) -> SwitchView | None:
    if snapshot is None:
        return None
    source = one.event_id.partition(":")[0]
    return view(snapshot, flow=_flow_of(one.item, one.rows), source=source, tenant=one.tenant, now_ms=now_ms)


def _switches_of(one: Evidence, snapshot: Snapshot | None) -> list[str]:
    if snapshot is None:
        return []
    integrations = {row.integration_id for row in one.rows}
    if one.item is not None:
        integrations |= {action.integration for action in one.item.decision.actions}
    source = one.event_id.partition(":")[0]
    return switch_names(_flow_of(one.item, one.rows), source, one.tenant, integrations, snapshot.values)
