"""Who asks the operator API of a deployed stage over HTTP, and what they are answered, held to its documentation."""

from __future__ import annotations

import base64
import json
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import unquote

import httpx
import jsonschema_rs

from functions.operator_api.caller import Permission
from infra.operator_api import CALLS
from ops.local.people import browser
from ops.login import sign_in
from ops.operator_openapi import PATH
from ops.stack import Stack
from ops.tokens import Scope, Tokens

PROBLEM: Final = "application/problem+json"
OPENAPI: Final[dict[str, Any]] = json.loads(PATH.read_text(encoding="utf-8"))
ROUTES: Final = tuple((method.value, path) for path, methods in CALLS.items() for method in methods)
"""Every call, as the gateway has it: method and path with its parameters."""

_GREEDY: Final = re.compile(r"\\\{[^}]*\\\+\\\}")
_ONE: Final = re.compile(r"\\\{[^}]*\\\}")


@dataclass(frozen=True, slots=True)
class Told:
    """One answer. `document` is its body, `call` the route that it was made by: None where there is no such call."""

    status: int
    document: Any
    headers: Mapping[str, str]
    call: tuple[str, str] | None

    @property
    def code(self) -> str:
        """The problem's code; empty where it is none of ours."""
        return str(self.document.get("code", "")) if isinstance(self.document, dict) else ""

    @property
    def request_id(self) -> str:
        """Under which audit and log have it."""
        return self.headers["x-request-id"]


class Desk:
    """Asks as a machine that may `view` or `operate`, or with any other token. Every answer is held to the OpenAPI
    document; `made` are the statuses that each call has answered.
    """

    def __init__(self, stack: Stack, tokens: Tokens) -> None:
        self.stack = stack
        self.tokens = tokens
        self.made: dict[tuple[str, str], set[int]] = {}
        self._http = httpx.Client(timeout=60, trust_env=False)

    def close(self) -> None:
        """Hang up."""
        self._http.close()

    def ask(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        scope: Scope = Scope.OPERATE,
        token: str | None = None,
        key: str = "",
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Told:
        """The answer to one call. `token` empty: none is shown; None: that of the scope."""
        sent = dict(headers or {})
        shown = self.tokens.machine(scope) if token is None else token
        if shown:
            sent["authorization"] = f"Bearer {shown}"
        if key:
            sent["idempotency-key"] = key
        answer = self._http.request(
            method,
            self.stack.api_url + path,
            json=None if body is None else dict(body),
            params=None if query is None else dict(query),
            headers=sent,
        )
        document = answer.json() if answer.content else None
        told = Told(answer.status_code, document, answer.headers, call_of(method, path))
        if told.call is not None:
            self.made.setdefault(told.call, set()).add(told.status)
        check_documented(told)
        return told

    def get(self, path: str, **query: str) -> Any:
        """What is there, asked by one who may only look."""
        told = self.ask("GET", path, scope=Scope.VIEW, query=query or None)
        assert told.status == 200, told
        return told.document

    def pages(self, path: str, *, cursor: str = "cursor", of: str = "", **query: str) -> Iterator[Any]:
        """Every page of what is there, from the first to the one that says it is the last. `of`: within that part."""
        while True:
            document = self.get(path, **query)
            page = document[of] if of else document
            yield page
            if not page[cursor]:
                return
            query["cursor"] = page[cursor]


def call_of(method: str, path: str) -> tuple[str, str] | None:
    """The route by which the gateway takes a path, in which an encoded slash is one: it decodes before it looks."""
    for known, template in ROUTES:
        pattern = _ONE.sub("[^/]+", _GREEDY.sub(".+", re.escape(template)))
        if known == method and re.fullmatch(pattern, unquote(path)):
            return known, template
    return None


def check_documented(told: Told) -> None:
    """Raises `AssertionError` for an answer that the OpenAPI document does not know, in status, media type or body, and
    for a refusal of ours that is no problem document.
    """
    media = told.headers["content-type"]
    if told.status >= 400 and media == PROBLEM:
        assert told.document["status"] == told.status
        assert told.document["code"].startswith(f"INT-{told.status}-")
        assert told.document["request_id"] == told.headers["x-request-id"]
    elif told.status >= 400:
        assert is_of_the_gateway(told), told
    if told.call is None:
        assert told.status in (400, 401, 403, 404), told
        return
    method, template = told.call
    responses = OPENAPI["paths"][template.replace("+}", "}")][method.lower()]["responses"]
    assert str(told.status) in responses, f"{told.call} may not answer {told.status}: {told.document}"
    said = responses[str(told.status)]
    assert media in said["content"], f"{told.call} may not answer {told.status} as {media}"
    for name, header in said["headers"].items():
        is_needed = OPENAPI["components"]["headers"][header["$ref"].rpartition("/")[2]]["required"]
        assert not is_needed or name in told.headers, f"{told.call} answers {told.status} without {name}"
    schema = {**said["content"][media]["schema"], "components": OPENAPI["components"]}
    jsonschema_rs.validate(schema, told.document)


def is_of_the_gateway(told: Told) -> bool:
    """Whether the gateway refused by itself: it says a message, and nothing of ours."""
    return told.headers["content-type"] == "application/json" and set(told.document) == {"message"}


@contextmanager
def short_lived(stack: Stack, seconds: int = 1) -> Iterator[None]:
    """The viewing machine's tokens end after a few seconds, as they would after half an hour."""
    cognito = stack.client("cognito-idp")
    which = {"UserPoolId": stack.output("UserPoolId"), "ClientId": stack.output("ViewClientId")}
    stated = cognito.describe_user_pool_client(**which)["UserPoolClient"]
    kept = {name: stated[name] for name in ("AllowedOAuthFlows", "AllowedOAuthScopes", "ExplicitAuthFlows")}
    cognito.update_user_pool_client(
        **which, **kept, AccessTokenValidity=seconds, TokenValidityUnits={"AccessToken": "seconds"}
    )
    try:
        yield
    finally:
        cognito.update_user_pool_client(
            **which, **kept, AccessTokenValidity=30, TokenValidityUnits={"AccessToken": "minutes"}
        )


def ended_token(stack: Stack, tokens: Tokens) -> str:
    """A token that was good, and is not any more."""
    with short_lived(stack):
        token = tokens.machine(Scope.VIEW, fresh=True)
    await_end(token)
    return token


def await_end(token: str) -> None:
    """Until the second that it says it ends in is over."""
    time.sleep(max(0.0, claims_of(token)["exp"] + 1 - time.time()))


def claims_of(token: str) -> dict[str, Any]:
    """What it says."""
    body = token.split(".")[1]
    claims: dict[str, Any] = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    return claims


def token_of_nobody(stack: Stack, tokens: Tokens) -> str:
    """A token of a person of the pool who is in none of its groups."""
    name = f"local/in-no-group-{time.time_ns()}"
    sign_in(stack, tokens, browser(stack, name))
    stack.client("cognito-idp").admin_remove_user_from_group(
        UserPoolId=stack.output("UserPoolId"), Username=name, GroupName=Permission.OPERATE.words
    )
    token = tokens.person(fresh=True)
    tokens.sign_out()
    return token
