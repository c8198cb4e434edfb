"""The synthetic event on its whole way, in one process: sender, door, queue, worker, count; and what leaves it out."""

from __future__ import annotations

import io
import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import pytest

from functions.core.alarms import by_name
from functions.core.recovery import Status
from functions.core.synthetic import FLOW, PROVIDER, SOURCE
from functions.flows.synthetic import Synthetic
from functions.observability import logger, metrics
from functions.signatures.providers import endpoint_of
from functions.synthetic.handler import build
from functions.synthetic.settings import SyntheticSettings
from ops.alarms.evaluation import Samples, State, definitions_of, judge
from ops.local.bridge import counted_in, identity
from tests.fakes import FakeClock, FakeIds
from tests.ingress_fakes import Gate
from tests.synthetic_fakes import ENTRY, SECRET, FakeFrontDoor, FakeSourceEntries
from tests.worker_world import Died, World

URL = "https://hooks.example/webhooks/synthetic"
MINUTE_MS = 60_000
_NUMBERS = itertools.count()


class Way:
    """The sender, the door it knocks at, and the worker behind the door."""

    def __init__(self) -> None:
        self.world = World()
        self.clock: FakeClock = self.world.clock
        self.world.with_ports = lambda ports: replace(ports, flows={**ports.flows, FLOW: Synthetic()})
        self.gate = Gate()
        self.entries = FakeSourceEntries()
        self.add_source()
        self.door = FakeFrontDoor(self.knock)
        self.counted: list[str] = []
        self.log = io.StringIO()
        name = f"synthetic-test-{next(_NUMBERS)}"
        self.handler = build(
            SyntheticSettings("test", "/holdfast/test/sources", URL),
            entries=self.entries,
            door=self.door,
            clock=self.clock,
            ids=FakeIds(),
            log=logger(name, stream=self.log),
            metrics=metrics("synthetic", "test", self.counted.append),
        )

    def add_source(self, **changes: Any) -> None:
        """As `holdfast source add` does: the sender and ingress read one and the same entry."""
        self.entries.put(SOURCE, **changes)
        self.gate.parameters.entries[SOURCE] = self.entries.entries[SOURCE]

    def knock(self, url: str, headers: Mapping[str, str], body: bytes) -> int:
        assert url == URL
        self.gate.clock.ms = self.clock.now
        return int(self.gate.send(SOURCE, dict(headers), body)["statusCode"])

    def send(self) -> int:
        """One tick of the sender; whether it was taken in."""
        return self.handler({}, None)["sent"]

    def carry(self) -> None:
        """What is in the events queue gets to the worker's."""
        for event in self.gate.outbox.events:
            self.world.accept(event)
        self.gate.outbox.messages.clear()

    def why_not(self) -> str:
        """The reason that the last tick counted."""
        line = json.loads(self.counted[-1])
        assert line["synthetic_not_sent"] == [1.0]
        return str(line["reason"])


@pytest.fixture
def way() -> Way:
    return Way()


def test_it_comes_through_the_door_and_is_settled_and_that_is_counted_with_how_long_it_took(way: Way) -> None:
    assert way.send() == 1
    assert json.loads(way.counted[-1])["synthetic_sent"] == [1.0]
    way.carry()
    way.clock.advance(1_700)
    way.world.run_until_quiet()
    assert way.world.quiet.counts["synthetic_settled"] == 1
    assert way.world.quiet.times["synthetic_settle_ms"] == [1_700]
    assert way.world.provider.calls == [], "it reaches nobody"
    assert way.world.tables.rows == {}
    (item,) = way.world.tables.ledger.values()
    assert item.decision is not None
    assert (item.decision.flow, item.decision.actions) == (FLOW, ())


def test_it_is_signed_with_the_secret_of_its_source_and_refused_without_it(way: Way) -> None:
    way.gate.parameters.put(SOURCE, **ENTRY | {"secrets": [{"secret": "whsec_" + "A" * 32}]})
    assert way.send() == 0
    assert way.why_not() == "refused"
    assert way.gate.outbox.messages == []


def test_at_the_door_it_is_counted_apart_from_what_senders_send(way: Way) -> None:
    way.send()
    line = way.gate.last_line
    counted = {metric["Name"] for said in line["_aws"]["CloudWatchMetrics"] for metric in said["Metrics"]}
    assert "synthetic_accepted" in counted
    assert "webhooks_accepted" not in counted, "the reply storm's alarm would wait for twice as many replies"
    assert line["flow"] == FLOW


def test_what_people_compare_and_count_leaves_it_out(way: Way) -> None:
    way.send()
    way.carry()
    way.world.run_until_quiet()
    left_out = {"decisions_made", "actions_decided", "flow_events", "idempotency_duplicates_detected"}
    assert left_out.isdisjoint(way.world.quiet.counts)
    assert way.world.quiet.counts_at == {}, "the balance of the hour has not seen it at the door either"


def test_a_copy_of_it_is_no_duplicate_that_anybody_counts(way: Way) -> None:
    way.send()
    (event,) = way.gate.outbox.events
    way.world.accept(event)
    way.world.run_until_quiet()
    way.world.accept(event)
    way.world.run_until_quiet()
    assert way.world.quiet.counts["synthetic_settled"] == 1
    assert "idempotency_duplicates_detected" not in way.world.quiet.counts


@pytest.mark.parametrize("mode", ["live", "route_only", "manual", "shadow", "hold"])
def test_it_goes_through_in_whatever_mode(way: Way, mode: str) -> None:
    """A switch that somebody threw is no broken way."""
    way.world.switches.values["mode"] = mode
    way.send()
    way.carry()
    way.world.run_until_quiet()
    assert way.world.quiet.counts["synthetic_settled"] == 1
    assert way.world.tables.rows == {}


def test_a_worker_that_died_with_it_in_hand_leaves_it_to_the_next_even_on_hold(way: Way) -> None:
    way.send()
    way.carry()

    def dies_once(operation: str) -> None:
        if operation == "ledger.settle" and not way.world.deaths:
            raise Died(operation)

    way.world.faults.on_before = dies_once
    way.world.deliver()
    assert (way.world.deaths, way.world.quiet.counts.get("synthetic_settled")) == (1, None)
    way.world.switches.values["mode"] = "hold"
    way.world.run_until_quiet()
    assert way.world.quiet.counts["synthetic_settled"] == 1
    assert way.world.tables.rows == {}


def test_one_that_can_never_be_worked_calls_nobody(way: Way) -> None:
    """Its absence does; and nothing is lost with it."""
    way.world.accept(way.world.event("s-1", flow=FLOW, source=SOURCE, event_name="somebody.else"))
    way.world.run_until_quiet()
    (row,) = way.world.tables.rows.values()
    assert row.status is Status.DLQ
    assert {"people_needed", "ended_for_people", "synthetic_settled", "flow_errors"}.isdisjoint(way.world.quiet.counts)


@pytest.mark.parametrize(
    ("what", "why"),
    [
        (lambda way: way.entries.entries.clear(), "no_source"),
        (lambda way: setattr(way.entries, "is_down", True), "no_parameter_store"),
        (lambda way: way.entries.put(SOURCE, provider="github"), "unusable_source"),
        (lambda way: setattr(way.door, "answers", lambda *_: 0), "not_answered"),
        (lambda way: setattr(way.door, "answers", lambda *_: 404), "refused"),
        (lambda way: setattr(way.door, "answers", lambda *_: 307), "refused"),
        (lambda way: setattr(way.gate.outbox, "is_down", True), "failed"),
    ],
)
def test_why_it_was_not_taken_in_is_counted_and_logged_and_nothing_is_raised(way: Way, what: Any, why: str) -> None:
    what(way)
    assert way.send() == 0
    assert way.why_not() == why
    line = json.loads(way.log.getvalue().splitlines()[-1])
    assert (line["level"], line["source"]) == ("ERROR", SOURCE)
    assert SECRET not in way.log.getvalue()


def test_ingress_takes_the_entry_that_the_sender_uses() -> None:
    endpoint = endpoint_of(SOURCE, json.dumps(ENTRY))
    assert (endpoint.provider.name, endpoint.source.flow) == (PROVIDER, FLOW)


# --------------------------------------------------------------------------------------------------------------- alarm


class Watching:
    """The alarm's own expression over what was counted, minute by minute."""

    def __init__(self) -> None:
        alarm = by_name("synthetic-missing")
        assert alarm is not None
        self._definitions = definitions_of(alarm, "test")
        self._samples = Samples()
        self.state = State.OK
        self.minute = 0

    def minutes(self, number: int, lines: Iterator[str]) -> list[State]:
        """So many minutes, with one line of what the worker counted in each; empty for none."""
        states = []
        for line in itertools.islice(lines, number):
            at_ms = self.minute * MINUTE_MS
            for (namespace, metric, dimensions), value, _ in counted_in(json.loads(line)) if line else ():
                self._samples.add(identity(namespace, metric, dict(dimensions)), at_ms, value, at_ms)
            self.minute += 1
            self.state = judge(self._definitions, self._samples, self.minute * MINUTE_MS, before=self.state)
            states.append(self.state)
        return states


def test_the_alarms_expression_sees_it_come_and_sees_it_missing(way: Way) -> None:
    lines: list[str] = []
    worker = metrics("worker", "test", lines.append)
    way.world.quiet.count = worker.count  # type: ignore[method-assign]
    way.send()
    way.carry()
    way.world.run_until_quiet()
    worker.flush()
    settled = next(line for line in lines if "synthetic_settled" in line)
    watching = Watching()
    coming = watching.minutes(60, itertools.cycle([settled, ""]))
    assert set(coming) == {State.OK}
    gone = watching.minutes(17, itertools.repeat(""))
    assert State.ALARM not in gone[:13], "one that is late calls nobody"
    assert gone[-1] is State.ALARM
    assert watching.minutes(12, itertools.cycle([settled, ""]))[-1] is State.OK
