"""What `holdfast queue` does to one item, as the operator API is asked for it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from ops import records
from ops.cli import items, run
from ops.operator_api import ApiRefused

ITEM = {
    "status": "failed",
    "failure_code": "DISMISSED",
    "history": [{"at_ms": 1, "before": "dlq", "after": "failed", "why": "not wanted"}],
}
ANSWER = {
    "recovery_id": "r/1",
    "status": "replayed",
    "request_id": "q",
    "integration": {"integration_id": "helpdesk", "health": "hard_down", "since_ms": 1, "reason": "x"},
}


class Api:
    def __init__(self) -> None:
        self.calls: list[tuple[str, str, Any, str]] = []
        self.refusal: ApiRefused | None = None

    def call(
        self,
        method: str,
        path: str,
        *,
        body: Mapping[str, Any] | None = None,
        query: Mapping[str, str] | None = None,
        idempotency_key: str = "",
    ) -> dict[str, Any]:
        self.calls.append((method, path, dict(body or {}), idempotency_key))
        if self.refusal is not None:
            raise self.refusal
        return dict(ANSWER if path.endswith("/replay") else ITEM)


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Api:
    made = Api()
    monkeypatch.setattr(items, "stack_of", lambda _: object())
    monkeypatch.setattr(items, "connect", lambda _: made)
    monkeypatch.setattr(
        records, "row", lambda _, recovery_id: None if recovery_id == "none" else {"integration_id": "help desk"}
    )
    return made


PATH = "/platform/integrations/help%20desk/recovery/queue/r%2F1"


@pytest.mark.parametrize(
    ("arguments", "path", "body"),
    [
        (["dismiss", "r/1", "--reason", "why"], "/dismiss", {"reason": "why", "done_by_hand": False}),
        (["dismiss", "r/1", "--reason", "why", "--done-by-hand"], "/dismiss", {"reason": "why", "done_by_hand": True}),
        (["cancel", "r/1", "--reason", "why"], "/cancel", {"reason": "why"}),
        (["note", "r/1", "look here"], "/note", {"note": "look here"}),
        (
            ["root-cause", "r/1", "code_defect", "--reason", "why"],
            "/root-cause",
            {"root_cause": "code_defect", "reason": "why"},
        ),
    ],
)
def test_each_word_is_its_call_with_ids_that_cannot_leave_their_place(
    api: Api, arguments: list[str], path: str, body: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["queue", *arguments, "--json"]) == 0
    assert api.calls == [("POST", PATH + path, body, "")]
    assert json.loads(capsys.readouterr().out) == ITEM


def test_a_replay_is_one_click_with_a_key_of_its_own_or_the_one_that_is_given(
    api: Api, capsys: pytest.CaptureFixture[str]
) -> None:
    """004.14"""
    assert run(["queue", "replay", "r/1", "--reason", "it is back"]) == 0
    assert run(["queue", "replay", "r/1", "--reason", "it is back", "--checked", "no such note"]) == 0
    assert run(["queue", "replay", "r/1", "--reason", "it is back", "--key", "click-0001"]) == 0
    first, second, third = api.calls
    assert first[1] == f"{PATH}/replay"
    assert first[2] == {"reason": "it is back"}
    assert second[2]["confirmation"] == {"checked": "no such note", "effect": "none"}
    assert len({first[3], second[3], "click-0001"}) == 3
    assert third[3] == "click-0001"
    assert "helpdesk is hard_down" in capsys.readouterr().err


def test_what_is_refused_or_not_there_says_so_and_ends_with_one(api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["queue", "dismiss", "none", "--reason", "why"]) == 1
    assert not api.calls
    api.refusal = ApiRefused(409, "INT-409-RECOVERY-REPLAY-CONFLICT", "it is under way")
    assert run(["queue", "cancel", "r/1", "--reason", "why"]) == 1
    assert "it is under way" in capsys.readouterr().err
