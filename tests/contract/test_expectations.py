"""`ports.Expectations`: how long sources may be silent, in the double and in SSM (002.2)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import boto3
import pytest
from botocore.stub import Stubber
from moto import mock_aws

from functions.adapters.ssm_expectations import SsmExpectations
from functions.core.failure import StorageUnavailable
from functions.core.ports import Expectations
from functions.core.silence import Expectation
from tests.control_fakes import FakeExpectations

PATH = "/holdfast/test/sources"
ENTRY = {"tenant": "acme", "provider": "github", "flow": "support", "secrets": [{"secret": "hush-hush-hush-hush"}]}


@dataclass
class Store:
    expectations: Expectations
    put: Callable[[str, int], None]


@pytest.fixture(params=["memory", "ssm"])
def store(request: pytest.FixtureRequest) -> Iterator[Store]:
    if request.param == "memory":
        fake = FakeExpectations()

        def say(source: str, gap: int) -> None:
            fake.expected = sorted([*fake.expected, Expectation(source, gap, 1)], key=lambda one: one.source)

        yield Store(fake, say)
        return
    with mock_aws():
        client = boto3.client("ssm", region_name="us-east-1")

        def put(source: str, gap: int) -> None:
            value = json.dumps({**ENTRY, "expected_gap_seconds": gap})
            client.put_parameter(Name=f"{PATH}/{source}", Value=value, Type="SecureString")

        yield Store(SsmExpectations(client, PATH), put)


def test_every_source_whose_entry_says_so_is_there_by_name_to_the_last_page(store: Store) -> None:
    for number in reversed(range(25)):
        store.put(f"source-{number:02}", 60 + number)
    found = store.expectations.read().expected
    assert [(one.source, one.gap_seconds) for one in found] == [(f"source-{n:02}", 60 + n) for n in range(25)]
    assert all(one.since_ms > 0 for one in found)


def test_without_sources_nobody_is_expected(store: Store) -> None:
    found = store.expectations.read()
    assert (list(found.expected), found.unreadable) == ([], {})


@pytest.mark.parametrize(
    "entry",
    [
        ENTRY,
        {**ENTRY, "expected_gap_seconds": 60, "state": "disabled"},
        {**ENTRY, "expected_gap_seconds": 60, "state": "held"},
        {**ENTRY, "expected_gap_seconds": "soon"},
        {**ENTRY, "expected_gap_seconds": 60, "flow": "synthetic"},  # its absence has an alarm of its own
        "not an entry",
    ],
)
def test_one_that_may_be_silent_or_cannot_be_read_is_not_expected_and_hides_no_other(entry: Any) -> None:
    with mock_aws():
        client = boto3.client("ssm", region_name="us-east-1")
        text = entry if isinstance(entry, str) else json.dumps(entry)
        client.put_parameter(Name=f"{PATH}/shop", Value=text, Type="SecureString")
        other = json.dumps({**ENTRY, "expected_gap_seconds": 90})
        client.put_parameter(Name=f"{PATH}/desk", Value=other, Type="SecureString")
        assert [one.source for one in SsmExpectations(client, PATH).read().expected] == ["desk"]


@pytest.mark.parametrize(
    ("name", "text", "is_readable"),
    [
        ("shop", json.dumps({**ENTRY, "expected_gap_seconds": 60}), True),
        ("shop", json.dumps({**ENTRY, "state": "disabled"}), True),
        ("shop", "not an entry", False),
        ("shop", json.dumps({**ENTRY, "expected_gap_seconds": "soon"}), False),
        ("sh.op", json.dumps(ENTRY), False),  # no source can be called so
    ],
)
def test_an_entry_that_nobody_can_read_is_named_with_when_it_was_written(
    name: str, text: str, *, is_readable: bool
) -> None:
    with mock_aws():
        client = boto3.client("ssm", region_name="us-east-1")
        client.put_parameter(Name=f"{PATH}/{name}", Value=text, Type="SecureString")
        found = SsmExpectations(client, PATH).read()
        assert [name for name, at_ms in found.unreadable.items() if at_ms > 0] == ([] if is_readable else [name])
        assert "hush" not in repr(found)


def test_a_store_that_does_not_answer_is_unavailable() -> None:
    client = boto3.client("ssm", region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="x")
    with Stubber(client) as stubber:
        stubber.add_client_error("get_parameters_by_path", "InternalServerError")
        with pytest.raises(StorageUnavailable):
            SsmExpectations(client, PATH).read()
