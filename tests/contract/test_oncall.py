"""Channels and recent changes: topic, webhooks, parameter store and Lambda, and their doubles."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import boto3
import httpx
import pytest
from botocore.stub import Stubber
from moto import mock_aws

from functions.adapters.oncall import ASKING_MS, CACHED_MS, CONFIGURATION, FRESH_MS, TOPIC, SnsAndWebhooks, trouble_with
from functions.adapters.recent_changes import AwsRecentChanges
from functions.core import ports
from functions.core.alarms import Audience, Sev
from functions.core.failure import StorageUnavailable
from functions.core.incident import PageKind, Role
from functions.core.page import Change, Letter
from tests.aws_tables import REGION
from tests.contract.storage import Flaky, client_error
from tests.fakes import NOON_MS, FakeClock
from tests.incident_fakes import FakeChannels, FakeRecentChanges

PATH = "/holdfast/prod/oncall"
LETTER = Letter(
    "SEV1-1-abc",
    1,
    PageKind.OPENED,
    Sev.SEV1,
    Audience.OPS,
    "providers",
    (Role.PRIMARY,),
    True,
    NOON_MS,
    "[SEV1 prod] down",
    "down & <out>\nFirst: holdfast integrations",
    "https://git.example/a.md#b",
)
SLACK = {"kind": "slack", "url": "https://hooks.example/T/B/secret"}
DUTY = {"kind": "pagerduty", "routing_key": "rk", "api_token": "tok"}


@dataclass
class World:
    """A channel beside the topic, which can be made to fail, and what both have got."""

    channels: ports.OnCallChannels
    beside: str
    fail: Callable[[str], None]
    got: Callable[[], list[str]]


@dataclass
class Receiver:
    """The other side of all webhooks: answers as told, and keeps what came."""

    status: int = 202
    body: Any = field(default_factory=dict)
    error: Exception | None = None
    raw: str = ""
    takes: Callable[[], object] = lambda: None
    requests: list[httpx.Request] = field(default_factory=list)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        self.takes()
        if self.error is not None:
            raise self.error
        if self.raw:
            return httpx.Response(self.status, text=self.raw)
        return httpx.Response(self.status, json=self.body)

    def sent(self) -> list[dict[str, Any]]:
        return [json.loads(request.content) for request in self.requests]


@dataclass
class Real:
    """The adapter over moto, with its clients in hand."""

    channels: SnsAndWebhooks
    sns: Flaky
    ssm: Any
    receiver: Receiver
    clock: FakeClock
    published: Callable[[], list[dict[str, Any]]]


class Store:
    """A parameter store that may be down."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self.is_down = False

    def get_paginator(self, name: str) -> Any:
        if self.is_down:
            raise client_error("InternalServerError")
        return self.client.get_paginator(name)


@contextmanager
def real(**configured: Any) -> Iterator[Real]:
    with mock_aws():
        plain = boto3.client("sns", region_name=REGION)
        topic = plain.create_topic(Name="oncall")["TopicArn"]
        sns = Flaky(plain)
        ssm = boto3.client("ssm", region_name=REGION)
        for name, entry in configured.items():
            text = entry if isinstance(entry, str) else json.dumps(entry)
            ssm.put_parameter(Name=f"{PATH}/{name}", Value=text, Type="SecureString")
        receiver, clock = Receiver(), FakeClock()
        store: Any = Store(ssm)
        channels = SnsAndWebhooks(
            sns,  # type: ignore[arg-type]  # it stands for the client
            topic,
            store,
            PATH,
            clock,
            source="holdfast-prod",
            transport=httpx.MockTransport(receiver),
        )
        yield Real(channels, sns, store, receiver, clock, lambda: sns.requests("publish"))


@pytest.fixture(params=["memory", "aws"])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    """The topic and one channel beside it."""
    if request.param == "memory":
        fake = FakeChannels("sns", "chat")
        yield World(fake, "chat", fake.down.add, lambda: [name for name, _ in fake.sent])
        return
    with real(chat=SLACK) as made:

        def fail(name: str) -> None:
            if name == TOPIC:
                made.sns.planned["publish"] = [client_error("InternalError")] * 9
            else:
                made.receiver.status = 500

        def got() -> list[str]:
            there = [] if made.receiver.status == 500 else ["chat"] * len(made.receiver.requests)
            took = len(made.published()) if not made.sns.planned.get("publish") else 0
            return ["sns"] * took + there

        yield World(made.channels, "chat", fail, got)


def test_every_channel_gets_it_but_those_that_have_it(world: World) -> None:
    assert world.channels.send(LETTER) == ports.Sent(("sns", "chat"), {})
    assert world.channels.send(LETTER, ["sns", "chat"]) == ports.Sent()
    assert world.channels.send(LETTER, ["sns"]) == ports.Sent(("chat",), {})
    assert sorted(world.got()) == ["chat", "chat", "sns"]


@pytest.mark.parametrize(("broken", "other"), [("sns", "chat"), ("chat", "sns")])
def test_one_channels_trouble_is_not_anothers(world: World, broken: str, other: str) -> None:
    world.fail(broken)
    sent = world.channels.send(LETTER)
    assert (sent.took, set(sent.failed)) == ((other,), {broken})


def test_nobody_has_acknowledged_anything_where_nobody_can_be_asked(world: World) -> None:
    assert world.channels.acknowledged(["SEV1-1-abc"]) == {}


# ---------------------------------------------------------------------------------------------------------- the adapter


def test_the_topic_gets_text_and_what_subscribers_filter_by_003_23() -> None:
    with real() as made:
        made.channels.send(LETTER)
        (request,) = made.published()
        assert (request["Subject"], request["Message"]) == (LETTER.title, LETTER.text)
        attributes = {name: one["StringValue"] for name, one in request["MessageAttributes"].items()}
        assert attributes == {
            "incident_id": "SEV1-1-abc",
            "severity": "SEV1",
            "audience": "ops",
            "kind": "opened",
            "is_calling": "yes",
            "to": '["primary"]',
        }


def test_a_chat_gets_text_without_markup_of_ours() -> None:
    with real(chat=SLACK) as made:
        made.channels.send(LETTER)
        (body,) = made.receiver.sent()
        assert body == {"text": "*[SEV1 prod] down*\ndown &amp; &lt;out&gt;\nFirst: holdfast integrations"}


def test_pagerduty_gets_one_incident_for_one_of_ours_and_hears_of_its_end() -> None:
    with real(duty=DUTY) as made:
        made.channels.send(LETTER)
        made.channels.send(replace(LETTER, number=2, kind=PageKind.ACKNOWLEDGED, is_calling=False))
        made.channels.send(replace(LETTER, number=3, kind=PageKind.RESOLVED, is_calling=False))
        sent = made.receiver.sent()
        assert [str(request.url) for request in made.receiver.requests] == [
            "https://events.pagerduty.com/v2/enqueue"
        ] * 3
        assert [(one["event_action"], one["dedup_key"], one["routing_key"]) for one in sent] == [
            ("trigger", "SEV1-1-abc", "rk"),
            ("acknowledge", "SEV1-1-abc", "rk"),
            ("resolve", "SEV1-1-abc", "rk"),
        ]
        payload = sent[0]["payload"]
        assert (payload["severity"], payload["source"], payload["group"]) == ("critical", "holdfast-prod", "providers")
        assert sent[0]["links"] == [{"href": "https://git.example/a.md#b", "text": "runbook"}]
        for none in ("", "docs/runbooks/a.md#b"):
            made.channels.send(replace(LETTER, runbook=none))
            assert "links" not in made.receiver.sent()[-1]


def test_what_happens_again_is_another_incident_there_and_the_earlier_one_is_closed() -> None:
    """A trigger by the key of one that is acknowledged there is only added to it: nobody would be called."""
    with real(duty=DUTY) as made:
        made.channels.send(replace(LETTER, kind=PageKind.RECURRED, recurrences=2))
        made.channels.send(replace(LETTER, kind=PageKind.ACKNOWLEDGED, is_calling=False, recurrences=2))
        assert [(one["event_action"], one["dedup_key"]) for one in made.receiver.sent()] == [
            ("resolve", "SEV1-1-abc#1"),
            ("trigger", "SEV1-1-abc#2"),
            ("acknowledge", "SEV1-1-abc#2"),
        ]
        made.receiver.status, made.receiver.body = 200, found(incident_key="SEV1-1-abc#2")
        assert made.channels.acknowledged(["SEV1-1-abc#2"]) == {"SEV1-1-abc#2": "duty: somebody"}
        asked = made.receiver.requests[-1].url
        assert asked.params["incident_key"] == "SEV1-1-abc#2"


def test_a_ticket_or_a_reminder_is_no_business_of_pagerduty() -> None:
    with real(duty=DUTY) as made:
        sent = made.channels.send(replace(LETTER, kind=PageKind.UPDATE_DUE, is_calling=False))
        assert (sent, made.receiver.requests) == (ports.Sent(("sns",), {}), [])


def test_what_called_by_a_graver_severity_ends_there_by_whatever_it_is_now() -> None:
    with real(duty={**DUTY, "severities": ["SEV0", "SEV1"]}) as made:
        made.channels.send(LETTER)
        less = replace(LETTER, severity=Sev.SEV2, is_calling=False)
        made.channels.send(replace(less, number=2, is_calling=True))
        made.channels.send(replace(less, number=3, kind=PageKind.ACKNOWLEDGED))
        made.channels.send(replace(less, number=4, kind=PageKind.RESOLVED))
        assert [one["event_action"] for one in made.receiver.sent()] == ["trigger", "acknowledge", "resolve"]


def test_channels_are_narrowed_by_role_and_severity_003_22() -> None:
    second = {**SLACK, "to": ["secondary"]}
    grave = {**SLACK, "severities": ["SEV0"]}
    with real(second=second, grave=grave) as made:
        assert made.channels.send(LETTER).took == ("sns",)
        assert made.channels.send(replace(LETTER, to=(Role.PRIMARY, Role.SECONDARY))).took == ("sns", "second")
        assert made.channels.send(replace(LETTER, severity=Sev.SEV0)).took == ("sns", "grave")


def test_channels_are_narrowed_by_audience_as_topics_are_003_23() -> None:
    """Severity and audience both; who is told like the audience (a copy of the alarm) is one of them."""
    learners = {**SLACK, "audiences": ["ml", "compliance"]}
    grave = {**SLACK, "audiences": ["ml"], "severities": ["SEV0"]}
    with real(learners=learners, grave=grave, every={**SLACK, "audiences": []}) as made:
        assert made.channels.send(LETTER).took == ("sns", "every")
        assert made.channels.send(replace(LETTER, audience=Audience.ML)).took == ("sns", "every", "learners")
        copied = replace(LETTER, copies=(Audience.CAMPAIGN, Audience.ML))
        assert made.channels.send(copied).took == ("sns", "every", "learners")
        gravest = replace(copied, severity=Sev.SEV0)
        assert made.channels.send(gravest).took == ("sns", "every", "grave", "learners")


@pytest.mark.parametrize("narrow", [{"audiences": ["ml"]}, {"severities": ["SEV0"]}])
@pytest.mark.parametrize("channel", [SLACK, DUTY])
def test_a_test_page_is_for_every_channel_however_narrow_001_57(
    channel: dict[str, Any], narrow: dict[str, Any]
) -> None:
    with real(narrow={**channel, **narrow}) as made:
        test = replace(LETTER, kind=PageKind.TEST, severity=Sev.SEV3, to=(Role.PRIMARY, Role.SECONDARY))
        assert made.channels.send(test).took == ("sns", "narrow")


def test_what_called_one_audience_ends_there_whoever_it_is_for_now() -> None:
    with real(duty={**DUTY, "audiences": ["ml"]}) as made:
        assert made.channels.send(LETTER).took == ("sns",)
        assert made.channels.send(replace(LETTER, kind=PageKind.RESOLVED)).took == ("sns", "duty")


@pytest.mark.parametrize(
    "audiences", ["ops", {}, None, True, 1, ["OPS"], [""], [None], [1], [{}], [["ops"]], ["ops", "x"]]
)
def test_audiences_that_there_are_not_are_refused_by_name_and_quoted_nowhere(audiences: Any) -> None:
    odd = {**SLACK, "audiences": audiences}
    said = trouble_with("odd", json.dumps(odd))
    assert said.startswith("its audiences ")
    assert "ops, campaign, compliance, ml" in said or said == "its audiences is no list"
    with real(odd=odd, chat=SLACK) as made:
        assert made.channels.send(LETTER) == ports.Sent(("sns", "chat"), {"odd": "UNUSABLE"})


@pytest.mark.parametrize("narrow", ["to", "severities"])
def test_a_channel_that_nothing_could_go_to_is_said_to_be_narrowed_to_nothing(narrow: str) -> None:
    assert trouble_with("odd", json.dumps({**SLACK, narrow: []})) == f"its {narrow} is empty: it would get nothing"


@pytest.mark.parametrize(
    "entry",
    [
        "no json",
        "[]",
        {"kind": "pigeon"},
        {"kind": "slack"},
        {"kind": "slack", "url": "http://hooks.example/x"},
        {"kind": "slack", "url": 5},
        {"kind": "pagerduty"},
        {"kind": "pagerduty", "routing_key": ""},
        {"kind": "pagerduty", "routing_key": "a", "api_token": 5},
        {"kind": "pagerduty", "routing_key": "a", "api_token": "ü"},
        {"kind": "pagerduty", "routing_key": "a", "events_url": "ftp://x"},
        {**SLACK, "to": []},
        {**SLACK, "to": ["cat"]},
        {**SLACK, "severities": "SEV0"},
    ],
)
def test_a_channel_that_cannot_be_used_is_trouble_and_keeps_no_other(entry: Any) -> None:
    with real(odd=entry, chat=SLACK) as made:
        assert made.channels.send(LETTER) == ports.Sent(("sns", "chat"), {"odd": "UNUSABLE"})


def test_channels_that_cannot_be_read_are_trouble_and_those_known_last_get_it() -> None:
    with real(chat=SLACK) as made:
        made.ssm.is_down = True
        assert made.channels.send(LETTER) == ports.Sent(("sns",), {CONFIGURATION: "InternalServerError"})
        made.ssm.is_down = False
        assert made.channels.send(LETTER).took == ("sns", "chat")
        made.ssm.is_down = True
        assert made.channels.send(LETTER).failed == {}, "what was read a moment ago"
        made.clock.advance(CACHED_MS)
        assert made.channels.send(LETTER) == ports.Sent(("sns", "chat"), {CONFIGURATION: "InternalServerError"})


def test_a_channel_that_was_just_set_hears_of_the_next_page_although_others_were_read_a_moment_ago() -> None:
    """Each tick asks the channels who has acknowledged; a page that goes out then reads what there is now."""
    with real() as made:
        assert made.channels.send(LETTER).took == ("sns",)
        made.clock.advance(CACHED_MS)
        assert made.channels.acknowledged(["INC-1"]) == {}
        made.ssm.client.put_parameter(Name=f"{PATH}/chat", Value=json.dumps(SLACK), Type="SecureString")
        made.clock.advance(FRESH_MS)
        assert made.channels.send(LETTER).took == ("sns", "chat")


def test_a_webhook_that_does_not_answer_is_trouble() -> None:
    with real(chat=SLACK) as made:
        made.receiver.error = httpx.ReadTimeout("slow")
        assert made.channels.send(LETTER).failed == {"chat": "ReadTimeout"}
        made.receiver.error, made.receiver.status = None, 302
        assert made.channels.send(LETTER).failed == {"chat": "HTTP_302"}


def found(**fields: Any) -> dict[str, Any]:
    return {"incidents": [{"incident_key": "SEV1-1-abc", "status": "acknowledged", **fields}]}


@pytest.mark.parametrize(
    ("answer", "who"),
    [
        (found(acknowledgements=[{"acknowledger": {"summary": "Ann"}}]), "duty: Ann"),
        (found(status="resolved", last_status_change_by={"summary": "Bob"}), "duty: Bob"),
        (found(acknowledgements="x", last_status_change_by=None), "duty: somebody"),
        (found(acknowledgements=[5, {"acknowledger": {"summary": ""}}]), "duty: somebody"),
        (found(status="triggered"), None),
        (found(incident_key="other"), None),
        ({"incidents": ["x"]}, None),
        ({"incidents": 5}, None),
        ([], None),
    ],
)
def test_an_acknowledgement_where_it_was_paged_comes_back(answer: Any, who: str | None) -> None:
    with real(duty=DUTY, chat=SLACK, blind={**DUTY, "api_token": ""}) as made:
        made.receiver.status, made.receiver.body = 200, answer
        assert made.channels.acknowledged(["SEV1-1-abc"]) == ({} if who is None else {"SEV1-1-abc": who})
        (request,) = made.receiver.requests
        assert str(request.url) == "https://api.pagerduty.com/incidents?incident_key=SEV1-1-abc"
        assert request.headers["authorization"] == "Token token=tok"


def test_who_cannot_be_asked_now_is_asked_again_in_a_minute() -> None:
    with real(duty=DUTY) as made:
        made.receiver.status = 500
        assert made.channels.acknowledged(["SEV1-1-abc"]) == {}
        made.receiver.error = httpx.ConnectTimeout("x")
        assert made.channels.acknowledged(["SEV1-1-abc"]) == {}


def test_a_service_that_does_not_answer_holds_up_no_clock() -> None:
    """The tick asks it first: with many incidents open, each question's time would take all of its own."""
    calls = [f"INC-{n}" for n in range(30)]
    with real(a=DUTY, b=DUTY) as made:
        made.receiver.error = httpx.ReadTimeout("slow")
        assert made.channels.acknowledged(calls) == {}
        assert len(made.receiver.requests) == 2, "of each service the first"
        made.receiver.error, made.receiver.status, made.receiver.body = None, 200, {"incidents": []}
        made.receiver.requests.clear()
        made.receiver.takes = lambda: made.clock.advance(4_000)
        assert made.channels.acknowledged(calls) == {}
        assert len(made.receiver.requests) == -(-ASKING_MS // 4_000)


def test_an_answer_that_nobody_can_read_is_trouble_of_that_service_alone() -> None:
    with real(duty=DUTY) as made:
        made.receiver.status, made.receiver.raw = 200, "[" * 100_000
        assert made.channels.acknowledged(["SEV1-1-abc"]) == {}


def test_whatever_goes_wrong_with_one_channel_is_not_anothers() -> None:
    with real(a=SLACK, b=DUTY) as made:
        made.receiver.error = RuntimeError("a defect")
        assert made.channels.send(LETTER) == ports.Sent(("sns",), {"a": "RuntimeError", "b": "RuntimeError"})


def test_two_services_are_asked_once_about_what_one_knows() -> None:
    with real(a=DUTY, b=DUTY) as made:
        made.receiver.status, made.receiver.body = 200, found()
        assert made.channels.acknowledged(["SEV1-1-abc"]) == {"SEV1-1-abc": "a: somebody"}
        assert len(made.receiver.requests) == 1


# ------------------------------------------------------------------------------------------------------ recent changes

STAGE = "/holdfast/prod"


def test_what_changed_is_found_the_newest_first_with_what_a_switch_said() -> None:
    fake = FakeRecentChanges()
    fake.changes = [Change(1, "deploy", "a"), Change(3, "switch", "b"), Change(2, "source", "c")]
    assert [one.name for one in fake.since(2)] == ["b", "c"]
    with mock_aws():
        ssm = boto3.client("ssm", region_name=REGION)
        ssm.put_parameter(Name=f"{STAGE}/switches/mode", Value="live", Type="String", Description="every day")
        ssm.put_parameter(
            Name=f"{STAGE}/switches/mode", Value="hold", Type="String", Description="ada: flood", Overwrite=True
        )
        ssm.put_parameter(Name=f"{STAGE}/switches/flow/support/mode", Value="hold", Type="String")
        ssm.put_parameter(Name=f"{STAGE}/sources/desk", Value="secret", Type="SecureString")
        ssm.put_parameter(Name=f"{STAGE}/integrations/sms", Value="secret", Type="SecureString")
        ssm.put_parameter(Name=f"{STAGE}/odd", Value="x", Type="String")
        ssm.put_parameter(Name="/holdfast/dev/switches/mode", Value="live", Type="String")
        now = datetime.now(UTC)  # moto's own clock
        changes = over_lambda(ssm, now.isoformat()).since(round(now.timestamp() * 1000) - 60_000)
        said = {(one.kind, one.name): one.what for one in changes}
        assert said == {
            ("switch", "mode"): "live → hold: ada: flood",
            ("switch", "flow/support/mode"): "hold",
            ("source", "desk"): "",
            ("credential", "sms"): "",
            ("parameter", "odd"): "",
            ("deploy", "worker"): "",
        }
        assert "secret" not in repr(changes)
        assert [one.at_ms for one in changes] == sorted((one.at_ms for one in changes), reverse=True)
        late = over_lambda(ssm, "2020-01-01T00:00:00.000+0000").since(round(now.timestamp() * 1000) + 3_600_000)
        assert list(late) == []


def over_lambda(ssm: Any, modified: str) -> AwsRecentChanges:
    client = boto3.client("lambda", region_name=REGION)
    stub = Stubber(client)
    stub.add_response("get_function_configuration", {"FunctionName": "worker", "LastModified": modified})
    stub.activate()
    return AwsRecentChanges(ssm, client, STAGE, ["worker"])


def test_one_deploy_of_several_functions_is_told_once_at_its_end() -> None:
    with mock_aws():
        client = boto3.client("lambda", region_name=REGION)
        stub = Stubber(client)
        for name, minute in (("worker", "03:01"), ("ingress", "03:00"), ("sweeper", "01:00")):
            said = {"FunctionName": name, "LastModified": f"2026-01-01T{minute}:30.000+0000"}
            stub.add_response("get_function_configuration", said, {"FunctionName": name})
        stub.activate()
        ssm = boto3.client("ssm", region_name=REGION)
        told = AwsRecentChanges(ssm, client, STAGE, ["worker", "ingress", "sweeper"]).since(0)
    ends = round(datetime(2026, 1, 1, 3, 1, 30, tzinfo=UTC).timestamp() * 1000)
    assert [(one.at_ms, one.name) for one in told] == [(ends, "ingress, worker"), (ends - 7_260_000, "sweeper")]


def test_what_changed_and_cannot_be_read_is_trouble() -> None:
    fake = FakeRecentChanges()
    fake.faults.fail("changes.since")
    with pytest.raises(StorageUnavailable):
        fake.since(0)
    with mock_aws():
        client = boto3.client("lambda", region_name=REGION)
        stub = Stubber(client)
        stub.add_client_error("get_function_configuration", "TooManyRequestsException")
        stub.activate()
        with pytest.raises(StorageUnavailable):
            AwsRecentChanges(boto3.client("ssm", region_name=REGION), client, STAGE, ["worker"]).since(0)
