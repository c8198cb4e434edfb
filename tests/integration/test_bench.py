"""The benchmark end to end, with as little of everything as there can be. Nothing asserts how long anything took."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto import mock_aws

from functions.core.event import Event, read_message
from ops.bench import __main__ as command
from ops.bench.endpoint import HOST, Endpoint, EndpointFailed, running
from ops.bench.measure import Load, Stage, SubjectFailed
from ops.bench.profile import profile
from ops.bench.report import SCHEMA
from ops.bench.subjects import DISTINCT_EVENTS, NAMES, OURS, PEER, gateway_events, parameters, subjects

TINY = Load(pairs=1, warm_up_requests=1, warm_requests=3, rounds=1, arrivals=3, interval_seconds=0.01)
ATTRIBUTES: dict[str, Any] = {
    "name": {"DataType": "String", "StringValue": "ticket.créé"},
    "received_at": {"DataType": "Number", "StringValue": "1790000000000"},
    "raw": {"DataType": "Binary", "BinaryValue": b"\x00\xff"},
}


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    scratch = tmp_path_factory.mktemp("bench")
    with running(scratch, parameters()) as endpoint:
        yield Stage(subjects(scratch, endpoint), endpoint, scratch)


def client_of(service: Any, endpoint: Endpoint, caller: str) -> Any:
    return boto3.client(
        service,
        endpoint_url=endpoint.url,
        region_name="us-east-1",
        verify=str(endpoint.certificate),
        aws_access_key_id=caller,
        aws_secret_access_key="bench",
    )


def test_the_sdk_accepts_the_endpoint_over_tls_and_its_digests_are_those_of_sqs(stage: Stage) -> None:
    sqs = client_of("sqs", stage.endpoint, "sdk")
    message: dict[str, Any] = {"MessageBody": "héllo", "MessageAttributes": ATTRIBUTES}
    answers = [sqs.send_message(QueueUrl=f"{stage.endpoint.url}/q", **message) for _ in range(2)]
    with mock_aws():
        real = boto3.client("sqs", region_name="us-east-1")
        expected = real.send_message(QueueUrl=real.create_queue(QueueName="q")["QueueUrl"], **message)
    for answer in answers:
        assert answer["MD5OfMessageBody"] == expected["MD5OfMessageBody"]
        assert answer["MD5OfMessageAttributes"] == expected["MD5OfMessageAttributes"]
    assert stage.endpoint.counts("sdk") == {"SendMessage": 2}
    assert stage.endpoint.last_message("sdk")["body"] == "héllo"

    ssm = client_of("ssm", stage.endpoint, "sdk")
    with pytest.raises(ssm.exceptions.ParameterNotFound):
        ssm.get_parameter(Name="/nothing/here", WithDecryption=True)


def test_the_endpoint_answers_strangers_with_an_error_and_goes_on(stage: Stage) -> None:
    endpoint = stage.endpoint
    context = ssl.create_default_context(cafile=str(endpoint.certificate))
    connection = http.client.HTTPSConnection(HOST, endpoint.port, timeout=10, context=context)
    with contextlib.closing(connection):
        for path, status in (("/elsewhere", 404), ("/", 403)):  # on one connection
            connection.request("POST", path, b"{}")
            response = connection.getresponse()
            assert response.status == status
            assert json.loads(response.read())["__type"]
        connection.request("POST", "/", iter([b"{}"]), {"Transfer-Encoding": "chunked"}, encode_chunked=True)
        response = connection.getresponse()
        assert (response.status, response.getheader("connection")) == (411, "close")
    with socket.create_connection((HOST, endpoint.port), timeout=10) as plain:
        plain.sendall(b"GET / HTTP/1.1\r\n\r\n")  # no TLS: it hangs up
        assert b"200" not in plain.recv(100)
    with pytest.raises(EndpointFailed, match="404"):
        endpoint.last_message("nobody")


def test_the_endpoint_speaks_plain_http_when_told_to(tmp_path: Path) -> None:
    with running(tmp_path, {"/p": "v"}, is_tls=False) as endpoint:
        assert endpoint.url.startswith("http://")
        ssm = boto3.client("ssm", endpoint_url=endpoint.url, region_name="us-east-1")
        assert ssm.get_parameter(Name="/p")["Parameter"]["Value"] == "v"
        assert endpoint.counts(os.environ["AWS_ACCESS_KEY_ID"]) == {"GetParameter": 1}


def test_both_subjects_enqueue_the_bytes_of_the_same_event_and_refuse_a_forged_one(
    stage: Stage, tmp_path: Path
) -> None:
    strict = Stage(stage.subjects, stage.endpoint, tmp_path)
    event, forged = gateway_events(DISTINCT_EVENTS + 1)[:2]
    forged["body"] = forged["body"].replace("Parcel", "Refund")
    (tmp_path / "events.ndjson").write_text(json.dumps(forged) + "\n")
    answers = {}
    for name in NAMES:
        with strict.started(name) as (process, first):
            answers[name] = json.loads(first["answer"]["body"])
            with pytest.raises(SubjectFailed, match="refused 1 event"):
                process.ask({"do": "answer", "requests": 1})
    ours, peer = (stage.endpoint.last_message(name) for name in NAMES)
    message = read_message(ours["body"])
    assert isinstance(message, Event)
    assert message.body == peer["body"].encode() == event["body"].encode()
    assert (
        answers[OURS] == answers[PEER] == {"event_id": "desk:m-0", "request_id": event["requestContext"]["requestId"]}
    )
    shared = {"event_name", "source", "request_id"}
    assert {name: ours["attributes"][name] for name in shared} == {name: peer["attributes"][name] for name in shared}


def test_a_subject_that_does_not_start_is_told_with_its_reason(stage: Stage, tmp_path: Path) -> None:
    broken = Stage(dict(stage.subjects), stage.endpoint, tmp_path)
    peer = broken.subjects[PEER]
    environment = {name: value for name, value in peer.environment.items() if name != "SOURCES_PATH"}
    broken.subjects[PEER] = type(peer)(peer.name, peer.module, peer.function, peer.bundle_bytes, peer.path, environment)
    with pytest.raises(SubjectFailed, match="SOURCES_PATH"), broken.started(PEER):
        pass


def test_a_run_gives_one_json_object_and_a_table(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "QUICK", TINY)
    assert command.main(["--quick"]) == 0
    said = capsys.readouterr()
    document = json.loads(said.out)
    assert document["schema"] == SCHEMA
    assert document["method"]["pairs"] == 1
    measures = document["measures"]
    for name in NAMES:
        assert measures["aws_requests_first_event"][name]["median"] == 2  # the source's entry, and the message
        assert measures["aws_requests_per_warm_event"][name]["median"] == 1
        assert all(compared[name]["median"] > 0 for compared in measures.values())
    assert document["peer"] == {"loads_boto3": True}
    assert "cold CPU, ms" in said.err


def test_a_profile_says_what_is_imported_and_what_is_called(stage: Stage) -> None:
    said = profile(stage, OURS)
    assert "functions.ingress.handler" in said
    assert "(handle)" in said
