"""Where sources are kept: the fake and Parameter Store keep the same promises."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import boto3
import pytest
from botocore.exceptions import ClientError, EndpointConnectionError
from moto import mock_aws

from functions.adapters.ssm_sources import SsmSourceParameters
from functions.core.failure import StorageUnavailable
from functions.ingress.sources import SourceParameters
from tests.ingress_fakes import FakeParameters

PATH = "/holdfast/test/sources"


@dataclass
class World:
    parameters: SourceParameters
    put: Callable[[str, str], None]


@pytest.fixture(params=["fake", "ssm"])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    if request.param == "fake":
        fake = FakeParameters()
        yield World(fake, fake.entries.__setitem__)
        return
    with mock_aws():
        client = boto3.client("ssm")

        def put(source_id: str, text: str) -> None:
            client.put_parameter(Name=f"{PATH}/{source_id}", Value=text, Type="SecureString", Overwrite=True)

        yield World(SsmSourceParameters.connect(PATH), put)


@pytest.mark.parametrize("briefly", [True, False])
def test_an_entry_is_read_in_the_clear_and_as_last_written(world: World, briefly: bool) -> None:
    world.put("shop", '{"a": 1}')
    assert world.parameters.read("shop", briefly=briefly) == '{"a": 1}'
    world.put("shop", '{"a": 2}')
    assert world.parameters.read("shop", briefly=briefly) == '{"a": 2}'


@pytest.mark.parametrize("briefly", [True, False])
def test_what_is_not_there_is_none(world: World, briefly: bool) -> None:
    world.put("shop", "{}")
    assert world.parameters.read("shopp", briefly=briefly) is None
    assert world.parameters.read("sho", briefly=briefly) is None


class Client:
    """An SSM client that answers as told."""

    class exceptions:  # noqa: N801  # as the SDK spells it
        class ParameterNotFound(ClientError):
            pass

    def __init__(self, outcome: Exception | dict[str, object]) -> None:
        self.outcome = outcome

    def get_parameter(self, **_: object) -> dict[str, object]:
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome


@pytest.mark.parametrize(
    "outcome",
    [
        *[
            ClientError({"Error": {"Code": code, "Message": "not found"}}, "GetParameter")
            for code in ("ThrottlingException", "AccessDeniedException", "InvalidKeyId", "InternalServerError", "404")
        ],
        EndpointConnectionError(endpoint_url="http://s"),
        {},
        {"Parameter": {}},
    ],
)
def test_everything_but_not_found_is_trouble(outcome: Exception | dict[str, object]) -> None:
    client = Client(outcome)
    with pytest.raises(StorageUnavailable):
        SsmSourceParameters(client, client, PATH).read("shop", briefly=False)  # type: ignore[arg-type]  # as much as is used


def test_a_brief_read_gives_up_after_300_ms_and_neither_read_is_repeated_by_the_sdk() -> None:
    with mock_aws():
        parameters = SsmSourceParameters.connect(PATH)
    brief, patient = parameters._brief.meta.config, parameters._patient.meta.config
    assert brief.connect_timeout + brief.read_timeout <= 0.3  # type: ignore[attr-defined]  # botocore sets options at run time
    assert patient.connect_timeout + patient.read_timeout <= 1.5  # type: ignore[attr-defined]  # as above
    assert brief.retries == patient.retries == {"total_max_attempts": 1, "mode": "standard"}  # type: ignore[attr-defined]  # as above
