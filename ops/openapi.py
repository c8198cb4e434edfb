"""The public surface of ingress as an OpenAPI 3.1 document, made from the tables that ingress itself answers by.

`python -m ops.openapi` writes `docs/api/ingress.openapi.json`; a test holds the file to what this makes, and every
answer that a test of ingress sees to the document.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from functions.core.event import MAX_BODY_BYTES, NAME
from functions.ingress.answers import HEADERS_TOO_LARGE, NOT_KNOWN, PROBLEMS, Problem
from functions.ingress.probe import words_of
from functions.ingress.request import MAX_HEADER_BYTES, MAX_HEADERS, Route
from functions.signatures.providers import PROVIDERS, Challenge, Content, Provider, scheme_of

PATH: Final = Path(__file__).resolve().parent.parent / "docs" / "api" / "ingress.openapi.json"
_NO_CONTENT: Final = 204
_RETRIED: Final = (429, 500, 503)
_NEEDED_OPTIONS: Final = {"generic-hmac": {"header": "x-signature"}}
_ANY_TEXT: Final = {"type": "string"}
_MEDIA: Final = {
    Content.JSON: ("application/json",),
    Content.FORM: ("application/x-www-form-urlencoded",),
    Content.JSON_OR_FORM: ("application/json", "application/x-www-form-urlencoded"),
    Content.ANY: ("*/*",),
}


def document() -> dict[str, Any]:
    """The whole document, the same for the same tables."""
    rows = PROVIDERS.values()
    event, challenge, test, progress = (
        _path_of(route) for route in (Route.EVENT, Route.CHALLENGE, Route.TEST, Route.PROGRESS)
    )
    assert event == challenge  # noqa: S101  # the two are one path with two methods
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Holdfast: webhooks",
            "version": "1",
            "summary": "Where senders deliver their webhooks.",
            "description": (
                "A 2xx to a delivery means that the event is stored. Whatever is refused tells its reason to the "
                "operator's log only: an unknown source, a wrong signature and a stale one are answered word for word "
                "the same. Past the gateway's own limits (10 MB, its throttle) the gateway answers in its own words."
            ),
        },
        "servers": [{"url": "https://{host}", "variables": {"host": {"default": "hooks.example.com"}}}],
        "paths": {
            event: {
                "parameters": [{"$ref": "#/components/parameters/Source"}],
                "post": {
                    "operationId": "deliver",
                    "summary": "Deliver an event, or a handshake that comes as one.",
                    "description": "Signed as the source's provider signs: see `x-providers`.",
                    "parameters": [{"$ref": "#/components/parameters/Traceparent"}],
                    "requestBody": _request_body(rows),
                    "responses": _responses(_deliveries_heard(rows)),
                },
                "get": {
                    "operationId": "challenge",
                    "summary": "Ask whether there is an endpoint, as some providers do before they deliver.",
                    "description": "What is no challenge of the source's provider is answered like an unknown source.",
                    "parameters": [*_challenge_parameters(rows)],
                    "responses": _responses(_challenges_heard(rows)),
                },
            },
            test: {
                "parameters": [{"$ref": "#/components/parameters/Source"}],
                "post": {
                    "operationId": "test",
                    "summary": "Try a delivery: verified like one, without any effect.",
                    "requestBody": _request_body(rows),
                    "responses": _responses(
                        {200: {"application/json": (["What is made of it."], [{"$ref": "#/components/schemas/Trial"}])}}
                    ),
                },
            },
            progress: {
                "parameters": [{"$ref": "#/components/parameters/Source"}, {"$ref": "#/components/parameters/Event"}],
                "get": {
                    "operationId": "progress",
                    "summary": "Ask how far an event has come.",
                    "description": (
                        "Signed like a delivery whose body is the event's id, as it was answered. Where a source's "
                        "signature stands in the body, its sender cannot ask."
                    ),
                    "responses": {
                        **_responses(
                            {200: {"application/json": ([_STATES], [{"$ref": "#/components/schemas/Progress"}])}}
                        ),
                        str(NOT_KNOWN.status): {"$ref": f"#/components/responses/{_name(NOT_KNOWN)}"},
                    },
                },
            },
        },
        "components": _components(),
        "x-providers": {row.name: _told(row) for row in rows},
    }


def _path_of(route: Route) -> str:
    return route.value.partition(" ")[2]


# ------------------------------------------------------------------------------------------------------------- answers

_Heard = dict[int, dict[str, tuple[list[str], list[Any]]]]
"""By status and media type: what it means, and the schemas of its body."""
_STORED = "The event is stored."
_STATES = (
    "`accepted`: it is in the queue. `processing`: it is being worked on. `waiting`: something of it comes later. "
    "`settled`: all is done that is to be done. `ended`: something was not done, and nothing more happens by itself."
)


def _deliveries_heard(rows: Any) -> _Heard:
    heard: _Heard = {}
    for row in rows:
        acceptance, shake = row.acceptance, row.handshake
        schema = {"$ref": "#/components/schemas/Accepted"} if acceptance.body is None else {"const": acceptance.body}
        _hear(heard, acceptance.status, acceptance.content_type, _STORED, schema)
        if shake is not None:
            schema = {"$ref": "#/components/schemas/Challenge"} if shake.reply is None else _ANY_TEXT
            if shake.content_type == "application/json" and shake.reply is not None:
                schema = {"type": "object"}
            _hear(heard, shake.status, shake.content_type, "The handshake's answer.", schema)
    return heard


def _challenges_heard(rows: Any) -> _Heard:
    heard: _Heard = {}
    for row in rows:
        if row.challenge is not None:
            is_json = row.challenge.content_type == "application/json"
            schema = {"type": "object"} if is_json else _ANY_TEXT
            _hear(heard, 200, row.challenge.content_type, "The challenge's answer.", schema)
    return heard


def _hear(heard: _Heard, status: int, media: str, words: str, schema: Any) -> None:
    said = heard.setdefault(status, {}).setdefault(media, ([], []))
    if words not in said[0]:
        said[0].append(words)
    if schema not in (*said[1], {"const": ""}):  # a body may always be left out
        said[1].append(schema)


def _responses(heard: _Heard) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for status, by_media in sorted(heard.items()):
        words = sorted({each for said, _ in by_media.values() for each in said})
        headers = {"X-Request-Id": {"$ref": "#/components/headers/RequestId"}}
        if _STORED in words:
            headers["X-Event-Id"] = {"$ref": "#/components/headers/EventId"}
        found[str(status)] = {
            "description": f"{' Or: '.join(words)} The body is empty where the provider wants none.",
            "headers": headers,
        }
        if status != _NO_CONTENT:
            found[str(status)]["content"] = {
                media: {"schema": schemas[0] if len(schemas) == 1 else {"anyOf": schemas}} if schemas else {}
                for media, (_, schemas) in sorted(by_media.items())
            }
    for problem in _problems():
        found[str(problem.status)] = {"$ref": f"#/components/responses/{_name(problem)}"}
    return dict(sorted(found.items()))


def _special() -> Iterator[Problem]:
    """What only one route answers."""
    yield NOT_KNOWN


def _problems() -> Iterator[Problem]:
    yield from PROBLEMS.values()
    yield HEADERS_TOO_LARGE


def _name(problem: Problem) -> str:
    """By its code: the phrases that go with statuses differ between versions of Python."""
    return "".join(word.capitalize() for word in problem.code.split("-")[2:])


def _components() -> dict[str, Any]:
    responses: dict[str, Any] = {}
    for problem in (*_problems(), *_special()):
        headers = {"X-Request-Id": {"$ref": "#/components/headers/RequestId"}}
        if problem.status in _RETRIED:
            headers["Retry-After"] = {"$ref": "#/components/headers/RetryAfter"}
        said = {"status": {"const": problem.status}, "code": {"const": problem.code}}
        schema = {"allOf": [{"$ref": "#/components/schemas/Problem"}, {"properties": said}]}
        responses[_name(problem)] = {
            "description": problem.detail,
            "headers": headers,
            "content": {"application/problem+json": {"schema": schema}},
        }
    text, whole = {"type": "string"}, {"type": "integer"}
    return {
        "parameters": {
            "Source": {
                "name": "source",
                "in": "path",
                "required": True,
                "description": "The source's id, as its operator gave it out.",
                "schema": {"type": "string", "pattern": f"^{NAME.pattern.removesuffix(chr(92) + 'Z')}$"},
            },
            "Event": {
                "name": "event_id",
                "in": "path",
                "required": True,
                "description": "The event's id, as it was answered when it was accepted.",
                "schema": text,
            },
            "Traceparent": {
                "name": "traceparent",
                "in": "header",
                "required": False,
                "description": "W3C Trace Context; kept where it is valid, else begun.",
                "schema": text,
            },
        },
        "headers": {
            "RequestId": {"description": "On every answer; name it to the operator.", "required": True, "schema": text},
            "EventId": {"description": "The event's id, where one was stored.", "schema": text},
            "RetryAfter": {"description": "Seconds to wait.", "required": True, "schema": whole},
        },
        "responses": responses,
        "schemas": {
            "Accepted": _object({"event_id": text, "request_id": text}),
            "Challenge": _object({"challenge": text}),
            "Progress": _object(
                {"event_id": text, "state": {"enum": ["accepted", "processing", "waiting", "settled", "ended"]}}
            ),
            "Problem": _object(
                {
                    "type": {"const": "about:blank"},
                    "title": text,
                    "status": whole,
                    "detail": text,
                    "code": {"type": "string", "pattern": "^INT-[0-9]{3}-[A-Z-]+$"},
                    "request_id": text,
                }
            ),
            "Trial": _object(
                {
                    "source": text,
                    "provider": text,
                    "scheme": {"type": "string", "description": "How the delivery was signed, in words."},
                    "flow": text,
                    "held": {"type": "boolean", "description": "Deliveries are stored and wait for an operator."},
                    "secret_number": {
                        "type": "integer",
                        "description": "Which of the source's secrets signed, from 1.",
                    },
                    "body_bytes": whole,
                    "request_id": text,
                },
                optional={
                    "timestamp_skew_seconds": {"type": "integer", "description": "The sender's clock less ours."},
                    "handshake": {"type": "string", "description": "It is a handshake, of this name, and no event."},
                    "event_id": text,
                    "event_name": text,
                    "event_version": text,
                    "identity": {"enum": ["header", "pointers", "window"], "description": "What tells events apart."},
                    "repeat_window_seconds": {"type": "integer", "description": "0: the same for ever."},
                    "duplicate": {"enum": [True, False, "unknown"]},
                    "stored_as": {"enum": ["inline", "claim_check"]},
                },
            ),
        },
    }


def _object(required: Mapping[str, Any], optional: Mapping[str, Any] | None = None) -> dict[str, Any]:
    return {
        "type": "object",
        "required": list(required),
        "properties": {**required, **(optional or {})},
        "additionalProperties": False,
    }


# ------------------------------------------------------------------------------------------------------------ requests


def _request_body(rows: Any) -> dict[str, Any]:
    media = sorted({media for row in rows for media in _MEDIA[row.content]})
    return {
        "required": True,
        "description": (
            f"The bytes that are signed, at most {MAX_BODY_BYTES:,} of them. At most {MAX_HEADERS} headers, of "
            f"{MAX_HEADER_BYTES:,} bytes with the address."
        ),
        "content": {each: {} for each in media},
    }


def _challenge_parameters(rows: Any) -> Iterator[dict[str, Any]]:
    """Each provider's own: none of them is asked of all."""
    for row in rows:
        challenge = row.challenge
        if challenge is None:
            continue
        shape = {"type": "string", "pattern": f"^{challenge.shape.pattern.removesuffix(chr(92) + 'Z')}$"}
        place, name = ("query", challenge.query) if challenge.query else ("header", challenge.header)
        yield _parameter(row, place, name, shape)
        for said, value in challenge.says:
            yield _parameter(row, "query", said, {"const": value})
        if challenge.token:
            yield _parameter(row, "query", challenge.token, {"type": "string"})


def _parameter(row: Provider, place: str, name: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": place, "required": False, "description": f"Of {row.name}.", "schema": dict(schema)}


def _told(row: Provider) -> dict[str, Any]:
    told: dict[str, Any] = {
        "scheme": words_of(scheme_of(row, _NEEDED_OPTIONS.get(row.name, {}))),
        "content": row.content.value,
        "accepted": row.acceptance.status,
    }
    if row.handshake is not None:
        told["handshake"] = f"{row.handshake.pointer} is {row.handshake.value}: {row.handshake.status}"
    if row.challenge is not None:
        told["challenge"] = _asked(row.challenge)
    return told


def _asked(challenge: Challenge) -> str:
    proof = (
        "signed like a delivery"
        if challenge.is_signed
        else "with the source's verify_token"
        if challenge.token
        else "by anybody"
    )
    return f"GET with {challenge.query or challenge.header}, {proof}"


def text() -> str:
    """The document as it is checked in."""
    return json.dumps(document(), indent=2, ensure_ascii=False) + "\n"


def main() -> None:
    """Write the document where it is checked in."""
    PATH.parent.mkdir(parents=True, exist_ok=True)
    PATH.write_text(text(), encoding="utf-8")


if __name__ == "__main__":
    main()
