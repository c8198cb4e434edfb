"""Who comes to the operator API of a deployed stage, and how they are turned away: over HTTP, with real tokens."""

from __future__ import annotations

import base64
import json
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from functions.operator_api.caller import Permission
from ops.cli import run
from ops.local.people import browser, local_name
from ops.login import sign_in
from ops.operator_api import ApiRefused, connect
from ops.stack import Stack
from ops.tokens import Scope, TokenCache, Tokens
from tests.e2e.conftest import World
from tests.e2e.operator_desk import await_end, claims_of, short_lived

LOOK = ("GET", "/platform/integrations/helpdesk/recovery/queue/0123456789abcdef01234567")
CHANGE = ("POST", "/platform/integrations/helpdesk/recovery/queue/0123456789abcdef01234567/dismiss")
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.fixture
def stack(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stack:
    """The stage, with nothing in the cache of tokens."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return world.stack


@pytest.fixture
def tokens(stack: Stack) -> Tokens:
    return Tokens(stack)


def ask(stack: Stack, call: tuple[str, str], token: str = "", **more: Any) -> httpx.Response:
    method, path = call
    headers = {"authorization": f"Bearer {token}"} if token else {}
    return httpx.request(
        method,
        stack.api_url + path,
        headers={**headers, **more.pop("headers", {})},
        timeout=60,
        trust_env=False,
        **more,
    )


def is_problem(answer: httpx.Response, status: int, code: str) -> bool:
    document = answer.json()
    return (
        answer.status_code == document["status"] == status
        and document["code"] == code
        and answer.headers["content-type"] == "application/problem+json"
        and document["request_id"] == answer.headers["x-request-id"]
    )


def changed(token: str, **claims: Any) -> str:
    """The token with other claims under the same signature."""
    head, _, signature = token.split(".")
    forged = base64.urlsafe_b64encode(json.dumps({**claims_of(token), **claims}).encode()).rstrip(b"=").decode()
    return f"{head}.{forged}.{signature}"


@pytest.mark.parametrize("call", [LOOK, CHANGE, ("GET", "/platform/no/such/call"), ("BREW", "/platform/coffee")])
def test_without_a_token_nobody_is_let_in_nor_told_what_there_is(stack: Stack, call: tuple[str, str]) -> None:
    for headers in ({}, {"authorization": ""}, {"authorization": "Basic dGVzdDp0ZXN0"}):
        answer = ask(stack, call, headers=headers)
        assert (answer.status_code, answer.json()) == (401, {"message": "Unauthorized"})


def test_a_token_that_is_not_of_the_pool_is_refused(stack: Stack, tokens: Tokens) -> None:
    good = tokens.machine(Scope.VIEW)
    head, body, signature = good.split(".")
    unsigned = base64.urlsafe_b64encode(b'{"alg": "none"}').rstrip(b"=").decode()
    for bad in (
        "garbage",
        "a.b.c",
        good[:-4] + ("AAAA" if not good.endswith("AAAA") else "BBBB"),
        f"{unsigned}.{body}.",
        f"{unsigned}.{body}.{signature}",
        f"{head}.{body}.",
        changed(good, scope=Permission.OPERATE.value),
        changed(good, exp=int(time.time()) + 86_400),
        changed(good, iss="https://cognito-idp.us-east-1.amazonaws.com/us-east-1_Other"),
    ):
        answer = ask(stack, LOOK, bad)
        assert answer.status_code == 401, bad
    assert ask(stack, LOOK, good).status_code == 404


def test_a_token_that_has_ended_is_refused(stack: Stack, tokens: Tokens) -> None:
    with short_lived(stack, seconds=8):  # a busy machine may take some of them for one call
        token = tokens.machine(Scope.VIEW)
        assert ask(stack, LOOK, token).status_code == 404
    await_end(token)
    assert ask(stack, LOOK, token).status_code == 401


def test_who_may_look_may_not_change_and_who_may_change_may_look(stack: Stack, tokens: Tokens) -> None:
    view, operate = tokens.machine(Scope.VIEW), tokens.machine(Scope.OPERATE)
    refused = ask(stack, CHANGE, view, json={"reason": "why", "done_by_hand": False})
    assert is_problem(refused, 403, "INT-403-PERMISSION-DENIED")
    assert refused.json()["detail"] == "platform.member_admin.operate is needed"
    for token in (view, operate):
        answer = ask(stack, LOOK, token)
        assert answer.status_code == 404
        assert answer.headers["content-type"] == "application/problem+json"
    answer = ask(stack, CHANGE, operate, json={"reason": "why", "done_by_hand": False})
    assert answer.status_code == 404
    assert answer.json()["code"].startswith("INT-404-")


def test_what_is_no_call_is_a_problem_too(stack: Stack, tokens: Tokens) -> None:
    operate = tokens.machine(Scope.OPERATE)
    for call in (("GET", "/platform/no/such/call"), ("PATCH", LOOK[1]), ("BREW", "/platform/coffee")):
        assert is_problem(ask(stack, call, operate), 404, "INT-404-NOT-FOUND")


def test_bodies_of_strangers_are_a_problem_and_not_an_error(stack: Stack, tokens: Tokens) -> None:
    operate = tokens.machine(Scope.OPERATE)
    for body, media in (
        (b"{", "application/json"),
        (b"[" * 50_000, "application/json"),
        (b"\xff\xfe\x00", "application/json"),
        (b"\xff\xfe\x00", "application/octet-stream"),
        (b'{"reason": NaN}', "application/json"),
        (b'{"reason": "' + b"x" * 200_000 + b'"}', "application/json"),
        (b"reason=why", "application/x-www-form-urlencoded"),
    ):
        answer = ask(stack, CHANGE, operate, content=body, headers={"content-type": media})
        assert is_problem(answer, 400, "INT-400-INVALID-PAYLOAD"), (media, body[:20])


def test_request_id_and_traceparent_go_in_and_out_and_into_the_log(world: World, stack: Stack, tokens: Tokens) -> None:
    request_id = f"e2e-ids-{time.time_ns()}"
    answer = ask(stack, LOOK, tokens.machine(Scope.VIEW), headers={"x-request-id": request_id, "traceparent": TRACE})
    assert (answer.headers["x-request-id"], answer.headers["traceparent"]) == (request_id, TRACE)
    (line,) = world.logged_under("OperatorApiFunction", request_id)
    assert line["actor"] == stack.output("ViewClientId")
    assert (line["traceparent"], line["status"]) == (TRACE, 404)


def test_a_person_signs_in_and_is_known_by_name_and_by_group(world: World, stack: Stack, tokens: Tokens) -> None:
    token = sign_in(stack, tokens, browser(stack))
    assert token.claims()["username"] == local_name()
    assert ask(stack, CHANGE, token.access, json={"reason": "why", "done_by_hand": False}).status_code == 404
    request_id = f"e2e-person-{time.time_ns()}"
    ask(stack, LOOK, token.access, headers={"x-request-id": request_id})
    (line,) = world.logged_under("OperatorApiFunction", request_id)
    assert line["actor"] == local_name()


def test_a_person_in_no_group_is_let_in_by_the_gateway_and_may_nothing(stack: Stack, tokens: Tokens) -> None:
    name = f"local/nobody-{time.time_ns()}"
    pool, cognito = stack.output("UserPoolId"), stack.client("cognito-idp")
    sign_in(stack, tokens, browser(stack, name))
    cognito.admin_remove_user_from_group(UserPoolId=pool, Username=name, GroupName=Permission.OPERATE.words)
    refreshed = tokens.person(fresh=True)
    assert is_problem(ask(stack, LOOK, refreshed), 403, "INT-403-PERMISSION-DENIED")
    cognito.admin_add_user_to_group(UserPoolId=pool, Username=name, GroupName=Permission.VIEW.words)
    refreshed = tokens.person(fresh=True)
    assert ask(stack, LOOK, refreshed).status_code == 404
    assert is_problem(ask(stack, CHANGE, refreshed), 403, "INT-403-PERMISSION-DENIED")


def test_an_id_token_is_no_way_in(stack: Stack, tokens: Tokens) -> None:
    seen: list[str] = []

    class Seeing(Tokens):
        def ask(self, form: Any, auth: Any = None) -> dict[str, Any]:
            answer = super().ask(form, auth)
            seen.append(answer["id_token"])
            return answer

    sign_in(stack, Seeing(stack), browser(stack))
    assert is_problem(ask(stack, LOOK, seen[0]), 401, "INT-401-UNAUTHORIZED")


def test_the_command_line_needs_no_set_up_and_the_person_at_this_machine_is_the_one_who_asks(
    world: World, stack: Stack
) -> None:
    api = connect(stack)
    with pytest.raises(ApiRefused) as raised:
        api.call(*LOOK)
    assert raised.value.status == 404
    assert raised.value.code.startswith("INT-404-")
    with pytest.raises(ApiRefused) as raised:
        api.call(*CHANGE, body={"reason": "why", "done_by_hand": False})
    assert raised.value.status == 404
    request_id = str(raised.value.more["request_id"])
    (line,) = world.logged_under("OperatorApiFunction", request_id)
    assert line["actor"] == local_name()


def test_a_token_that_the_stage_no_longer_takes_is_replaced_without_anybody_noticing(stack: Stack) -> None:
    api = connect(stack)
    with pytest.raises(ApiRefused):
        api.call(*LOOK)
    (file,) = TokenCache.of_user()._directory.iterdir()
    stored = json.loads(file.read_text())
    file.write_text(json.dumps({**stored, "access": changed(stored["access"], jti="other")}))
    with pytest.raises(ApiRefused) as raised:
        connect(stack).call(*LOOK)
    assert raised.value.status == 404


def test_holdfast_token_prints_a_bearer_token_and_nothing_else(stack: Stack, capfd: pytest.CaptureFixture[str]) -> None:
    for scope, may_change in (("view", False), ("operate", True)):
        assert run(["token", "--scope", scope]) == 0
        out, err = capfd.readouterr()
        assert (out.count("\n"), err) == (1, "")
        token = out.strip()
        assert ask(stack, LOOK, token).status_code == 404
        answer = ask(stack, CHANGE, token, json={"reason": "why", "done_by_hand": False})
        assert answer.status_code == (404 if may_change else 403)


def test_holdfast_login_and_logout(stack: Stack, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["token", "--mine"]) == 1
    assert "not signed in" in capfd.readouterr().err
    assert run(["login", "--json"]) == 0
    told = json.loads(capfd.readouterr().out)
    assert (told["name"], told["may"]) == (local_name(), ["operate"])
    assert run(["token", "--mine"]) == 0
    mine = capfd.readouterr().out.strip()
    assert ask(stack, LOOK, mine).status_code == 404
    refresh = Tokens(stack)._cache.read(f"local.{stack.output('UserPoolId')}.person")
    assert refresh is not None
    assert run(["logout"]) == 0
    assert run(["token", "--mine"]) == 1
    cognito = stack.client("cognito-idp")
    with pytest.raises(cognito.exceptions.NotAuthorizedException):
        cognito.initiate_auth(
            AuthFlow="REFRESH_TOKEN_AUTH",
            AuthParameters={"REFRESH_TOKEN": refresh.refresh},
            ClientId=stack.output("PeopleClientId"),
        )
