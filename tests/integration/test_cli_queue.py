"""`holdfast queue` from the terminal to the tables, through the operator API's own calls (runbook 004)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from functions.adapters.twilio import reference_of
from functions.core.attempt import Effect
from functions.core.decision import Repeat
from functions.core.fallback import action_at
from functions.core.gate import Health, WaitingFor
from functions.core.health import HealthChange, Record
from functions.core.recovery import Change, Row, Status
from ops import recovery_queue
from ops.cli import items, run
from ops.cli.console import ExitCode
from ops.stack import Stack, StackUnreachable
from tests import aws_tables
from tests.contract.storage import client_error
from tests.fakes import NOON_MS
from tests.operator_calls import OPERATOR, PERSON, VIEWER, client_of
from tests.operator_world import OperatorWorld, operator_world
from tests.recovery_rows import action, dead, event_row, row


class Desk:
    """A terminal before a stage. `answers` holds what its calls raise instead of being made, in order."""

    def __init__(
        self, world: OperatorWorld, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self.world = world
        self.claims = OPERATOR
        self._capsys = capsys
        monkeypatch.setattr(items, "stack_of", lambda _: Stack("dev", "us-east-1", {}))
        monkeypatch.setattr(items, "connect", lambda _: client_of(world.answering, self.claims))

    def run(self, *arguments: str) -> tuple[int, str, str]:
        code = run(["replay", "one", *arguments[1:]] if arguments[:1] == ("replay",) else ["queue", *arguments])
        said = self._capsys.readouterr()
        return code, said.out, said.err

    def json(self, *arguments: str) -> Any:
        code, out, err = self.run(*arguments, "--json")
        assert code == ExitCode.OK, err
        return json.loads(out)


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Desk]:
    with operator_world() as world:
        yield Desk(world, monkeypatch, capsys)


# ----------------------------------------------------------------------------------------------------------------- list


def test_what_is_for_people_comes_first_and_the_oldest_of_it_before_the_rest_004_11(desk: Desk) -> None:
    rows = [
        desk.world.put(one)
        for one in (
            row("waits", waiting_for=WaitingFor.BACKOFF),
            dead("late", updated_at_ms=NOON_MS + 1),
            dead("early", updated_at_ms=NOON_MS),
            event_row(status=Status.FAILED, failure_code="HELD"),
            row("done", status=Status.SUCCEEDED, due_at_ms=0),
        )
    ]
    waits, late, early, event, done = (one.recovery_id for one in rows)
    found = desk.json()
    assert [one["recovery_id"] for one in found["items"]] == [early, late, event, waits]
    assert found["is_complete"]
    assert [one["recovery_id"] for one in desk.json("list", "--status", "succeeded")["items"]] == [done]
    both = desk.json("--status", "failed", "--status", "retrying")["items"]
    assert [one["recovery_id"] for one in both] == [event, waits]
    assert [one["recovery_id"] for one in desk.json("--integration", "intake")["items"]] == [event]
    code, out, err = desk.run("--limit", "2")
    assert code == ExitCode.OK
    assert (early in out, late in out, waits in out) == (True, True, False)
    assert "2 are shown, and there are more" in err


def test_an_empty_queue_and_an_unknown_integration_say_so(desk: Desk) -> None:
    code, out, err = desk.run()
    assert (code, out, "nothing is there" in err) == (ExitCode.OK, "", True)
    code, _, err = desk.run("--integration", "helpdeks")
    assert (code, "there is no integration 'helpdeks'" in err) == (ExitCode.REFUSED, True)


def test_an_item_that_another_version_wrote_is_named(desk: Desk) -> None:
    one = desk.world.put(dead())
    desk.world.client.update_item(
        TableName=aws_tables.RECOVERY,
        Key={"pk": {"S": one.recovery_id}},
        UpdateExpression="SET effect = :later",
        ExpressionAttributeValues={":later": {"S": "of a later version"}},
    )
    code, _, err = desk.run()
    assert (code, f"{one.recovery_id} was written by another version" in err) == (ExitCode.OK, True)
    code, _, err = desk.run(one.recovery_id)
    assert (code, "another version wrote the item" in err) == (ExitCode.REFUSED, True)


def test_whoever_may_look_may_list_and_not_change_004_3(desk: Desk) -> None:
    one = desk.world.put(dead())
    desk.claims = VIEWER
    assert len(desk.json()["items"]) == 1
    code, _, err = desk.run("dismiss", one.recovery_id, "--reason", "x")
    assert (code, "INT-403-PERMISSION-DENIED" in err) == (ExitCode.REFUSED, True)
    assert desk.world.stored(one) == one


# ------------------------------------------------------------------------------------------------------------- one item


def test_one_item_is_shown_with_all_that_is_known_and_its_audit_004_12(desk: Desk) -> None:
    its = action("reply", kind="helpdesk.reply", repeat=Repeat.LOOKUP, target="T-9")
    one = desk.world.put(dead("reply", action=its, failure_detail="it was down\x1b[2J", attempt_count=5))
    desk.json("note", one.recovery_id, "the customer was called")
    for words in ((one.recovery_id,), ("show", one.recovery_id)):
        code, out, err = desk.run(*words)
        assert code == ExitCode.OK
        assert all(word in out for word in ("dlq", "HTTP_503", "it was down", "helpdesk, healthy", "T-9", PERSON))
        assert "\x1b" not in out
        assert f"a comment that ends with [hf:{its.action_id[:24]}]" in out
        assert "recovery.noted" in out
        assert "the customer was called" in out
        assert f"holdfast replay one {one.recovery_id}" in err
    told = desk.json(one.recovery_id)
    assert (told["attempt_count"], [event["actor"] for event in told["audit"]]) == (5, [PERSON])


def test_an_item_that_is_not_there_is_refused_for_every_word(desk: Desk) -> None:
    missing = "0" * 24
    for words in (
        ("show", missing),
        (missing,),
        ("replay", missing, "--reason", "x"),
        ("dismiss", missing, "--reason", "x"),
    ):
        code, out, err = desk.run(*words)
        assert (code, out, f"there is no item '{missing}'" in err) == (ExitCode.REFUSED, "", True)


@pytest.mark.parametrize("name", ["../../helpdesk", "a/replay", "%2e%2e", "?x=1", "\u202e", "x" * 500])
def test_what_is_typed_as_an_id_never_leaves_its_place_in_the_path(desk: Desk, name: str) -> None:
    desk.world.put(dead())
    for words in (("show", name), ("dismiss", name, "--reason", "x")):
        code, out, _ = desk.run(*words)
        assert (code, out) == (ExitCode.REFUSED, "")
    assert not desk.world.audit()


PUSH = action("push", kind="push", repeat=Repeat.BLIND)
REPLY = action("reply", kind="reply", repeat=Repeat.LOOKUP)


@pytest.mark.parametrize(
    ("one", "expected"),
    [
        (row(), "goes on by itself, next at 2026-01-01T00:00:00Z; to stop it: holdfast queue cancel"),
        (row(due_at_ms=0, waits_for=("p1",)), "the success of p1"),
        (row(lease_until_ms=NOON_MS + 60_000), "a worker is at it, until 2026-01-01T00:01:00Z at the latest"),
        (row(status=Status.REPLAYED), "goes on by itself"),
        (row(status=Status.REPLAYED, result="succeeded", due_at_ms=0), "nothing is left to do"),
        (row(status=Status.SUCCEEDED, due_at_ms=0), "nothing is left to do"),
        (dead(status=Status.FAILED, failure_code="EXPIRED"), "nothing is left to do"),
        (dead(status=Status.FAILED, action=PUSH, effect=Effect.UNKNOWN), '--checked "what you looked at". It is there'),
        (dead(status=Status.FAILED, action=REPLY, effect=Effect.UNKNOWN), "an attempt finds out before it sends"),
        (dead(expires_at_ms=NOON_MS - 1), "(expired): if it is still wanted, do it by hand, and then: holdfast queue"),
        (dead(), "when its cause is gone: holdfast replay one"),
        (dead(status=Status.FAILED, failure_code="SUPPRESSED"), "when its cause is gone: holdfast replay one"),
    ],
)
def test_whoever_reads_one_item_is_told_what_can_be_done_about_it(desk: Desk, one: Row, expected: str) -> None:
    desk.world.put(one)
    assert expected in desk.run(one.recovery_id)[2]


@pytest.mark.parametrize(
    ("switch", "value", "expected"),
    [
        ("replay", "off", "the switch `replay` is off; when it is right again"),
        ("replay_blocked_integrations", "helpdesk", "`replay_blocked_integrations` names its integration"),
    ],
)
def test_whoever_reads_one_item_is_told_what_stops_replays(desk: Desk, switch: str, value: str, expected: str) -> None:
    """004.20"""
    one = desk.world.put(dead())
    desk.world.switches.values[switch] = value
    assert expected in desk.run(one.recovery_id)[2]


def down(world: OperatorWorld) -> None:
    record = Record(Health.HARD_DOWN, NOON_MS, "collapsed: 0 of 30", 1, probe_at_ms=NOON_MS + 5)
    world.ports.health.store("helpdesk", HealthChange(record, 0))


def test_whoever_reads_one_item_sees_how_its_integration_is_004_13(desk: Desk) -> None:
    one = desk.world.put(dead())
    down(desk.world)
    _, out, err = desk.run(one.recovery_id)
    assert "helpdesk, hard_down since 2026-01-01T00:00:00Z: collapsed: 0 of 30" in out
    assert "now it would wait: helpdesk is not well" in err


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("helpdesk.reply", "a comment that ends with [hf:{id:.24}]"),
        ("email.send", "the tag action_id={id}"),
        ("payments.refund", "metadata holdfast_action={id}"),
        ("payments.change_plan", "metadata holdfast_change_plan={id}"),
    ],
)
def test_whoever_has_to_look_at_the_provider_is_told_where_and_for_what(desk: Desk, kind: str, expected: str) -> None:
    """004.1: what nothing can tell is for a person, who has to find it."""
    sought = action("reply", kind=kind, target="T-9")
    one = desk.world.put(dead(action=sought))
    _, out, _ = desk.run(one.recovery_id)
    assert "T-9" in out
    assert sought.action_id in out
    assert expected.format(id=sought.action_id) in out


def test_an_item_that_goes_another_way_is_looked_for_under_the_key_of_that_way(desk: Desk) -> None:
    sought = action("reply", kind="email.send", integration="email", recipient="r1")
    sent = action_at(sought, 1, desk.world.ports.fallbacks)
    assert sent.kind == "sms.send"
    hopped = desk.world.put(dead(action=sought, hop=1, hop_kind="sms.send", hop_repeat="lookup"))
    _, out, _ = desk.run(hopped.recovery_id)
    assert sent.action_id in out
    assert f"a text that ends with {reference_of(sent.action_id)}" in out
    gone = desk.world.put(dead("gone", action=sought, hop=9, recovery_id="a" * 24))
    assert sought.action_id in desk.run(gone.recovery_id)[1]
    event = desk.world.put(event_row())
    assert "known there by" not in desk.run(event.recovery_id)[1]


# ------------------------------------------------------------------------------------------------------------- changing


def test_a_replay_says_that_it_is_on_its_way_and_how_its_integration_is_004_14(desk: Desk) -> None:
    one = desk.world.put(dead())
    down(desk.world)
    code, out, err = desk.run("replay", one.recovery_id, "--reason", "it is back")
    assert (code, out) == (ExitCode.OK, "")
    assert "is on its way: one attempt" in err
    assert "helpdesk is hard_down: it may wait for that" in err
    assert desk.world.stored(one).status is Status.REPLAYED


def test_a_second_click_is_refused_with_what_it_is_now_and_the_same_click_is_not_004_15(desk: Desk) -> None:
    one = desk.world.put(dead())
    first = desk.json("replay", one.recovery_id, "--reason", "it is back")
    again = desk.json("replay", one.recovery_id, "--reason", "it is back", "--key", first["idempotency_key"])
    assert again == first
    code, _, err = desk.run("replay", one.recovery_id, "--reason", "it is back")
    assert (code, "INT-409-RECOVERY-REPLAY-CONFLICT" in err, "it is replayed" in err) == (ExitCode.REFUSED, True, True)
    assert f"what can be done: holdfast queue {one.recovery_id}" in err
    assert desk.world.stored(one).replay_no == 1


def test_what_may_have_happened_is_replayed_with_what_was_checked_004_15(desk: Desk) -> None:
    one = desk.world.put(dead(status=Status.FAILED, action=PUSH, effect=Effect.UNKNOWN))
    code, _, err = desk.run("replay", one.recovery_id, "--reason", "x")
    assert (code, "--checked" in err, "--done-by-hand" in err) == (ExitCode.REFUSED, True, True)
    desk.json("replay", one.recovery_id, "--reason", "x", "--checked", "nothing on T-push")
    assert "checked: nothing on T-push" in desk.world.audit()[-1]["reason"]


def test_a_click_that_nobody_answered_says_how_to_make_the_same_one_again_004_19(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = desk.world.put(dead())
    desk.world.flaky.planned["transact_write_items"] = [client_error("InternalServerError")] * 30
    code, _, err = desk.run("replay", one.recovery_id, "--reason", "x")
    assert code == ExitCode.REFUSED
    key = err.split("--key ")[1].split()[0]
    desk.world.flaky.planned.clear()
    assert desk.json("replay", one.recovery_id, "--reason", "x", "--key", key)["status"] == "replayed"

    class Deaf:
        def call(self, *_: Any, **__: Any) -> Any:
            raise StackUnreachable("it does not answer")

    monkeypatch.setattr(items, "connect", lambda _: Deaf())
    code, _, err = desk.run("replay", one.recovery_id, "--reason", "x")
    assert (code, "--key " in err) == (ExitCode.UNREACHABLE, True)


@pytest.mark.parametrize(
    ("ends", "code", "says"),
    [
        ({"result": "succeeded", "effect": Effect.DONE}, ExitCode.OK, "replayed: done"),
        (
            {"status": Status.DLQ, "result": "failed", "failure_code": "HTTP_503", "failure_detail": "still"},
            ExitCode.REFUSED,
            "dlq: HTTP_503: still",
        ),
        (
            {"status": Status.DLQ, "result": "failed", "failure_code": "HTTP_503"},
            ExitCode.REFUSED,
            "says what can be done next (docs/runbooks/recovery-and-replay.md, section 2)",
        ),
        ({}, ExitCode.REFUSED, "what becomes of it: holdfast queue"),
    ],
)
def test_a_replay_is_watched_to_its_end(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, ends: dict[str, Any], code: ExitCode, says: str
) -> None:
    one = desk.world.put(dead())
    looks: list[float] = []

    def pause(seconds: float) -> None:
        looks.append(seconds)
        now = desk.world.stored(one)
        if len(looks) == 1:
            leased = replace(now, version=now.version + 1, lease_until_ms=NOON_MS + 9)
            desk.world.recovery.commit([Change(leased, now)])
        elif len(looks) == 2 and ends:
            over = {"lease_until_ms": 0, "due_at_ms": 0, "not_before_ms": 0, **ends}
            desk.world.recovery.commit([Change(replace(now, version=now.version + 1, **over), now)])

    made = recovery_queue.RecoveryQueue
    monkeypatch.setattr(items, "RecoveryQueue", lambda api, names: made(api, names, pause))
    found, out, err = desk.run("replay", one.recovery_id, "--reason", "x", "--wait", "10")
    assert (found, out) == (code, "")
    assert "a worker is at it" in err
    assert says in err


def test_what_a_person_has_done_lets_go_on_what_waited_for_it_and_says_so(desk: Desk) -> None:
    parent = dead()
    child = desk.world.put(row("reply", status=Status.PENDING, waits_for=(parent.recovery_id,), due_at_ms=0))
    desk.world.put(replace(parent, children=(child.recovery_id,)))
    other = desk.world.put(replace(dead("other"), children=("c" * 24,)))
    code, _, err = desk.run("dismiss", parent.recovery_id, "--done-by-hand", "--reason", "tagged it")
    assert (code, f"what waited for it goes on: {child.recovery_id}" in err) == (ExitCode.OK, True)
    assert "failed (DONE_BY_HAND)" in err
    assert not desk.world.stored(child).waits_for
    code, _, err = desk.run("dismiss", other.recovery_id, "--reason", "not wanted")
    assert (code, "waits in vain until it expires" in err) == (ExitCode.OK, True)


def test_cancel_and_root_cause_are_made_and_refused_in_words(desk: Desk) -> None:
    waits = desk.world.put(row("waits"))
    leased = desk.world.put(row("leased", lease_until_ms=NOON_MS + 60_000))
    assert desk.run("cancel", waits.recovery_id, "--reason", "they called")[0] == ExitCode.OK
    assert desk.world.stored(waits).failure_code == "CANCELLED"
    code, _, err = desk.run("cancel", leased.recovery_id, "--reason", "they called")
    assert (code, "for 60 seconds at the most" in err, "it is retrying" in err) == (ExitCode.REFUSED, True, True)
    assert desk.json("root-cause", waits.recovery_id, "bad_source_data", "--reason", "x")["root_cause"] == (
        "bad_source_data"
    )
    assert desk.run("root-cause", waits.recovery_id, "gremlins", "--reason", "x")[0] == ExitCode.USAGE
