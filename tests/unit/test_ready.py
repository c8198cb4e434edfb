"""`holdfast ready`: what is judged of the answers, and what becomes of answers that nobody expects (000.30, 000.31,
000.32, 000.34, 001.1, 001.54, 001.56, 001.57, 001.58, 001.59, 001.61, 002.2, 002.34).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields, replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError
from hypothesis import given
from hypothesis import strategies as st

from functions.core.alarms import ALARMS, name_at
from functions.core.clock import SystemClock
from functions.core.switches import REQUIRED, everyday
from functions.pager.settings import PagerSettings
from infra.config import StageConfig
from ops import ready_asked
from ops.cli import ready as command
from ops.cli import run
from ops.cli.console import ExitCode
from ops.ready import DAY_MS, AlarmSeen, Asked, Item, PageTest, RoleSeen, SourceSeen, SwitchMove, Told, Verdict, judge
from ops.runbooks import Tried
from ops.stack import Stack
from tests.fakes import NOON_MS

pytestmark = pytest.mark.no_cover  # it takes thrice as long when each line is counted, and others cover these lines

TODAY = date(2026, 1, 1)
ALL_ALARMS = {name_at("prod", alarm.name): AlarmSeen(2, is_enabled=True, state="OK") for alarm in ALARMS}
READY = Asked(
    stage="prod",
    now_ms=NOON_MS,
    today=TODAY,
    alarms=Told(ALL_ALARMS),
    subscribers=Told(1),
    channels=Told({"chat": ""}),
    tests=Told([PageTest(NOON_MS - DAY_MS, is_over=True, resolution="delivered by chat, sns")]),
    roles=Told({"incident_lead": RoleSeen("Ada", "ada@example.com"), "communications": RoleSeen("Bo", "+49")}),
    on_call=("incident_lead", "communications"),
    texts=Told({"employer_delay": True}),
    switches=Told({name: everyday(name) for name in REQUIRED} | {"limits/helpdesk": "1.0"}),
    throws=Told([SwitchMove(NOON_MS - 2, "ada", "on", "off"), SwitchMove(NOON_MS - 1, "ada", "off", "on")]),
    overrides=Told([SwitchMove(NOON_MS - 2, "ada", "", "degraded"), SwitchMove(NOON_MS - 1, "ada", "degraded", "")]),
    outages=Told(
        [
            SwitchMove(NOON_MS - 2, "holdfast", "healthy", "hard_down"),
            SwitchMove(NOON_MS - 1, "holdfast", "hard_down", "healthy"),
        ]
    ),
    replays=Told([{"replay_id": "r-1", "state": "finished", "ended_at_ms": NOON_MS - DAY_MS}]),
    pages=Told({"alarms.md#reply-storm": "ab"}),
    tried=Told({"alarms.md#reply-storm": Tried(TODAY, "local", "ab")}),
    dead=Told({"EventsDlq": 0, "OpsDlq": 0}),
    sources=Told({"github": SourceSeen(is_enabled=True, gap_seconds=3600)}),
    integrations=("helpdesk",),
    credentials=Told(frozenset({"helpdesk", "left-over"})),
    backups=Told({"LedgerTable": True, "Bucket": True}),
    dashboard=Told(True),
    runbooks_url=Told("https://git.example.com/holdfast/blob/main/docs/runbooks/"),
)


def found(asked: Asked, item_id: str) -> Item:
    (item,) = [one for one in judge(asked) if one.id == item_id]
    return item


def test_a_stage_that_has_everything_is_ready() -> None:
    assert {item.id: item.found for item in judge(READY) if item.verdict is not Verdict.OK} == {}
    assert all(not item.do for item in judge(READY))


def test_of_a_stage_that_answers_nothing_nothing_is_missing_and_nothing_ok() -> None:
    items = judge(Asked(stage="prod", now_ms=NOON_MS, today=TODAY))
    assert {item.verdict for item in items} == {Verdict.UNSEEN}
    assert all(item.do for item in items)
    assert len({item.id for item in items}) == len(items) >= 19


LONG_AGO = NOON_MS - 91 * DAY_MS
FIRST, LAST = ALARMS[0].name, ALARMS[-1].name


@pytest.mark.parametrize(
    ("item_id", "changed", "says"),
    [
        ("roles", {"roles": Told({**(READY.roles.value or {}), "ops": RoleSeen("Cy", " ")})}, "contact: ops"),
        ("roles", {"roles": Told({"incident_lead": RoleSeen("Ada", "a")})}, "communications"),
        ("reached", {"subscribers": Told(0), "channels": Told({})}, "nobody"),
        ("reached", {"subscribers": Told(0), "channels": Told({"chat": "it is not JSON"})}, "nobody"),
        ("channels", {"channels": Told({"chat": "it is not JSON"})}, "chat: it is not JSON"),
        ("links", {"runbooks_url": Told("docs/runbooks/")}, "not set: pages say docs/runbooks/"),
        ("links", {"runbooks_url": Told("")}, "not set: pages say nothing"),
        ("links", {"runbooks_url": Told("https://git.example.com/runbooks")}, "no slash at its end"),
        ("page test", {"tests": Told([])}, "none has come to its end"),
        (
            "page test",
            {"tests": Told([PageTest(NOON_MS - 1, is_over=False, resolution="")])},
            "none has come to its end",
        ),
        ("page test", {"tests": Told([PageTest(NOON_MS + DAY_MS, is_over=True, resolution="delivered")])}, "none"),
        (
            "page test",
            {"tests": Told([PageTest(NOON_MS - 8 * DAY_MS, is_over=True, resolution="delivered")])},
            "8 days",
        ),
        ("page test", {"tests": Told([PageTest(NOON_MS - 1, is_over=True, resolution="not by chat")])}, "not by chat"),
        ("alarms", {"alarms": Told({})}, "not there: reply-storm, effects-doubled"),
        (
            "alarms",
            {"alarms": Told({**ALL_ALARMS, name_at("prod", FIRST): AlarmSeen(1, is_enabled=False, state="OK")})},
            f"tell nobody: {FIRST}",
        ),
        (
            "alarms",
            {"alarms": Told({**ALL_ALARMS, name_at("prod", LAST): AlarmSeen(0, is_enabled=True, state="OK")})},
            f"tell nobody: {LAST}",
        ),
        (
            "quiet",
            {"alarms": Told({**ALL_ALARMS, name_at("prod", LAST): AlarmSeen(1, is_enabled=True, state="ALARM")})},
            f"fire: {LAST}",
        ),
        (
            "alive",
            {
                "alarms": Told(
                    {
                        **ALL_ALARMS,
                        name_at("prod", "sweeper-missing"): AlarmSeen(1, is_enabled=True, state="INSUFFICIENT_DATA"),
                    }
                )
            },
            "not seen to be quiet: sweeper-missing",
        ),
        ("alive", {"alarms": Told({})}, "sweeper-missing, evaluator-missing"),
        ("dashboard", {"dashboard": Told(False)}, "none"),
        ("switches", {"switches": Told({})}, "not there: mode, auto_reply"),
        ("switches", {"switches": Told({**(READY.switches.value or {}), "auto_reply": "off"})}, "auto_reply = off"),
        (
            "switches",
            {"switches": Told({**(READY.switches.value or {}), "flow/support/mode": "hold"})},
            "flow/support/mode = hold",
        ),
        ("switches", {"switches": Told({**(READY.switches.value or {}), "autoreply": "on"})}, "no switch: autoreply"),
        ("kill switch", {"throws": Told([])}, "never"),
        ("kill switch", {"throws": Told([SwitchMove(NOON_MS - 1, "ada", "on", "off")])}, "not back yet"),
        ("kill switch", {"throws": Told([SwitchMove(NOON_MS - 1, "ada", "off", "off")])}, "never"),
        (
            "kill switch",
            {"throws": Told([SwitchMove(LONG_AGO, "ada", "on", "off"), SwitchMove(LONG_AGO, "ada", "off", "on")])},
            "91 days ago by ada",
        ),
        ("kill switch", {"throws": Told([SwitchMove(NOON_MS + 1, "ada", "on", "off")])}, "never"),
        ("degraded mode", {"overrides": Told([])}, "never"),
        ("degraded mode", {"overrides": Told([SwitchMove(NOON_MS - 1, "ada", "degraded", "")])}, "never"),
        ("degraded mode", {"overrides": Told([SwitchMove(LONG_AGO, "", "", "degraded")])}, "by somebody"),
        ("outage", {"outages": Told([SwitchMove(NOON_MS - 1, "holdfast", "healthy", "hard_down")])}, "not back yet"),
        ("replay", {"replays": Told([])}, "none has finished"),
        ("replay", {"replays": Told([{"state": "stopped", "ended_at_ms": NOON_MS - 1}])}, "none has finished"),
        ("replay", {"replays": Told([{"state": "finished", "ended_at_ms": "noon"}])}, "none has finished"),
        ("replay", {"replays": Told([{"state": "finished", "ended_at_ms": LONG_AGO}])}, "?, 91 days ago"),
        ("runbooks", {"tried": Told({})}, "not tried as they are now: alarms.md#reply-storm"),
        ("runbooks", {"pages": Told({"alarms.md#reply-storm": "cd"})}, "not tried as they are now"),
        (
            "runbooks",
            {"tried": Told({"alarms.md#reply-storm": Tried(TODAY - timedelta(days=91), "local", "ab")})},
            "longer ago",
        ),
        (
            "runbooks",
            {"tried": Told({"alarms.md#reply-storm": Tried(TODAY + timedelta(days=3), "local", "ab")})},
            "longer ago",
        ),
        ("texts", {"texts": Told({"employer_delay": False, "employer_done": True})}, "not approved: employer_delay"),
        ("texts", {"texts": Told({})}, "there is no text"),
        ("dead letters", {"dead": Told({"EventsDlq": 3, "OpsDlq": 0})}, "EventsDlq: 3"),
        ("dead letters", {"dead": Told({})}, "none"),
        ("sources", {"sources": Told({})}, "there is no source"),
        ("sources", {"sources": Told({"a": SourceSeen(is_enabled=True, gap_seconds=0)})}, "unnoticed: a"),
        ("sources", {"sources": Told({"a": SourceSeen(is_enabled=True, gap_seconds=0, problem="x")})}, "read: a"),
        ("credentials", {"integrations": ("helpdesk", "llm")}, "none for: llm"),
        ("backups", {"backups": Told({"LedgerTable": False, "Bucket": True})}, "not of: LedgerTable"),
        ("backups", {"backups": Told({})}, "0 tables"),
    ],
)
def test_what_is_missing_is_named_with_what_to_do(item_id: str, changed: dict[str, Any], says: str) -> None:
    item = found(replace(READY, **changed), item_id)
    assert item.verdict is Verdict.MISSING
    assert says in item.found
    assert item.do


def test_another_integration_s_return_is_not_this_one_s() -> None:
    down = SwitchMove(NOON_MS - 3, "holdfast", "healthy", "hard_down", "sms")
    other = [
        SwitchMove(NOON_MS - 5, "holdfast", "healthy", "hard_down", "email"),
        SwitchMove(NOON_MS - 1, "holdfast", "hard_down", "degraded", "email"),
    ]
    item = found(replace(READY, outages=Told([down, other[1]])), "outage")
    assert (item.verdict, item.found) == (Verdict.MISSING, "sms today by holdfast, and not back yet")
    item = found(replace(READY, outages=Told([down, *other])), "outage")
    assert (item.verdict, item.found) == (Verdict.OK, "email today by holdfast")


def test_a_source_that_is_disabled_may_be_silent() -> None:
    asked = replace(READY, sources=Told({"a": SourceSeen(is_enabled=False, gap_seconds=0)}))
    assert found(asked, "sources").verdict is Verdict.OK


def test_a_channel_that_cannot_be_seen_may_be_the_one_that_there_is() -> None:
    asked = replace(READY, subscribers=Told(0), channels=Told(trouble="GetParametersByPath: AccessDenied"))
    assert found(asked, "reached").verdict is Verdict.UNSEEN
    assert "AccessDenied" in found(asked, "reached").found
    asked = replace(READY, subscribers=Told(trouble="ListSubscriptions: AccessDenied"), channels=Told({"chat": ""}))
    assert found(asked, "reached").verdict is Verdict.OK


def test_a_record_of_what_was_tried_that_cannot_be_read_proves_nothing() -> None:
    asked = replace(READY, tried=Told(trouble="tried.json is not the record"))
    assert (found(asked, "runbooks").verdict, found(asked, "runbooks").found) == (
        Verdict.UNSEEN,
        "tried.json is not the record",
    )


def test_many_names_are_cut_short() -> None:
    asked = replace(READY, alarms=Told({}))
    assert found(asked, "alarms").found.endswith(f"and {len(ALARMS) - 6} more")


@given(
    values=st.dictionaries(st.text(max_size=20), st.text(max_size=20), max_size=5),
    moments=st.lists(st.integers(-(2**60), 2**60), max_size=4),
    words=st.text(max_size=10),
)
def test_whatever_is_answered_is_judged(values: dict[str, str], moments: list[int], words: str) -> None:
    asked = replace(
        READY,
        switches=Told(values),
        channels=Told(values),
        throws=Told([SwitchMove(at_ms, words, "on", words) for at_ms in moments]),
        outages=Told([SwitchMove(at_ms, words, words, "hard_down") for at_ms in moments]),
        tests=Told([PageTest(at_ms, is_over=True, resolution=words) for at_ms in moments]),
        replays=Told([{"state": "finished", "ended_at_ms": at_ms} for at_ms in moments]),
    )
    assert {item.verdict for item in judge(asked)} <= set(Verdict)


# --------------------------------------------------------------------------------------------------------- the asking

(PAGER_VARIABLE,) = [field.name.upper() for field in fields(PagerSettings) if field.name == "runbooks_url"]

STACK = Stack(
    stage="prod",
    region="eu-central-1",
    outputs={
        **{name: name for name in ready_asked.TABLES},
        "Bucket": "bucket",
        "OncallTopicArn": "arn:aws:sns:eu-central-1:1:oncall",
        "OncallPath": "/holdfast/prod/oncall",
        "SwitchesPath": "/holdfast/prod/switches",
        "IntegrationsPath": "/holdfast/prod/integrations",
        "SourcesPath": "/holdfast/prod/sources",
        "EventsDlqUrl": "https://sqs/events-dlq",
        "PagerFunction": "holdfast-prod-pager",
    },
)


class Answers:
    """Any client of AWS: gives the same to whatever it is asked, page by page too, or raises it."""

    def __init__(self, answer: Any, by_operation: Mapping[str, Any] | None = None) -> None:
        self._answer = answer
        self._by_operation = by_operation or {}

    def __getattr__(self, operation: str) -> Any:
        def called(*names: str, **_: Any) -> Any:
            if operation == "get_paginator":
                return Answers([self._of(names[0])], {})
            if operation == "paginate":
                return self._raised(self._answer)
            return self._raised(self._of(operation))

        return called

    def _of(self, operation: str) -> Any:
        return self._by_operation.get(operation, self._answer)

    @staticmethod
    def _raised(answer: Any) -> Any:
        said = answer[0] if isinstance(answer, list) and answer and isinstance(answer[0], Exception) else answer
        if isinstance(said, Exception):
            raise said
        return answer


def asked_of(monkeypatch: pytest.MonkeyPatch, answer: Any, by_operation: Mapping[str, Any] | None = None) -> Asked:
    monkeypatch.setattr("ops.stack.client", lambda *_: Answers(answer, by_operation))

    def jobs() -> list[dict[str, Any]]:
        raise EndpointConnectionError(endpoint_url="https://api")

    return ready_asked.ask(STACK, SystemClock(), jobs)


_OF_THE_CODE = {"roles", "texts", "runbooks"}


@pytest.mark.parametrize(
    "answer",
    [
        {},
        None,
        [],
        "garbage",
        {"Parameters": None, "Subscriptions": [{}], "MetricAlarms": [{"AlarmName": None, "AlarmActions": 3}]},
        {"ContinuousBackupsDescription": [], "Attributes": {"ApproximateNumberOfMessages": "many"}},
        {"DashboardBody": "{", "Items": [{"pk": {"S": 3}}], "Item": {"open": {"N": "x"}}},
        ClientError({"Error": {"Code": "AccessDeniedException", "Message": "no"}}, "Asked"),
        ClientError({}, "Asked"),
        EndpointConnectionError(endpoint_url="https://aws"),
    ],
)
def test_what_nobody_understands_cannot_be_seen_and_keeps_nothing_else_from_being_asked(
    monkeypatch: pytest.MonkeyPatch, answer: Any
) -> None:
    verdicts = {item.id: item.verdict for item in judge(asked_of(monkeypatch, answer))}
    # No answer is ever taken for a good one; `quiet` of no alarms is, and `alarms` says that there are none.
    assert {name for name, verdict in verdicts.items() if verdict is Verdict.OK} <= {*_OF_THE_CODE, "quiet"}
    assert verdicts["replay"] is Verdict.UNSEEN
    if isinstance(answer, Exception):
        assert {name for name, verdict in verdicts.items() if verdict is not Verdict.UNSEEN} <= _OF_THE_CODE


def test_who_may_not_see_is_told_what_was_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    refused = ClientError({"Error": {"Code": "AccessDenied"}}, "DescribeAlarms")
    assert found(asked_of(monkeypatch, refused), "alarms").found == "DescribeAlarms: AccessDenied"


def test_a_subscription_that_is_not_confirmed_reaches_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    topic = {"Subscriptions": [{"SubscriptionArn": "PendingConfirmation"}, {"SubscriptionArn": "Deleted"}]}
    asked = asked_of(monkeypatch, {}, {"list_subscriptions_by_topic": topic})
    assert asked.subscribers == Told(0)
    topic["Subscriptions"].append({"SubscriptionArn": "arn:aws:sns:eu-central-1:1:oncall:1"})
    assert asked_of(monkeypatch, {}, {"list_subscriptions_by_topic": topic}).subscribers == Told(1)


def test_alarms_of_both_kinds_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    told = {
        "MetricAlarms": [{"AlarmName": "a", "AlarmActions": ["x"], "ActionsEnabled": False, "StateValue": "OK"}],
        "CompositeAlarms": [{"AlarmName": "b", "AlarmActions": ["x", "y"], "ActionsEnabled": True}],
    }
    assert asked_of(monkeypatch, {}, {"describe_alarms": told}).alarms.value == {
        "a": AlarmSeen(1, is_enabled=False, state="OK"),
        "b": AlarmSeen(2, is_enabled=True, state=""),
    }


def test_a_dashboard_that_is_gone_is_missing_and_one_that_cannot_be_asked_for_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gone = ClientError({"Error": {"Code": "ResourceNotFound"}}, "GetDashboard")
    assert asked_of(monkeypatch, {}, {"get_dashboard": gone}).dashboard == Told(False)
    there = {"DashboardBody": json.dumps({"widgets": [1]})}
    assert asked_of(monkeypatch, {}, {"get_dashboard": there}).dashboard == Told(True)
    denied = ClientError({"Error": {"Code": "AccessDenied"}}, "GetDashboard")
    assert asked_of(monkeypatch, {}, {"get_dashboard": denied}).dashboard.value is None


def test_where_pages_link_to_is_what_the_pager_has_that_is_deployed_003_27(monkeypatch: pytest.MonkeyPatch) -> None:
    url = "https://git.example.com/runbooks/"
    told = {"Environment": {"Variables": {PAGER_VARIABLE: url}}}
    assert asked_of(monkeypatch, {}, {"get_function_configuration": told}).runbooks_url == Told(url)
    denied = ClientError({"Error": {"Code": "AccessDenied"}}, "GetFunctionConfiguration")
    answers: list[Any] = [{}, {"Environment": {}}, denied]
    for answer in answers:
        unseen = asked_of(monkeypatch, {}, {"get_function_configuration": answer}).runbooks_url
        assert (unseen.value, bool(unseen.trouble)) == (None, True)


def test_who_has_set_no_address_is_told_the_file_that_sets_it_003_27() -> None:
    (default,) = [str(field.default) for field in fields(StageConfig) if field.name == "runbooks_url"]
    item = found(replace(READY, runbooks_url=Told(default)), "links")
    assert (item.verdict, "`runbooks_url`" in item.do, "infra/config.py" in item.do) == (Verdict.MISSING, True, True)
    assert "make deploy STAGE=prod" in item.do


# -------------------------------------------------------------------------------------------------------- the command


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    state = {"status": "up", "stage": "prod", "region": "x", "outputs": {}, "endpoint": "http://x", "simulator_url": ""}
    (tmp_path / "stack.json").write_text(json.dumps(state))
    monkeypatch.setenv("HOLDFAST_STACK_FILE", str(tmp_path / "stack.json"))
    monkeypatch.delenv("HOLDFAST_STAGE", raising=False)
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    return monkeypatch


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        (READY, ExitCode.OK),
        (replace(READY, dashboard=Told(False)), ExitCode.REFUSED),
        (replace(READY, dashboard=Told(trouble="AccessDenied")), ExitCode.UNREACHABLE),
        (replace(READY, dashboard=Told(False), dead=Told(trouble="AccessDenied")), ExitCode.REFUSED),
    ],
)
def test_a_script_sees_whether_something_is_missing(
    stage: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], asked: Asked, code: ExitCode
) -> None:
    stage.setattr(command, "ask", lambda *_: asked)
    assert run(["ready"]) == code
    assert ("what to do" in capsys.readouterr().out) is (code is not ExitCode.OK)
    assert run(["ready", "--json"]) == code
    told = json.loads(capsys.readouterr().out)
    assert told["ready"] is (code is ExitCode.OK)
    assert {item["verdict"] for item in told["items"]} <= {verdict.value for verdict in Verdict}
