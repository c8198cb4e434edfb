"""The operator API's public document: what is checked in is what the calls say, and each says all it may answer."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Annotated, Any

import pytest
from aws_lambda_powertools.event_handler.openapi.params import Header, Path, Query
from aws_lambda_powertools.event_handler.router import APIGatewayHttpRouter
from pydantic import BaseModel, ConfigDict, Field

from functions.operator_api.caller import Permission
from functions.operator_api.handler import application
from functions.operator_api.problems import Code
from ops.operator_openapi import PATH, Undocumented, document, text

ALWAYS = {"400", "401", "403", "404", "429", "500", "503"}
PROBLEM = "application/problem+json"
ONLY_THE_GATEWAYS = "413"


class Note(BaseModel):
    model_config = ConfigDict(extra="forbid")
    reason: Annotated[str, Field(min_length=1, max_length=100)]


class Told(BaseModel):
    said: str


def router() -> APIGatewayHttpRouter:
    """One call that says nothing of its refusals, one that says all it can, and one that is public."""
    made = APIGatewayHttpRouter()  # type: ignore[no-untyped-call]  # Powertools leaves it untyped

    @made.get("/platform/rooms/<name>", operation_id="look", tags=["rooms"])
    def look(name: Annotated[str, Path(max_length=64)], limit: Annotated[int, Query(ge=1, le=200)] = 50) -> Told:
        return Told(said=f"{name} {limit}")

    @made.post(
        "/platform/rooms/<name>/note",
        operation_id="note",
        responses={
            202: {"description": "Noted.", "content": {"application/json": {"model": Told}}},
            404: {"description": "There is no such room."},
            409: {"description": "It is locked.", "content": {"application/json": {"model": Told}}},
            422: {"description": "The key was used for something else.", "content": {PROBLEM: {"model": Told}}},
        },
        security=[{"operators": ["platform.member_admin/operate"]}],
    )
    def note(
        name: Annotated[str, Path(max_length=64)],
        body: Note,
        key: Annotated[str, Header(alias="Idempotency-Key", min_length=1, max_length=64)],
    ) -> Told:
        return Told(said=f"{name} {body.reason} {key}")

    @made.get("/status", operation_id="status")
    def status() -> Told:
        return Told(said="fine")

    return made


@pytest.fixture(scope="module")
def made() -> dict[str, Any]:
    return document(application([router()]))


def operations(of: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, item in of["paths"].items():
        for method, operation in item.items():
            yield path, method, operation


def references(node: object) -> Iterator[str]:
    if isinstance(node, dict):
        for name, inner in node.items():
            if name == "$ref":
                yield inner
            yield from references(inner)
    elif isinstance(node, list):
        for inner in node:
            yield from references(inner)


def test_the_document_that_is_checked_in_is_the_one_that_the_code_makes() -> None:
    assert PATH.read_text(encoding="utf-8") == text(), "run: python -m ops.operator_openapi"


def test_it_is_the_same_each_time_it_is_made(made: dict[str, Any]) -> None:
    assert document(application([router()])) == made
    assert text() == text()


def test_it_is_openapi_3_1_wherever_the_stage_is(made: dict[str, Any]) -> None:
    assert made["openapi"].startswith("3.1.")
    assert made["servers"] == [{"url": "/"}]
    assert made["components"]["securitySchemes"]["operators"]["scheme"] == "bearer"


@pytest.mark.parametrize("checked_in", [True, False])
def test_every_call_says_what_any_call_may_be_refused_with_and_that_as_a_problem(
    made: dict[str, Any], checked_in: bool
) -> None:
    whole = json.loads(PATH.read_text(encoding="utf-8")) if checked_in else made
    for path, method, operation in operations(whole):
        responses = operation["responses"]
        if path.startswith("/platform/"):
            assert set(responses) >= ALWAYS, (method, path)
        assert [status for status in responses if status < "300"], (method, path)
        for status, answer in responses.items():
            assert answer["description"]
            assert {"X-Request-Id", "Traceparent"} <= set(answer["headers"])
            if status >= "400" and status != ONLY_THE_GATEWAYS:
                assert answer["content"][PROBLEM]["schema"] == {"$ref": f"#/components/schemas/Problem{status}"}
                assert set(answer["content"]) <= {PROBLEM, "application/json"}


@pytest.mark.parametrize("checked_in", [True, False])
def test_what_is_referred_to_is_there_and_nothing_else_is(made: dict[str, Any], checked_in: bool) -> None:
    whole = json.loads(PATH.read_text(encoding="utf-8")) if checked_in else made
    there = {
        f"#/components/{kind}/{name}"
        for kind, members in whole["components"].items()
        if kind != "securitySchemes"
        for name in members
    }
    assert set(references(whole)) == there
    assert not any("ValidationError" in name for name in there)


@pytest.mark.parametrize("checked_in", [True, False])
def test_every_call_has_a_name_of_its_own_and_says_its_parameters_once(made: dict[str, Any], checked_in: bool) -> None:
    whole = json.loads(PATH.read_text(encoding="utf-8")) if checked_in else made
    names = [operation["operationId"] for _, _, operation in operations(whole)]
    assert len(names) == len(set(names))
    for path, _, operation in operations(whole):
        stated = {each["name"] for each in operation["parameters"] if each.get("in") == "path"}
        assert stated == set(re.findall(r"\{([^}]+)\}", path))


def test_permissions_are_said_as_they_are_decided(made: dict[str, Any]) -> None:
    security = {operation["operationId"]: operation["security"] for _, _, operation in operations(made)}
    assert security == {
        "look": [{"operators": [Permission.VIEW.value]}],
        "note": [{"operators": [Permission.OPERATE.value]}],
        "status": [],
    }


@pytest.mark.parametrize("checked_in", [True, False])
def test_a_body_that_the_gateway_does_not_take_is_refused_in_its_words(made: dict[str, Any], checked_in: bool) -> None:
    whole = json.loads(PATH.read_text(encoding="utf-8")) if checked_in else made
    for path, method, operation in operations(whole):
        refused = operation["responses"].get(ONLY_THE_GATEWAYS)
        assert (refused is not None) is ("requestBody" in operation), (method, path)
        if refused is not None:
            assert refused["content"] == {
                "application/json": {"schema": {"$ref": "#/components/schemas/GatewayAnswer"}}
            }


def test_a_public_call_refuses_nobody(made: dict[str, Any]) -> None:
    assert {"401", "403"}.isdisjoint(made["paths"]["/status"]["get"]["responses"])


def test_powertools_own_422_is_not_ours_and_ours_stays(made: dict[str, Any]) -> None:
    assert "422" not in made["paths"]["/platform/rooms/{name}"]["get"]["responses"]
    note = made["paths"]["/platform/rooms/{name}/note"]["post"]["responses"]
    assert note["422"]["description"] == "The key was used for something else."
    assert set(note["422"]["content"]) == {PROBLEM}
    assert note["404"]["description"] == "There is no such room."
    assert set(note["409"]["content"]) == {PROBLEM}
    assert note["202"]["content"] == {"application/json": {"schema": {"$ref": "#/components/schemas/Told"}}}


def test_a_problem_has_one_of_the_codes_of_its_status(made: dict[str, Any]) -> None:
    for name, schema in made["components"]["schemas"].items():
        if found := re.fullmatch(r"Problem(\d+)", name):
            properties = schema["allOf"][1]["properties"]
            assert properties["status"] == {"const": int(found[1])}
            assert properties["code"]["enum"] == [code for code in Code if code.status == int(found[1])]
    assert "problems" in made["components"]["schemas"]["Problem400"]["allOf"][1]["properties"]


def test_the_ids_of_a_call_are_among_its_parameters(made: dict[str, Any]) -> None:
    for _, _, operation in operations(made):
        assert {"$ref": "#/components/parameters/RequestId"} in operation["parameters"]
        assert {"$ref": "#/components/parameters/Traceparent"} in operation["parameters"]
    (key,) = [
        each
        for each in made["paths"]["/platform/rooms/{name}/note"]["post"]["parameters"]
        if each.get("name", "").lower() == "idempotency-key"
    ]
    assert key["required"] is True


@pytest.mark.parametrize(
    ("responses", "words"),
    [
        ({404: {"description": "None."}}, "does not say what it answers when it succeeds"),
        ({200: {"description": "Fine."}, 418: {"description": "Tea."}}, "may answer 418, for which there is no code"),
    ],
)
def test_a_call_that_does_not_say_enough_is_not_documented(responses: dict[int, Any], words: str) -> None:
    made = APIGatewayHttpRouter()  # type: ignore[no-untyped-call]  # Powertools leaves it untyped

    @made.get("/platform/tea", responses=responses)
    def tea() -> Told:
        return Told(said="hot")

    with pytest.raises(Undocumented, match=f"GET /platform/tea {words}"):
        document(application([made]))
