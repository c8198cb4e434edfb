"""The operator API as an OpenAPI 3.1 document, made of the calls themselves.

`python -m ops.operator_openapi` writes `docs/api/operator.openapi.json`; a test holds the file to what this makes. What
every call answers alike (who may, what is refused, under which ids) is said here once; a call says the rest.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any, Final, cast

from aws_lambda_powertools.event_handler import APIGatewayHttpResolver
from aws_lambda_powertools.event_handler.openapi.models import HTTPBearer

from functions.operator_api.caller import Permission, needed_for
from functions.operator_api.handler import application
from functions.operator_api.ports import Ports
from functions.operator_api.problems import CONTENT_TYPE, Code
from functions.operator_api.routes import routers

PATH: Final = Path(__file__).resolve().parent.parent / "docs" / "api" / "operator.openapi.json"
SCHEME: Final = "operators"
_METHODS: Final = ("get", "put", "post", "delete", "patch")
_ALWAYS: Final = {
    400: "The request is not valid: `problems` says where.",
    401: "No access token came with it, or none that is good. What the gateway refuses has its own words.",
    403: "The token's bearer may not do this.",
    404: "There is no such thing.",
    429: "Too much is asked of the gateway, which says so in its own words.",
    500: "A defect of ours: it is in the log under the request id.",
    503: "Storage or audit does not answer: nothing was changed. Or the gateway was not answered, in its own words.",
}
"""What any call may answer. 401 and 403 not where a call is public."""
_TOO_LARGE: Final = 413
_WITH_A_BODY: Final = {_TOO_LARGE: "The body is larger than the gateway takes, some megabytes. It has its own words."}
_OF_THE_GATEWAY: Final = (401, _TOO_LARGE, 429, 500, 503)
_INDENT: Final = 2


class Undocumented(Exception):
    """A call does not say enough of itself. The text says which, and what is missing."""


def document(app: APIGatewayHttpResolver | None = None) -> dict[str, Any]:
    """The whole document, the same for the same calls. Raises `Undocumented`."""
    app = application(routers(_no_ports())) if app is None else app
    made: dict[str, Any] = json.loads(
        app.get_openapi_json_schema(
            title="Holdfast: operators",
            version="1",
            description=(
                "What operators look at and change. `operate` implies `view`. Whatever is refused is a problem "
                "document (RFC 9457) whose `code` is stable. A change is recorded in the audit, or not made.\n\n"
                "The gateway stands in front. What it refuses by itself is `application/json` with a `message` and "
                "without our ids: 401 without a good token, 413, 429, and 5xx where it was not answered. Whatever else "
                "is under `/platform`, 403 and 404 included, is answered by us."
            ),
            security_schemes={
                SCHEME: HTTPBearer(
                    bearerFormat="JWT",
                    description=(
                        "An access token of the stage's user pool: `holdfast token` prints one. A machine's has one of "
                        f"the scopes `{Permission.VIEW}` and `{Permission.OPERATE}`; a person's permissions are their "
                        f"groups `{Permission.VIEW.words}` and `{Permission.OPERATE.words}`."
                    ),
                )
            },
        )
    )
    paths = made.setdefault("paths", {})
    for path, method, operation in _operations(made):
        _complete(operation, method.upper(), path)
    components = made.setdefault("components", {})
    components["parameters"] = dict(_PARAMETERS)
    components["headers"] = dict(_HEADERS)
    components["schemas"] = {**components.get("schemas", {}), **_schemas(made)}
    _drop_unused(made)
    made["paths"] = {path: paths[path] for path in sorted(paths)}
    return made


def _no_ports() -> Ports:
    """Ports that nobody calls: nothing is answered here."""
    return Ports(**{port.name: cast("Any", None) for port in fields(Ports)})


def _operations(made: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, item in made["paths"].items():
        for method in _METHODS:
            if method in item:
                yield path, method, item[method]


def _complete(operation: dict[str, Any], method: str, path: str) -> None:
    """Add to one call what holds for every call, and take out what Powertools adds that does not hold for ours."""
    needed = needed_for(method, path)
    operation["security"] = [] if needed is None else [{SCHEME: [needed.value]}]
    operation["parameters"] = [
        *operation.get("parameters", []),
        *({"$ref": f"#/components/parameters/{name}"} for name in _PARAMETERS),
    ]
    said = {int(status): answer for status, answer in operation["responses"].items() if not _is_powertools(answer)}
    if not any(200 <= status < 300 for status in said):  # success, as HTTP has it
        raise Undocumented(f"{method} {path} does not say what it answers when it succeeds")
    always = {**_ALWAYS, **(_WITH_A_BODY if "requestBody" in operation else {})}
    for status, words in always.items():
        if needed is not None or status not in (401, 403):
            said.setdefault(status, {"description": words})
    operation["responses"] = {
        str(status): _problem(status, answer, f"{method} {path}") if status >= 400 else _success(answer)
        for status, answer in sorted(said.items())
    }


def _is_powertools(answer: dict[str, Any]) -> bool:
    """Whether it is one that Powertools adds by itself, of shapes that we never answer."""
    return any(f"/{name}" in json.dumps(answer) for name in ("HTTPValidationError", "ResponseValidationError"))


def _success(answer: dict[str, Any]) -> dict[str, Any]:
    return {**answer, "headers": {**answer.get("headers", {}), **_headers()}}


def _problem(status: int, answer: dict[str, Any], where: str) -> dict[str, Any]:
    content: dict[str, Any] = {}
    if any(code.status == status for code in Code):
        content[CONTENT_TYPE] = {"schema": {"$ref": f"#/components/schemas/Problem{status}"}}
    elif status not in _OF_THE_GATEWAY:
        raise Undocumented(f"{where} may answer {status}, for which there is no code")
    if status in _OF_THE_GATEWAY:
        content["application/json"] = {"schema": {"$ref": "#/components/schemas/GatewayAnswer"}}
    # The gateway's own answers do not have our ids.
    headers = {**answer.get("headers", {}), **_headers(required=status not in _OF_THE_GATEWAY)}
    return {"description": answer["description"], "headers": headers, "content": content}


def _headers(*, required: bool = True) -> dict[str, Any]:
    suffix = "" if required else "OfOurs"
    return {
        "X-Request-Id": {"$ref": f"#/components/headers/RequestId{suffix}"},
        "Traceparent": {"$ref": f"#/components/headers/Traceparent{suffix}"},
    }


def _schemas(made: dict[str, Any]) -> dict[str, Any]:
    """The problem of each status that some call may answer."""
    statuses = {int(status) for _, _, operation in _operations(made) for status in operation["responses"]}
    found: dict[str, Any] = {"Problem": _PROBLEM, "GatewayAnswer": _GATEWAY_ANSWER}
    for status in sorted(statuses):
        codes = [code.value for code in Code if code.status == status]
        if codes:
            properties: dict[str, Any] = {"status": {"const": status}, "code": {"enum": codes}}
            if status == Code.INVALID_PAYLOAD.status:
                properties["problems"] = _PROBLEMS
            found[f"Problem{status}"] = {
                "allOf": [{"$ref": "#/components/schemas/Problem"}, {"type": "object", "properties": properties}]
            }
    return found


def _drop_unused(made: dict[str, Any]) -> None:
    """Leave out schemas, headers and parameters that nothing refers to, but for those that hold for every call."""
    components = made["components"]
    while True:
        text = json.dumps(made)
        unused = [
            (kind, name)
            for kind in ("schemas", "headers", "parameters")
            for name in components[kind]
            if f'"#/components/{kind}/{name}"' not in text
        ]
        if not unused:
            break
        for kind, name in unused:
            del components[kind][name]
    for kind in ("schemas", "headers", "parameters"):
        components[kind] = {name: components[kind][name] for name in sorted(components[kind])}


_TEXT: Final = {"type": "string"}
_PARAMETERS: Final = {
    "RequestId": {
        "name": "X-Request-Id",
        "in": "header",
        "required": False,
        "description": "Under which the call is followed, of 8 to 64 letters, digits and `._-`; another is replaced.",
        "schema": _TEXT,
    },
    "Traceparent": {
        "name": "Traceparent",
        "in": "header",
        "required": False,
        "description": "W3C Trace Context; kept where it is valid, else begun.",
        "schema": _TEXT,
    },
}
_HEADERS: Final = {
    f"{name}{suffix}": {"description": words, "required": not suffix, "schema": _TEXT}
    for name, words in (
        ("RequestId", "Under which the audit and the log have it."),
        ("Traceparent", "W3C Trace Context."),
    )
    for suffix in ("", "OfOurs")
}
_PROBLEM: Final = {
    "type": "object",
    "description": "RFC 9457. Further members say more, as the call describes.",
    "required": ["type", "title", "status", "code", "detail", "request_id"],
    "properties": {
        "type": {"const": "about:blank"},
        "title": _TEXT,
        "status": {"type": "integer"},
        "code": {"type": "string", "description": "Stable: scripts branch on it."},
        "detail": {"type": "string", "description": "For the person who called."},
        "request_id": _TEXT,
    },
}
_PROBLEMS: Final = {
    "type": "array",
    "description": "What is wrong, and where: at most the first 20.",
    "items": {
        "type": "object",
        "required": ["at", "problem"],
        "properties": {"at": _TEXT, "problem": _TEXT},
        "additionalProperties": False,
    },
}
_GATEWAY_ANSWER: Final = {
    "type": "object",
    "description": "What the gateway says by itself.",
    "properties": {"message": {"type": ["string", "null"]}},
}


def text() -> str:
    """The document as it is checked in."""
    return json.dumps(document(), indent=_INDENT, ensure_ascii=False) + "\n"


def main() -> None:
    """Write the document where it is checked in."""
    PATH.parent.mkdir(parents=True, exist_ok=True)
    PATH.write_text(text(), encoding="utf-8")


if __name__ == "__main__":
    main()
