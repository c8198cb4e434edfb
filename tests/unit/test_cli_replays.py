"""`holdfast replay`: what is asked of the operator API, what people see of it, and when they are asked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from ops.cli import replaying, run
from ops.cli.console import ExitCode
from ops.cli.items import PAGE
from ops.operator_api import ApiRefused
from ops.replays import NotPlanned, Replays
from ops.stack import STACK_FILE_VARIABLE

pytestmark = pytest.mark.no_cover  # it takes thrice as long when each line is counted, and others cover these lines

HASH = "f" * 64


def job(state: str = "planned", items: int = 3, **fields: Any) -> dict[str, Any]:
    """A job as the API tells it."""
    return {
        "replay_id": "INC-7-abc",
        "state": state,
        "reason": "it is back",
        "created_by": "ada",
        "created_at_ms": 1_767_225_600_000,
        "request_id": "req-1",
        "plan": {
            "hash": HASH,
            "made_at_ms": 1_767_225_600_000,
            "good_until_ms": 1_767_227_400_000,
            "counts": {"unknown": 1, "would_check": 1, "would_send": items - 1} if items else {"unknown": 1},
            "samples": {"unknown": [{"recovery_id": "abc", "why": "nothing can tell"}]},
            "items": items,
            "estimated_seconds": 90,
        },
        **fields,
    }


def progress(done: int, **outcomes: int) -> dict[str, Any]:
    return {"items": 3, "done": done, "outcomes": outcomes, "batches": 1, "next_size": 10}


class FakeApi:
    """Answers in order, by method and the end of the path; the last answer stays."""

    def __init__(self, **answers: list[Any]) -> None:
        self.answers = answers
        self.calls: list[tuple[str, str, Any, Any, str]] = []

    def call(
        self,
        method: str,
        path: str,
        *,
        body: Mapping[str, Any] | None = None,
        query: Mapping[str, str] | None = None,
        idempotency_key: str = "",
    ) -> dict[str, Any]:
        self.calls.append((method, path, body, query and dict(query), idempotency_key))
        name = path.rpartition("/")[2]
        key = "plan" if (method, name) == ("POST", "replays") else "every" if name == "replays" else name
        waiting = self.answers[key if key in self.answers else "get"]
        answer = waiting.pop(0) if len(waiting) > 1 else waiting[0]
        if isinstance(answer, Exception):
            raise answer
        found: dict[str, Any] = answer
        return found

    def asked(self, method: str, end: str) -> list[tuple[str, str, Any, Any, str]]:
        return [one for one in self.calls if one[0] == method and one[1].endswith(end)]


@pytest.fixture(autouse=True)
def local(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A local stack, as its state file says; nobody waits between two looks."""
    path = tmp_path / "stack.json"
    state = {"status": "up", "stage": "local", "region": "us-east-1", "outputs": {"ApiId": "abc"}}
    path.write_text(json.dumps({**state, "endpoint": "http://127.0.0.1:1", "simulator_url": "http://127.0.0.1:2"}))
    monkeypatch.setenv(STACK_FILE_VARIABLE, str(path))
    monkeypatch.delenv("HOLDFAST_STAGE", raising=False)
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    monkeypatch.setattr("ops.replays.time.sleep", lambda _: None)


def over(monkeypatch: pytest.MonkeyPatch, **answers: list[Any]) -> FakeApi:
    api = FakeApi(**answers)
    monkeypatch.setattr(replaying, "connect", lambda _stack: api)
    return api


def test_a_plan_is_asked_for_waited_for_and_shown_with_what_its_words_mean(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    api = over(monkeypatch, plan=[job("planning")], get=[job("planning"), job()])
    arguments = [
        *("--integration", "helpdesk", "--integration", "email", "--status", "dlq", "--failure-code", "HTTP_503"),
        *("--of-incident", "INC-6", "--detail", "gateway", "--older-than", "2h", "--newer-than", "3d"),
        *("--incident", "INC-7", "--cap", "50", "--look-only", "--reason", "it is back"),
    ]
    assert run(["replay", "plan", *arguments]) == ExitCode.OK
    ((_, _, body, _, key),) = api.asked("POST", "/platform/replays")
    assert body == {
        "filter": {
            "integration": ["helpdesk", "email"],
            "status": ["dlq"],
            "failure_code": ["HTTP_503"],
            "incident": ["INC-6"],
            "detail": ["gateway"],
            "older_than_seconds": 7_200,
            "newer_than_seconds": 259_200,
        },
        "reason": "it is back",
        "incident_id": "INC-7",
        "cap": 50,
        "look_only": True,
    }
    assert len(key) == 32
    told = capsys.readouterr()
    assert all(word in told.out for word in ("INC-7-abc", "would_check", "for a person"))
    assert "3 items would be replayed, in about 2 min" in told.err
    assert not api.asked("POST", "/approve")


def test_a_plan_of_which_nothing_goes_exits_with_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    api = over(monkeypatch, plan=[job(items=0)], get=[job(items=0)])
    assert run(["replay", "plan", "--status", "dlq", "--reason", "x", "--json"]) == ExitCode.REFUSED
    assert json.loads(capsys.readouterr().out)["plan"]["items"] == 0
    assert run(["replay", "--status", "dlq", "--reason", "x", "--yes"]) == ExitCode.REFUSED
    assert not api.asked("POST", "/approve")


def test_all_in_one_plans_shows_approves_what_was_shown_and_watches_to_the_end(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ended = job("finished", progress=progress(3, succeeded=3), approved_by="ada")
    api = over(monkeypatch, plan=[job()], approve=[job("approved")], get=[job("running", progress=progress(0)), ended])
    assert run(["replay", "--integration", "helpdesk", "--reason", "it is back", "--yes"]) == ExitCode.OK
    assert api.asked("POST", "/approve")[0][2] == {"plan_hash": HASH}
    told = capsys.readouterr()
    assert "3 of 3" in told.out
    assert "3 succeeded" in told.out


def test_all_in_one_with_json_gives_one_document(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ended = job("stopped", progress=progress(1, failed=2), stop_reason="2 of the first 2 failed")
    over(monkeypatch, plan=[job()], approve=[job("approved")], get=[ended])
    assert run(["replay", "--id", "abc", "--reason", "x", "--yes", "--json"]) == ExitCode.REFUSED
    assert json.loads(capsys.readouterr().out)["stop_reason"] == "2 of the first 2 failed"


def test_a_dry_run_shows_the_plan_and_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """000.29, 001.46"""
    api = over(monkeypatch, plan=[job()])
    assert run(["replay", "--status", "dlq", "--reason", "x", "--dry-run"]) == ExitCode.OK
    assert [one[0] for one in api.calls] == ["POST"]


@pytest.mark.parametrize(("said", "exit_code", "approved"), [("y", ExitCode.OK, 1), ("n", ExitCode.REFUSED, 0)])
def test_nothing_is_replayed_that_nobody_has_said_yes_to(
    monkeypatch: pytest.MonkeyPatch, said: str, exit_code: ExitCode, approved: int
) -> None:
    api = over(monkeypatch, plan=[job()], approve=[job("approved")], get=[job("finished")])
    monkeypatch.setattr(replaying, "_is_asked", lambda: True)
    monkeypatch.setattr("ops.cli.replaying.typer.confirm", lambda *_, **__: said == "y")
    assert run(["replay", "--status", "dlq", "--reason", "x"]) == exit_code
    assert len(api.asked("POST", "/approve")) == approved


def test_where_nobody_can_be_asked_yes_must_be_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    api = over(monkeypatch, plan=[job()])
    monkeypatch.setattr(replaying, "_is_asked", lambda: False)
    assert run(["replay", "--status", "dlq", "--reason", "x"]) == ExitCode.REFUSED
    assert "--yes" in capsys.readouterr().err
    assert not api.asked("POST", "/approve")


def test_a_script_approves_the_plan_that_it_has_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    api = over(monkeypatch, approve=[job("approved")], get=[job()])
    assert run(["replay", "approve", "INC-7-abc", "--plan-hash", HASH, "--json"]) == ExitCode.OK
    assert api.asked("POST", "/approve")[0][2] == {"plan_hash": HASH}
    assert run(["replay", "approve", "INC-7-abc", "--yes"]) == ExitCode.OK


def test_a_job_without_a_plan_is_not_run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    over(monkeypatch, get=[job("planning", plan=None)])
    monkeypatch.setattr(replaying, "_is_asked", lambda: True)
    assert run(["replay", "run", "INC-7-abc"]) == ExitCode.REFUSED
    assert "it has no plan yet: holdfast replay show INC-7-abc" in capsys.readouterr().err


def test_watching_tells_each_look_as_a_line_and_ends_with_the_job(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    held = job("running", progress={**progress(1, succeeded=1), "held_because": "101 new events wait"})
    over(monkeypatch, get=[held, job("paused", progress=progress(1, succeeded=1))])
    assert run(["replay", "watch", "INC-7-abc", "--json"]) == ExitCode.REFUSED
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["state"] for line in lines] == ["running", "paused"]


@pytest.mark.parametrize("what", ["pause", "resume", "cancel"])
def test_a_job_is_held_in_hand_with_a_reason(monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    api = over(monkeypatch, **{what: [job("paused")]})
    assert run(["replay", what, "INC-7-abc", "--reason", "wait"]) == ExitCode.OK
    assert api.calls == [("POST", f"/platform/replays/INC-7-abc/{what}", {"reason": "wait"}, None, "")]
    assert run(["replay", what, "INC-7-abc"]) == ExitCode.USAGE


def test_jobs_and_every_item_of_one_can_be_seen(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    item = {"recovery_id": "r1", "integration": "helpdesk", "prediction": "would_send", "why": "", "version": 1}
    pages = [
        job("finished", page={"items": [item], "next_cursor": "1"}),
        job("finished", page={"items": [{**item, "recovery_id": "r2", "outcome": "succeeded"}]}),
    ]
    api = over(monkeypatch, every=[{"replays": [job()], "holders": {}}], get=[job("finished"), *pages])
    assert run(["replay", "list", "--active"]) == ExitCode.OK
    assert api.calls[0][3] == {"limit": "50", "active": "true"}
    assert run(["replay", "show", "INC-7-abc", "--items"]) == ExitCode.OK
    told = capsys.readouterr().out
    assert all(word in told for word in ("INC-7-abc", "r1", "r2", "succeeded"))
    over(monkeypatch, every=[{"replays": [], "holders": {}}], get=[job("finished")])
    assert run(["replay", "list"]) == ExitCode.OK
    assert run(["replay", "list", "--json"]) == ExitCode.OK
    assert run(["replay", "show", "INC-7-abc", "--json"]) == ExitCode.OK


def test_a_job_that_is_over_is_not_offered_to_be_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    over(monkeypatch, get=[job("stopped", approved_by="ada", stop_reason="2 of the first 5 failed")])
    assert run(["replay", "show", "INC-7-abc"]) == ExitCode.OK
    told = capsys.readouterr()
    assert "2 of the first 5 failed" in told.out
    assert "holdfast replay run" not in told.err
    assert "would be replayed" not in told.err


def test_a_plan_of_which_nothing_goes_is_not_offered_to_be_run_but_explained(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    over(monkeypatch, plan=[job(items=0)])
    assert run(["replay", "plan", "--status", "dlq", "--reason", "x"]) == ExitCode.REFUSED
    told = capsys.readouterr().err
    assert "holdfast replay run" not in told
    assert f"{PAGE}, section 6" in told


def test_a_filter_that_means_nothing_says_where_to_look(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    empty = job(items=0)
    over(monkeypatch, plan=[{**empty, "plan": {**empty["plan"], "counts": {}}}])
    assert run(["replay", "plan", "--status", "dlq", "--reason", "x"]) == ExitCode.REFUSED
    assert "holdfast queue list" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("state", "next_command"),
    [
        ("planning", "holdfast replay show INC-7-abc"),
        ("failed", f"plan again, with a filter that means less ({PAGE}, section 6)"),
        ("approved", "holdfast replay watch INC-7-abc"),
        ("running", "holdfast replay watch INC-7-abc"),
        ("stopping", "holdfast replay watch INC-7-abc"),
        ("paused", "holdfast replay resume INC-7-abc"),
        ("stopped", f"holdfast replay show INC-7-abc --items; then: {PAGE}, section 7"),
        ("cancelled", "holdfast replay show INC-7-abc --items"),
        ("finished", "holdfast replay show INC-7-abc --items"),
    ],
)
def test_whoever_sees_a_job_is_told_the_next_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], state: str, next_command: str
) -> None:
    known = {"plan": None} if state in ("planning", "failed") else {"approved_by": "ada"}
    over(monkeypatch, get=[job(state, **known)])
    assert run(["replay", "show", "INC-7-abc"]) == ExitCode.OK
    told = capsys.readouterr().err
    assert next_command in told
    assert "no item is meant" not in told


def test_a_plan_that_was_cancelled_leaves_nothing_to_look_at(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    over(monkeypatch, cancel=[job("cancelled")])
    assert run(["replay", "cancel", "INC-7-abc", "--reason", "not now"]) == ExitCode.OK
    assert capsys.readouterr().err == ""


def test_a_job_that_was_approved_already_is_watched_and_nobody_is_asked_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    api = over(monkeypatch, get=[job("running", approved_by="ada"), job("finished", approved_by="ada")])
    assert run(["replay", "run", "INC-7-abc"]) == ExitCode.OK
    assert not api.asked("POST", "/approve")
    assert "ada has approved it already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("refused", "next_command"),
    [
        (ApiRefused(409, "INT-409-PLAN-STALE", "it is old"), "holdfast replay plan"),
        (ApiRefused(409, "INT-409-IN-PROGRESS", "taken", {"replay_id": "other-1"}), "holdfast replay show other-1"),
        (ApiRefused(409, "INT-409-IN-PROGRESS", "others change it"), "holdfast replay show INC-7-abc"),
        (ApiRefused(409, "INT-409-RECOVERY-REPLAY-CONFLICT", "it is over"), "holdfast replay show INC-7-abc"),
        (ApiRefused(404, "INT-404-NOT-FOUND", "there is none"), "holdfast replay list"),
        (ApiRefused(503, "INT-503-DEPENDENCY-UNAVAILABLE", "call again"), "call again"),
    ],
)
def test_a_refusal_says_what_to_type_next(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], refused: ApiRefused, next_command: str
) -> None:
    over(monkeypatch, get=[job()], approve=[refused], pause=[refused])
    for arguments in (["approve", "INC-7-abc", "--yes"], ["pause", "INC-7-abc", "--reason", "x"]):
        assert run(["replay", *arguments]) == ExitCode.REFUSED
        told = capsys.readouterr().err
        assert refused.code in told
        assert next_command in told


def test_what_the_api_refuses_is_said_with_its_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    problems = [{"at": "body/filter", "problem": "an empty filter would mean every item there is"}]
    over(monkeypatch, plan=[ApiRefused(400, "INT-400-INVALID-PAYLOAD", "not valid", {"problems": problems})])
    assert run(["replay", "--reason", "everything"]) == ExitCode.REFUSED
    told = capsys.readouterr()
    assert told.out == ""
    assert all(word in told.err for word in ("INT-400-INVALID-PAYLOAD", "body/filter", "an empty filter"))


@pytest.mark.parametrize(
    "arguments",
    [["replay"], ["replay", "--status", "dlq"], ["replay", "--reason", "x", "--older-than", "soon"], ["replay", "run"]],
)
def test_what_cannot_be_understood_is_told_before_anything_is_asked(
    monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    api = over(monkeypatch, plan=[job()])
    assert run(arguments) == ExitCode.USAGE
    assert api.calls == []


def test_a_plan_that_is_too_wide_or_never_comes_is_told() -> None:
    failed = FakeApi(plan=[job("failed", stop_reason="narrow the filter")])
    with pytest.raises(NotPlanned, match="narrow the filter"):
        Replays(failed, pause=lambda _: None).plan({}, "x")
    never = FakeApi(plan=[job("planning")], get=[job("planning")])
    with pytest.raises(NotPlanned, match="holdfast replay show INC-7-abc"):
        Replays(never, pause=lambda _: None, poll_seconds=100.0).plan({}, "x")
