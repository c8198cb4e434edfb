"""A person signs in with their browser; whoever else comes by is not taken for them."""

from __future__ import annotations

import base64
import hashlib
import socket
import threading
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from infra.config import LOGIN_REDIRECTS
from ops import login
from ops.tokens import LoginFailed, Token, TokenCache, Tokens
from tests.pool_fakes import FakePool, stack_of, tokens_of


@pytest.fixture
def pool() -> FakePool:
    return FakePool()


@pytest.fixture
def tokens(pool: FakePool, tmp_path: Path) -> Tokens:
    return tokens_of(pool, TokenCache(tmp_path / "tokens"))


@pytest.fixture
def redirects() -> tuple[str, ...]:
    """Of ports that are free, in place of the registered ones, which somebody on this machine may be using."""
    with ExitStack() as stack:
        found = [stack.enter_context(socket.create_server(("127.0.0.1", 0))).getsockname()[1] for _ in range(3)]
    return tuple(f"http://localhost:{port}/" for port in found)


@pytest.fixture
def sign_in(pool: FakePool, tokens: Tokens, redirects: tuple[str, ...]) -> Callable[..., Token]:
    return partial(login.sign_in, stack_of(pool), tokens, redirects=redirects)


def asked_in(address: str) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(urlsplit(address).query).items()}


def returning(answer: Callable[[dict[str, str]], dict[str, str]], seen: list[httpx.Response] | None = None) -> Any:
    """A browser that comes back at once."""

    def visit(address: str) -> None:
        asked = asked_in(address)
        came = httpx.get(asked["redirect_uri"], params=answer(asked), trust_env=False)
        if seen is not None:
            seen.append(came)

    return visit


def test_the_code_is_redeemed_with_the_verifier_that_the_challenge_was_made_of(
    pool: FakePool, tokens: Tokens, sign_in: Callable[..., Token], redirects: tuple[str, ...]
) -> None:
    addresses: list[str] = []
    seen: list[httpx.Response] = []

    def visit(address: str) -> None:
        addresses.append(address)
        returning(lambda asked: {"code": "c0de", "state": asked["state"]}, seen)(address)

    token = sign_in(visit)
    asked = asked_in(addresses[0])
    assert addresses[0].startswith("https://login.example.com/oauth2/authorize?")
    assert (asked["response_type"], asked["client_id"], asked["scope"]) == ("code", "people-client", "openid")
    assert asked["redirect_uri"] in redirects
    (redeemed,) = pool.asked
    challenge = base64.urlsafe_b64encode(hashlib.sha256(redeemed["code_verifier"].encode()).digest()).rstrip(b"=")
    assert (asked["code_challenge_method"], asked["code_challenge"]) == ("S256", challenge.decode())
    assert 43 <= len(redeemed["code_verifier"]) <= 128
    assert (redeemed["grant_type"], redeemed["code"], redeemed["client_id"], redeemed["redirect_uri"]) == (
        "authorization_code",
        "c0de",
        "people-client",
        asked["redirect_uri"],
    )
    assert redeemed["auth"] == ""
    assert (token.access, token.refresh, tokens.person()) == ("token-1", "again", "token-1")
    assert seen[0].status_code == 200
    assert "signed in" in seen[0].text
    assert seen[0].headers["referrer-policy"] == "no-referrer"


def test_no_two_sign_ins_have_a_secret_in_common(sign_in: Callable[..., Token]) -> None:
    addresses: list[str] = []

    def visit(address: str) -> None:
        addresses.append(address)
        returning(lambda asked: {"code": "c", "state": asked["state"]})(address)

    for _ in range(2):
        sign_in(visit)
    one, other = map(asked_in, addresses)
    assert one["state"] != other["state"]
    assert one["code_challenge"] != other["code_challenge"]
    assert len(one["state"]) >= 32


@pytest.mark.parametrize(
    "strange", [{}, {"code": "evil"}, {"code": "evil", "state": "guessed"}, {"error": "x", "state": ""}]
)
def test_who_does_not_know_the_state_is_not_taken_for_the_person(
    pool: FakePool, sign_in: Callable[..., Token], strange: dict[str, str]
) -> None:
    def visit(address: str) -> None:
        seen: list[httpx.Response] = []
        returning(lambda _: strange, seen)(address)
        assert seen[0].status_code == 404
        returning(lambda asked: {"code": "honest", "state": asked["state"]}, seen)(address)
        returning(lambda asked: {"code": "late", "state": asked["state"]}, seen)(address)
        assert [one.status_code for one in seen] == [404, 200, 404]

    sign_in(visit)
    assert [asked["code"] for asked in pool.asked] == ["honest"]


def test_a_connection_that_the_browser_opens_and_never_uses_stops_nothing(sign_in: Callable[..., Token]) -> None:
    with ExitStack() as idle:

        def visit(address: str) -> None:
            port = urlsplit(asked_in(address)["redirect_uri"]).port
            idle.enter_context(socket.create_connection(("127.0.0.1", port or 0)))
            returning(lambda asked: {"code": "c", "state": asked["state"]})(address)

        assert sign_in(visit, patience_seconds=5).access == "token-1"


def test_what_the_pool_refuses_is_said(pool: FakePool, sign_in: Callable[..., Token]) -> None:
    visit = returning(lambda asked: {"error": "access_denied", "error_description": "not now", "state": asked["state"]})
    with pytest.raises(LoginFailed, match="access_denied not now"):
        sign_in(visit)
    assert pool.asked == []


def test_nobody_waits_for_ever(sign_in: Callable[..., Token]) -> None:
    with pytest.raises(LoginFailed, match="nobody has signed in for 0 seconds"):
        sign_in(lambda _: None, patience_seconds=0.05)


def test_a_port_that_is_taken_is_passed_over_and_when_all_are_that_is_said(
    sign_in: Callable[..., Token], redirects: tuple[str, ...]
) -> None:
    with ExitStack() as taken:
        for number, redirect in enumerate(redirects):
            taken.enter_context(socket.create_server(("127.0.0.1", urlsplit(redirect).port or 0)))
            if number + 1 < len(redirects):
                came: list[str] = []

                def visit(address: str, came: list[str] = came) -> None:
                    came.append(asked_in(address)["redirect_uri"])
                    returning(lambda asked: {"code": "c", "state": asked["state"]})(address)

                sign_in(visit)
                assert came == [redirects[number + 1]]
        with pytest.raises(LoginFailed, match="--no-browser"):
            sign_in(lambda _: None)


def test_nothing_listens_any_more_once_somebody_has_signed_in(sign_in: Callable[..., Token]) -> None:
    before = threading.active_count()
    came: list[str] = []

    def visit(address: str) -> None:
        came.append(asked_in(address)["redirect_uri"])
        returning(lambda asked: {"code": "c", "state": asked["state"]})(address)

    sign_in(visit)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", urlsplit(came[0]).port or 0))
    assert threading.active_count() <= before + 1  # the answer's own thread may be about to end


def test_with_the_browser_on_another_machine_the_address_it_ended_at_is_pasted(pool: FakePool, tokens: Tokens) -> None:
    shown: list[str] = []

    def paste() -> str:
        asked = asked_in(shown[0])
        return f"  {asked['redirect_uri']}?code=c0de&state={asked['state']}\n"

    token = login.sign_in_elsewhere(stack_of(pool), tokens, shown.append, paste)
    assert token.access == "token-1"
    assert pool.asked[0]["redirect_uri"] == LOGIN_REDIRECTS[0]


@pytest.mark.parametrize(
    "pasted", ["", "c0de", "http://localhost:1/?code=c0de&state=guessed", "http://localhost:1/?code=c"]
)
def test_what_is_not_that_address_is_refused(pool: FakePool, tokens: Tokens, pasted: str) -> None:
    with pytest.raises(LoginFailed, match="copy it whole"):
        login.sign_in_elsewhere(stack_of(pool), tokens, lambda _: None, lambda: pasted)
    assert pool.asked == []


def test_the_command_line_comes_back_only_where_the_pool_sends_people() -> None:
    assert {urlsplit(redirect).hostname for redirect in LOGIN_REDIRECTS} == {"localhost"}
