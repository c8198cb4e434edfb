"""Holds answers of ingress to the OpenAPI document. Every test that asks ingress anything goes through here."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from functions.ingress.request import Route, request_of
from ops.openapi import document

DOCUMENT = document()
_CHECKED: set[str] = set()  # answers, without their ids
ANSWERED: set[tuple[Route, int]] = set()  # what was answered on which route, by this process's tests


def resolved(node: Mapping[str, Any]) -> Mapping[str, Any]:
    """The node itself, or what it refers to within the document."""
    while "$ref" in node:
        here: Any = DOCUMENT
        for step in node["$ref"].removeprefix("#/").split("/"):
            here = here[step]
        node = here
    return node


def responses_of(route: Route) -> Mapping[str, Any]:
    """What the document says may be answered on a route."""
    method, _, path = route.value.partition(" ")
    responses: Mapping[str, Any] = DOCUMENT["paths"][path][method.lower()]["responses"]
    return responses


def check_documented(event: object, answer: Mapping[str, Any]) -> None:
    """Raises `AssertionError` for an answer that the document does not know. Without a route, only for a 2xx."""
    route, status = request_of(event, "id").route, answer["statusCode"]
    if route is Route.NONE:
        assert status >= 400
        route = Route.EVENT
    told = f"{route} {json.dumps(answer)}".replace(answer["headers"].get("x-request-id") or "?", "ID")
    if told in _CHECKED:  # a refusal says nothing but its request's id
        return
    ANSWERED.add((route, status))
    response = resolved(responses_of(route)[str(status)])
    for name, header in response["headers"].items():
        is_there = name.lower() in answer["headers"]
        assert is_there or not resolved(header).get("required"), f"{status} without {name}"
    extra = set(answer["headers"]) - {name.lower() for name in response["headers"]}
    assert extra <= {"content-type", "x-content-type-options"}, extra
    body = answer["body"]
    if status == 204 or not body:
        assert not body
        return
    media = answer["headers"]["content-type"]
    schema = response["content"][media].get("schema", {})
    check_schema(schema, json.loads(body) if media.endswith("json") else body)
    if len(_CHECKED) < 10_000:
        _CHECKED.add(told)


def check_schema(schema: Mapping[str, Any], value: object) -> None:
    """Raises `AssertionError` where a value is not as the schema says. Knows the words that the document uses."""
    schema = resolved(schema)
    unknown = set(schema) - {*_WORDS, "description", "anyOf", "allOf", "additionalProperties"}
    assert not unknown, unknown
    for word, holds in _WORDS.items():
        assert word not in schema or holds(schema[word], value), (word, schema[word], value)
    if isinstance(value, dict):
        properties = schema.get("properties", {})
        for name, inner in value.items():
            assert name in properties or schema.get("additionalProperties", True), name
            check_schema(properties.get(name, {}), inner)
    for each in schema.get("allOf", ()):
        check_schema(each, value)
    if "anyOf" in schema:
        assert any(_fits(each, value) for each in schema["anyOf"]), (schema["anyOf"], value)


def _fits(schema: Mapping[str, Any], value: object) -> bool:
    try:
        check_schema(schema, value)
    except AssertionError:
        return False
    return True


_TYPES = {"string": (str,), "object": (dict,), "boolean": (bool,)}
_WORDS: dict[str, Any] = {
    "type": lambda kind, value: (
        isinstance(value, int) and not isinstance(value, bool) if kind == "integer" else isinstance(value, _TYPES[kind])
    ),
    "const": lambda one, value: value == one and type(value) is type(one),
    "enum": lambda several, value: value in several,
    "required": lambda names, value: set(names) <= set(value),
    "properties": lambda _, value: isinstance(value, dict),
    "pattern": lambda pattern, value: re.search(pattern, value) is not None,
}
