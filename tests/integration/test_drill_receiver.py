"""The receiver of the drills hears what the channels of the pager really send."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from moto import mock_aws

from functions.adapters.oncall import TOPIC, SnsAndWebhooks
from functions.core.alarms import Audience, Sev
from functions.core.incident import Incident, Page, PageKind, Role, State
from functions.core.page import Letter, Situation, letter
from ops.drills.receiver import CHAT, PAGER, Receiver, listening, on_call_by
from ops.stack import Stack
from tests.fakes import NOON_MS, FakeClock

PATH = "/holdfast/local/oncall"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with listening() as made:
        yield made


class Local(Stack):
    """A stage whose parameter store is moto's."""

    def client(self, service: str) -> Any:
        return boto3.client(service, region_name="us-east-1")  # type: ignore[call-overload]  # the service is a variable


def letter_of(kind: PageKind, severity: Sev = Sev.SEV2, *, is_page: bool = True) -> Letter:
    incident = Incident(
        "INC-1-abcdef",
        State.OPEN,
        severity,
        "A provider is down: what goes to it waits",
        NOON_MS,
        "integration-down",
        "r",
        runbook="alarms.md#integration-down",
        group="providers",
        audience=Audience.OPS,
        is_page=is_page,
        acknowledged_by="ada",
    )
    return letter(incident, Page(1, kind, (Role.PRIMARY,), NOON_MS), Situation(), "local", "docs/runbooks/", NOON_MS)


def test_calls_and_letters_are_told_apart_by_incident_and_by_why_they_come(receiver: Receiver) -> None:
    with mock_aws():
        sns, ssm = boto3.client("sns", region_name="us-east-1"), boto3.client("ssm", region_name="us-east-1")
        topic = sns.create_topic(Name="oncall")["TopicArn"]
        stack = Local("local", "us-east-1", {"OncallPath": PATH})
        with on_call_by(stack, receiver):
            channels = SnsAndWebhooks(sns, topic, ssm, PATH, FakeClock(), source="holdfast-local")
            assert channels.send(letter_of(PageKind.OPENED)).took == (TOPIC, CHAT, PAGER)
            channels.send(letter_of(PageKind.RAISED, Sev.SEV1))
            channels.send(letter_of(PageKind.ACKNOWLEDGED))
            channels.send(letter_of(PageKind.OPENED, Sev.SEV3, is_page=False))
            receiver.is_refusing = True
            assert set(channels.send(letter_of(PageKind.OVERDUE)).failed) == {CHAT, PAGER}
        assert ssm.get_parameters_by_path(Path=PATH)["Parameters"] == []
    assert [(call.kind, call.severity, call.runbook) for call in receiver.calls_of("INC-1-abcdef")] == [
        ("opened", "SEV2", "docs/runbooks/alarms.md#integration-down"),
        ("raised", "SEV1", "docs/runbooks/alarms.md#integration-down"),
    ]
    assert [one.kind for one in receiver.letters_of("INC-1-abcdef")] == ["opened", "raised", "acknowledged", "opened"]
    assert not receiver.calls_of("INC-1-other")
    assert not receiver.letters_of("INC-1-other")
    assert receiver.events[-1][1]["event_action"] == "acknowledge"
