"""Every end that people must see is counted where it comes about, once its write is made, whichever function it is.

000.10, 001.49, 003.1: no failure is silent, and an alarm watches one count of them all.
"""

from __future__ import annotations

import ast
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from functions.core.decision import REPLY_EXPIRES_SECONDS
from functions.core.failure import Fenced, NetworkCause, failure_of_network, failure_of_status
from functions.core.fallback import Matrix
from functions.core.recovery import DEAD_HINT_LIMIT, Row, Status
from functions.core.recovery import replay as replayed
from tests.fakes import NOON_MS, FakeRecovery
from tests.integration.test_spill import Stage as SpillStage
from tests.integration.test_sweeper import Stage as SweeperStage
from tests.integration.test_triage import Stage as TriageStage
from tests.integration.test_triage import hint, message
from tests.recovery_rows import action, event, row
from tests.worker_world import ACTIONS, Died, World

FUNCTIONS = Path(__file__).parent.parent.parent / "functions"
CRITICAL = "invite.created"
SEND = "provider.send"
MATRIX = Matrix(critical_events=frozenset({CRITICAL}))


def counted(lines: list[str]) -> tuple[Counter[tuple[str, str]], int]:
    """What lines of metrics say ended for people, by integration and failure, and how often people are needed."""
    ended: Counter[tuple[str, str]] = Counter()
    needed = 0
    for line in map(json.loads, lines):
        if "ended_for_people" in line and "integration" in line:  # and once more, in all
            ended[line["integration"], line["reason"]] += int(line["ended_for_people"][0])
        needed += int(line.get("people_needed", [0])[0])
    return ended, needed


# --------------------------------------------------------------------------------------------------------- the writers

# Every function that writes rows through a port, and why it need not count if it does not.
WRITERS = {
    ("dead_letters.py", "_record"): "",
    ("sweeper/handler.py", "_tried"): "`_is_written` counts what became of it",
    ("triage/handler.py", "_hint"): "",
    ("worker/first_pass.py", "_settle"): "",
    ("worker/first_pass.py", "_dead"): "",
    ("worker/recovery_pass.py", "_commit"): "",
    ("worker/first_pass.py", "_settle_shadow"): "it settles without rows",
    ("worker/first_pass.py", "_held_source"): "a person holds the source, and replays what it is to go on with",
    ("worker/first_pass.py", "_kept_aside"): "a person's rule keeps it",
    ("worker/first_pass.py", "_hold"): "it waits, and the machine goes on with it",
    ("worker/recovery_pass.py", "_claim"): "a claim is no end",
    ("replay/running.py", "_apply"): "it opens rows, or puts them back where they were counted",
    ("operator_api/calls/queue.py", "_commit"): "a person has ended it",
}
PORTS = {
    "recovery": {"commit", "put_if_absent"},
    "ledger": {"settle"},
    "jobs": {"apply"},
    "operator_changes": {"commit"},
}
COUNTS = {"count_ended", "_count_ended"}


def writers() -> Iterator[tuple[tuple[str, str], bool]]:
    """Every function that names a port's writing call, and whether it counts ends."""
    for path in sorted(FUNCTIONS.rglob("*.py")):
        name = path.relative_to(FUNCTIONS).as_posix()
        if name.startswith(("core/", "adapters/")):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                used = {text for one in ast.walk(node) if (text := _port_call(one))}
                called = {_called(one) for one in ast.walk(node) if isinstance(one, ast.Call)}
                if used:
                    yield (name, node.name), bool(called & COUNTS)


def _port_call(node: ast.AST) -> str:
    if not isinstance(node, ast.Attribute) or not isinstance(node.value, ast.Attribute | ast.Name):
        return ""
    owner = (node.value.attr if isinstance(node.value, ast.Attribute) else node.value.id).lstrip("_")
    return f"{owner}.{node.attr}" if node.attr in PORTS.get(owner, ()) else ""


def _called(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def test_every_function_that_writes_rows_counts_their_ends_or_says_here_why_not() -> None:
    found = dict(writers())
    assert set(found) == set(WRITERS)
    assert {writer for writer, counts in found.items() if counts} == {one for one, why in WRITERS.items() if not why}


# ---------------------------------------------------------------------------------------------------------- the worker


def test_what_a_first_pass_ends_for_people_is_counted_after_its_settlement() -> None:
    world = World(("push", "tag"))
    world.fallbacks = MATRIX
    world.provider.answers.append(
        lambda its: failure_of_network(NetworkCause.RESET) if its.name == "push" else failure_of_status(422)
    )
    world.accept(world.event())
    world.faults.fail("ledger.settle", Fenced("another owner"), times=1)
    world.deliver()
    assert "ended_for_people" not in world.quiet.counts  # whoever took it over counts
    world.accept(world.event("2"))
    world.deliver()
    assert (world.quiet.counts["ended_for_people"], world.quiet.counts["people_needed"]) == (2, 1)


def test_an_event_that_dies_in_its_first_pass_is_counted_once_however_often_it_comes() -> None:
    world = World(("tag",))
    lost = world.event(flow="nobody's")
    world.accept(lost, copies=1)
    world.deliver()
    world.accept(lost)
    world.deliver()
    assert (world.quiet.counts["ended_for_people"], world.quiet.counts["people_needed"]) == (1, 1)


def test_a_row_that_dies_and_dies_again_after_a_replay_is_counted_each_time() -> None:
    world = World(("create",))
    world.provider.answers.append(lambda _action: failure_of_network(NetworkCause.CONNECT_REFUSED))
    world.accept(world.event())
    world.run_until_quiet()
    (dead,) = world.tables.rows.values()
    assert (dead.status, dead.failure_code) == (Status.DLQ, "CONNECTION_REFUSED")
    assert (world.quiet.counts["ended_for_people"], world.quiet.counts["people_needed"]) == (1, 1)  # it moves money
    again = replayed(dead, world.clock.now, actor="ada", reason="x", request_id="r", job_id="j", scale=1.0)
    FakeRecovery(world.tables).commit([again])
    world.run_until_quiet()
    assert (world.quiet.counts["ended_for_people"], world.quiet.counts["people_needed"]) == (2, 2)


def test_a_row_on_which_workers_die_is_counted_and_one_that_is_done_is_not() -> None:
    world = World(("tag",))
    left = [failure_of_status(503)]
    world.provider.answers.append(lambda _action: left.pop() if left else None)
    world.accept(world.event())
    world.deliver()

    def dies_in_a_send(op: str) -> None:
        if op.startswith(SEND):
            raise Died

    world.faults.on_before = dies_in_a_send
    world.run_until_quiet(hours=48)
    (dead,) = world.tables.rows.values()
    assert dead.failure_code == "WORKER_DIED"
    assert (world.quiet.counts["ended_for_people"], world.quiet.counts["people_needed"]) == (1, 1)
    well = World(tuple(ACTIONS))
    well.accept(well.event())
    well.run_until_quiet()
    assert "ended_for_people" not in well.quiet.counts


def test_an_outcome_that_could_not_be_stored_is_not_counted() -> None:
    world = World(("create",))
    left = [failure_of_status(503)]
    world.provider.answers.append(lambda _action: left.pop() if left else failure_of_status(422))
    world.accept(world.event())
    world.deliver()
    world.faults.on_after = lambda op: moved_meanwhile(world) if op.startswith(SEND) else None
    world.run_until_quiet()
    assert world.quiet.counts["transitions_conflicted"] == 1
    assert "ended_for_people" not in world.quiet.counts


def moved_meanwhile(world: World) -> None:
    """Somebody else has ended the row while it was being sent."""
    (seen,) = world.tables.rows.values()
    moved = replace(
        seen, version=seen.version + 1, status=Status.FAILED, failure_code="DISMISSED", lease_until_ms=0, due_at_ms=0
    )
    world.tables.rows[seen.recovery_id] = moved


# ---------------------------------------------------------------------------------------------- sweeper, spill, triage


@pytest.mark.parametrize(
    ("late", "ended", "needed"),
    [
        (row(expires_at_ms=NOON_MS), 1, 0),
        (row(expires_at_ms=NOON_MS, event_name=CRITICAL), 1, 1),
        (row(expires_at_ms=NOON_MS, action=action("reply", expires_seconds=REPLY_EXPIRES_SECONDS)), 0, 0),
        (row(expires_at_ms=NOON_MS + 1), 0, 0),
    ],
    ids=["after seven days", "what must arrive", "a reply", "not yet"],
)
def test_what_the_sweeper_lets_expire_is_counted_unless_it_is_a_reply(late: Row, ended: int, needed: int) -> None:
    stage = SweeperStage(late, fallbacks=MATRIX)
    stage.tick()
    assert counted(stage.lines) == (Counter({("helpdesk", "EXPIRED"): ended} if ended else {}), needed)


def test_a_row_that_the_sweeper_cannot_end_is_counted_when_it_can() -> None:
    late = row(expires_at_ms=NOON_MS, event_name=CRITICAL)
    stage = SweeperStage(late, fallbacks=MATRIX)
    stage.tables.faults.fail("recovery.commit")
    stage.tick()
    assert counted(stage.lines) == (Counter(), 0)
    stage.tick()
    assert counted(stage.lines) == (Counter({("helpdesk", "EXPIRED"): 1}), 1)


def test_what_no_queue_takes_and_what_no_version_can_read_is_counted_as_it_leaves_the_spill() -> None:
    stage = SpillStage()
    stage.spill.objects["spill/0000000000001-a"] = b"not a message"
    stage.tick()
    assert counted(stage.lines) == (Counter({("intake", "UNREADABLE_MESSAGE"): 1}), 1)


def test_what_triage_makes_an_item_of_is_counted_once_and_a_hint_that_it_lets_go_is_not() -> None:
    stage = TriageStage()
    poison, sound = row(dead_hints=DEAD_HINT_LIMIT - 1), row("other")
    stage.put(poison, sound)
    dead = message(event().to_message(), "m-1")
    assert stage.kept(dead, dead, message("junk", "m-2"), hint(poison, name="m-3"), hint(sound, name="m-4")) == []
    ended = {("intake", "NEVER_CLAIMED"): 1, ("intake", "UNREADABLE_MESSAGE"): 1, ("helpdesk", "POISONED"): 1}
    assert counted(stage.lines) == (Counter(ended), 3)


def test_who_dies_between_the_write_and_the_count_loses_a_count_and_the_row_is_there() -> None:
    late = row(expires_at_ms=NOON_MS, event_name=CRITICAL)
    stage = SweeperStage(late, fallbacks=MATRIX)

    def dies(op: str) -> None:
        if op == "recovery.commit":
            raise Died

    stage.tables.faults.on_after = dies
    with pytest.raises(Died):
        stage.tick()
    assert counted(stage.lines) == (Counter(), 0)
    assert replace(stage.now(late), history=()).failure_code == "EXPIRED"
