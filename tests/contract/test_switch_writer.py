"""`ports.SwitchWriter`, over the double and over the parameter store, read back through `ports.SwitchHistory`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from moto import mock_aws

from functions.adapters.ssm_history import SsmSwitchHistory
from functions.adapters.ssm_writer import DESCRIPTION_LENGTH, SsmSwitchWriter
from functions.core import ports
from functions.core.failure import StorageUnavailable
from functions.core.switches import pattern_of
from tests.aws_tables import sdk_client
from tests.contract.storage import Flaky, client_error
from tests.control_fakes import FakeSwitchHistory, FakeSwitchWriter
from tests.fakes import FakeClock

PATH = "/holdfast/test/switches"


@dataclass
class Store:
    history: ports.SwitchHistory
    writer: ports.SwitchWriter
    break_down: Callable[[], None]


@pytest.fixture(params=["memory", "ssm"])
def store(request: pytest.FixtureRequest) -> Iterator[Store]:
    """A parameter store without switches."""
    if request.param == "memory":
        fake = FakeSwitchHistory(FakeClock())
        yield Store(fake, FakeSwitchWriter(fake), lambda: fake.faults.fail("switch.put"))
        return
    with mock_aws():
        client = sdk_client("ssm")
        flaky = Flaky(client)

        def break_down() -> None:
            flaky.planned["put_parameter"] = [client_error("ThrottlingException")]

        writer = SsmSwitchWriter(flaky, PATH)  # type: ignore[arg-type]  # it stands in for the client
        yield Store(SsmSwitchHistory(client, PATH), writer, break_down)


@pytest.mark.parametrize("name", ["mode", "limits/helpdesk", "flow/support/mode"])
def test_a_switch_is_set_whether_it_was_there_or_not_and_its_versions_count(store: Store, name: str) -> None:
    values = ["1", "0.5"] if name.startswith("limits") else ["live", "hold"]
    assert [store.writer.put(name, value, f"anna: {value}") for value in values] == [1, 2]
    latest = store.history.latest()[name]
    assert (latest.version, latest.value) == (2, values[1])


def test_the_description_of_each_version_is_kept(store: Store) -> None:
    store.writer.put("mode", "hold", "anna: they are down")
    store.writer.put("mode", "live", "bert: they are back")
    assert [one.reason for one in store.history.versions("mode")] == ["anna: they are down", "bert: they are back"]


def test_a_description_that_is_too_long_is_cut_and_not_refused(store: Store) -> None:
    store.writer.put("mode", "hold", "a" * (DESCRIPTION_LENGTH + 1))
    assert store.history.versions("mode")[0].reason.startswith("aaa")


def test_a_store_that_does_not_answer_is_trouble(store: Store) -> None:
    store.break_down()
    with pytest.raises(StorageUnavailable):
        store.writer.put("mode", "hold", "anna: they are down")
    assert store.history.latest() == {}


# ------------------------------------------------------------------------------------------ of the parameter store only


@pytest.mark.parametrize("name", ["mode", "limits/helpdesk", "tenant/acme/disabled_integrations"])
def test_every_version_has_the_pattern_by_which_the_store_itself_refuses_what_nobody_can_read(name: str) -> None:
    with mock_aws():
        client = sdk_client("ssm")
        flaky = Flaky(client)
        SsmSwitchWriter(flaky, PATH).put(name, "0", "d" * 2000)  # type: ignore[arg-type]  # as above
        described = client.describe_parameters(
            ParameterFilters=[{"Key": "Name", "Option": "Equals", "Values": [f"{PATH}/{name}"]}]
        )["Parameters"]
        assert [(one["AllowedPattern"], one["Type"]) for one in described] == [(pattern_of(name), "String")]
        ((_, request),) = flaky.calls
        assert len(request["Description"]) == DESCRIPTION_LENGTH
