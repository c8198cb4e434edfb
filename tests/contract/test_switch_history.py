"""What the parameter store remembers of the switches, in the double and in SSM."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from botocore.stub import Stubber
from moto import mock_aws

from functions.adapters.ssm_history import SsmSwitchHistory
from functions.core import ports
from functions.core.failure import StorageUnavailable
from tests.aws_tables import sdk_client
from tests.control_fakes import FakeSwitchHistory
from tests.fakes import FakeClock

PATH = "/holdfast/test/switches"


@dataclass
class Store:
    history: ports.SwitchHistory
    write: Callable[[str, str], object]
    delete: Callable[[str], object]


@pytest.fixture(params=["memory", "ssm"])
def store(request: pytest.FixtureRequest) -> Iterator[Store]:
    """A parameter store without switches."""
    if request.param == "memory":
        fake = FakeSwitchHistory(FakeClock())
        yield Store(fake, lambda name, value: fake.write(name, value, "anna"), fake.delete)
        return
    with mock_aws():
        client = sdk_client("ssm")
        client.put_parameter(Name="/holdfast/test/sources/desk", Value="secret", Type="String")
        yield Store(
            SsmSwitchHistory(client, PATH),
            lambda name, value: client.put_parameter(Name=f"{PATH}/{name}", Value=value, Type="String", Overwrite=True),
            lambda name: client.delete_parameter(Name=f"{PATH}/{name}"),
        )


def test_all_switches_are_listed_with_their_versions_to_the_last_page(store: Store) -> None:
    for number in range(25):
        store.write(f"tenant/t{number}/auto_reply", "on")
    store.write("mode", "live")
    store.write("mode", "manual")
    latest = store.history.latest()
    assert len(latest) == 26
    assert (latest["mode"].name, latest["mode"].version, latest["mode"].value) == ("mode", 2, "manual")
    assert latest["tenant/t7/auto_reply"].version == 1


def test_every_version_is_remembered_oldest_first_at_the_time_that_the_list_gives(store: Store) -> None:
    for value in ("live", "manual", "hold"):
        store.write("mode", value)
    versions = store.history.versions("mode")
    assert [(one.version, one.value) for one in versions] == [(1, "live"), (2, "manual"), (3, "hold")]
    latest = store.history.latest()["mode"]
    assert versions[-1].changed_at_ms == latest.changed_at_ms
    assert store.history.latest()["mode"] == latest


def test_the_history_says_who_it_was_and_the_list_does_not(store: Store) -> None:
    store.write("mode", "live")
    assert store.history.versions("mode")[0].changed_by != ""
    assert store.history.latest()["mode"].changed_by == ""


def test_a_switch_that_is_gone_has_neither_place_nor_history(store: Store) -> None:
    store.write("mode", "live")
    store.delete("mode")
    assert store.history.latest() == {}
    assert store.history.versions("mode") == []


def test_a_store_that_does_not_answer_is_trouble_and_not_an_empty_list() -> None:
    client = sdk_client("ssm")
    history = SsmSwitchHistory(client, PATH)
    with Stubber(client) as stubbed:
        stubbed.add_client_error("get_parameters_by_path", "InternalServerError")
        with pytest.raises(StorageUnavailable):
            history.latest()
        stubbed.add_client_error("get_parameter_history", "AccessDeniedException")
        with pytest.raises(StorageUnavailable):
            history.versions("mode")
