"""The public document of ingress: what is checked in is what the code answers by, and the document is one."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from functions.ingress.answers import PROBLEMS, Refused, Rejection, answer_to_refusal
from functions.ingress.request import Route
from functions.signatures.providers import PROVIDERS
from ops.openapi import PATH, text
from tests.documented import ANSWERED, DOCUMENT, check_documented, check_schema, resolved, responses_of
from tests.ingress_fakes import Gate, gateway_event

ROUTES = [route for route in Route if route]


def nodes(here: object = DOCUMENT, path: str = "#") -> Iterator[tuple[str, Mapping[str, Any]]]:
    if isinstance(here, dict):
        yield path, here
        for name, inner in here.items():
            yield from nodes(inner, f"{path}/{name}")
    elif isinstance(here, list):
        for number, inner in enumerate(here):
            yield from nodes(inner, f"{path}/{number}")


def test_the_document_that_is_checked_in_is_the_one_that_the_code_makes() -> None:
    assert PATH.read_text(encoding="utf-8") == text(), "run: python -m ops.openapi"


def test_the_document_is_openapi_3_1() -> None:
    """The parts of https://spec.openapis.org/oas/v3.1.1.html that it uses."""
    assert DOCUMENT["openapi"] == "3.1.0"
    assert {"title", "version"} <= set(DOCUMENT["info"])
    assert set(DOCUMENT) - {"openapi", "info", "servers", "paths", "components"} == {"x-providers"}
    operations = []
    for path, item in DOCUMENT["paths"].items():
        declared = [resolved(parameter) for parameter in item["parameters"]]
        assert {each["name"] for each in declared if each["in"] == "path"} == set(re.findall(r"{(\w+)}", path))
        operations += [operation for method, operation in item.items() if method in ("get", "post")]
    assert len({operation["operationId"] for operation in operations}) == len(operations) == len(ROUTES)
    for operation in operations:
        assert all(re.fullmatch(r"[2-5][0-9]{2}", status) for status in operation["responses"])
        assert all(resolved(response)["description"] for response in operation["responses"].values())
        named = [(each["in"], each["name"]) for each in map(resolved, operation.get("parameters", ()))]
        assert len(set(named)) == len(named)
    for path, node in nodes():
        if "$ref" in node:
            assert set(node) == {"$ref"}, path
            assert resolved(node)
    used = {node["$ref"] for _, node in nodes() if "$ref" in node}
    there = {f"#/components/{kind}/{name}" for kind, named in DOCUMENT["components"].items() for name in named}
    assert used == there
    for path, node in nodes():
        if path.endswith("/schema") or re.fullmatch(r"#/components/schemas/\w+", path):
            for pattern in [each["pattern"] for _, each in nodes(node) if isinstance(each.get("pattern"), str)]:
                re.compile(pattern)


@pytest.mark.parametrize("route", ROUTES)
def test_every_refusal_is_in_the_document_on_every_route(route: Route) -> None:
    refusals = [Refused(Rejection.TOO_LARGE, is_about_headers=True)]
    for rejection in Rejection:
        seconds = 5 if PROBLEMS[rejection].status in (429, 500, 503) else None
        refusals.append(Refused(rejection, retry_after_seconds=seconds))
    for refused in refusals:
        check_documented(gateway_event("s", {}, b"", route=route), answer_to_refusal(refused, "r-1").to_gateway("r-1"))


def test_every_providers_own_answer_is_in_the_document() -> None:
    for row in PROVIDERS.values():
        assert row.acceptance.content_type in responses_of(Route.EVENT)[str(row.acceptance.status)].get(
            "content", {row.acceptance.content_type: {}}
        )
        assert DOCUMENT["x-providers"][row.name]["accepted"] == row.acceptance.status
        assert ("challenge" in DOCUMENT["x-providers"][row.name]) == (row.challenge is not None)
        assert ("handshake" in DOCUMENT["x-providers"][row.name]) == (row.handshake is not None)


def test_an_answer_that_the_document_does_not_know_is_noticed() -> None:
    """The hook itself: every test of ingress relies on it."""
    gate = Gate()
    event = gateway_event("nobody", {}, b"")
    answer: dict[str, Any] = gate.handler(event, None)
    assert (Route.EVENT, 401) in ANSWERED
    problem = json.loads(answer["body"])
    for wrong in (
        {"statusCode": 405},
        {"statusCode": 429},
        {"headers": {"content-type": "application/json", "x-request-id": "r"}},
        {"headers": {"content-type": "application/problem+json"}},
        {"headers": {**answer["headers"], "x-powered-by": "us"}},
        {"body": json.dumps({**problem, "code": "INT-401-OTHER"})},
        {"body": json.dumps({**problem, "why": "it says too much"})},
        {"body": json.dumps({name: value for name, value in problem.items() if name != "request_id"})},
    ):
        with pytest.raises((AssertionError, KeyError)):
            check_documented(event, {**answer, **wrong})


def test_a_schema_of_a_word_that_the_check_does_not_know_is_no_schema() -> None:
    with pytest.raises(AssertionError):
        check_schema({"maximum": 3}, 2)
