"""A request as the calls may take it: of the shape they expect, its body JSON in UTF-8, no larger than people send.

What a stranger made of it is refused here, once, so that no call meets it.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

from functions.operator_api.caller import mapping
from functions.operator_api.problems import Code, Refusal

MAX_BODY_BYTES = 100_000
MAX_PATH_CHARACTERS = 4_000
MAX_DEPTH = 20
JSON = "application/json"
SWITCHES = "/platform/switches/"


def method_and_path(event: Mapping[str, Any]) -> tuple[str, str]:
    """What is asked for, as it came."""
    http = mapping(mapping(event.get("requestContext")).get("http"))
    return str(http.get("method", "")), str(event.get("rawPath", ""))


def readable(event: Mapping[str, Any]) -> dict[str, Any]:
    """The gateway's event (payload version 2.0) with a decoded path and a body in text. Raises `Refusal`, and nothing
    else, whatever the event is.

    Parameters of a path are told apart by slashes, so an encoded one stays encoded.
    """
    method, path = method_and_path(event)
    if len(path) > MAX_PATH_CHARACTERS:
        raise Refusal(Code.NOT_FOUND, "there is no call with so long a path")
    headers = {str(name).lower(): str(value) for name, value in mapping(event.get("headers")).items()}
    body = _body(event, headers)
    if body:
        # For the one who reads it next a media type is what it is, however it was written.
        headers["content-type"] = JSON
    context = mapping(event.get("requestContext"))
    return {
        **event,
        "version": "2.0",
        "rawPath": decoded(path),
        "queryStringParameters": {
            str(name): str(value) for name, value in mapping(event.get("queryStringParameters")).items()
        },
        "headers": headers,
        "cookies": [],
        "requestContext": {**context, "stage": "$default", "http": {**mapping(context.get("http")), "method": method}},
        "body": body,
        "isBase64Encoded": False,
    }


def decoded(path: str) -> str:
    """The path with its parts decoded. A slash inside of one stays encoded, and so do those of a switch's name
    (`limits/helpdesk`), which is one parameter, whether they came encoded or not: not every gateway keeps them so.
    """
    before, names, name = path.partition(SWITCHES)
    if names and not before:
        return SWITCHES + unquote(name).replace("/", "%2F")
    return "/".join(unquote(part).replace("/", "%2F") for part in path.split("/"))


def _body(event: Mapping[str, Any], headers: Mapping[str, str]) -> str:
    stated = event.get("body")
    if not stated:
        return ""
    text = _text(stated, is_base64=bool(event.get("isBase64Encoded")))
    if headers.get("content-type", JSON).partition(";")[0].strip().lower() != JSON:
        raise _invalid(f"the body must be {JSON}")
    try:
        document = json.loads(text, parse_constant=_no_number)
        if _is_deeper_than(document, MAX_DEPTH):
            raise _invalid(f"the body is nested deeper than {MAX_DEPTH} levels")
        json.dumps(document, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as exc:
        # UnicodeEncodeError, which is a ValueError, stands for half of a surrogate pair: no storage takes it.
        raise _invalid("the body is not JSON") from exc
    return text


def _text(body: object, *, is_base64: bool) -> str:
    try:
        if not isinstance(body, str):
            raise _invalid("the body is not text")
        content = base64.b64decode(body, validate=True) if is_base64 else body.encode()
        text = content.decode()
    except (binascii.Error, ValueError) as exc:
        raise _invalid("the body is not text in UTF-8") from exc
    if len(content) > MAX_BODY_BYTES:
        raise _invalid(f"the body is larger than {MAX_BODY_BYTES} bytes")
    return text


def _is_deeper_than(document: object, most: int) -> bool:
    level: list[Any] = [document]
    for _ in range(most):
        level = [
            inner
            for each in level
            if isinstance(each, dict | list)
            for inner in (each.values() if isinstance(each, dict) else each)
        ]
    return any(isinstance(each, dict | list) for each in level)


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no number of JSON")


def _invalid(detail: str) -> Refusal:
    return Refusal(Code.INVALID_PAYLOAD, detail)
