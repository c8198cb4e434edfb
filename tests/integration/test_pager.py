"""Alarms in, incidents and pages out: storms, repeats, deaths in between, clocks, switches thrown by themselves."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from functions import observability
from functions.adapters.incidents import DynamoIncidents
from functions.core import ports
from functions.core.alarms import ALARMS, Sev
from functions.core.audit import AuditEvent, AuditType, Severity
from functions.core.failure import StorageUnavailable, VersionConflict
from functions.core.gate import Health
from functions.core.health import Counts, Record
from functions.core.incident import (
    LEASE_MS,
    QUIET_MS,
    Contained,
    Incident,
    PageKind,
    Role,
    State,
    opened,
)
from functions.core.page import Change, Depth
from functions.core.recovery import Change as RowChange
from functions.core.subjects import NAMING, SourcesFound
from functions.core.switch_returns import Return
from functions.incident_board import TRIES, move
from functions.pager.containing import Containment
from functions.pager.delivering import Delivery
from functions.pager.handler import build
from functions.pager.settings import PagerSettings
from functions.pager.situation import CACHED_MS, MOST_ROWS, Situations
from ops.drills.alarm_storm import messages as storm
from tests import aws_tables
from tests.control_fakes import (
    FakeFoundSources,
    FakeQueueDepths,
    FakeSwitchHistory,
    FakeSwitchReturns,
    FakeSwitchWriter,
)
from tests.fakes import (
    LIVE_SWITCHES,
    NOON_MS,
    FakeClock,
    FakeHealthCounts,
    FakeHealthRecords,
    FakeIds,
    FakeRecovery,
    FakeTables,
    FakeVisibility,
)
from tests.incident_fakes import FakeChannels, FakeIncidents, FakeRecentChanges
from tests.incidents import ADA, DOWN, HOUR_MS, MINUTE_MS, RULES
from tests.recovery_rows import dead

SETTINGS = PagerSettings(
    stage="prod",
    audit_table="a",
    control_table="c",
    recovery_table="r",
    pages_queue_url="q",
    events_queue_url="e",
    retries_queue_url="t",
    replays_queue_url="p",
    oncall_topic_arn="t",
    parameters_path="/p",
    switches_path="/p/switches",
    oncall_path="/p/oncall",
    runbooks_url="https://git.example/runbooks/",
    functions="worker",
    timeout_seconds=50,
    time_scale=1.0,
)


class World:
    """A pager over doubles, and what they hold."""

    def __init__(self, *channels: str, elsewhere: ports.Incidents | None = None) -> None:
        self.tables = FakeTables()
        self.clock = FakeClock()
        self.ids = FakeIds()
        self.incidents = FakeIncidents(self.tables)
        self.stored: ports.Incidents = elsewhere or self.incidents
        self.channels = FakeChannels(*(channels or ("sns",)))
        self.history = FakeSwitchHistory(self.clock, self.tables.faults)
        for name, value in LIVE_SWITCHES.items():
            self.history.write(name, value, "deploy")
        self.returns = FakeSwitchReturns(self.tables)
        self.changes = FakeRecentChanges(self.tables.faults)
        self.queues = FakeQueueDepths(self.tables.faults)
        self.sources = FakeFoundSources(self.tables.faults)
        self.lines: list[str] = []
        self.rules = RULES
        self.visibility = FakeVisibility()
        self.handler = self.pager()

    def pager(self) -> Any:
        log, metrics = (
            observability.logger("pager"),
            observability.metrics("pager", "test", self.lines.append),
        )
        situations = Situations(
            ["helpdesk", "email"],
            FakeRecovery(self.tables),
            self.queues,
            FakeHealthRecords(self.tables),
            FakeHealthCounts(self.tables),
            self.sources,
            self.history,
            self.changes,
            SETTINGS.time_scale,
            self.clock,
            log,
            metrics,
        )
        return build(
            SETTINGS,
            incidents=self.stored,
            channels=self.channels,
            containment=Containment(
                self.history, FakeSwitchWriter(self.history), self.returns, self.clock, self.ids, log, metrics
            ),
            delivery=Delivery(
                self.stored,
                self.channels,
                situations.since,
                self.rules,
                SETTINGS.stage,
                SETTINGS.runbooks_url,
                self.clock,
                log,
                metrics,
            ),
            visibility=self.visibility,
            rules=self.rules,
            clock=self.clock,
            ids=self.ids,
            log=log,
            metrics=metrics,
        )

    def hear(self, *messages: dict[str, Any] | str, tried: int = 1) -> list[str]:
        """A batch; gives the messages that stay in the queue."""
        records = [
            {
                "messageId": f"m{n}",
                "body": one if isinstance(one, str) else json.dumps(one),
                "receiptHandle": f"r{n}",
                "eventSourceARN": "arn:aws:sqs:us-east-1:1:pages",
                "attributes": {"ApproximateReceiveCount": str(tried)},
            }
            for n, one in enumerate(messages)
        ]
        answer = self.handler({"Records": records}, None)
        return [one["itemIdentifier"] for one in answer["batchItemFailures"]]

    def tick(self, after_ms: int = 0) -> dict[str, int]:
        """A minute's look, so much later."""
        self.clock.advance(after_ms)
        found: dict[str, int] = self.handler({}, None)
        return found

    def says(self, alarm: str, state: str = "ALARM", at_ms: int | None = None) -> dict[str, Any]:
        at = datetime.fromtimestamp((self.clock.now if at_ms is None else at_ms) / 1000, UTC)
        return {
            "AlarmName": f"holdfast-prod-{alarm}",
            "NewStateValue": state,
            "StateChangeTime": at.isoformat(timespec="milliseconds"),
        }

    @property
    def only(self) -> Incident:
        (incident,) = self.incidents.incidents.values()
        return incident

    def kinds(self, channel: str = "sns") -> list[PageKind]:
        return [letter.kind for name, letter in self.channels.sent if name == channel]

    def counted(self, metric: str) -> float:
        return sum(
            sum(one[metric]) if isinstance(one[metric], list) else one[metric]
            for one in map(json.loads, self.lines)
            if metric in one
        )

    def switch(self, name: str) -> str:
        return self.history.latest()[name].value


@pytest.fixture
def world() -> World:
    return World()


def test_an_alarm_opens_an_incident_and_pages_at_once_with_how_things_are(world: World) -> None:
    FakeRecovery(world.tables).put_if_absent(RowChange(dead("a"), None))
    world.tables.health["email"] = Record(health=Health.HARD_DOWN, since_ms=NOON_MS - 60_000)
    world.history.write("mode", "route_only", "ada")
    world.history.write("limits/helpdesk", "1.0", "ada")
    world.changes.changes = [
        Change(NOON_MS - HOUR_MS, "deploy", "worker"),
        Change(NOON_MS - 3 * HOUR_MS, "deploy", "x"),
    ]
    assert world.hear(world.says("integration-down")) == []
    (channel, letter) = world.channels.sent[0]
    assert (channel, letter.severity, letter.runbook) == (
        "sns",
        Sev.SEV2,
        f"{SETTINGS.runbooks_url}alarms.md#integration-down",
    )
    for said in (
        "1 items of 1 tenants wait or are dead",
        "mode = route_only",
        "email hard_down since 2025-12-31 23:59:00Z",
        "health email (hard_down)",
        "deploy worker",
    ):
        assert said in letter.text
    assert "limits/helpdesk" not in letter.text  # it says what it says every day, in other letters
    assert "deploy x" not in letter.text
    assert world.only.pages[0].took == ("sns",)
    assert world.counted("incidents_opened") == world.counted("pages_sent") == 1


def test_two_hundred_alarm_events_in_a_minute_are_one_incident_and_one_page_per_group() -> None:
    """Acceptance 3: in batches of ten, each message twice, with conflicts on the board in between."""
    world = World("sns", "chat")
    alarms = ["integration-down", "classifier-out", "rate-limited", "events-late", "items-failing", "worker-dying"]
    messages = []
    for n in range(200):
        state = "OK" if n % 7 == 6 else "ALARM"
        messages.append(world.says(alarms[n % len(alarms)], state, NOON_MS + 1 + n * 300))
    for start in range(0, len(messages), 10):
        world.tables.faults.fail("incidents.store", VersionConflict("another pager"), times=2)
        batch = messages[start : start + 10]
        assert world.hear(*batch, *batch[:3]) == []
        world.clock.advance(3_000)
    groups = {one.group for one in world.incidents.incidents.values()}
    assert (groups, len(world.incidents.incidents)) == ({"providers", "pipeline"}, 2)
    for channel in ("sns", "chat"):
        assert world.kinds(channel) == [PageKind.OPENED] * 2
    assert world.counted("alarms_heard") == 260


@contextmanager
def in_memory() -> Iterator[World]:
    yield World("sns", "chat")


@contextmanager
def in_dynamodb() -> Iterator[World]:
    with aws_tables.moto_tables() as client:
        yield World(
            "sns",
            "chat",
            elsewhere=DynamoIncidents(
                client,
                FakeIds(),
                control_table=aws_tables.CONTROL,
                audit_table=aws_tables.AUDIT,
                pause=lambda _: None,
            ),
        )


@pytest.mark.parametrize(
    ("storing", "seed", "count"),
    [(in_memory, 0, 200), (in_memory, 1, 200), (in_memory, 2, 200), (in_dynamodb, 3, len(ALARMS) + 10)],
)
def test_when_every_alarm_of_the_table_fires_each_group_is_one_incident_and_one_page(
    storing: Callable[[], AbstractContextManager[World]], seed: int, count: int
) -> None:
    """001.57: so many messages within a minute, out of order, some late, some twice. What is graver than what
    somebody was told is told once more, to the same alert.
    """
    chance = random.Random(seed)
    with storing() as world:
        waiting = storm("prod", count, NOON_MS + 1, 60.0, chance)
        for start in range(0, len(waiting), 10):
            batch = waiting[start : start + 10]
            chance.shuffle(batch)
            assert world.hear(*batch, *batch[:3]) == []
            world.clock.advance(3_000)
        board = world.stored.board()
        found = world.stored.several(board.recent)
        worst = {group: min(alarm.sev for alarm in ALARMS if alarm.group == group) for group in GROUPS}
        assert {one.group: one.severity for one in found.values()} == worst
        assert len(found) == len(GROUPS)
        for channel in ("sns", "chat"):
            sent = [letter for name, letter in world.channels.sent if name == channel]
            first = Counter(letter.group for letter in sent if letter.kind is PageKind.OPENED)
            assert first == dict.fromkeys(GROUPS, 1)
            told = {group: [letter.severity for letter in sent if letter.group == group] for group in GROUPS}
            assert {group: severities[-1] for group, severities in told.items()} == worst
            graver = [(letter.group, letter.severity) for letter in sent if letter.kind is PageKind.RAISED]
            assert len(set(graver)) == len(graver)
            assert {letter.kind for letter in sent} <= {PageKind.OPENED, PageKind.RAISED}
        assert world.switch("auto_reply") == "off"
        assert len(world.history.versions("auto_reply")) == len(world.history.versions("flow/support/mode")) + 1 == 2


GROUPS = {alarm.group for alarm in ALARMS}


def test_a_repeat_changes_nothing(world: World) -> None:
    said = world.says("integration-down")
    world.hear(said)
    before = world.only
    assert world.hear(said) == []
    assert world.only == before
    assert len(world.channels.sent) == 1


def test_what_is_heard_late_of_an_incident_that_is_over_opens_none(world: World) -> None:
    said = world.says("rate-limited")
    world.hear(said)
    world.hear(world.says("rate-limited", "OK", NOON_MS + 1))
    world.tick(QUIET_MS + 2)
    assert world.only.state is State.RESOLVED
    world.hear(said)
    assert len(world.incidents.incidents) == 1


def test_nobody_knows_is_no_alarm_and_no_end_of_one(world: World) -> None:
    assert world.hear(world.says("integration-down", "INSUFFICIENT_DATA")) == []
    assert world.incidents.incidents == {}
    assert world.hear(world.says("integration-down", "OK")) == []
    assert world.incidents.incidents == {}


def test_what_is_still_to_come_is_not_believed_and_silences_no_alarm(world: World) -> None:
    """One forged, or of a clock that has jumped, would make of all that this alarm says until then old news."""
    assert world.hear(world.says("integration-down", at_ms=NOON_MS + 100 * HOUR_MS)) == ["m0"]
    assert world.hear(world.says("integration-down", at_ms=NOON_MS + MINUTE_MS)) == []
    assert world.kinds() == [PageKind.OPENED]


def test_what_says_of_no_alarm_how_it_is_stays_and_keeps_no_neighbour(world: World) -> None:
    assert world.hear("hello", world.says("integration-down")) == ["m0"]
    assert len(world.channels.sent) == 1
    assert world.counted("alarms_unheard") == 1


@pytest.mark.parametrize("operation", ["incidents.board", "incidents.store"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_what_could_not_be_written_down_is_heard_again_and_pages_once(world: World, operation: str, when: str) -> None:
    said = world.says("integration-down")
    world.tables.faults.fail(operation, when=when)
    assert world.hear(said) == ["m0"]
    world.hear(said)
    world.tick(LEASE_MS + 1)
    assert world.kinds() == [PageKind.OPENED]


@pytest.mark.parametrize(("tried", "seconds"), [(1, 15), (2, 30), (5, 240), (6, 300), (40, 300)])
def test_what_could_not_be_written_down_comes_back_soon(world: World, tried: int, seconds: int) -> None:
    world.hear("hello", tried=tried)
    assert world.visibility.delays == [("arn:aws:sqs:us-east-1:1:pages", "r0", seconds)]


def test_who_is_always_overtaken_leaves_the_message_in_its_queue(world: World) -> None:
    world.tables.faults.fail("incidents.store", VersionConflict("others"), times=TRIES)
    assert world.hear(world.says("integration-down")) == ["m0"]
    assert world.incidents.incidents == {}


def test_a_board_that_names_what_is_not_there_is_read_again(world: World) -> None:
    world.hear(world.says("integration-down"))
    world.incidents.incidents.clear()
    assert world.hear(world.says("classifier-out")) == ["m0"]


# ---------------------------------------------------------------------------------------------------------- containment


def test_a_sev0_turns_replies_off_before_anybody_has_read_the_page_002_36(world: World) -> None:
    world.hear(world.says("reply-storm"))
    assert world.switch("auto_reply") == "off"
    version = world.history.versions("auto_reply")[-1]
    assert version.reason == "holdfast: the alarm reply-storm fires"
    (done,) = world.only.contained
    assert (done.is_done, done.before, done.until_ms) == (True, "on", 0)
    letter = world.channels.sent[0][1]
    assert "Done by itself: auto_reply set to off" in letter.text
    assert "To take that back, once its cause is gone: holdfast --stage prod switch set auto_reply on" in letter.text
    assert {event.event_type.value for event in world.tables.events} == {
        "platform.incident.contained",
        "platform.incident.opened",
        "platform.incident.paged",
    }
    world.hear(world.says("reply-storm"))
    assert len(world.history.versions("auto_reply")) == 2


def test_replies_that_are_off_stay_as_they_are(world: World) -> None:
    world.history.write("auto_reply", "off", "ada")
    world.hear(world.says("reply-storm"))
    assert len(world.history.versions("auto_reply")) == 2
    assert world.only.contained[0].before == "off"


@pytest.mark.parametrize("is_known", [True, False])
def test_replies_that_are_off_for_a_time_are_off_for_good_now_002_36(world: World, is_known: bool) -> None:
    """Only a person turns them on again: what somebody has promised of a quiet afternoon holds no longer."""
    before = world.history.latest()["auto_reply"]
    promise = Return(
        "r1", "auto_reply", "off", before.version + 1, "on", NOON_MS + HOUR_MS, "ada", "a test", "ada: a test", "r"
    )
    asked = AuditEvent(
        "a1", NOON_MS, AuditType.SWITCH_CHANGED, Severity.WARNING, "", "ada", "switch", "auto_reply", "r"
    )
    world.returns.store(world.returns.read().with_promise(promise, before, NOON_MS, asked))
    world.history.write("auto_reply", "off", "ada", "ada: a test")
    if not is_known:
        world.tables.faults.fail("returns.read")
    world.hear(world.says("reply-storm"))
    latest = world.history.latest()["auto_reply"]
    assert (latest.value, latest.version) == ("off", before.version + 2)
    assert world.returns.stored.of(latest) is None
    assert world.only.contained[0].is_done


@pytest.mark.parametrize("switch", ["auto_reply", "flow/support/mode"])
def test_who_dies_after_it_has_thrown_a_switch_has_its_successor_say_so(
    world: World, monkeypatch: pytest.MonkeyPatch, switch: str
) -> None:
    """The page says what the switch said before and how to take it back, not that it was so already."""
    alarm = "reply-storm"
    if switch != "auto_reply":
        alarm = "support-failing"
        errors = replace(DOWN, name=alarm, group="flow-errors", flow="support")
        monkeypatch.setattr("functions.pager.heard.symptom_of", lambda *_: errors)
    said = world.says(alarm)
    world.tables.faults.fail("incidents.store")
    assert world.hear(said) == ["m0"]
    thrown = world.history.versions(switch)
    until_ms = 0 if switch == "auto_reply" else NOON_MS + HOUR_MS // 2
    world.clock.advance(15_000)
    world.handler = world.pager()
    assert world.hear(said) == []
    assert world.history.versions(switch) == thrown
    (done,) = world.only.contained
    assert (done.is_done, done.before, done.until_ms) == (True, "on" if until_ms == 0 else "live", until_ms)
    assert f"Done by itself: {switch} set to" in world.channels.sent[0][1].text


def test_who_has_set_a_switch_is_not_known_and_it_stays_all_the_same(world: World) -> None:
    world.history.write("auto_reply", "off", "ada")
    world.tables.faults.fail("history.versions")
    world.hear(world.says("reply-storm"))
    assert (world.only.contained[0].is_done, world.only.contained[0].before) == (True, "off")


def test_what_a_switch_says_is_not_known_and_it_is_set_nevertheless(world: World) -> None:
    world.tables.faults.fail("history.latest")
    world.hear(world.says("reply-storm"))
    assert world.switch("auto_reply") == "off"


def test_a_switch_that_cannot_be_set_keeps_no_page_and_is_tried_again_each_minute(world: World) -> None:
    world.tables.faults.fail("switch.put", times=2)
    world.hear(world.says("reply-storm"))
    assert "NOT DONE by itself" in world.channels.sent[0][1].text
    world.tick(MINUTE_MS)
    assert not world.only.contained[0].is_done
    world.tick(MINUTE_MS)
    assert (world.only.contained[0].is_done, world.switch("auto_reply")) == (True, "off")
    assert world.counted("containments_failed") == 2


def test_replies_are_turned_off_though_nothing_can_be_written_down(world: World) -> None:
    world.tables.faults.fail("incidents.board", times=2)
    assert world.hear(world.says("reply-storm"), world.says("integration-down")) == ["m0", "m1"]
    assert world.switch("auto_reply") == "off"


def test_the_errors_of_one_flow_hold_that_flow_and_it_goes_on_by_itself_003_25(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    errors = replace(DOWN, name="support-failing", group="flow-errors", flow="support")
    monkeypatch.setattr("functions.pager.heard.symptom_of", lambda *_: errors)
    world.tables.faults.fail("returns.store", VersionConflict("another promise"))
    world.hear(world.says("support-failing"))
    assert world.switch("flow/support/mode") == "hold"
    (promise,) = world.returns.stored.promises
    assert (promise.name, promise.back_to, promise.until_ms) == ("flow/support/mode", "live", NOON_MS + HOUR_MS // 2)
    assert world.switch("mode") == "live"
    assert world.only.contained[0].until_ms == NOON_MS + HOUR_MS // 2


def test_a_hold_whose_return_cannot_be_promised_is_not_set(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    errors = replace(DOWN, name="support-failing", group="flow-errors", flow="support")
    monkeypatch.setattr("functions.pager.heard.symptom_of", lambda *_: errors)
    for operation, error in (
        ("returns.store", VersionConflict("others")),
        ("returns.read", StorageUnavailable("x")),
        ("history.latest", StorageUnavailable("x")),
    ):
        world.tables.faults.fail(operation, error, times=3)
        world.hear(world.says("support-failing"))
        world.clock.advance(1)
        assert "flow/support/mode" not in world.history._versions
        world.tables.faults._planned.clear()
        world.incidents.incidents.clear()
        world.incidents.stored_board = type(world.incidents.stored_board)()


@pytest.mark.parametrize("earlier", [None, "live"])
def test_a_flow_that_two_pagers_hold_in_one_moment_goes_on_by_itself_all_the_same(
    world: World, monkeypatch: pytest.MonkeyPatch, earlier: str | None
) -> None:
    """Both set it, and the promise is about the version that is the last in the end."""
    errors = replace(DOWN, name="support-failing", group="flow-errors", flow="support")
    monkeypatch.setattr("functions.pager.heard.symptom_of", lambda *_: errors)
    if earlier is not None:
        world.history.write("flow/support/mode", earlier, "ada")
    one, other = world.handler, world.pager()

    def meanwhile(operation: str) -> None:
        if operation == "switch.put":
            world.tables.faults.on_before = None
            world.handler = other
            world.hear(world.says("support-failing", at_ms=NOON_MS + 1))
            world.handler = one

    world.tables.faults.on_before = meanwhile
    world.tables.faults.fail("returns.store", VersionConflict("another promise"))
    world.hear(world.says("support-failing", at_ms=NOON_MS))
    latest = world.history.latest()["flow/support/mode"]
    promise = world.returns.stored.of(latest)
    assert latest.value == "hold"
    assert promise is not None
    assert promise.back_to == "live"
    assert world.counted("containments_failed") == 0


def test_a_hold_that_will_not_end_by_itself_is_told_of(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    errors = replace(DOWN, name="support-failing", group="flow-errors", flow="support")
    monkeypatch.setattr("functions.pager.heard.symptom_of", lambda *_: errors)

    def meanwhile(operation: str) -> None:
        if operation == "switch.put":
            world.tables.faults.on_before = None
            world.history.write("flow/support/mode", "live", "ada")
            world.tables.faults.fail("returns.store", VersionConflict("others"), times=3)

    world.tables.faults.on_before = meanwhile
    world.hear(world.says("support-failing"))
    assert world.switch("flow/support/mode") == "hold"
    assert world.counted("containments_failed") == 1


# --------------------------------------------------------------------------------------------------------------- pages


def test_pages_for_which_a_batch_has_no_time_left_are_sent_by_the_tick(world: World) -> None:
    """Else the batch would be killed in the middle of one, and come back as a whole."""
    world.tables.faults.on_before = lambda operation: (
        world.clock.advance(40_000) if operation == "changes.since" else None
    )
    assert world.hear(world.says("integration-down"), world.says("events-late"), world.says("replay-stopped")) == []
    assert len(world.kinds()) == 1
    assert world.counted("pages_left") == 2
    world.tables.faults.on_before = None
    world.tick()
    assert world.kinds() == [PageKind.OPENED] * 3


def test_a_channel_that_did_not_take_it_gets_it_with_the_next_tick_and_no_other_twice() -> None:
    world = World("sns", "chat")
    world.channels.down.add("chat")
    world.hear(world.says("integration-down"))
    assert world.counted("pages_failed") == 1
    world.channels.down.clear()
    world.tick(LEASE_MS - 1)
    assert world.kinds("chat") == []
    world.tick(1)
    assert (world.kinds("sns"), world.kinds("chat")) == ([PageKind.OPENED], [PageKind.OPENED])


def test_an_incident_with_more_pages_than_there_is_time_for_sends_what_nobody_has_first() -> None:
    """Each of them takes its channel's time. What was sent is written down before the time is over."""
    world = World("sns", "chat")
    world.channels.down.add("chat")
    world.hear(world.says("events-backlog"))
    world.clock.advance(15 * MINUTE_MS)
    send = world.channels.send

    def slow(letter: Any, already: Any = ()) -> Any:
        world.clock.advance(40_000)
        return send(letter, already)

    world.channels.send = slow  # type: ignore[method-assign]  # a channel that takes its time
    world.tick()
    assert world.kinds("sns") == [PageKind.OPENED, PageKind.ESCALATED]
    assert world.counted("pages_left") == 1
    assert [page.took for page in world.only.pages] == [("sns",), ("sns",)]
    world.tick(MINUTE_MS)
    assert world.kinds("sns") == [PageKind.OPENED, PageKind.ESCALATED]


def test_a_death_between_sending_and_writing_down_pages_again_after_the_lease(world: World) -> None:
    said = world.says("integration-down")
    calls: list[str] = []

    def dies(operation: str) -> None:
        calls.append(operation)
        if calls.count("incidents.store") == 3:  # opened, taken, and now: what became of it
            raise StorageUnavailable("the process is gone")

    world.tables.faults.on_before = dies
    assert world.hear(said) == []
    world.tables.faults.on_before = None
    assert world.kinds() == [PageKind.OPENED]
    world.tick(LEASE_MS - 1)
    assert world.kinds() == [PageKind.OPENED]
    world.tick(1)
    assert world.kinds() == [PageKind.OPENED] * 2
    world.tick(10 * MINUTE_MS)
    assert len(world.kinds()) == 2


def test_of_two_pagers_one_delivers(world: World) -> None:
    other = world.pager()
    world.channels.down.add("sns")
    world.hear(world.says("integration-down"))
    world.channels.down.clear()
    world.clock.advance(LEASE_MS)
    moved: list[str] = []

    def meanwhile(operation: str) -> None:
        if operation == "incidents.store" and not moved:
            moved.append(operation)
            world.tables.faults.on_before = None
            other({}, None)

    world.tables.faults.on_before = meanwhile
    world.tick()
    assert world.kinds() == [PageKind.OPENED]


@pytest.mark.parametrize(
    "operation", ["history.latest", "health.read", "changes.since", "found_sources.read", "counts.read", "depths.read"]
)
def test_what_cannot_be_found_out_is_named_and_keeps_no_page(world: World, operation: str) -> None:
    world.tables.faults.fail(operation)
    world.hear(world.says("integration-down"))
    assert "Could not be found out: " in world.channels.sent[0][1].text
    assert world.counted("situations_incomplete") == 1


def test_a_defect_in_finding_out_keeps_no_page(world: World) -> None:
    def odd(since_ms: int) -> list[Change]:
        raise KeyError(f"LastModified since {since_ms}")

    world.changes.since = odd  # type: ignore[method-assign]  # it answers what nobody has expected
    world.hear(world.says("integration-down"))
    assert "Could not be found out: changes" in world.channels.sent[0][1].text


def test_what_takes_too_long_to_find_out_is_left_out(world: World) -> None:
    world.tables.faults.on_before = lambda operation: (
        world.clock.advance(9_000) if operation == "history.latest" else None
    )
    world.hear(world.says("integration-down"))
    everything = (
        "health, sources, changes, items of helpdesk, items of email, "
        "queue events, queue retries, queue replays, who says that we call too often"
    )
    assert f"Could not be found out: {everything}" in world.channels.sent[0][1].text


def test_more_than_can_be_counted_is_said_to_be_more(world: World) -> None:
    for n in range(MOST_ROWS):
        FakeRecovery(world.tables).put_if_absent(RowChange(dead(f"r{n}"), None))
    world.hear(world.says("integration-down"))
    assert f"at least {MOST_ROWS} items of at least 1 tenants" in world.channels.sent[0][1].text


def test_several_pages_of_one_moment_ask_once(world: World) -> None:
    world.hear(world.says("integration-down"), world.says("events-late"))
    assert world.tables.faults.calls.count("changes.since") == 1
    world.clock.advance(5_000)
    world.hear(world.says("ops-dlq-not-empty"))
    assert world.tables.faults.calls.count("changes.since") == 1, "all of one minute are one situation"
    world.clock.advance(CACHED_MS + 1)
    world.hear(world.says("replay-stopped"))
    assert world.tables.faults.calls.count("changes.since") == 2


# ---------------------------------------------------------------------------------------------------------------- tick


def test_a_clock_that_runs_out_pages_the_secondary_001_2(world: World) -> None:
    world.hear(world.says("events-backlog"))
    assert world.tick(15 * MINUTE_MS - 1)["moved"] == 0
    assert world.tick(1) == {"active": 1, "moved": 1, "paged": 1}
    assert world.channels.sent[-1][1].to == (Role.PRIMARY, Role.SECONDARY)
    assert world.counted("heartbeat") == 2


def test_an_acknowledgement_where_it_was_paged_comes_back_and_stops_the_clock(world: World) -> None:
    world.hear(world.says("events-backlog"))
    world.channels.elsewhere[world.only.incident_id] = "duty: Ann"
    world.tick(MINUTE_MS)
    assert (world.only.state, world.only.acknowledged_by) == (State.ACKNOWLEDGED, "duty: Ann")
    world.tick(15 * MINUTE_MS)
    assert PageKind.ESCALATED not in world.kinds()
    assert world.counted("acknowledged_elsewhere") == 1


def test_an_acknowledgement_of_the_call_before_is_none_of_this_one(world: World) -> None:
    """Where it was paged the earlier call is acknowledged, or closed, for ever."""
    world.hear(world.says("integration-down"))
    world.channels.elsewhere[world.only.incident_id] = "duty: Ann"
    world.tick(MINUTE_MS)
    world.hear(world.says("integration-down", "OK"))
    world.tick(QUIET_MS)
    assert world.only.state is State.MITIGATED
    world.hear(world.says("integration-down"))
    world.tick(MINUTE_MS)
    assert (world.only.state, world.only.acknowledged_by) == (State.OPEN, "")
    assert world.channels.sent[-1][1].recurrences == 1
    world.channels.elsewhere[f"{world.only.incident_id}#1"] = "duty: Bob"
    world.tick(MINUTE_MS)
    assert (world.only.state, world.only.acknowledged_by) == (State.ACKNOWLEDGED, "duty: Bob")


def test_an_acknowledgement_that_is_read_while_it_happens_again_is_none(world: World) -> None:
    world.hear(world.says("integration-down"))
    incident = world.only
    world.channels.elsewhere[incident.incident_id] = "duty: Ann"
    asked = world.channels.acknowledged

    def meanwhile(calls: Any) -> Any:
        found = asked(calls)
        again = replace(world.only, recurrences=1, version=world.only.version + 1)
        world.incidents.incidents[incident.incident_id] = again
        return found

    world.channels.acknowledged = meanwhile  # type: ignore[method-assign]  # another pager comes between
    world.tick(MINUTE_MS)
    assert world.only.state is State.OPEN


def test_an_alarm_that_is_over_ends_its_incident_up_to_what_people_owe(world: World) -> None:
    """Acceptance 1: it closes after recovery."""
    world.hear(world.says("integration-down"))
    world.clock.advance(MINUTE_MS)
    world.hear(world.says("integration-down", "OK"))
    world.tick(QUIET_MS)
    assert (world.only.state, world.only.mitigated_by) == (State.MITIGATED, "holdfast")
    world.hear(world.says("integration-down"))
    assert world.only.state is State.OPEN
    assert world.kinds() == [PageKind.OPENED, PageKind.RECURRED]


def test_one_incidents_trouble_is_not_anothers_and_fails_the_tick(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.hear(world.says("integration-down"), world.says("events-backlog"))
    first = world.incidents.stored_board.active[0]
    original = world.incidents.get

    def odd(incident_id: str) -> Incident | None:
        if incident_id == first:
            raise StorageUnavailable("it cannot be read back")
        return original(incident_id)

    monkeypatch.setattr(world.incidents, "get", odd)
    with pytest.raises(ExceptionGroup):
        world.tick(15 * MINUTE_MS)
    assert PageKind.ESCALATED in world.kinds()
    assert (world.counted("heartbeat"), world.counted("duties_failed")) == (0, 1)


def test_acknowledgements_that_cannot_be_taken_down_keep_no_clock(world: World) -> None:
    world.hear(world.says("events-backlog"))
    world.tables.faults.fail("incidents.several")
    with pytest.raises(ExceptionGroup):
        world.tick(15 * MINUTE_MS)
    assert PageKind.ESCALATED in world.kinds()


def test_a_tick_that_takes_too_long_says_so_and_is_no_heartbeat(world: World) -> None:
    world.hear(world.says("integration-down"), world.says("events-backlog"))
    world.tables.faults.on_before = lambda operation: (
        world.clock.advance(40_000) if operation == "incidents.several" else None
    )
    world.tick()
    assert (world.counted("ticks_cut_short"), world.counted("heartbeat")) == (1, 0)


def test_every_line_about_an_incident_says_which(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """Several are open at a time, and `holdfast logs pager --about INCIDENT` is how one is followed."""
    world.hear(world.says("integration-down"))
    incident_id = world.only.incident_id
    world.tables.faults.fail("incidents.get", times=2)
    with pytest.raises(ExceptionGroup):
        world.tick()
    said = {record.message: getattr(record, "incident_id", "") for record in caplog.records}
    assert said == dict.fromkeys(said, incident_id)
    assert {"an incident was opened", "a page went out", "an incident could not be looked at"} == set(said)
    assert "incident_id" in observability.FIELDS


def test_what_a_tick_does_not_reach_is_first_in_the_next(world: World) -> None:
    """Else one that is behind many would never be looked at, and its clocks would run out unheard."""
    world.hear(world.says("integration-down"), world.says("events-backlog"), world.says("source-silent"))
    looked: list[str] = []
    get = world.incidents.get

    def slow(incident_id: str) -> Incident | None:
        if incident_id not in looked:
            looked.append(incident_id)
            world.clock.advance(40_000)
        return get(incident_id)

    world.incidents.get = slow  # type: ignore[method-assign]  # each takes nearly all of a tick's time
    for _ in range(3):
        world.tick()
    assert set(looked) == set(world.incidents.stored_board.active)
    assert world.counted("ticks_cut_short") == 3


def test_an_incident_that_is_gone_is_no_trouble(world: World) -> None:
    world.hear(world.says("integration-down"))
    world.incidents.incidents.clear()
    assert world.tick() == {"active": 1, "moved": 0, "paged": 0}
    assert move(world.incidents, "nobody", lambda *_: None) is None


def test_a_test_page_goes_the_whole_way_and_ends_001_57(world: World) -> None:
    made = Incident("SEV3-1-t", State.OPEN, Sev.SEV3, "a test page", NOON_MS, "ada", "r", is_test=True)
    world.incidents.store(opened(made, world.incidents.board(), NOON_MS, ADA, RULES))
    world.tick(1_000)
    world.tick(1_000)
    assert (world.only.state, world.only.resolution) == (State.RESOLVED, "delivered by sns")
    assert world.kinds() == [PageKind.TEST]
    assert world.incidents.stored_board.active == ()


def test_what_is_still_to_be_done_keeps_an_incident_on_the_list(world: World) -> None:
    world.hear(world.says("integration-down"))
    incident = replace(world.only, contained=(Contained("auto_reply", "off", "x", NOON_MS),))
    world.incidents.incidents[incident.incident_id] = incident
    world.tick(MINUTE_MS)
    assert world.switch("auto_reply") == "off"
    assert world.only.contained[0].is_done


@pytest.mark.parametrize("alarm", sorted(NAMING))
def test_a_page_names_the_sources_or_providers_that_its_alarm_is_about(world: World, alarm: str) -> None:
    """001.9: which one, and since when, without a look."""
    hour_ago = NOON_MS - HOUR_MS
    world.sources.stored = SourcesFound({"acme-shop": hour_ago}, {"acme-desk": hour_ago}, 1)
    world.tables.health["email"] = Record(health=Health.HARD_DOWN, since_ms=hour_ago)
    world.tables.health["helpdesk"] = Record(health=Health.DEGRADED, since_ms=hour_ago)
    FakeHealthCounts(world.tables).add(NOON_MS // MINUTE_MS - 4, {"helpdesk": Counts(rate_limited=2)}, NOON_MS)
    names = {
        "source-silent": "acme-shop since 2025-12-31 23:00:00Z",
        "source-malformed": "acme-desk since 2025-12-31 23:00:00Z",
        "integration-down": "email since 2025-12-31 23:00:00Z",
        "integration-degraded": "helpdesk since 2025-12-31 23:00:00Z",
        "rate-limited": "helpdesk since 2025-12-31 23:56:00Z",
    }
    world.hear(world.says(alarm))
    (_, letter) = world.channels.sent[0]
    assert letter.title.endswith(f": {names[alarm].split()[0]}")
    assert f"which: {names[alarm]}" in letter.text.splitlines()


def test_a_page_of_which_nobody_can_find_out_what_it_is_about_goes_out_without_names(world: World) -> None:
    world.tables.faults.fail("found_sources.read")
    world.hear(world.says("source-silent"))
    (_, letter) = world.channels.sent[0]
    assert letter.title == "[SEV2 prod] A source has sent nothing for longer than it ever should"
    assert ("which:" in letter.text, "Could not be found out: sources" in letter.text) == (False, True)


def test_a_page_counts_the_events_that_wait_and_says_that_it_is_about_and_not_of_whom(world: World) -> None:
    """001.9: they are no recovery items, and most of what an outage of ours holds up."""
    world.queues.depths = {"events": Depth(120, 10), "retries": Depth(3, 1), "replays": Depth()}
    world.hear(world.says("events-late"))
    lines = world.channels.sent[0][1].text.splitlines()
    at = lines.index("0 items of 0 tenants wait or are dead")
    assert lines[at + 1 : at + 3] == [
        "about 120 events wait in the queue and 10 are in hand; of how many tenants it does not say",
        "in the other queues, about so many waiting and in hand: retries 3 and 1, replays 0 and 0",
    ]


def test_a_queue_that_cannot_be_looked_at_is_named_and_hides_no_other(world: World) -> None:
    world.queues.depths = {"retries": Depth(3, 1)}
    world.hear(world.says("events-late"))
    text = world.channels.sent[0][1].text
    assert "Could not be found out: queue events, queue replays" in text
    assert "in the other queues, about so many waiting and in hand: retries 3 and 1" in text
    assert "events wait in the queue" not in text
    assert world.counted("situations_incomplete") == 2
