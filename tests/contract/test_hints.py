"""`ports.Hints` and `ports.Visibility`, over the doubles and over SQS."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from moto import mock_aws

from functions.adapters.sqs_hints import SqsHints, SqsVisibility
from functions.core import ports
from functions.core.ports import Hint
from tests.aws_tables import sdk_client
from tests.contract.storage import Flaky, client_error
from tests.fakes import NOON_MS, FakeHints, FakeVisibility, Faults


@dataclass
class Queue:
    """The port, what was sent (recovery id, version, delay), and ways to break it."""

    hints: ports.Hints
    sent: Callable[[], list[tuple[str, int, int]]]
    refuse: Callable[[str], None]
    break_down: Callable[[], None]


def in_memory() -> Queue:
    faults = Faults()
    hints = FakeHints(faults)
    return Queue(
        hints,
        lambda: [(sent.hint.recovery_id, sent.hint.version, sent.delay_seconds) for sent in hints.sent],
        hints.refused.add,
        lambda: faults.fail("hints.send"),
    )


class Picky(Flaky):
    """Accepts everything of a batch but some."""

    def __init__(self, client: Any) -> None:
        super().__init__(client)
        self.refused: set[str] = set()

    def send_message_batch(self, QueueUrl: str, Entries: list[dict[str, Any]]) -> Any:  # noqa: N803  # the service's names
        good = [entry for entry in Entries if json.loads(entry["MessageBody"])["recovery_id"] not in self.refused]
        bad = [{"Id": entry["Id"], "Code": "InternalError"} for entry in Entries if entry not in good]
        send = self.__getattr__("send_message_batch")
        answer = send(QueueUrl=QueueUrl, Entries=good) if good else {}
        return {"Successful": answer.get("Successful", []), "Failed": bad}


def in_sqs() -> Queue:
    client = sdk_client("sqs")
    url = client.create_queue(QueueName="retries")["QueueUrl"]
    picky = Picky(client)

    def sent() -> list[tuple[str, int, int]]:
        entries = [entry for request in picky.requests("send_message_batch") for entry in request["Entries"]]
        bodies = [json.loads(entry["MessageBody"]) for entry in entries]
        return [
            (body["recovery_id"], body["version"], entry["DelaySeconds"])
            for body, entry in zip(bodies, entries, strict=True)
        ]

    def break_down() -> None:
        picky.planned["send_message_batch"] = [client_error("ThrottlingException")]

    return Queue(SqsHints(picky, url), sent, picky.refused.add, break_down)  # type: ignore[arg-type]


@pytest.fixture(params=["memory", "sqs"])
def queue(request: pytest.FixtureRequest) -> Iterator[Queue]:
    if request.param == "memory":
        yield in_memory()
        return
    with mock_aws():
        yield in_sqs()


def row_id(number: int) -> str:
    return f"{number:024x}"


@pytest.mark.parametrize(
    ("not_before_ms", "delay_seconds"),
    [
        (0, 0),
        (NOON_MS - 1, 0),
        (NOON_MS, 0),
        (NOON_MS + 1, 1),
        (NOON_MS + 1000, 1),
        (NOON_MS + 1001, 2),
        (NOON_MS + 900_000, 900),
        (NOON_MS + 900_001, 900),
        (NOON_MS * 2, 900),
    ],
)
def test_a_hint_never_arrives_before_its_time_as_far_as_a_queue_can_wait(
    queue: Queue, not_before_ms: int, delay_seconds: int
) -> None:
    assert queue.hints.send([Hint(row_id(1), 3, not_before_ms, "acme")], NOON_MS) == []
    assert queue.sent() == [(row_id(1), 3, delay_seconds)]


def test_more_hints_than_one_request_holds_are_all_sent(queue: Queue) -> None:
    hints = [Hint(row_id(n), n, tenant="acme" if n % 2 else "") for n in range(25)]
    assert queue.hints.send(hints, NOON_MS) == []
    assert queue.sent() == [(row_id(n), n, 0) for n in range(25)]


def test_nothing_to_send_is_nothing_sent(queue: Queue) -> None:
    assert queue.hints.send([], NOON_MS) == []
    assert queue.sent() == []


def test_hints_that_were_not_accepted_come_back_and_the_others_are_sent(queue: Queue) -> None:
    hints = [Hint(row_id(n), 1) for n in range(14)]
    for n in (3, 12):
        queue.refuse(row_id(n))
    assert queue.hints.send(hints, NOON_MS) == [hints[3], hints[12]]
    assert [sent[0] for sent in queue.sent()] == [row_id(n) for n in range(14) if n not in (3, 12)]


def test_a_queue_that_is_down_accepts_nothing(queue: Queue) -> None:
    hints = [Hint(row_id(n), 1) for n in range(25)]
    queue.break_down()
    assert queue.hints.send(hints, NOON_MS) == hints


# ------------------------------------------------------------------------------------------------------- of SQS only


def test_a_message_is_what_the_worker_reads_in_the_group_of_its_tenant() -> None:
    with mock_aws():
        client = sdk_client("sqs")
        url = client.create_queue(QueueName="retries")["QueueUrl"]
        SqsHints(client, url).send([Hint(row_id(7), 4, tenant="acme")], NOON_MS)
        [message] = client.receive_message(QueueUrl=url, AttributeNames=["All"])["Messages"]
        assert json.loads(message["Body"]) == {"recovery_id": row_id(7), "version": 4}
        assert message["Attributes"]["MessageGroupId"] == "acme"


def test_a_request_that_fails_ends_the_call_with_the_rest_not_accepted() -> None:
    with mock_aws():
        client = sdk_client("sqs")
        url = client.create_queue(QueueName="retries")["QueueUrl"]
        flaky = Flaky(client)
        hints = [Hint(row_id(n), 1) for n in range(35)]
        port = SqsHints(flaky, url)  # type: ignore[arg-type]  # it stands in for the client
        assert port.send(hints[:10], NOON_MS) == []
        flaky.planned["send_message_batch"] = [client_error("ServiceUnavailable")]
        assert port.send(hints[10:], NOON_MS) == hints[10:]
        assert len(flaky.calls) == 2


@dataclass
class Received:
    """A message that is being processed, the port over its queue, and what the queue was told."""

    visibility: ports.Visibility
    arn: str
    handle: str
    delays: Callable[[], list[int]]
    break_down: Callable[[], None]


@pytest.fixture(params=["memory", "sqs"])
def received(request: pytest.FixtureRequest) -> Iterator[Received]:
    if request.param == "memory":
        faults = Faults()
        fake = FakeVisibility(faults)
        yield Received(
            fake,
            "arn:aws:sqs:us-east-1:1:events",
            "handle",
            lambda: [seconds for _, _, seconds in fake.delays],
            lambda: faults.fail("visibility.delay"),
        )
        return
    with mock_aws():
        client = sdk_client("sqs")
        url = client.create_queue(QueueName="events", Attributes={"VisibilityTimeout": "300"})["QueueUrl"]
        arn = client.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
        client.send_message(QueueUrl=url, MessageBody="x")
        [message] = client.receive_message(QueueUrl=url)["Messages"]
        flaky = Flaky(client)

        def break_down() -> None:
            flaky.planned["change_message_visibility"] = [client_error("ReceiptHandleIsInvalid")]

        yield Received(
            SqsVisibility(flaky, {"events": url}),  # type: ignore[arg-type]  # it stands in for the client
            arn,
            message["ReceiptHandle"],
            lambda: [request["VisibilityTimeout"] for request in flaky.requests("change_message_visibility")],
            break_down,
        )


@pytest.mark.parametrize(("asked", "given"), [(0, 0), (-5, 0), (30, 30), (43_200, 43_200), (99_999, 43_200)])
def test_a_message_is_shown_again_after_what_was_asked_within_the_queues_bounds(
    received: Received, asked: int, given: int
) -> None:
    received.visibility.delay(received.arn, received.handle, asked)
    assert received.delays() == [given]


def test_a_delay_that_cannot_be_set_stops_nobody(received: Received) -> None:
    received.break_down()
    received.visibility.delay(received.arn, received.handle, 5)
    received.visibility.delay(received.arn, received.handle, 6)
    assert received.delays()[-1] == 6


def test_a_queue_that_is_not_ours_is_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    with mock_aws():
        flaky = Flaky(sdk_client("sqs"))
        SqsVisibility(flaky, {}).delay("arn:aws:sqs:us-east-1:1:other", "handle", 5)  # type: ignore[arg-type]
        assert flaky.calls == []
    assert "a queue that is not ours" in caplog.text
