"""Logs and metrics say what happened in one vocabulary, and nothing about people."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest

from functions import observability
from functions.core.failure import StorageUnavailable


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_log_line_bears_the_fields_of_the_vocabulary() -> None:
    stream = io.StringIO()
    observability.logger("fields", stream=stream).info("hinted", extra={"recovery_id": "r1", "integration": "helpdesk"})
    (line,) = lines(stream)
    assert (line["service"], line["message"], line["recovery_id"], line["integration"]) == (
        "fields",
        "hinted",
        "r1",
        "helpdesk",
    )


def test_a_field_outside_the_vocabulary_never_reaches_the_line() -> None:
    stream = io.StringIO()
    observability.logger("strange", stream=stream).info(
        "hinted", extra={"phone": "+49 170 0000000", "recovery_id": "r1"}
    )
    assert "0000000" not in stream.getvalue()
    assert lines(stream)[0]["unlisted_fields"] == ["phone"]


def test_the_text_of_a_foreign_exception_stays_out_and_that_of_our_own_stays_in() -> None:
    stream = io.StringIO()
    log = observability.logger("raising", stream=stream)
    for error in (ValueError("anna@example.com cannot be parsed"), StorageUnavailable("the ledger did not answer")):
        try:
            raise error
        except Exception:
            log.exception("a duty failed")
    foreign, ours = lines(stream)
    assert "anna@example.com" not in stream.getvalue()
    assert foreign["exception_name"] == "ValueError"
    assert "test_observability.py" in foreign["exception"]
    assert "the ledger did not answer" in ours["exception"]


def test_a_group_of_failures_tells_each_that_it_holds_in_the_words_that_it_may_use() -> None:
    stream = io.StringIO()
    inner = ExceptionGroup("health", [StorageUnavailable("the ledger did not answer"), KeyError("anna@example.com")])
    outer = ExceptionGroup("duties of anna@example.com", [inner, StorageUnavailable("no audit")])
    try:
        raise outer
    except ExceptionGroup:
        observability.logger("grouped", stream=stream).exception("a duty failed")
    assert "anna@example.com" not in stream.getvalue()
    (line,) = lines(stream)
    assert line["exception_name"] == "ExceptionGroup"
    assert line["exceptions_within"] == ["KeyError", "StorageUnavailable"]
    for told in ("test_observability.py", "StorageUnavailable: the ledger did not answer", "no audit", "\nKeyError"):
        assert told in line["exception"]
    assert "unlisted_fields" not in line


def test_counts_of_one_kind_come_in_one_line_and_add_up() -> None:
    written: list[str] = []
    counts = observability.metrics("sweeper", "test", written.append)
    counts.count("rows_hinted", 2, integration="helpdesk")
    counts.count("rows_hinted", integration="helpdesk")
    counts.count("rows_expired", integration="helpdesk")
    counts.count("rows_hinted", 5, integration="email")
    counts.flush()
    found = {line["integration"]: line for line in map(json.loads, written)}
    assert found["helpdesk"]["rows_hinted"] == [3.0]
    assert found["helpdesk"]["rows_expired"] == [1.0]
    assert found["email"]["rows_hinted"] == [5.0]
    described = found["helpdesk"]["_aws"]["CloudWatchMetrics"][0]
    assert described["Namespace"] == "Holdfast"
    assert sorted(described["Dimensions"][0]) == ["integration", "service", "stage"]


def test_what_one_alarm_watches_in_every_function_is_one_metric_of_the_stage() -> None:
    written: list[str] = []
    for function in ("worker", "sweeper"):
        counts = observability.metrics(function, "test", written.append)
        counts.count("people_needed")
        counts.count("items_received", 2)
        counts.count("people_needed")
        counts.flush()
    lines = [json.loads(line) for line in written]
    of_the_stage = [line for line in lines if "people_needed" in line]
    assert [(line["service"], line["people_needed"]) for line in of_the_stage] == [
        ("worker", [2.0]),
        ("sweeper", [2.0]),
    ]
    for line in lines:
        expected = ["stage"] if line in of_the_stage else ["service", "stage"]
        assert [sorted(names) for names in line["_aws"]["CloudWatchMetrics"][0]["Dimensions"]] == [expected]


def test_every_duration_is_kept() -> None:
    written: list[str] = []
    counts = observability.metrics("worker", "test", written.append)
    counts.milliseconds("send_ms", 12, integration="helpdesk")
    counts.milliseconds("send_ms", 30, integration="helpdesk")
    counts.flush()
    assert json.loads(written[0])["send_ms"] == [12.0, 30.0]


def test_a_flush_writes_each_count_once_and_nothing_when_there_is_nothing() -> None:
    written: list[str] = []
    counts = observability.metrics("sweeper", "test", written.append)
    counts.flush()
    counts.count("rows_hinted")
    counts.flush()
    counts.flush()
    assert len(written) == 1


def test_what_belongs_to_the_hour_in_which_something_came_in_is_counted_there() -> None:
    written: list[str] = []
    counts = observability.metrics("worker", "test", written.append)
    hour_ms = 3_600_000
    counts.count_at("events_accounted", 5 * hour_ms, outcome="done")
    counts.count_at("events_accounted", 6 * hour_ms - 1, outcome="done")
    counts.count_at("events_accounted", 6 * hour_ms, outcome="done")
    counts.count("items_received")
    counts.flush()
    told = [json.loads(line) for line in written]
    assert [(line["_aws"]["Timestamp"], line["events_accounted"]) for line in told[:2]] == [
        (5 * hour_ms, [2.0]),
        (6 * hour_ms, [1.0]),
    ]
    assert told[0]["outcome"] == "done"
    assert told[2]["_aws"]["Timestamp"] > 6 * hour_ms  # now


def test_a_tenant_is_no_dimension() -> None:
    with pytest.raises(ValueError, match="tenant"):
        observability.metrics("sweeper", "test", print).count("rows_hinted", tenant="t1")
