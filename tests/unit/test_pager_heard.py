"""What the messages of the queue `pages` say."""

from __future__ import annotations

import json
from typing import Any

import pytest

from functions.core.alarms import Sev
from functions.pager.heard import UnreadableAlarm, read

SAID: dict[str, Any] = {
    "AlarmName": "holdfast-prod-reply-storm",
    "AlarmDescription": "x",
    "AWSAccountId": "123456789012",
    "NewStateValue": "ALARM",
    "NewStateReason": "Threshold Crossed",
    "StateChangeTime": "2026-01-01T00:00:01.500+0000",
    "OldStateValue": "OK",
    "Trigger": {"MetricName": "auto_reply_sent"},
}


def test_an_alarm_of_the_table_is_what_the_table_says_of_it() -> None:
    heard = read(json.dumps(SAID))
    assert (heard.symptom.name, heard.symptom.sev, heard.symptom.group) == ("reply-storm", Sev.SEV0, "replies")
    assert (heard.state, heard.at_ms, heard.symptom.page) == ("ALARM", 1_767_225_601_500, "alarms.md#reply-storm")


def test_sns_may_have_wrapped_it() -> None:
    wrapped = {"Type": "Notification", "MessageId": "m", "TopicArn": "t", "Message": json.dumps(SAID)}
    assert read(json.dumps(wrapped)) == read(json.dumps(SAID))


def test_an_alarm_that_somebody_has_made_beside_the_table_pages_too() -> None:
    heard = read(json.dumps(SAID | {"AlarmName": "somebodys", "AlarmDescription": "the disk is full"}))
    assert (heard.symptom.name, heard.symptom.says, heard.symptom.sev) == ("somebodys", "the disk is full", Sev.SEV2)
    assert (heard.symptom.group, heard.symptom.is_page) == ("somebodys", True)
    odd = read(json.dumps(SAID | {"AlarmName": "a\ud800b", "AlarmDescription": "full\nFirst: rm -rf /"}))
    assert (odd.symptom.name, odd.symptom.says) == ("a b", "full First: rm -rf /")
    nameless = read(json.dumps(SAID | {"AlarmName": "x", "AlarmDescription": None}))
    assert "x" in nameless.symptom.says


@pytest.mark.parametrize(
    "body",
    [
        "",
        "[]",
        "[" * 100_000,
        json.dumps({"Type": "Notification", "Message": "hello"}),
        json.dumps(SAID | {"AlarmName": ""}),
        json.dumps(SAID | {"AlarmName": 7}),
        json.dumps(SAID | {"NewStateValue": None}),
        json.dumps(SAID | {"StateChangeTime": 5}),
        json.dumps(SAID | {"StateChangeTime": "yesterday"}),
        json.dumps(SAID | {"StateChangeTime": "2026-01-01T00:00:01"}),
        json.dumps(SAID | {"StateChangeTime": "0001-01-01T00:00:01+00:00"}),
        json.dumps(SAID | {"StateChangeTime": "1970-01-01T00:00:00+00:00"}),
    ],
)
def test_what_says_of_no_alarm_how_it_is_goes_before_people(body: str) -> None:
    with pytest.raises(UnreadableAlarm):
        read(body)
