"""The operator API as the command line calls it: with a token that is at hand, and with patience where that is safe."""

from __future__ import annotations

import sys
import time
import uuid
import weakref
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import httpx

from functions.operator_api.problems import Code
from ops import login
from ops.local import people
from ops.stack import Stack, StackUnreachable
from ops.tokens import NotSignedIn, Scope, Tokens

TRIES = 3
_PAUSE_SECONDS = 0.5
_OF_EVERY_PROBLEM = ("type", "title", "status", "code", "detail")


class ApiRefused(Exception):
    """The API answered that it will not. `code` is empty where the gateway itself answered.

    `more` are further members of the problem: `request_id` always, what else as the call says.
    """

    def __init__(self, status: int, code: str, detail: str, more: Mapping[str, Any] | None = None) -> None:
        self.status = status
        self.code = code
        self.detail = detail
        self.more = dict(more or {})
        super().__init__(f"{code or status}: {detail}{self._where()}{self._logged()}")

    def _where(self) -> str:
        problems = self.more.get("problems")
        if not isinstance(problems, list):
            return ""
        return "".join(
            f"; {one.get('at', '?')}: {one.get('problem', '?')}" for one in problems if isinstance(one, dict)
        )

    def _logged(self) -> str:
        """Under which id the stage's log has it, where it is the stage that is in trouble."""
        request_id = self.more.get("request_id")
        return f"; its request id is {request_id}" if request_id and self.status >= _OURS else ""


Document = dict[str, Any]
"""A JSON object, as the API answers it."""


class Api(Protocol):
    """`OperatorApi`, as far as its callers know it."""

    def call(
        self,
        method: str,
        path: str,
        *,
        body: Mapping[str, Any] | None = None,
        query: Mapping[str, str] | None = None,
        idempotency_key: str = "",
    ) -> Document:
        """The answer; raises `ApiRefused`, and `StackUnreachable` where there was none."""
        ...


class Bearer(Protocol):
    """Gives the token that a call is made with."""

    def __call__(self, needed: Scope, *, fresh: bool) -> str:
        """One that is good for `needed`; `fresh` if the last one was not taken."""
        ...


class OperatorApi:
    """Calls of one stage's operator API."""

    def __init__(
        self,
        url: str,
        bearer: Bearer,
        *,
        http: httpx.Client | None = None,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._url = url
        self._bearer = bearer
        # A bulk plan may take as long as the gateway waits: 30 seconds.
        self._http = http or httpx.Client(timeout=httpx.Timeout(35, connect=5))
        weakref.finalize(self, self._http.close)
        self._pause = pause

    def call(
        self,
        method: str,
        path: str,
        *,
        body: Mapping[str, Any] | None = None,
        query: Mapping[str, str] | None = None,
        idempotency_key: str = "",
    ) -> dict[str, Any]:
        """The answer to one call. Ids in `path` are percent-encoded by the caller (`quote(id, safe="")`).

        What reads, or has an idempotency key, is asked again when it was not answered; what else did reach the stage is
        not. Raises `ApiRefused`, `StackUnreachable`, and what getting a token raises.
        """
        request_id = uuid.uuid4().hex
        may_repeat = method == "GET" or bool(idempotency_key)
        headers = {"accept": "application/json", "x-request-id": request_id}
        if idempotency_key:
            headers["idempotency-key"] = idempotency_key
        needed = Scope.VIEW if method == "GET" else Scope.OPERATE
        fresh = False
        for tries_left in reversed(range(TRIES)):
            headers["authorization"] = f"Bearer {self._bearer(needed, fresh=fresh)}"
            try:
                answer = self._http.request(
                    method, self._url + path, json=None if body is None else dict(body), params=query, headers=headers
                )
            except (httpx.ConnectError, httpx.ConnectTimeout) as exc:  # it was never sent
                if not tries_left:
                    raise StackUnreachable(f"{self._url} could not be reached: {type(exc).__name__}") from exc
            except httpx.HTTPError as exc:
                if not may_repeat:
                    raise StackUnreachable(
                        f"{method} {path} was not answered ({type(exc).__name__}), and may have been carried out: "
                        f"look before you repeat it; its request id is {request_id}"
                    ) from exc
                if not tries_left:
                    raise StackUnreachable(f"{self._url} does not answer: {type(exc).__name__}") from exc
            else:
                if answer.status_code == httpx.codes.UNAUTHORIZED and not fresh and tries_left:
                    fresh = True  # refused at the gate: nothing has happened
                    continue
                if answer.status_code not in _PASSING or not may_repeat or not tries_left:
                    return _read(answer)
            self._pause(_PAUSE_SECONDS * (TRIES - tries_left))
        raise AssertionError("the last try returns or raises")


def _read(answer: httpx.Response) -> dict[str, Any]:
    """The document. Raises `ApiRefused`."""
    try:
        document = answer.json() if answer.content else {}
    except ValueError:
        document = None
    if answer.is_success and isinstance(document, dict):
        return document
    if not isinstance(document, dict):
        said = answer.text[:200]
        raise ApiRefused(answer.status_code, "", f"answered what is no JSON object: {said!r}")
    more = {name: value for name, value in document.items() if name not in _OF_EVERY_PROBLEM}
    # The gateway's own answers have a `message` and nothing else.
    detail = str(document.get("detail") or more.pop("message", "") or answer.reason_phrase)
    code = str(document.get("code", ""))
    if answer.status_code == httpx.codes.UNAUTHORIZED and not code:
        code, detail = Code.UNAUTHORIZED.value, "the gateway did not take the token: `holdfast login`"
    if code == Code.PERMISSION_DENIED.value:
        detail += ": a group of the user pool that you are not in; `holdfast login` says what you may"
    raise ApiRefused(answer.status_code, code, detail, more)


_OURS = 500
"""From here on it is trouble of the stage's."""

_PASSING = (429, 502, 503, 504)
"""Answers that another try may change."""


def connect(stack: Stack) -> OperatorApi:
    """The API of that stage, called as the person who has signed in.

    Without one: on a local stack as the person at this machine, elsewhere as the stage's machine client, which takes
    AWS credentials that may read it, and is said.
    """
    # On this machine's loopback no proxy is asked.
    http = httpx.Client(timeout=httpx.Timeout(35, connect=5), trust_env=not stack.is_local)
    return OperatorApi(stack.api_url, Whoever(stack, Tokens(stack, remark=_remark), _remark), http=http)


class Whoever:
    """`Bearer`: the person, else who may stand in for them."""

    def __init__(self, stack: Stack, tokens: Tokens, remark: Callable[[str], None]) -> None:
        self._stack = stack
        self._tokens = tokens
        self._remark = remark
        self._has_said_so = False

    def __call__(self, needed: Scope, *, fresh: bool) -> str:
        try:
            return self._tokens.person(fresh=fresh)
        except NotSignedIn:
            if self._stack.is_local:
                return login.sign_in(self._stack, self._tokens, people.browser(self._stack)).access
        if not self._has_said_so:
            self._has_said_so = True
            self._remark("you are not signed in: the audit will name a machine and not you (`holdfast login`)")
        return self._tokens.machine(needed, fresh=fresh)


def _remark(text: str) -> None:
    print(text, file=sys.stderr)
