"""A call of the operator API as the gateway hands it to the function, and the function answering it."""

from __future__ import annotations

import io
import itertools
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx
from aws_lambda_powertools.event_handler import APIGatewayHttpResolver
from aws_lambda_powertools.event_handler.router import APIGatewayHttpRouter

from functions.observability import logger, metrics
from functions.operator_api.caller import Permission
from functions.operator_api.handler import application, build
from functions.operator_api.request import decoded, method_and_path
from ops.operator_api import OperatorApi
from ops.operator_openapi import document
from ops.tokens import Scope
from tests.fakes import FakeClock, FakeIds

_NUMBERS = itertools.count()
PERSON = "ada"
MACHINE = "3n4b5urk1ft4fl3mg5e62d9ado"


def claims_of(name: str = PERSON, *permissions: Permission) -> dict[str, str]:
    """What the gateway tells of a person's access token. Each of their groups stands for a permission."""
    groups = " ".join(permission.words for permission in permissions)
    return {
        "token_use": "access",
        "scope": "openid",
        "username": name,
        "client_id": "people",
        **({"cognito:groups": f"[{groups}]"} if groups else {}),
    }


def machine_claims(*permissions: Permission) -> dict[str, str]:
    """What the gateway tells of a machine's access token."""
    return {"token_use": "access", "scope": " ".join(permissions), "client_id": MACHINE, "sub": MACHINE}


VIEWER = claims_of(PERSON, Permission.VIEW)
OPERATOR = claims_of(PERSON, Permission.OPERATE)


def call(
    method: str,
    path: str,
    *,
    claims: Mapping[str, Any] | None = None,
    body: str | None = None,
    is_base64: bool = False,
    headers: Mapping[str, str] | None = None,
    query: Mapping[str, str] | None = None,
    route: str = "ANY /platform/{proxy+}",
) -> dict[str, Any]:
    """An event of payload version 2.0, without token if there are no claims."""
    event: dict[str, Any] = {
        "version": "2.0",
        "routeKey": route,
        "rawPath": path,
        "rawQueryString": "",
        "headers": {"accept": "*/*", **({"content-type": "application/json"} if body else {}), **(headers or {})},
        "requestContext": {
            "accountId": "000000000000",
            "http": {"method": method, "path": path, "protocol": "HTTP/1.1", "sourceIp": "127.0.0.1"},
            "requestId": "gateway",
            "routeKey": route,
            "stage": "$default",
        },
        "isBase64Encoded": is_base64,
    }
    if claims is not None:
        event["requestContext"]["authorizer"] = {"jwt": {"claims": dict(claims), "scopes": []}}
    if body is not None:
        event["body"] = body
    if query:
        event["queryStringParameters"] = dict(query)
    return event


_DOCUMENTS: dict[tuple[Any, ...], Mapping[str, Any]] = {}


def _document_of(app: APIGatewayHttpResolver, routers: Iterable[APIGatewayHttpRouter]) -> Mapping[str, Any]:
    """What the calls say that they answer: the same for the same code, whatever ports a test has given it. To write it
    down takes longer than most tests.
    """
    calls = tuple((route, call.__code__) for router in routers for route, call in router._routes.items())
    if calls not in _DOCUMENTS:
        _DOCUMENTS[calls] = document(app)
    return _DOCUMENTS[calls]


@dataclass
class Answering:
    """The function over these routers. `log` and `counted` are what it wrote."""

    routers: Iterable[APIGatewayHttpRouter]
    clock: FakeClock = field(default_factory=FakeClock)
    ids: FakeIds = field(default_factory=FakeIds)
    log: io.StringIO = field(default_factory=io.StringIO)
    counted: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        name = f"operator-api-test-{next(_NUMBERS)}"  # loggers of one name share a stream
        routers = list(self.routers)
        app = application(routers)
        self.openapi = _document_of(app, routers)
        self.handle = build(
            app,
            clock=self.clock,
            ids=self.ids,
            log=logger(name, stream=self.log),
            metrics=metrics(name, "test", self.counted.append),
        )

    def __call__(self, event: Any) -> dict[str, Any]:
        """The answer, with its body read. Raises `AssertionError` for one that the documentation does not know."""
        answer = self.handle(event, None)
        self._check_documented(event, answer)
        return {**answer, "document": json.loads(answer["body"]) if answer.get("body") else None}

    def _check_documented(self, event: Any, answer: Mapping[str, Any]) -> None:
        method, path = method_and_path(event)
        path = decoded(path)
        for template, item in self.openapi["paths"].items():
            if method.lower() in item and re.fullmatch(re.sub(r"\\{[^}]*\\}", "[^/]+", re.escape(template)), path):
                responses = item[method.lower()]["responses"]
                break
        else:
            assert answer["statusCode"] in (400, 401, 403, 404), "there is no such call"
            return
        assert str(answer["statusCode"]) in responses, f"{method} {template} may not answer {answer['statusCode']}"
        said = responses[str(answer["statusCode"])]
        headers = {name.lower(): value for name, value in answer["headers"].items()}
        assert set(map(str.lower, said["headers"])) <= headers.keys()
        if answer.get("body"):
            assert headers["content-type"] in said["content"]

    def lines(self) -> list[dict[str, Any]]:
        """What it has logged."""
        return [json.loads(line) for line in self.log.getvalue().splitlines()]


def client_of(answering: Answering, claims: Mapping[str, Any] = OPERATOR) -> OperatorApi:
    """The command line's client, whose calls that function answers as if they came from the gateway."""

    def answer(request: httpx.Request) -> httpx.Response:
        raw_path = request.url.raw_path.decode().partition("?")[0]
        answered = answering(
            call(
                request.method,
                raw_path,
                claims=claims,
                body=request.content.decode() or None,
                headers=dict(request.headers),
                query=dict(request.url.params),
            )
        )
        return httpx.Response(answered["statusCode"], headers=answered["headers"], content=answered.get("body") or "")

    def bearer(needed: Scope, *, fresh: bool) -> str:
        return f"{needed}-{fresh}"

    client = httpx.Client(transport=httpx.MockTransport(answer))
    return OperatorApi("https://api.example.com", bearer, http=client, pause=lambda _: None)
