"""The command line calls the operator API: as whom, what it asks again, and how it tells a refusal."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from ops.operator_api import TRIES, ApiRefused, OperatorApi, Whoever
from ops.stack import StackUnreachable
from ops.tokens import Scope, Token, TokenCache
from tests.pool_fakes import NOW, FakePool, stack_of, tokens_of

URL = "https://api.example.com"
OK = httpx.Response(200, json={"items": []})


class Stage:
    """Answers in turn, the last one for ever, and remembers what it was asked."""

    def __init__(self, *answers: httpx.Response | Exception) -> None:
        self.answers = list(answers)
        self.asked: list[httpx.Request] = []
        self.tokens: list[tuple[Scope, bool]] = []
        self.pauses: list[float] = []
        self.api = OperatorApi(
            URL,
            self._bearer,
            http=httpx.Client(transport=httpx.MockTransport(self._answer)),
            pause=self.pauses.append,
        )

    def _bearer(self, needed: Scope, *, fresh: bool) -> str:
        self.tokens.append((needed, fresh))
        return f"{needed}-{'new' if fresh else 'old'}"

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return httpx.Response(answer.status_code, headers=answer.headers, content=answer.content)


def problem(status: int, code: str, **more: Any) -> httpx.Response:
    document = {
        "type": "about:blank",
        "title": "t",
        "status": status,
        "code": code,
        "detail": "it is so",
        "request_id": "r1",
        **more,
    }
    return httpx.Response(
        status, headers={"content-type": "application/problem+json"}, content=json.dumps(document).encode()
    )


def look(stage: Stage) -> dict[str, Any]:
    return stage.api.call("GET", "/platform/audit")


def change(stage: Stage) -> dict[str, Any]:
    return stage.api.call("POST", "/platform/x/note", body={"reason": "why"})


def replay(stage: Stage) -> dict[str, Any]:
    return stage.api.call("POST", "/platform/x/replay", body={"reason": "why"}, idempotency_key="click-1")


def test_a_call_is_sent_as_it_is_asked_for() -> None:
    stage = Stage(OK)
    found = stage.api.call(
        "POST", "/platform/x%3A1/replay", body={"reason": "für alle"}, query={"limit": "5"}, idempotency_key="click-1"
    )
    assert found == {"items": []}
    (request,) = stage.asked
    assert (request.method, str(request.url)) == ("POST", f"{URL}/platform/x%3A1/replay?limit=5")
    assert json.loads(request.content) == {"reason": "für alle"}
    assert request.headers["idempotency-key"] == "click-1"
    assert request.headers["authorization"] == "Bearer operate-old"
    assert request.headers["content-type"] == "application/json"
    assert len(request.headers["x-request-id"]) == 32


def test_looking_takes_a_token_to_view_and_has_neither_body_nor_key() -> None:
    stage = Stage(OK)
    look(stage)
    (request,) = stage.asked
    assert request.headers["authorization"] == "Bearer view-old"
    assert request.content == b""
    assert not {"idempotency-key", "content-type"} & set(request.headers)


@pytest.mark.parametrize("answer", [httpx.Response(204), httpx.Response(202, content=b"")])
def test_an_answer_without_a_body_is_an_empty_document(answer: httpx.Response) -> None:
    assert change(Stage(answer)) == {}


def test_a_problem_is_told_with_all_its_members() -> None:
    stage = Stage(problem(409, "INT-409-RECOVERY-REPLAY-CONFLICT", current_status="pending"))
    with pytest.raises(ApiRefused) as raised:
        replay(stage)
    refused = raised.value
    assert (refused.status, refused.code, refused.detail) == (409, "INT-409-RECOVERY-REPLAY-CONFLICT", "it is so")
    assert refused.more == {"request_id": "r1", "current_status": "pending"}
    assert str(refused) == "INT-409-RECOVERY-REPLAY-CONFLICT: it is so"
    assert len(stage.asked) == 1


def test_trouble_of_the_stage_names_the_request_that_its_log_has() -> None:
    with pytest.raises(ApiRefused, match="its request id is r1"):
        change(Stage(problem(500, "INT-500-INTERNAL")))
    with pytest.raises(ApiRefused, match=r"500: Internal Server Error$"):
        change(Stage(httpx.Response(500, json={})))


def test_whoever_may_not_is_told_what_would_let_them_004_3() -> None:
    with pytest.raises(ApiRefused, match=r"it is so: a group .* `holdfast login` says what you may"):
        change(Stage(problem(403, "INT-403-PERMISSION-DENIED")))


def test_where_a_request_is_not_valid_is_told() -> None:
    answer = problem(400, "INT-400-INVALID-PAYLOAD", problems=[{"at": "body/reason", "problem": "too short"}])
    with pytest.raises(ApiRefused, match="it is so; body/reason: too short"):
        change(Stage(answer))


@pytest.mark.parametrize(
    ("answer", "code", "words"),
    [
        (httpx.Response(404, json={"message": "Not Found"}), "", "404: Not Found"),
        (httpx.Response(413, text="<html>too large"), "", "413: answered what is no JSON object: '<html>too large'"),
        (httpx.Response(500, json=["x"]), "", "500: answered what is no JSON object"),
        (httpx.Response(200, json=["x"]), "", "200: answered what is no JSON object"),
        (httpx.Response(200, text="nope"), "", "200: answered what is no JSON object: 'nope'"),
        (httpx.Response(302, headers={"location": "https://evil.example/"}), "", "302: Found"),
        (httpx.Response(401, json={"message": "Unauthorized"}), "INT-401-UNAUTHORIZED", "did not take the token"),
    ],
)
def test_what_the_gateway_says_in_its_own_words_is_told_too(answer: httpx.Response, code: str, words: str) -> None:
    with pytest.raises(ApiRefused, match=words.replace("<", ".")) as raised:
        change(Stage(answer))
    assert (raised.value.status, raised.value.code) == (answer.status_code, code)


@pytest.mark.parametrize("do", [look, change, replay])
def test_a_token_that_is_not_taken_is_replaced_once(do: Callable[[Stage], dict[str, Any]]) -> None:
    """The gateway refuses it before anything happens, so that even a change may be asked for again."""
    unauthorized = httpx.Response(401, json={"message": "Unauthorized"})
    stage = Stage(unauthorized, OK)
    assert do(stage) == {"items": []}
    assert [fresh for _, fresh in stage.tokens] == [False, True]
    assert stage.asked[1].headers["authorization"].endswith("-new")
    stage = Stage(unauthorized)
    with pytest.raises(ApiRefused):
        do(stage)
    assert len(stage.asked) == 2


@pytest.mark.parametrize("do", [look, replay])
@pytest.mark.parametrize(
    "trouble",
    [
        problem(503, "INT-503-DEPENDENCY-UNAVAILABLE"),
        problem(429, "INT-429-TOO-MANY-REQUESTS"),
        httpx.Response(503, json={"message": "Service Unavailable"}),
        httpx.Response(504, json={"message": "Gateway Timeout"}),
        httpx.ReadTimeout("slow"),
        httpx.RemoteProtocolError("cut"),
        httpx.ConnectError("nobody"),
    ],
)
def test_what_may_be_asked_again_is(do: Callable[[Stage], dict[str, Any]], trouble: httpx.Response | Exception) -> None:
    stage = Stage(trouble, trouble, OK)
    assert do(stage) == {"items": []}
    assert stage.pauses == [0.5, 1.0]
    assert len({request.headers["x-request-id"] for request in stage.asked}) == 1
    stage = Stage(trouble)
    with pytest.raises((ApiRefused, StackUnreachable)):
        do(stage)
    assert len(stage.asked) == TRIES


@pytest.mark.parametrize(
    "trouble",
    [
        problem(503, "INT-503-DEPENDENCY-UNAVAILABLE"),
        httpx.Response(504, json={"message": "Gateway Timeout"}),
        httpx.ReadTimeout("slow"),
        httpx.WriteError("cut"),
        httpx.RemoteProtocolError("cut"),
    ],
)
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_a_change_without_a_key_that_reached_the_stage_is_not_asked_for_again(
    method: str, trouble: httpx.Response | Exception
) -> None:
    stage = Stage(trouble)
    with pytest.raises((ApiRefused, StackUnreachable)) as raised:
        stage.api.call(method, "/platform/quarantine/1")
    assert len(stage.asked) == 1
    if isinstance(raised.value, StackUnreachable):
        assert "may have been carried out" in str(raised.value)
        assert stage.asked[0].headers["x-request-id"] in str(raised.value)


def test_a_change_that_was_never_sent_is_asked_for_again() -> None:
    stage = Stage(httpx.ConnectError("nobody"), httpx.ConnectTimeout("nobody"), OK)
    assert change(stage) == {"items": []}
    with pytest.raises(StackUnreachable, match="could not be reached: ConnectError"):
        change(Stage(httpx.ConnectError("nobody")))


def test_a_problem_that_will_not_pass_is_not_asked_about_again() -> None:
    for status in (400, 403, 404, 409, 422, 500):
        stage = Stage(problem(status, "INT"))
        with pytest.raises(ApiRefused):
            look(stage)
        assert len(stage.asked) == 1


# ------------------------------------------------------------------------------------------------------------- as whom


def test_who_has_signed_in_calls_as_themselves(tmp_path: Path) -> None:
    pool, remarks = FakePool(), list[str]()
    tokens = tokens_of(pool, TokenCache(tmp_path))
    tokens.sign_in(Token("ada's", NOW + 1800, "again"))
    whoever = Whoever(stack_of(pool), tokens, remarks.append)
    assert {whoever(scope, fresh=False) for scope in Scope} == {"ada's"}
    assert whoever(Scope.VIEW, fresh=True) == "token-1"
    assert remarks == []


def test_who_has_not_calls_as_a_machine_with_no_more_scope_than_the_call_needs_and_is_told_so_once(
    tmp_path: Path,
) -> None:
    pool, remarks = FakePool(), list[str]()
    whoever = Whoever(stack_of(pool), tokens_of(pool, TokenCache(tmp_path)), remarks.append)
    given = [whoever(scope, fresh=False) for scope in (Scope.VIEW, Scope.OPERATE, Scope.VIEW)]
    assert given == ["token-1", "token-2", "token-1"]
    assert [asked["scope"] for asked in pool.asked if "scope" in asked] == [
        "platform.member_admin/view",
        "platform.member_admin/operate",
    ]
    assert remarks == ["you are not signed in: the audit will name a machine and not you (`holdfast login`)"]
