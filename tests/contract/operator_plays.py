"""Machines over the ports that operators work with: what they look up, change, send again, keep aside and promise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from functions.core import replay_job as jobs
from functions.core.audit import AuditEvent, AuditType, Severity
from functions.core.event import digest
from functions.core.failure import RootCause, VersionConflict
from functions.core.ledger import Handle, ticket_key
from functions.core.operations import KEY_KEPT_MS, Answered, Person, ended_by, judged, noted, released_by_hand
from functions.core.operations import replayed_by as sent_on
from functions.core.ports import SwitchVersion
from functions.core.quarantine import Quarantine, QuarantineChange, Rule
from functions.core.recovery import Change, Row, Status, replay, take_back
from functions.core.replay import Ground, Plan, PlanItem, Prediction
from functions.core.replay_job import Board, Job, JobChange, State
from functions.core.switch_returns import SHORTEST_MS, Return, Returns, ReturnsChange
from tests.contract.agreement import Lossy, drawn, possible, some_of, steps_of
from tests.contract.storage import claim, parked, settlement
from tests.fakes import NOON_MS
from tests.recovery_rows import dead, row

# ------------------------------------------------------------------------------------------------------------- looking

KEYS = [f"E#acme#desk:{number}" for number in range(4)]
TICKETS = ["c-1", "c-2", ""]
PEOPLE = ["f" * 32, "e" * 32, ""]
REQUESTS = ["req-1", "req-2", ""]
HANDLES = [
    *((Handle.TICKET, ticket_key(name)) for name in ("c-1", "c-2", "c-9")),
    *((Handle.RECIPIENT, name) for name in ("f" * 32, "e" * 32, "p-1")),
    *((Handle.REQUEST, name) for name in ("req-1", "req-2", "req-9")),
]
NO_CURSOR = "AAAA"


def switched(number: int, switch: str, request_id: str, at_ms: int) -> AuditEvent:
    """An event of a switch."""
    return AuditEvent(
        id=f"audit-{number}",
        at_ms=at_ms,
        event_type=AuditType.SWITCH_CHANGED,
        severity=Severity.WARNING,
        tenant="",
        actor="anna",
        affected_entity="switch",
        affected_id=switch,
        request_id=request_id,
        reason="why",
    )


class Lookups(Lossy):
    """Events and audit, as people find them: page by page, with cursors of this list, of another, and of none."""

    def __init__(self) -> None:
        super().__init__()
        self.cursors: list[str] = []
        self.rows: list[str] = []

    def compare(self) -> None:
        for handle, key in HANDLES:
            self.page_by_page("index.find", 2, handle, key)
        for switch in ("mode", "auto_reply"):
            for latest_first in (False, True):
                self.page_by_page("audit_log.of_entity", 2, f"switch#{switch}", latest_first=latest_first)
        for request in ("req-1", "req-2"):
            self.page_by_page("audit_log.of_request", 3, request)

    def page_by_page(self, operation: str, limit: int, *args: Any, **named: Any) -> None:
        """The parts are the whole, and its last part says that it is the last."""
        whole = self.ask(operation, *args, 1_000, **named)
        assert whole.further == ""
        found: list[Any] = []
        after = ""
        for _ in range(1 + len(whole.entries) // limit):
            page = self.ask(operation, *args, limit, after, **named)
            found += page.entries
            after = page.further
            if not after:
                break
            self.cursors = [after, *self.cursors][:20]
        assert (tuple(found), after) == (whole.entries, "")

    @rule(
        place=st.integers(0, 3),
        later=st.integers(0, 9),
        owner=st.sampled_from(["one", "two"]),
        ticket=st.sampled_from(TICKETS),
        recipient=st.sampled_from(PEOPLE),
        request=st.sampled_from(REQUESTS),
        seen_epoch_ms=st.sampled_from([None, None, 0, NOON_MS]),
    )
    def an_event_is_claimed(
        self, place: int, later: int, owner: str, ticket: str, recipient: str, request: str, seen_epoch_ms: int | None
    ) -> None:
        """For the first time, or taken over, or as a new one under an old key. No two are received at once: the list
        has no order for those.
        """
        blank = claim(
            digest(owner)[:32],
            self.now_ms,
            key=KEYS[place],
            received_at_ms=NOON_MS + place + 10 * later,
            epoch_ms=0 if seen_epoch_ms is None else NOON_MS,
            seen_epoch_ms=seen_epoch_ms,
        )
        named = "ticket.created" if request else ""
        told = replace(blank, request_id=request, event_name=named, ticket=ticket, recipient=recipient)
        self.ask("ledger.claim", told)

    @rule(place=st.integers(0, 3), number=st.integers(0, 1))
    def an_event_is_settled(self, place: int, number: int) -> None:
        """With a row, which is read by its id."""
        item = self.memory.item(KEYS[place])
        if item is None:
            return
        change = parked("tag", event_id=f"desk:{place + 10 * number}")
        wanted = settlement(item.owner, item.generation, key=KEYS[place], changes=[change])
        self.ask("ledger.settle", replace(wanted, now_ms=self.now_ms))
        self.rows = [change.after.recovery_id, *self.rows][:6]

    @rule(
        numbers=st.lists(st.integers(0, 7), min_size=1, max_size=5),
        switch=st.sampled_from(["mode", "auto_reply"]),
        request=st.sampled_from(REQUESTS),
    )
    def something_is_done(self, numbers: list[int], switch: str, request: str) -> None:
        """Several things in each of four moments; the same thing again is written once."""
        self.ask("audit.append", [switched(number, switch, request, NOON_MS + number // 2) for number in numbers])

    @rule(wanted=st.sampled_from(HANDLES), limit=st.integers(1, 3), data=st.data())
    def events_are_looked_up(self, wanted: tuple[Handle, str], limit: int, data: st.DataObject) -> None:
        self.ask("index.find", *wanted, limit, self.a_cursor(data))

    @rule(wanted=st.sampled_from(HANDLES), limit=st.integers(1, 3))
    def events_are_listed(self, wanted: tuple[Handle, str], limit: int) -> None:
        self.page_by_page("index.find", limit, *wanted)

    @rule(places=st.lists(st.sampled_from([*KEYS, "E#acme#nothing"]), max_size=5), data=st.data())
    def what_was_found_is_read(self, places: list[str], data: st.DataObject) -> None:
        self.ask("index.items", places)
        rows = data.draw(st.lists(st.sampled_from([*self.rows, "0" * 24]), max_size=5))
        self.ask("index.rows", rows)

    @rule(
        entity=st.sampled_from(["switch#mode", "switch#auto_reply", "switch#none"]),
        limit=st.integers(1, 3),
        until=st.sampled_from([None, None, -1, 0, 1, 9]),
        latest_first=st.booleans(),
        data=st.data(),
    )
    def a_record_is_looked_up(
        self, entity: str, limit: int, until: int | None, latest_first: bool, data: st.DataObject
    ) -> None:
        until_ms = None if until is None else NOON_MS + until
        after = self.a_cursor(data)
        self.ask("audit_log.of_entity", entity, limit, after, until_ms=until_ms, latest_first=latest_first)

    @rule(
        entity=st.sampled_from(["switch#mode", "switch#auto_reply"]),
        limit=st.integers(1, 3),
        until=st.sampled_from([None, 0, 1, 2]),
        latest_first=st.booleans(),
    )
    def a_record_is_listed(self, entity: str, limit: int, until: int | None, latest_first: bool) -> None:
        until_ms = None if until is None else NOON_MS + until
        self.page_by_page("audit_log.of_entity", limit, entity, until_ms=until_ms, latest_first=latest_first)

    @rule(request=st.sampled_from(["req-1", "req-2", "req-9"]), limit=st.integers(1, 3), data=st.data())
    def a_request_is_looked_up(self, request: str, limit: int, data: st.DataObject) -> None:
        self.ask("audit_log.of_request", request, limit, self.a_cursor(data))

    @rule(request=st.sampled_from(["req-1", "req-2"]), limit=st.integers(1, 3))
    def a_request_is_followed(self, request: str, limit: int) -> None:
        self.page_by_page("audit_log.of_request", limit, request)

    def a_cursor(self, data: st.DataObject) -> str:
        """Of any list that was read, or of none."""
        return data.draw(st.sampled_from(["", *self.cursors, NO_CURSOR]))

    def whole_story(self) -> None:
        self.ask("audit.append", [switched(number, "mode", "req-1", NOON_MS + number) for number in range(5)])
        for place in range(4):
            self.an_event_is_claimed(place, 0, "one", "c-1", "f" * 32, "req-1", None)
            self.an_event_is_settled(place, 0)
        self.page_by_page("index.find", 2, Handle.TICKET, ticket_key("c-1"))
        for until in (None, 1):
            self.a_record_is_listed("switch#mode", 2, until, latest_first=False)
        for after in (*self.cursors, NO_CURSOR):
            self.ask("index.find", Handle.REQUEST, "req-1", 2, after)
            self.ask("audit_log.of_entity", "switch#mode", 2, after)
            self.ask("audit_log.of_request", "req-1", 2, after)
        self.ask("index.items", [*KEYS, *KEYS])
        self.ask("index.rows", [*self.rows, *self.rows])


# ------------------------------------------------------------------------------------------------------------ changing

NAMES = ["a", "b", "c", "d", "e"]
OPERATOR_KEYS = ["key-00001", "key-00002"]
STATUSES = list(Status)


def put_by(name: str, status: Status, integration: str, due: int, waits_for: Sequence[str] = ()) -> Change:
    """A row in that status, as the machine may have left it."""
    is_open = status in (Status.PENDING, Status.RETRYING, Status.REPLAYED)
    due_at_ms = NOON_MS + due if is_open and due else 0
    made = row(
        name,
        status=status,
        integration_id=integration,
        due_at_ms=due_at_ms,
        not_before_ms=due_at_ms,
        updated_at_ms=NOON_MS - due,
        waits_for=tuple(waits_for),
        replayed_from="dlq" if status is Status.REPLAYED else "",
    )
    return Change(made, None)


class Operators(Lossy):
    """Rows as operators list and change them: each click once."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[str, Row] = {}
        self.places: list[str] = [""]

    def compare(self) -> None:
        for recovery_id in self.seen:
            self.ask("recovery.get", recovery_id)
        for integration in ("helpdesk", "sms"):
            self.ask("operators.page", integration, STATUSES, "", 1_000)
        for who in ("ada", "bob"):
            for key in OPERATOR_KEYS:
                self.ask("operators.answered", who, key, self.now_ms)

    def page_by_page(self, integration: str, statuses: Sequence[Status], limit: int) -> None:
        whole = self.ask("operators.page", integration, statuses, "", 1_000)
        found: list[Row] = []
        after = ""
        for _ in range(1 + len(whole.rows) // limit):
            page = self.ask("operators.page", integration, statuses, after, limit)
            found += page.rows
            after = page.after
            if not after:
                break
            self.places = [*self.places, after][-20:]
        assert (tuple(found), after) == (whole.rows, "")

    def look_at(self, recovery_id: str) -> None:
        """Remember it as it is: later rules may act on that when it is long out of date."""
        found = self.memory.recovery.get(recovery_id)
        if found is not None:
            self.seen[recovery_id] = found

    def now(self, recovery_id: str) -> Row:
        found = self.memory.recovery.get(recovery_id)
        assert found is not None
        return found

    @rule(
        name=st.sampled_from(NAMES),
        status=st.sampled_from(STATUSES),
        integration=st.sampled_from(["helpdesk", "helpdesk", "sms"]),
        due=st.integers(0, 9),
        by_operator=st.booleans(),
        data=st.data(),
    )
    def a_row_appears(
        self, name: str, status: Status, integration: str, due: int, by_operator: bool, data: st.DataObject
    ) -> None:
        """Which an operator's change would make as well; some wait for others."""
        waits_for = data.draw(some_of(sorted(self.seen), 2)) if status is Status.PENDING else []
        change = put_by(name, status, integration, due, waits_for)
        if by_operator:
            self.ask("operators.commit", change)
        else:
            self.ask("recovery.put_if_absent", change)
        self.seen.setdefault(change.after.recovery_id, self.now(change.after.recovery_id))

    @precondition(lambda self: bool(self.seen))
    @rule(data=st.data())
    def the_machine_moves_a_row(self, data: st.DataObject) -> None:
        """And operators do not see it."""
        found = self.now(data.draw(st.sampled_from(sorted(self.seen))))
        self.ask("recovery.commit", [drawn(data, steps_of(found, self.now_ms))])

    @precondition(lambda self: bool(self.seen))
    @rule(
        data=st.data(),
        is_stale=st.sampled_from([False, False, True]),
        key=st.sampled_from(["", *OPERATOR_KEYS]),
        who=st.sampled_from(["ada", "ada", "bob"]),
        times=st.sampled_from([1, 1, 2]),
    )
    def an_operator_acts(self, data: st.DataObject, is_stale: bool, key: str, who: str, times: int) -> None:
        """With what waits for the row; once, or twice because nobody saw the answer."""
        recovery_id = data.draw(st.sampled_from(sorted(self.seen)))
        made = possible(self.acts(self.seen[recovery_id] if is_stale else self.now(recovery_id), who))
        if not made:
            return
        change = drawn(data, made)
        others = [self.now(one) for one in sorted(self.seen) if one != recovery_id]
        released = possible([lambda: released_by_hand(change.after, others, self.now_ms)]) or [()]
        for _ in range(times):
            self.commit(change, key, who, released[0] if data.draw(st.booleans()) else ())
        for one in (change, *released[0]):
            self.look_at(one.after.recovery_id)

    def acts(self, found: Row, who: str) -> list[Callable[[], Change]]:
        person, now_ms = Person(who, f"req-{self.number()}"), self.now_ms
        return [
            lambda: noted(found, person, "looked at it", now_ms),
            lambda: judged(found, person, RootCause.CODE_DEFECT, "it reads the wrong field", now_ms),
            lambda: ended_by(found, "DISMISSED", person, "not wanted", now_ms),
            lambda: ended_by(found, "DONE_BY_HAND", person, "done", now_ms),
            lambda: sent_on(found, None, person, "it is back", now_ms, 1.0, checked="the ticket"),
        ]

    def commit(self, change: Change, key: str = "", who: str = "ada", released: Sequence[Change] = ()) -> Any:
        """Who lost the answer of a write under a key hears it from its own record."""
        answered = Answered(who, key, f"hash-{self.number()}", "{}", self.now_ms) if key else None
        was_lossy = self.client.is_armed

        def call(world: Any) -> Any:
            answer = world.operators.commit(change, answered, released)
            return None if was_lossy and answer == answered else answer

        return self.both(call)

    @rule(who=st.sampled_from(["ada", "bob"]), key=st.sampled_from(OPERATOR_KEYS), ago=st.sampled_from([0, 1]))
    def a_key_is_looked_up(self, who: str, key: str, ago: int) -> None:
        self.ask("operators.answered", who, key, self.now_ms - ago)

    @rule(milliseconds=st.sampled_from([KEY_KEPT_MS - 1, KEY_KEPT_MS]))
    def a_day_passes(self, milliseconds: int) -> None:
        self.now_ms += milliseconds

    @rule(
        integration=st.sampled_from(["helpdesk", "sms"]),
        statuses=some_of(STATUSES),
        limit=st.integers(1, 4),
        data=st.data(),
    )
    def a_page_is_read(self, integration: str, statuses: list[Status], limit: int, data: st.DataObject) -> None:
        """From where any list was left."""
        found = self.ask("operators.page", integration, statuses, data.draw(st.sampled_from(self.places)), limit)
        self.places = [*self.places, found.after][-20:]

    @rule(statuses=some_of(STATUSES), limit=st.integers(1, 3))
    def a_list_is_read(self, statuses: list[Status], limit: int) -> None:
        self.page_by_page("helpdesk", statuses, limit)

    @rule(integration=st.sampled_from(["helpdesk", "sms"]), most=st.integers(1, 3))
    def rows_are_counted(self, integration: str, most: int) -> None:
        self.ask("operators.count", integration, most)

    def whole_story(self) -> None:
        made = put_by("a", Status.DLQ, "helpdesk", 0)
        self.ask("recovery.put_if_absent", made)
        self.ask("operators.answered", "ada", OPERATOR_KEYS[0], self.now_ms)
        first = noted(made.after, Person("ada", "req-1"), "looked at it", self.now_ms)
        assert self.commit(first, OPERATOR_KEYS[0]) is None
        assert isinstance(self.commit(first, OPERATOR_KEYS[0]), Answered)
        assert self.commit(first, OPERATOR_KEYS[1]) is VersionConflict
        self.ask("operators.answered", "ada", OPERATOR_KEYS[0], self.now_ms)
        self.page_by_page("helpdesk", STATUSES, 1)
        self.ask("operators.count", "helpdesk", 1)


# ------------------------------------------------------------------------------------------------------- sending again

JOBS = ["job-1", "job-2", "job-3"]


def plan_of(*integrations: str) -> Plan:
    """A row for each."""
    items = (PlanItem(f"{n:024d}", n, name, Prediction.WOULD_SEND) for n, name in enumerate(integrations))
    return Plan(tuple(items), ())


PLANS = [plan_of("helpdesk"), plan_of("sms"), plan_of("helpdesk", "sms"), plan_of()]


class BulkReplays(Lossy):
    """Jobs, their board, and what they do to rows."""

    def __init__(self) -> None:
        super().__init__()
        self.jobs: dict[str, Job] = {}
        self.rows: dict[str, Row] = {}
        self.old_board = Board()

    def compare(self) -> None:
        self.ask("jobs.board")
        self.ask("jobs.several", [*JOBS, *JOBS, "nobody"])
        self.ask("recovery.several", sorted(self.rows))

    @rule(job_id=st.sampled_from(JOBS), is_stale=st.sampled_from([False, False, True]), times=st.sampled_from([1, 2]))
    def somebody_asks_for_one(self, job_id: str, is_stale: bool, times: int) -> None:
        """Which may be there already."""
        job = Job(
            job_id,
            State.PLANNING,
            actor="ada",
            reason="it is back",
            filter="{}",
            cap=100,
            created_at_ms=self.now_ms,
            request_id=f"req-{self.number()}",
        )
        self.store(jobs.asked(job, self.board(is_stale)), times)

    def store(self, change: JobChange, times: int = 1) -> None:
        for _ in range(times):
            self.ask("jobs.store", change)
        found = self.memory.jobs.get(change.after.job_id)
        if found is not None:
            self.jobs.setdefault(found.job_id, found)

    def board(self, is_stale: bool) -> Board:
        return self.old_board if is_stale else self.memory.jobs.board()

    def job(self, job_id: str, is_stale: bool) -> Job:
        found = self.memory.jobs.get(job_id)
        assert found is not None
        return self.jobs[job_id] if is_stale else found

    @precondition(lambda self: bool(self.jobs))
    @rule(
        data=st.data(),
        is_stale=st.sampled_from([False, False, False, True]),
        has_old_board=st.sampled_from([False, False, False, True]),
        times=st.sampled_from([1, 1, 2]),
    )
    def a_job_moves(self, data: st.DataObject, is_stale: bool, has_old_board: bool, times: int) -> None:
        """By somebody who may have read job or board long ago."""
        job = self.job(data.draw(st.sampled_from(sorted(self.jobs))), is_stale)
        made = possible(self.moves(job, self.board(has_old_board)))
        if made:
            self.store(drawn(data, made), times)

    def moves(self, job: Job, board: Board) -> list[Callable[[], JobChange]]:
        now_ms = self.now_ms
        said: dict[str, Any] = {"actor": "ada", "request_id": f"req-{self.number()}"}
        why = {**said, "reason": "because"}
        plans: list[Callable[[], JobChange]] = [
            lambda made=made: jobs.planned(job, made, "plan", Ground({"helpdesk": "healthy"}), 9, board, now_ms)  # type: ignore[misc]  # bound now
            for made in PLANS
        ]
        return [
            *plans,
            lambda: jobs.leased(job, "one", now_ms),
            lambda: jobs.leased(job, "two", now_ms),
            lambda: jobs.let_go(job, now_ms + 5),
            lambda: jobs.approved(job, board, now_ms, **said),
            lambda: jobs.begun(job, board, now_ms),
            lambda: jobs.opened(job, ["r1", "r2"], "one", now_ms),
            lambda: jobs.paused(job, board, now_ms, **why),
            lambda: jobs.resumed(job, board, now_ms, **why),
            lambda: jobs.cancelled(job, board, now_ms, **why),
            lambda: jobs.stopping(job, "two failed", board, now_ms),
            lambda: jobs.ended(job, board, now_ms),
            lambda: jobs.finished(job, board, now_ms),
        ]

    @rule(job_ids=st.lists(st.sampled_from([*JOBS, "nobody"]), max_size=4))
    def jobs_are_read(self, job_ids: list[str]) -> None:
        """And remembered, to be acted upon when they are out of date."""
        for job_id in job_ids:
            self.ask("jobs.get", job_id)
        self.jobs |= self.ask("jobs.several", job_ids)
        self.old_board = self.ask("jobs.board")

    @rule(name=st.sampled_from(NAMES), status=st.sampled_from([Status.DLQ, Status.DLQ, Status.FAILED]))
    def a_row_dies(self, name: str, status: Status) -> None:
        made = dead(name, status=status)
        self.ask("recovery.put_if_absent", Change(made, None))
        self.rows.setdefault(made.recovery_id, made)

    @precondition(lambda self: bool(self.rows))
    @rule(data=st.data(), is_seen=st.booleans())
    def somebody_else_moves_a_row(self, data: st.DataObject, is_seen: bool) -> None:
        recovery_id = data.draw(st.sampled_from(sorted(self.rows)))
        found = self.memory.recovery.get(recovery_id)
        assert found is not None
        self.ask("recovery.commit", [drawn(data, steps_of(found, self.now_ms))])
        if is_seen:
            self.rows |= self.memory.recovery.several([recovery_id])

    @precondition(lambda self: bool(self.jobs))
    @rule(
        data=st.data(),
        is_stale=st.sampled_from([False, False, True]),
        is_fresh=st.sampled_from([True, True, False]),
        times=st.sampled_from([1, 1, 2]),
    )
    def a_job_writes_rows(self, data: st.DataObject, is_stale: bool, is_fresh: bool, times: int) -> None:
        """What it sends on, what it takes back, and what nobody ever saw; a job that is not there too."""
        job = self.job(data.draw(st.sampled_from(sorted(self.jobs))), is_stale)
        if data.draw(st.integers(0, 9)) == 0:
            job = replace(job, job_id="nobody")
        chosen = data.draw(some_of(sorted(self.rows)))
        rows = self.memory.recovery.several(chosen) if is_fresh else self.rows
        changes = [change for one in chosen for change in possible(self.writes(rows[one], job))[:1]]
        if data.draw(st.integers(0, 9)) == 0 and dead("new").recovery_id not in chosen:
            changes.append(Change(dead("new"), None))
            self.rows.setdefault(dead("new").recovery_id, dead("new"))
        for _ in range(times):
            self.ask("jobs.apply", job, changes)
        self.rows = dict(self.memory.recovery.several(sorted(self.rows))) if is_fresh else self.rows
        self.rows = {recovery_id: one for recovery_id, one in self.rows.items() if self.is_there(recovery_id)}

    def is_there(self, recovery_id: str) -> bool:
        return self.memory.recovery.get(recovery_id) is not None

    def writes(self, found: Row, job: Job) -> list[Callable[[], Change]]:
        asked: dict[str, Any] = {"actor": "ada", "reason": "it is back", "request_id": "req-1"}
        return [
            lambda: replay(found, self.now_ms, job_id=job.job_id, scale=1.0, **asked),
            lambda: take_back(found, self.now_ms, actor="ada", reason="stopped"),
        ]

    def whole_story(self) -> None:
        self.ask("jobs.get", JOBS[0])
        self.somebody_asks_for_one(JOBS[0], is_stale=False, times=2)
        self.ask("jobs.get", JOBS[0])
        self.ask("jobs.several", JOBS)
        self.a_row_dies("a", Status.DLQ)
        job = self.job(JOBS[0], is_stale=False)
        change = self.writes(dead("a"), job)[0]()
        assert self.ask("jobs.apply", job, [change]) is None
        assert (
            self.ask("jobs.apply", job, [replace(change, after=replace(change.after, replay_no=7))]) is VersionConflict
        )
        self.store(jobs.leased(job, "one", self.now_ms))
        self.ask("jobs.apply", job, [change])
        self.ask("jobs.apply", job, [])
        self.ask("jobs.board")


# ----------------------------------------------------------------------------------------- keeping aside, and promising


class RulesAndPromises(Lossy):
    """The rules of quarantine, and the switches that are set for a time."""

    def __init__(self) -> None:
        super().__init__()
        self.old_rules = Quarantine()
        self.old_returns = Returns()

    def compare(self) -> None:
        self.ask("quarantines.read")
        self.ask("returns.read")
        self.ask("ledger.read", [], [], with_rules=True)

    @rule()
    def rules_are_read(self) -> None:
        """And remembered."""
        self.old_rules = self.ask("quarantines.read")
        assert self.ask("ledger.read", [], ["helpdesk"], with_rules=True).quarantine == self.old_rules

    def known_rules(self, is_stale: bool) -> Quarantine:
        return self.old_rules if is_stale else self.memory.quarantines.read()

    @rule(
        source=st.sampled_from(["shop", "desk"]),
        lasts_ms=st.sampled_from([1, 1_000, 600_000]),
        is_stale=st.sampled_from([False, False, True]),
        times=st.sampled_from([1, 1, 2]),
    )
    def a_rule_is_made(self, source: str, lasts_ms: int, is_stale: bool, times: int) -> None:
        number = self.number()
        until_ms = self.now_ms + lasts_ms
        wanted = Rule(f"{number:032x}", "ada", "version 3", self.now_ms, until_ms, source=source)
        change = self.known_rules(is_stale).with_rule(wanted, f"req-{number}")
        for _ in range(times):
            self.ask("quarantines.store", change)

    @rule(
        data=st.data(),
        is_stale=st.sampled_from([False, False, True]),
        people=st.sampled_from([["ada"], ["ada", "bob"], ["ada", "ada"]]),
        wait=st.sampled_from([0, 0, 1_000]),
    )
    def a_rule_is_removed(self, data: st.DataObject, is_stale: bool, people: list[str], wait: int) -> None:
        """By one, or by several who have read the same."""
        seen = self.known_rules(is_stale)
        in_force = seen.in_force(self.now_ms)
        if not in_force:
            return
        rule_id = data.draw(st.sampled_from([one.rule_id for one in in_force]))
        changes = []
        for name in people:
            changes += possible([self.removed(seen, rule_id, name)])
            self.now_ms += wait
        for change in changes:
            self.ask("quarantines.store", change)
        self.ask("quarantines.store", changes[0])

    def removed(self, seen: Quarantine, rule_id: str, who: str) -> Callable[[], QuarantineChange]:
        now_ms, request_id = self.now_ms, f"req-{self.number()}"
        return lambda: seen.without(rule_id, actor=who, reason="mended", now_ms=now_ms, request_id=request_id)

    @rule()
    def promises_are_read(self) -> None:
        """And remembered."""
        self.old_returns = self.ask("returns.read")

    @rule(
        data=st.data(),
        is_stale=st.sampled_from([False, False, True]),
        times=st.sampled_from([1, 1, 2]),
    )
    def promises_change(self, data: st.DataObject, is_stale: bool, times: int) -> None:
        known = self.old_returns if is_stale else self.memory.returns.read()
        change = drawn(data, self.promised(known))()
        for _ in range(times):
            self.ask("returns.store", change)

    def promised(self, known: Returns) -> list[Callable[[], ReturnsChange]]:
        number, now_ms = self.number(), self.now_ms
        name, until_ms, request_id = f"promise-{number}", now_ms + SHORTEST_MS, f"req-{number}"
        promise = Return(name, "mode", "hold", 2, "live", until_ms, "ada", "why", "ada: why", request_id)
        before = SwitchVersion("mode", 2, "hold", now_ms)
        asked = switched(number, "mode", request_id, now_ms)
        ids = [one.return_id for one in known.promises]
        moved = [lambda one=one: known.moved(one, 7) for one in known.promises]
        return [
            lambda: known.with_promise(promise, before, now_ms, asked),
            lambda: known.with_promise(replace(promise, name="auto_reply"), None, now_ms, asked),
            lambda: known.without(ids[:1]),
            lambda: known.without(ids),
            *moved,
        ]

    def whole_story(self) -> None:
        self.rules_are_read()
        self.promises_are_read()
        self.a_rule_is_made("shop", 1_000, is_stale=False, times=2)
        self.a_rule_is_made("shop", 1_000, is_stale=True, times=1)
        promise, other, *_ = self.promised(self.old_returns)
        assert self.ask("returns.store", promise()) is None
        assert self.ask("returns.store", promise()) is None
        assert self.ask("returns.store", other()) is VersionConflict
