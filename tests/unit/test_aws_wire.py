"""What AWS's answers mean, where a service is reached, and what a request carries."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest

from functions.adapters.aws_wire import MAY_PASS, Endpoint, Service, check, codes_of, region_of
from functions.adapters.dynamodb_items import DynamoItems
from functions.adapters.s3_objects import S3Objects
from functions.adapters.sigv4 import Signer
from functions.adapters.sqs_outbox import SqsQueue
from functions.adapters.ssm_sources import SsmSourceParameters
from functions.adapters.wire import Answer, NoAnswer
from functions.core.failure import StorageRefused, StorageUnavailable
from tests.contract.answers import error, service_that_says, success


def answer(status: int, body: object = b"", **headers: str) -> Answer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(status, named, body if isinstance(body, bytes) else json.dumps(body).encode())


XML = b'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>SlowDown</Code><Message>Please</Message></Error>'


@pytest.mark.parametrize(
    ("given", "codes"),
    [
        (answer(400, {"__type": "com.amazonaws.sqs#QueueDoesNotExist"}), ["QueueDoesNotExist"]),
        (answer(400, {"__type": "ParameterNotFound"}), ["ParameterNotFound"]),
        (
            answer(
                400,
                {"__type": "com.amazonaws.sqs#QueueDoesNotExist"},
                x_amzn_query_error="AWS.SimpleQueueService.NonExistentQueue;Sender",
            ),
            ["QueueDoesNotExist", "AWS.SimpleQueueService.NonExistentQueue"],
        ),
        (answer(400, {"code": "ThrottlingException"}), ["ThrottlingException"]),
        (
            answer(400, b"", x_amzn_errortype="ValidationException:http://internal.amazon.com/coral/com.amazon/"),
            ["ValidationException"],
        ),
        (answer(503, XML), ["SlowDown"]),
        (answer(400, {"__type": 7, "code": None}), []),
        (answer(400, {"__type": "what the sender wrote"}), []),
        (answer(400, {"__type": "x" * 101}), []),
        (answer(400, ["ThrottlingException"]), []),
        (answer(502, b"<html>Bad Gateway</html>"), []),
        (answer(500, b"[" * 60_000), []),
        (answer(500, b"\xff\xfe"), []),
    ],
    ids=itertools.count(),
)
def test_an_error_is_known_by_its_code_wherever_it_stands(given: Answer, codes: list[str]) -> None:
    assert codes_of(given) == codes


REFUSED = [
    error(400, "com.amazonaws.sqs#InvalidMessageContents"),
    error(400, "AWS.SimpleQueueService.NonExistentQueue"),
    error(403, "AccessDeniedException"),
    error(403, "ExpiredTokenException"),
    error(403, "SignatureDoesNotMatch"),
    error(404),
    error(413),
]
MAY_PASS_ANSWERS = [
    error(500, "InternalFailure"),
    error(502),
    error(503, "ServiceUnavailable"),
    error(504),
    error(408),
    error(429),
    answer(503, XML),
    answer(400, XML),
    answer(400, {"__type": "com.amazonaws.sqs#Odd"}, x_amzn_query_error="RequestThrottled;Sender"),
    error(301),
    error(307, "TemporaryRedirect"),
    error(204),
    error(206),
    *[error(400, code) for code in sorted(MAY_PASS)],
]


def named(given: Answer) -> str:
    return f"{given.status} {given.body.decode()}"


@pytest.mark.parametrize("given", REFUSED, ids=named)
def test_what_the_service_will_not_take_is_refused(given: Answer) -> None:
    with pytest.raises(StorageRefused):
        check("SendMessage", given)


@pytest.mark.parametrize("given", MAY_PASS_ANSWERS, ids=named)
def test_throttling_trouble_of_the_service_and_a_clock_that_is_off_may_pass(given: Answer) -> None:
    with pytest.raises(StorageUnavailable) as caught:
        check("SendMessage", given)
    assert not isinstance(caught.value, StorageRefused)


def test_an_error_says_its_code_and_nothing_of_what_the_service_wrote() -> None:
    with pytest.raises(StorageUnavailable) as caught:
        check("SendMessage", error(400, "com.amazonaws.sqs#InvalidMessageContents", message="the body was hidden"))
    assert str(caught.value) == "SendMessage failed: InvalidMessageContents"
    with pytest.raises(StorageUnavailable) as caught:
        check("PutObject", answer(503, b"hidden"))
    assert str(caught.value) == "PutObject failed: HTTP 503"


def test_only_a_200_is_an_answer_to_go_on_with() -> None:
    check("SendMessage", error(200))


# ------------------------------------------------------------------------------------------------------------ endpoints


@pytest.mark.parametrize(
    ("environ", "service", "region", "expected"),
    [
        ({}, "sqs", "eu-west-1", Endpoint("sqs.eu-west-1.amazonaws.com", 443, is_tls=True)),
        ({}, "ssm", "us-gov-west-1", Endpoint("ssm.us-gov-west-1.amazonaws.com", 443, is_tls=True)),
        ({}, "s3", "cn-north-1", Endpoint("s3.cn-north-1.amazonaws.com.cn", 443, is_tls=True)),
        (
            {"AWS_ENDPOINT_URL": "http://127.0.0.1:4566", "AWS_ENDPOINT_URL_SQS": ""},
            *("sqs", "us-east-1", Endpoint("127.0.0.1", 4566, is_tls=False, is_override=True)),
        ),
        (
            {"AWS_ENDPOINT_URL": "http://127.0.0.1:4566", "AWS_ENDPOINT_URL_S3": "https://storage.example/"},
            *("s3", "us-east-1", Endpoint("storage.example", 443, is_tls=True, is_override=True)),
        ),
        (
            {"AWS_ENDPOINT_URL": "http://[::1]"},
            *("dynamodb", "us-east-1", Endpoint("::1", 80, is_tls=False, is_override=True)),
        ),
    ],
    ids=itertools.count(),
)
def test_a_service_is_reached_where_the_environment_says_or_in_its_region(
    environ: dict[str, str], service: str, region: str, expected: Endpoint
) -> None:
    assert Endpoint.of(service, region, environ) == expected


@pytest.mark.parametrize(
    "url",
    [
        *("127.0.0.1:4566", "ftp://h", "http://", "http://h/path", "http://h?q", "http://user@h"),
        *("http://hö", "http://h:99999", "http://:@h", "http://h h"),
    ],
)
def test_an_endpoint_that_is_no_address_of_a_host_ends_the_start(url: str) -> None:
    with pytest.raises(ValueError, match=r"AWS_ENDPOINT_URL|Port"):
        Endpoint.of("sqs", "us-east-1", {"AWS_ENDPOINT_URL_SQS": url})


@pytest.mark.parametrize(
    ("endpoint", "host"),
    [
        (Endpoint("a.example", 443, is_tls=True), "a.example"),
        (Endpoint("a.example", 80, is_tls=False), "a.example"),
        (Endpoint("a.example", 80, is_tls=True), "a.example:80"),
        (Endpoint("a.example", 4566, is_tls=False), "a.example:4566"),
        (Endpoint("::1", 4566, is_tls=False), "[::1]:4566"),
        (Endpoint("a.example", 443, is_tls=True).below("b"), "b.a.example"),
    ],
    ids=itertools.count(),
)
def test_a_request_names_its_host_with_a_port_where_that_is_not_the_schemes_own(endpoint: Endpoint, host: str) -> None:
    assert endpoint.host_header == host


def test_the_region_is_lambdas_or_the_settings_and_without_one_nothing_starts() -> None:
    assert region_of({"AWS_REGION": "a", "AWS_DEFAULT_REGION": "b"}) == "a"
    assert region_of({"AWS_DEFAULT_REGION": "b"}) == "b"
    with pytest.raises(ValueError, match="AWS_REGION"):
        region_of({"AWS_REGION": ""})


# ------------------------------------------------------------------------------------------------------------- requests


class FakeConnection:
    """Keeps what it is given; has no answer if told so."""

    def __init__(self, trouble: NoAnswer | None = None) -> None:
        self.trouble = trouble
        self.sent: list[tuple[Any, ...]] = []

    def call(self, *given: Any) -> Answer:
        self.sent.append(given)
        if self.trouble is not None:
            raise self.trouble
        return success({"a": 1})


class FrozenClock:
    def now_ms(self) -> int:
        return 1_440_938_160_000


def service_over(connection: FakeConnection, monkeypatch: pytest.MonkeyPatch) -> Service:
    service = Service(
        Endpoint("sqs.us-east-1.amazonaws.com", 443, is_tls=False), Signer("sqs", "us-east-1"), clock=FrozenClock()
    )
    monkeypatch.setattr(service, "_connection", connection)
    return service


def test_a_request_is_signed_for_its_moment_and_carries_lambdas_trace_unsigned(monkeypatch: pytest.MonkeyPatch) -> None:
    connection = FakeConnection()
    service = service_over(connection, monkeypatch)
    monkeypatch.setenv("AWS_SESSION_TOKEN", "token")
    monkeypatch.setenv("_X_AMZN_TRACE_ID", "Root=1-2-3;Parent=4;Sampled=1")
    assert service.call_json("AmazonSQS.SendMessage", "1.0", {"é": 1}, 2.5)[1] == {"a": 1}
    ((method, path, headers, body, seconds),) = connection.sent
    assert (method, path, body, seconds) == ("POST", "/", b'{"\\u00e9": 1}', 2.5)
    authorization = headers.pop("authorization")
    assert headers == {
        "host": "sqs.us-east-1.amazonaws.com:443",
        "content-type": "application/x-amz-json-1.0",
        "x-amz-target": "AmazonSQS.SendMessage",
        "x-amz-date": "20150830T123600Z",
        "x-amz-security-token": "token",
        "x-amzn-trace-id": "Root=1-2-3;Parent=4;Sampled=1",
    }
    assert "SignedHeaders=content-type;host;x-amz-date;x-amz-security-token;x-amz-target," in authorization


@pytest.mark.parametrize("trace", ["", "a\r\nx: y", "ä", "x" * 1001])
def test_a_trace_that_could_not_travel_in_a_header_stays_behind(trace: str, monkeypatch: pytest.MonkeyPatch) -> None:
    connection = FakeConnection()
    service = service_over(connection, monkeypatch)
    monkeypatch.setenv("_X_AMZN_TRACE_ID", trace)
    service.call_json("AmazonSQS.SendMessage", "1.0", {}, 1)
    assert "x-amzn-trace-id" not in connection.sent[0][2]


def test_credentials_are_read_for_each_request(monkeypatch: pytest.MonkeyPatch) -> None:
    connection = FakeConnection()
    service = service_over(connection, monkeypatch)
    for key in ("AKIDONE", "AKIDTWO"):
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", key)
        service.call_json("AmazonSQS.SendMessage", "1.0", {}, 1)
        assert f"Credential={key}/20150830/us-east-1/sqs/" in connection.sent[-1][2]["authorization"]
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    with pytest.raises(StorageUnavailable, match="no AWS credentials"):
        service.call_json("AmazonSQS.SendMessage", "1.0", {}, 1)
    assert len(connection.sent) == 2


def test_no_answer_is_unavailable_storage(monkeypatch: pytest.MonkeyPatch) -> None:
    trouble = NoAnswer("TimeoutError")
    service = service_over(FakeConnection(trouble), monkeypatch)
    with pytest.raises(StorageUnavailable) as caught:
        service.call_json("AmazonSQS.SendMessage", "1.0", {}, 1)
    assert str(caught.value) == "SendMessage failed: TimeoutError"
    assert caught.value.__cause__ is trouble


# ------------------------------------------------------------------------------------------------------------- adapters


@pytest.mark.parametrize(
    ("environ", "bucket", "host", "prefix"),
    [
        ({}, "spill", "spill.s3.eu-west-1.amazonaws.com", ""),
        ({}, "spill.example.com", "s3.eu-west-1.amazonaws.com", "/spill.example.com"),
        ({"AWS_ENDPOINT_URL_S3": "http://127.0.0.1:1"}, "spill", "127.0.0.1:1", "/spill"),
    ],
    ids=["on AWS", "a name with dots", "elsewhere"],
)
def test_a_bucket_is_named_by_host_where_that_can_be_and_by_path_elsewhere(
    environ: dict[str, str], bucket: str, host: str, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment(monkeypatch, AWS_REGION="eu-west-1", **environ)
    objects = S3Objects.connect(bucket)
    assert (objects._service._endpoint.host_header, objects._prefix) == (host, prefix)


def test_the_others_are_reached_in_their_region(monkeypatch: pytest.MonkeyPatch) -> None:
    environment(monkeypatch, AWS_REGION="eu-west-1")
    made: list[Any] = [SqsQueue.connect("url"), SsmSourceParameters.connect("/p"), DynamoItems.connect()]
    hosts = [adapter._service._endpoint.host_header.partition(".") for adapter in made]
    assert [name for name, _, _ in hosts] == ["sqs", "ssm", "dynamodb"]
    assert {where for _, _, where in hosts} == {"eu-west-1.amazonaws.com"}


def environment(monkeypatch: pytest.MonkeyPatch, **variables: str) -> None:
    for name in ("AWS_ENDPOINT_URL", *(f"AWS_ENDPOINT_URL_{name}" for name in ("SQS", "SSM", "S3", "DYNAMODB"))):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    ("given", "item"),
    [(success({}), None), (success({"Item": {"pk": {"S": "a"}}}), {"pk": {"S": "a"}}), (success({"Item": {}}), {})],
    ids=["none", "one", "an empty one"],
)
def test_an_item_is_what_the_table_says(given: Answer, item: object) -> None:
    service = service_that_says(given)
    assert DynamoItems(service).get_item("ledger", {"pk": {"S": "a"}}, 1.5) == item
    ((_, _, headers, body, seconds),) = service.asked
    assert headers["x-amz-target"] == "DynamoDB_20120810.GetItem"
    assert json.loads(body) == {"TableName": "ledger", "Key": {"pk": {"S": "a"}}, "ConsistentRead": True}
    assert seconds == 1.5


@pytest.mark.parametrize(
    "given", [success({"Item": "a"}), success([]), error(400, "ResourceNotFoundException"), error(500)], ids=named
)
def test_an_item_that_cannot_be_read_is_not_taken_for_none(given: Answer) -> None:
    with pytest.raises(StorageUnavailable):
        DynamoItems(service_that_says(given)).get_item("ledger", {"pk": {"S": "a"}}, 1)
