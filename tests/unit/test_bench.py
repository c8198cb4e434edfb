"""The figures of the benchmark, and what its endpoint answers, without a process or a socket."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ops.bench.__main__ import main
from ops.bench.endpoint import Refusal, World, md5_of_attributes
from ops.bench.measure import Load, Run, Taken
from ops.bench.profile import Import, imports_in
from ops.bench.report import SCHEMA, TARGETS, percentile, report, spread, table
from ops.bench.subjects import OURS, PEER, gateway_events, parameters

SIGNED = {"authorization": "AWS4-HMAC-SHA256 Credential=ours/20260922/us-east-1/sqs/aws4_request, SignedHeaders=host"}


def run_of(cold: float, warm: float = 0.001, peak: int = 1000) -> Run:
    return Run(
        cold_cpu_seconds=cold,
        warm_cpu_seconds=warm,
        peak_bytes=peak,
        modules=100,
        loads_boto3=False,
        first_aws_requests=2,
        warm_aws_requests=1.0,
    )


def taken() -> Taken:
    found = Taken(bare_cpu_seconds=[0.01, 0.02, 0.01])
    found.runs[OURS] += [run_of(0.1), run_of(0.2), run_of(0.3)]
    found.runs[PEER] += [run_of(1.0, 0.004, 2000), run_of(1.0, 0.004, 2000), run_of(0.5, 0.004, 2000)]
    found.ack_seconds[OURS] += [[0.001] * 98 + [0.005, 0.009]]
    found.ack_seconds[PEER] += [[0.002] * 98 + [0.020, 0.030]]
    return found


def document() -> dict[str, Any]:
    return report(taken(), Load(pairs=3), {OURS: 10, PEER: 40}, is_tls=True)


def send(world: World, headers: dict[str, str] | None = None, **asked: object) -> dict[str, Any]:
    everything = {"QueueUrl": "q", "MessageBody": "hello", **asked}
    target = {"x-amz-target": "AmazonSQS.SendMessage"}
    return world.answer("POST", "/", {**SIGNED, **target, **(headers or {})}, json.dumps(everything).encode())


def test_a_spread_is_the_median_between_its_quartiles() -> None:
    assert spread([4.0, 1.0, 3.0, 2.0, 5.0]) == {"median": 3.0, "q1": 2.0, "q3": 4.0, "n": 5}
    assert spread([7.0]) == {"median": 7.0, "q1": 7.0, "q3": 7.0, "n": 1}


@pytest.mark.parametrize(("share", "value"), [(0.5, 50), (0.99, 99), (1.0, 100), (0.001, 1)])
def test_a_percentile_is_a_value_that_was_measured(share: float, value: int) -> None:
    assert percentile([float(number) for number in range(100, 0, -1)], share) == value


def test_ratios_are_taken_pair_by_pair_and_not_of_the_medians() -> None:
    compared = document()["measures"]["cold_cpu_seconds"]
    assert compared["ours"]["median"] / compared["peer"]["median"] == pytest.approx(0.2)
    assert compared["ratio"]["median"] == pytest.approx(0.2)
    assert compared["ratio"]["q3"] == pytest.approx((0.2 + 0.3 / 0.5) / 2)
    above = document()["measures"]["cold_cpu_above_bare_seconds"]
    assert above["ratio"]["median"] == pytest.approx(0.18 / 0.98)


def test_a_target_is_met_by_the_median_of_the_ratios() -> None:
    found = document()["measures"]
    assert {name: one["target"] for name, one in found.items() if one["target"] is not None} == TARGETS
    assert found["cold_cpu_seconds"]["is_met"] is True
    assert found["peak_memory_bytes"]["is_met"] is True  # exactly at its target
    slow = taken()
    slow.runs[OURS][:] = [run_of(0.3)] * 3
    assert report(slow, Load(), {OURS: 1, PEER: 1}, is_tls=True)["measures"]["cold_cpu_seconds"]["is_met"] is False


def test_the_document_has_the_fields_its_schema_names_and_is_json() -> None:
    found = json.loads(json.dumps(document()))
    assert found["schema"] == SCHEMA
    assert set(found) == {
        "schema",
        "python",
        "machine",
        "cpus",
        "method",
        "ours",
        "peer",
        "keeps_schedule",
        "bare_cpu_seconds",
        "measures",
    }
    for measure, compared in found["measures"].items():
        assert measure in str(report.__globals__["__doc__"])
        assert set(compared) == {"ours", "peer", "ratio", "target", "is_met"}
        assert all(set(compared[name]) == {"median", "q1", "q3", "n"} for name in ("ours", "peer", "ratio"))
    assert found["measures"]["ack_p99_seconds"]["ratio"]["median"] == pytest.approx(0.25)


def test_the_table_has_a_line_for_every_measure_and_says_which_target_was_missed() -> None:
    found = document()
    assert "met" in table(found)
    assert "MISSED" not in table(found)
    found["measures"]["cold_cpu_seconds"]["is_met"] = False
    rows = [line for line in table(found).splitlines() if "[" in line]
    assert len(rows) == len(found["measures"])
    assert next(line for line in rows if "MISSED" in line).startswith("cold CPU, ms")


def test_a_schedule_that_was_not_kept_is_said() -> None:
    late = taken()
    late.ack_seconds[PEER][:] = [[0.004, 0.026, 0.030]]
    found = report(late, Load(interval_seconds=0.025), {OURS: 1, PEER: 1}, is_tls=True)
    assert found["keeps_schedule"] is False
    assert "too busy" in table(found)
    assert document()["keeps_schedule"] is True
    assert "too busy" not in table(document())


def test_importtime_is_read_line_by_line() -> None:
    said = (
        "import time: self [us] | cumulative | imported package\n"
        "import time:       105 |        205 |   _io\n"
        "a warning of somebody else\n"
        "import time:         7 |        300 | functions.core.event\n"
    )
    assert imports_in(said) == [Import("_io", 105, 205), Import("functions.core.event", 7, 300)]


def test_events_are_all_different_and_the_parameters_hold_their_source_for_both() -> None:
    events = gateway_events(40)
    assert len({event["body"] for event in events}) == len({event["headers"]["x-signature"] for event in events}) == 40
    assert {event["pathParameters"]["source"] for event in events} == {"desk"}
    assert {name.rpartition("/")[2] for name in parameters()} == {"desk"}


def test_the_endpoint_counts_by_caller_and_keeps_each_ones_last_message() -> None:
    world = World({"/p": "secret"})
    send(world)
    answer = send(world, MessageBody="héllo")
    assert answer["MD5OfMessageBody"] == "be50e8478cf24ff3595bc7307fb91b50"
    assert "MD5OfMessageAttributes" not in answer
    parameter = world.answer(
        "POST", "/", {**SIGNED, "x-amz-target": "AmazonSSM.GetParameter"}, b'{"Name": "/p", "WithDecryption": true}'
    )
    assert parameter["Parameter"]["Value"] == "secret"
    assert world.answer("GET", "/_bench/counts", {}, b"") == {"ours": {"SendMessage": 2, "GetParameter": 1}}
    assert world.answer("GET", "/_bench/last/ours", {}, b"")["body"] == "héllo"


@pytest.mark.parametrize(
    ("method", "path", "headers", "body", "status", "code"),
    [
        ("POST", "/elsewhere", SIGNED, b"{}", 404, "UnknownOperationException"),
        ("PUT", "/", SIGNED, b"{}", 404, "UnknownOperationException"),
        ("GET", "/", SIGNED, b"", 404, "UnknownOperationException"),
        ("GET", "/_bench/last/nobody", {}, b"", 404, "NothingSent"),
        ("POST", "/", {}, b"{}", 403, "MissingAuthenticationTokenException"),
        ("POST", "/", {**SIGNED, "x-amz-target": "AmazonSQS.PurgeQueue"}, b"{}", 400, "UnknownOperationException"),
        ("POST", "/", {**SIGNED, "x-amz-target": "AmazonSQS.SendMessage"}, b"{", 400, "SerializationException"),
        ("POST", "/", {**SIGNED, "x-amz-target": "AmazonSQS.SendMessage"}, b"[]", 400, "SerializationException"),
        ("POST", "/", {**SIGNED, "x-amz-target": "AmazonSSM.GetParameter"}, b"{}", 400, "SerializationException"),
        ("POST", "/", {**SIGNED, "x-amz-target": "AmazonSSM.GetParameter"}, b'{"Name":"/x"}', 400, "ParameterNotFound"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_the_endpoint_refuses_what_it_does_not_know(
    method: str, path: str, headers: dict[str, str], body: bytes, status: int, code: str
) -> None:
    with pytest.raises(Refusal) as refused:
        World({}).answer(method, path, headers, body)
    assert (refused.value.status, refused.value.code) == (status, code)


def test_the_digest_of_attributes_does_not_depend_on_their_order_but_on_all_else() -> None:
    one = {"a": {"DataType": "String", "StringValue": "x"}, "b": {"DataType": "Number", "StringValue": "1"}}
    digest = md5_of_attributes(one)
    assert md5_of_attributes(dict(reversed(one.items()))) == digest
    for changed in ({"DataType": "String", "StringValue": "y"}, {"DataType": "String.x", "StringValue": "x"}):
        assert md5_of_attributes({**one, "a": changed}) != digest


@pytest.mark.parametrize("arguments", [["--pairs", "0"], ["--pairs", "many"], ["--profile", "nobody"]])
def test_arguments_that_mean_nothing_are_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert arguments[0] in capsys.readouterr().err
