"""The fault proxy between the SDK and a server that checks signatures: each way of failing is what it says it is.

What matters of each is whether the call was carried out, and what its caller is told.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, ConnectionClosedError, ReadTimeoutError

from functions.adapters.transactions import Transactions
from ops.chaos import proxy as fault_proxy
from ops.chaos.calls import ONLY_FOR, TIMEOUTS, Operation, Way
from ops.chaos.killing import can_kill, ports_of
from ops.chaos.proxy import Trouble, serving
from ops.chaos.run import FaultProxy, aws_shares, proxying
from tests.moto_server import REGION, MotoServer, moto_server

TABLE, BUCKET, PARAMETER = "things", "holdfast-proxied", "/proxied"
IMPATIENT_SECONDS = 0.3


@dataclass
class Proxied:
    """Clients of moto: past the proxy to look, and through it to try, once each."""

    server: MotoServer
    trouble: Trouble
    url: str
    queue_url: str

    def fail(self, way: Way) -> None:
        """Every call from here on, in that way."""
        self.trouble.shares = {way: 1.0}

    def through(self, service: str) -> Any:
        config = Config(retries={"total_max_attempts": 1}, read_timeout=IMPATIENT_SECONDS, connect_timeout=5)
        if service != "ssm":  # for which the proxy holds an answer back the shortest time
            config = config.merge(Config(read_timeout=10))
        return boto3.client(service, region_name=REGION, endpoint_url=self.url, config=config)  # type: ignore[call-overload]  # the service is a variable

    def past(self, service: str) -> Any:
        return boto3.client(service, region_name=REGION)  # type: ignore[call-overload]  # as above

    def items(self) -> set[str]:
        return {item["pk"]["S"] for item in self.past("dynamodb").scan(TableName=TABLE)["Items"]}

    def value(self) -> str:
        return str(self.past("ssm").get_parameter(Name=PARAMETER)["Parameter"]["Value"])


@pytest.fixture
def proxied() -> Iterator[Proxied]:
    trouble = Trouble(seed=3)
    with moto_server() as server, serving(server.url, trouble) as url:
        boto3.client("dynamodb", region_name=REGION).create_table(
            TableName=TABLE,
            KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": "S"}],
            BillingMode="PAY_PER_REQUEST",
        )
        boto3.client("s3", region_name=REGION).create_bucket(Bucket=BUCKET)
        boto3.client("ssm", region_name=REGION).put_parameter(Name=PARAMETER, Value="before", Type="String")
        queue_url = boto3.client("sqs", region_name=REGION).create_queue(QueueName="proxied")["QueueUrl"]
        yield Proxied(server, trouble, url, queue_url)


def put(proxied: Proxied, pk: str = "a") -> None:
    proxied.through("dynamodb").put_item(TableName=TABLE, Item={"pk": {"S": pk}})


def change(proxied: Proxied) -> None:
    proxied.through("ssm").put_parameter(Name=PARAMETER, Value="after", Type="String", Overwrite=True)


def code_of(refused: pytest.ExceptionInfo[ClientError]) -> str:
    return str(refused.value.response["Error"]["Code"])


def test_what_meets_no_fault_passes_as_it_was_signed(proxied: Proxied) -> None:
    put(proxied)
    change(proxied)
    proxied.through("sqs").send_message(QueueUrl=proxied.queue_url, MessageBody="hello")
    proxied.through("s3").put_object(Bucket=BUCKET, Key="k", Body=b"x" * 300_000)  # the SDK waits for "100 Continue"
    assert proxied.items() == {"a"}
    assert proxied.value() == "after"
    assert proxied.past("s3").get_object(Bucket=BUCKET, Key="k")["ContentLength"] == 300_000
    assert proxied.trouble.calls == {
        "dynamodb.PutItem": 1,
        "ssm.PutParameter": 1,
        "sqs.SendMessage": 1,
        "s3.PutObject": 1,
    }
    assert not proxied.trouble.fired
    assert not proxied.trouble.broken


def test_a_request_that_was_changed_after_it_was_signed_is_refused_behind_the_proxy(proxied: Proxied) -> None:
    client = proxied.through("dynamodb")
    client.meta.events.register("before-send.dynamodb.*", lambda request, **_: request.headers.update({"host": "x"}))
    with pytest.raises(ClientError) as refused:
        client.put_item(TableName=TABLE, Item={"pk": {"S": "a"}})
    assert code_of(refused) == "InvalidSignatureException"
    assert proxied.trouble.errors == {("dynamodb.PutItem", "InvalidSignatureException"): 1}
    assert proxied.items() == set()


@pytest.mark.parametrize(
    ("way", "status"), [(Way.THROTTLED, {400, 503}), (Way.ERROR, {500})], ids=["throttled", "error"]
)
def test_a_refusal_is_spoken_in_each_services_own_words_and_nothing_is_done(
    proxied: Proxied, way: Way, status: set[int]
) -> None:
    proxied.fail(way)
    calls: dict[str, Callable[[], object]] = {
        "dynamodb": lambda: put(proxied),
        "sqs": lambda: proxied.through("sqs").send_message(QueueUrl=proxied.queue_url, MessageBody="hello"),
        "ssm": lambda: change(proxied),
        "s3": lambda: proxied.through("s3").put_object(Bucket=BUCKET, Key="k", Body=b"x"),
    }
    codes = {}
    for service, call in calls.items():
        with pytest.raises(ClientError) as refused:
            call()
        codes[service] = code_of(refused)
        assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] in status
    throttled = {
        "dynamodb": codes["dynamodb"],
        "sqs": "RequestThrottled",
        "ssm": "ThrottlingException",
        "s3": "SlowDown",
    }
    failed = {
        "dynamodb": "InternalServerError",
        "sqs": "InternalError",
        "ssm": "InternalServerError",
        "s3": "InternalError",
    }
    assert codes == (throttled if way is Way.THROTTLED else failed)
    if way is Way.THROTTLED:
        assert codes["dynamodb"] in {
            "ThrottlingException",
            "ProvisionedThroughputExceededException",
            "RequestLimitExceeded",
        }
    assert proxied.server.requests == []


@pytest.mark.parametrize("way", [Way.RESET, Way.DROPPED])
def test_a_reset_says_nothing_of_whether_it_was_done(proxied: Proxied, way: Way) -> None:
    proxied.fail(way)
    with pytest.raises((ConnectionClosedError, BotoCoreError)):
        put(proxied)
    assert proxied.items() == (set() if way is Way.RESET else {"a"})


def test_an_error_may_come_for_what_was_done(proxied: Proxied) -> None:
    proxied.fail(Way.ERROR_AFTER)
    with pytest.raises(ClientError) as refused:
        put(proxied)
    assert code_of(refused) == "InternalServerError"
    assert proxied.items() == {"a"}


def test_silence_outlasts_its_caller_and_nothing_is_done(proxied: Proxied) -> None:
    proxied.fail(Way.SILENT)
    with pytest.raises(ReadTimeoutError):
        change(proxied)
    time.sleep(fault_proxy.HOLD_SECONDS["ssm"])
    assert proxied.value() == "before"


def test_a_late_answer_is_of_a_call_that_was_done_at_once(proxied: Proxied) -> None:
    proxied.fail(Way.LATE)
    with pytest.raises(ReadTimeoutError):
        change(proxied)
    assert proxied.value() == "after"


def test_a_belated_call_is_done_after_its_caller_has_given_up(proxied: Proxied) -> None:
    proxied.fail(Way.BELATED)
    with pytest.raises(ReadTimeoutError):
        change(proxied)
    assert proxied.value() == "before"
    deadline = time.monotonic() + 30
    while proxied.value() != "after":
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_slow_call_is_done_and_answered(proxied: Proxied) -> None:
    proxied.fail(Way.SLOW)
    put(proxied)
    assert proxied.items() == {"a"}
    assert proxied.trouble.fired == {("dynamodb.PutItem", "slow"): 1}


def test_a_cancelled_transaction_names_its_conflict_and_our_adapter_goes_on_from_it(proxied: Proxied) -> None:
    writes = [{"Put": {"TableName": TABLE, "Item": {"pk": {"S": pk}}}} for pk in "ab"]
    proxied.fail(Way.CONFLICT)
    client = proxied.through("dynamodb")
    with pytest.raises(client.exceptions.TransactionCanceledException) as refused:
        client.transact_write_items(TransactItems=writes)
    reasons = [reason["Code"] for reason in refused.value.response["CancellationReasons"]]
    assert sorted(reasons) == ["None", "TransactionConflict"]
    assert proxied.items() == set()

    def heal(_seconds: float) -> None:
        proxied.trouble.shares = {}

    assert Transactions(client, heal).write(writes, "write two") is None
    assert proxied.items() == {"a", "b"}


def test_keys_that_were_left_unprocessed_are_named_and_not_answered(proxied: Proxied) -> None:
    for pk in "abcd":
        put(proxied, pk)
    proxied.fail(Way.UNPROCESSED)
    asked = {TABLE: {"Keys": [{"pk": {"S": pk}} for pk in "abcdx"], "ConsistentRead": True}}
    answer = proxied.through("dynamodb").batch_get_item(RequestItems=asked)
    left = {key["pk"]["S"] for key in answer["UnprocessedKeys"][TABLE]["Keys"]}
    found = {item["pk"]["S"] for item in answer["Responses"][TABLE]}
    assert left
    assert found == set("abcd") - left
    assert answer["UnprocessedKeys"][TABLE]["ConsistentRead"] is True


def test_a_batch_of_messages_is_refused_in_part_as_far_as_its_sender_is_told(proxied: Proxied) -> None:
    proxied.fail(Way.PARTLY)
    sqs = proxied.through("sqs")
    entries = [{"Id": str(number), "MessageBody": f"m{number}"} for number in range(4)]
    sent = []
    for _ in range(8):  # half of the time nothing of it was accepted, else some of what was is denied
        answer = sqs.send_message_batch(QueueUrl=proxied.queue_url, Entries=entries)
        failed = {entry["Id"] for entry in answer["Failed"]}
        assert failed
        assert failed | {entry["Id"] for entry in answer.get("Successful", [])} == {"0", "1", "2", "3"}
        sent.append(answer)
    counted = proxied.past("sqs").get_queue_attributes(
        QueueUrl=proxied.queue_url, AttributeNames=["ApproximateNumberOfMessages"]
    )
    passed = proxied.server.requests.count("SendMessageBatch")
    assert 0 < passed < 8
    assert int(counted["Attributes"]["ApproximateNumberOfMessages"]) == 4 * passed


def test_a_share_of_the_calls_fails_in_each_way_and_the_same_seed_draws_the_same() -> None:
    shares = aws_shares(0.01)
    one, other = (Trouble(seed, shares) for seed in (7, 7))
    operations = [Operation("dynamodb", name, "json") for name in ("UpdateItem", "TransactWriteItems", "BatchGetItem")]
    drawn = [one.draw(operation) for operation in operations * 10_000]
    assert drawn == [other.draw(operation) for operation in operations * 10_000]
    met = {way: drawn.count(way) for way in Way}
    for way in set(Way) - TIMEOUTS - set(ONLY_FOR):
        assert 200 < met[way] < 400
    assert 200 < sum(met[way] for way in TIMEOUTS) < 400
    assert all(met[way] > 50 for way in TIMEOUTS)
    assert 400 < met[Way.CONFLICT] < 600  # one in twenty of the only operation that knows it
    assert met[Way.PARTLY] == 0


def test_a_client_is_at_work_once_it_asks_for_more_than_parameters_and_for_as_long_as_it_is_connected(
    proxied: Proxied,
) -> None:
    change(proxied)
    assert proxied.trouble.at_work == set()
    client = proxied.through("dynamodb")
    client.put_item(TableName=TABLE, Item={"pk": {"S": "a"}})
    (port,) = proxied.trouble.at_work
    assert not can_kill() or port in ports_of(os.getpid())
    client.close()
    deadline = time.monotonic() + 5
    while proxied.trouble.at_work and time.monotonic() < deadline:
        time.sleep(0.01)
    assert proxied.trouble.at_work == set()


def test_an_emulator_that_breaks_off_is_no_fault_of_ours_and_is_counted() -> None:
    trouble = Trouble()
    with serving("http://127.0.0.1:9", trouble) as url:  # the port of the discard service, where nobody listens
        config = Config(retries={"total_max_attempts": 1})
        client = boto3.client("sqs", region_name=REGION, endpoint_url=url, config=config)
        with pytest.raises(BotoCoreError):
            client.list_queues()
    assert sum(trouble.broken.values()) == 1


def test_the_proxys_process_is_told_what_to_do_and_ends_with_whoever_started_it() -> None:
    with moto_server() as server, proxying(server.url, seed=1) as proxy:
        proxy.fail({Way.THROTTLED: 1.0})
        config = Config(retries={"total_max_attempts": 1})
        client = boto3.client("sqs", region_name=REGION, endpoint_url=proxy.url, config=config)
        with pytest.raises(ClientError):
            client.list_queues()
        assert proxy.seen()["fired"] == [["sqs.ListQueues", "throttled", 1]]
    with pytest.raises(ConnectionRefusedError):
        FaultProxy(proxy.url).seen()


@pytest.mark.parametrize("seed", range(3))
def test_no_way_is_drawn_where_nothing_is_to_fail(seed: int) -> None:
    trouble = Trouble(seed)
    assert {trouble.draw(Operation("sqs", "SendMessage", "json")) for _ in range(1000)} == {None}
    assert random.Random(seed).random() != trouble.chance.random()  # and draws go on, so that shares may come later
