"""Where sources are kept: the fake and Parameter Store keep the same promises."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from functions.adapters.ssm_sources import SsmSourceParameters
from functions.core.failure import StorageUnavailable
from functions.ingress.sources import SourceParameters
from tests.aws_tables import sdk_client
from tests.contract.answers import error, service_that_says, success
from tests.ingress_fakes import FakeParameters
from tests.moto_server import moto_server

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
    with moto_server() as server:
        client = sdk_client("ssm")

        def put(source_id: str, text: str) -> None:
            client.put_parameter(Name=f"{PATH}/{source_id}", Value=text, Type="SecureString", Overwrite=True)

        yield World(SsmSourceParameters(server.service("ssm"), PATH + "/"), put)


def test_an_entry_is_read_in_the_clear_and_as_last_written(world: World) -> None:
    world.put("shop", '{"a": "ä"}')
    assert world.parameters.read("shop", 5) == '{"a": "ä"}'
    world.put("shop", '{"a": 2}')
    assert world.parameters.read("shop", 5) == '{"a": 2}'


def test_what_is_not_there_is_none(world: World) -> None:
    world.put("shop", "{}")
    assert world.parameters.read("shopp", 5) is None
    assert world.parameters.read("sho", 5) is None


@pytest.mark.parametrize(
    "answer",
    [
        *[
            error(400, code)
            for code in ("ThrottlingException", "AccessDeniedException", "InvalidKeyId", "ParameterVersionNotFound")
        ],
        error(500, "InternalServerError"),
        error(500, "ParameterNotFound"),
        error(404),
        success({}),
        success({"Parameter": {}}),
        success({"Parameter": {"Name": f"{PATH}/shop", "Value": None}}),
        success({"Parameter": {"Name": f"{PATH}/shop", "Value": {"text": "{}"}}}),
        success({"Parameter": {"Name": f"{PATH}/mart", "Value": "{}"}}),
        success({"Parameter": {"Value": "{}"}}),
        success({"Parameter": "x"}),
        success({"__type": "ParameterNotFound"}),
        success(["x"]),
    ],
    ids=lambda answer: f"{answer.status} {answer.body.decode()}",
)
def test_everything_but_not_found_is_trouble(answer: object) -> None:
    with pytest.raises(StorageUnavailable):
        SsmSourceParameters(service_that_says(answer), PATH).read("shop", 5)


@pytest.mark.parametrize("kind", ["ParameterNotFound", "com.amazonaws.ssm#ParameterNotFound"])
def test_not_found_is_known_by_its_code_whatever_stands_before_it(kind: str) -> None:
    assert SsmSourceParameters(service_that_says(error(400, kind)), PATH).read("shop", 5) is None


def test_what_the_store_says_of_a_failure_is_named_by_its_code_alone() -> None:
    answer = error(400, "ValidationException", message="the value was s3cret")
    with pytest.raises(StorageUnavailable) as caught:
        SsmSourceParameters(service_that_says(answer), PATH).read("shop", 5)
    assert str(caught.value) == "GetParameter failed: ValidationException"
    assert json.loads(answer.body)["message"] == "the value was s3cret"
