"""`holdfast trace` and `holdfast audit`: what is guessed, what is shown, what a script can rely on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import pytest

from functions.core.audit import AuditType
from functions.core.ledger import ActionStatus
from functions.core.recovery import Row, Status
from ops import operator_api
from ops.cli import run, tracing
from ops.cli.console import ExitCode
from ops.operator_api import ApiRefused
from ops.stack import Stack
from tests.unit.builders import NOON_MS
from tests.unit.test_core_trace import DONE, TAG, item, recorded, row_of, told

HEX32, HEX24 = "a" * 32, "b" * 24
_TYPES = (AuditType.REPLAYED,)
NOTHING: dict[str, Any] = {"events": [], "audit": [], "door": None, "cursor": None}


@dataclass
class Api:
    """The operator API, answering what a test says: by path and what is asked for."""

    answers: dict[str, Any] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    limits: list[str] = field(default_factory=list)

    def call(self, method: str, path: str, *, query: Mapping[str, str] | None = None) -> dict[str, Any]:
        assert method == "GET"
        named = {name: value for name, value in (query or {}).items() if name != "limit"}
        self.limits.append((query or {}).get("limit", ""))
        question = path + "".join(f" {name}={value}" for name, value in named.items())
        self.asked.append(question)
        answer = self.answers.get(question, NOTHING)
        if isinstance(answer, Exception):
            raise answer
        return dict(json.loads(json.dumps(answer)))


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Api:
    api = Api()
    monkeypatch.setattr(operator_api, "connect", lambda _: api)
    monkeypatch.setattr(tracing, "stack_of", lambda _: Stack("dev", "us-east-1", {}))
    return api


def event(name: str = "1", *rows: Row, **fields: Any) -> dict[str, Any]:
    """A story, as the API tells it."""
    return {**json.loads(json.dumps(asdict(told(*rows, **{"item": DONE, **fields})))), "event_id": f"shop:{name}"}


def found(*events: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {**NOTHING, "events": list(events), **more}


@pytest.mark.parametrize(
    ("what", "guessed"),
    [
        ("4711", ["ticket", "request"]),
        ("JKJaXmPLvHcESHA=", ["ticket", "request"]),
        ("desk:m-1", ["event", "ticket"]),
        (HEX32, ["request", "recipient", "ticket"]),
        (HEX24, ["item", "ticket", "request"]),
        ("two words", ["ticket"]),
    ],
)
def test_what_kind_it_is_is_guessed_the_likeliest_first(what: str, guessed: list[str]) -> None:
    assert list(tracing.guesses(what)) == guessed


def test_guesses_are_asked_in_turn_until_one_is_known(api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    api.answers["/platform/trace request_id=4711"] = found(event())
    assert run(["trace", "4711", "--json"]) == ExitCode.OK
    assert api.asked == ["/platform/trace ticket=4711", "/platform/trace request_id=4711"]
    assert json.loads(capsys.readouterr().out)["kind"] == "request"


@pytest.mark.parametrize(
    ("option", "question"),
    [
        (["--ticket", "a:b"], "/platform/trace ticket=a:b"),
        (["--request", "r"], "/platform/trace request_id=r"),
        (["--recipient", HEX32], f"/platform/trace recipient={HEX32}"),
    ],
)
def test_what_is_said_is_not_guessed(api: Api, option: list[str], question: str) -> None:
    api.answers[question] = found(event())
    assert run(["trace", *option]) == ExitCode.OK
    assert api.asked == [question]


def test_an_event_is_asked_for_by_its_own_call_with_its_tenant(api: Api) -> None:
    path = "/platform/events/shop%3Aa%2Fb tenant=acme"
    api.answers[path] = {"event": event(), "others": [], "is_complete": True}
    assert run(["trace", "--event", "shop:a/b", "--tenant", "acme"]) == ExitCode.OK
    assert api.asked == [path]


def test_a_recovery_id_leads_to_its_event_by_its_record(api: Api) -> None:
    api.answers[f"/platform/audit entity=recovery_item#{HEX24}"] = {
        "events": [{"origin_request_id": "q0", "request_id": "q5"}]
    }
    api.answers["/platform/trace request_id=q0"] = found(event())
    assert run(["trace", HEX24]) == ExitCode.OK
    assert api.asked[-1] == "/platform/trace request_id=q0"


def test_nothing_known_says_how_far_back_was_looked(api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    api.answers["/platform/trace request_id=4711"] = {
        **NOTHING,
        "door": {"request": None, "since_ms": NOON_MS, "is_complete": True},
    }
    assert run(["trace", "4711"]) == ExitCode.REFUSED
    assert "2026-01-01T00:00:00Z" in capsys.readouterr().err
    assert run(["trace", "--ticket", "4711"]) == ExitCode.REFUSED
    assert "nothing is known of it" in capsys.readouterr().err
    missing = ApiRefused(404, "INT-404-NOT-FOUND", "none", {"log_read_since_ms": NOON_MS})
    api.answers["/platform/events/shop%3A1"] = missing
    assert run(["trace", "--event", "shop:1"]) == ExitCode.REFUSED
    api.answers["/platform/events/shop%3A1"] = ApiRefused(503, "INT-503-DEPENDENCY-UNAVAILABLE", "silent")
    assert run(["trace", "shop:1"]) == ExitCode.REFUSED
    assert "silent" in capsys.readouterr().err


@pytest.mark.parametrize("what", ["+15005550006", "ann@example.com"])
def test_a_number_or_an_address_is_neither_sent_nor_repeated(
    api: Api, capsys: pytest.CaptureFixture[str], what: str
) -> None:
    assert run(["trace", what]) == ExitCode.REFUSED
    told = capsys.readouterr()
    assert what not in told.out + told.err
    assert api.asked == []


@pytest.mark.parametrize(
    "arguments", [["trace"], ["trace", "x", "--ticket", "y"], ["audit"], ["audit", "a#b", "--request", "r"]]
)
def test_one_thing_is_asked_about_at_a_time(api: Api, arguments: list[str]) -> None:
    assert run(arguments) == ExitCode.REFUSED
    assert api.asked == []


def test_a_story_reads_from_the_verdict_to_the_details(api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    row = row_of(TAG, status=Status.DLQ, failure_code="HTTP_503", failure_detail="no answer", replay_no=1)
    audit = tuple(recorded(kind, row, actor="ada") for kind in _TYPES)
    dead = event("1", row, item=item(tag=ActionStatus.RECOVERY, reply=ActionStatus.DONE), audit=audit)
    api.answers["/platform/trace ticket=4711"] = found(dead)
    assert run(["trace", "--ticket", "4711"]) == ExitCode.OK
    told = capsys.readouterr()
    for words in ("ended", "tag is dead and can be replayed", "refund 0.9 by rules rules-1", "HTTP_503: no answer"):
        assert words in told.out
    assert "replayed 1 times, last by ada" in told.out
    assert f"holdfast queue {row.recovery_id}" in told.err


def test_many_events_are_a_list_with_a_way_on(api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    several = [event(str(number)) for number in range(4)]
    api.answers["/platform/trace ticket=4711"] = found(*several, cursor="more")
    assert run(["trace", "--ticket", "4711"]) == ExitCode.OK
    told = capsys.readouterr()
    assert all(f"shop:{number}" in told.out for number in range(4))
    assert "decided" not in told.out
    assert "holdfast trace EVENT" in told.err
    assert "there are more" in told.err


def test_a_refused_request_says_why(api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    request = {
        "at_ms": NOON_MS,
        "is_refused": True,
        "status": 401,
        "reason": "stale",
        "why": "timestamp",
        "source": "shop",
        "tenant": "",
        "event_id": "",
        "event_name": "",
        "stored_in": "",
    }
    door = {"request": request, "since_ms": NOON_MS, "is_complete": True}
    api.answers["/platform/trace request_id=r"] = {**NOTHING, "door": door}
    assert run(["trace", "--request", "r"]) == ExitCode.OK
    told = capsys.readouterr()
    assert "refused with 401" in told.out
    assert "stale: timestamp" in told.out
    again = {**request, "is_refused": False, "event_id": "shop:1"}
    api.answers["/platform/trace request_id=r"] = found(event(), door={**door, "request": again, "is_complete": False})
    assert run(["trace", "--request", "r"]) == ExitCode.OK
    told = capsys.readouterr()
    assert "brought the event" in told.err
    assert "read back to" in told.err


def test_a_record_is_shown_and_where_it_goes_on(api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    row = row_of(TAG)
    events = [asdict(recorded(kind, row, reason="it is back")) for kind in _TYPES]
    api.answers["/platform/audit entity=switch#mode"] = {"events": events, "unreadable": 1, "cursor": "more"}
    assert run(["audit", "switch#mode"]) == ExitCode.OK
    told = capsys.readouterr()
    assert "integration.recovery.replayed" in told.out
    assert "it is back" in told.out
    assert "there are more" in told.err
    assert "could not be read back" in told.err
    assert run(["audit", "--request", "r", "--json"]) == ExitCode.OK
    assert run(["audit", "switch#mode", "--json"]) == ExitCode.OK
    api.answers["/platform/audit request_id=r"] = {"events": [], "unreadable": 0, "cursor": None}
    assert run(["audit", "--request", "r"]) == ExitCode.OK
    assert "nothing is on record" in capsys.readouterr().err


def test_a_whole_record_is_asked_for_page_by_page(api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    row = row_of(TAG)
    events = [asdict(recorded(kind, row, reason="it is back")) for kind in _TYPES]
    question = "/platform/audit request_id=r"
    api.answers[question] = {"events": events, "unreadable": 1, "cursor": "c1"}
    api.answers[f"{question} cursor=c1"] = {"events": events, "unreadable": 0, "cursor": "c2"}
    api.answers[f"{question} cursor=c2"] = {"events": events, "unreadable": 2, "cursor": None}
    assert run(["audit", "--request", "r", "--all", "--json"]) == ExitCode.OK
    document = json.loads(capsys.readouterr().out)
    assert (len(document["events"]), document["unreadable"], document["cursor"]) == (3 * len(events), 3, None)
    assert api.limits == ["200"] * 3
    assert run(["audit", "--request", "r"]) == ExitCode.OK
    assert "--all" in capsys.readouterr().err


def test_a_trace_that_is_not_all_that_is_on_record_says_so(api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    api.answers["/platform/trace request_id=r"] = found(event(), is_complete=False)
    assert run(["trace", "--request", "r"]) == ExitCode.OK
    whole = f"holdfast audit --request {event()['received']['request_id']} --all"
    assert f"more is on record of it than is told here: {whole}" in capsys.readouterr().err


def test_what_is_not_as_every_day_stands_out() -> None:
    now = event()["switches"]
    assert tracing._switches(now) == "could not be read"  # the part that decides what a reader sees
    odd = {**now, "is_known": True, "mode": "hold", "auto_reply": "on", "classifier": "llm", "optional_calls": "on"}
    odd |= {"replay": "on", "disabled_integrations": ["sms"], "limits": {"helpdesk": 0.5, "sms": 1.0}}
    assert tracing._switches(odd) == "mode hold; disabled_integrations sms; limit of helpdesk 0.5"
    every_day = {**odd, "mode": "live", "disabled_integrations": [], "limits": {}}
    assert tracing._switches(every_day) == "as every day"
