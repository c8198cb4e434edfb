"""Tokens are fetched when they are needed, kept for their owner only, and never trusted beyond their end."""

from __future__ import annotations

import base64
import json
import os
import stat
from pathlib import Path

import httpx
import pytest
from botocore.exceptions import ClientError

from ops.stack import StackUnreachable
from ops.tokens import LoginFailed, NotSignedIn, Scope, Token, TokenCache
from tests.pool_fakes import NOW, FakePool, jwt, tokens_of

PERSON_FILE = "staging.eu-west-1_Pool.person.json"
VIEW_FILE = "staging.eu-west-1_Pool.view.json"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "tokens"


@pytest.fixture
def cache(directory: Path) -> TokenCache:
    return TokenCache(directory)


@pytest.fixture
def pool() -> FakePool:
    return FakePool()


# ----------------------------------------------------------------------------------------------------------- machines


@pytest.mark.parametrize("scope", list(Scope))
def test_a_machine_gets_its_token_with_the_secret_that_the_pool_tells(
    pool: FakePool, cache: TokenCache, scope: Scope
) -> None:
    assert tokens_of(pool, cache).machine(scope) == "token-1"
    described, asked = pool.asked
    assert described == {"UserPoolId": "eu-west-1_Pool", "ClientId": f"{scope}-client"}
    assert asked["url"] == "https://login.example.com/oauth2/token"
    assert base64.b64decode(asked["auth"].removeprefix("Basic ")).decode() == f"{scope}-client:secret of {scope}-client"
    assert (asked["grant_type"], asked["scope"]) == ("client_credentials", f"platform.member_admin/{scope}")


def test_a_token_is_used_until_shortly_before_its_end(pool: FakePool, cache: TokenCache) -> None:
    assert tokens_of(pool, cache).machine(Scope.VIEW) == "token-1"
    pool.now = NOW + 1800 - 61
    assert tokens_of(pool, cache).machine(Scope.VIEW) == "token-1"
    pool.now = NOW + 1800 - 60
    assert tokens_of(pool, cache).machine(Scope.VIEW) == "token-2"


def test_a_fresh_one_is_fetched_though_the_old_one_seems_good(pool: FakePool, cache: TokenCache) -> None:
    tokens = tokens_of(pool, cache)
    tokens.machine(Scope.VIEW)
    assert tokens.machine(Scope.VIEW, fresh=True) == "token-2"
    assert tokens.machine(Scope.VIEW) == "token-2"


def test_scopes_stages_and_pools_do_not_share_tokens(pool: FakePool, cache: TokenCache) -> None:
    given = {
        tokens_of(pool, cache).machine(Scope.VIEW),
        tokens_of(pool, cache).machine(Scope.OPERATE),
        tokens_of(pool, cache, stage="dev").machine(Scope.VIEW),
        tokens_of(pool, cache, pool_id="eu-west-1_Other").machine(Scope.VIEW),
    }
    assert len(given) == 4


def test_what_is_of_a_pool_that_the_stage_no_longer_has_is_removed(
    pool: FakePool, cache: TokenCache, directory: Path
) -> None:
    tokens_of(pool, cache, stage="local").machine(Scope.VIEW)
    tokens_of(pool, cache).machine(Scope.VIEW)
    tokens_of(pool, cache, stage="local", pool_id="eu-west-1_New").machine(Scope.OPERATE)
    assert {path.name for path in directory.iterdir()} == {"local.eu-west-1_New.operate.json", VIEW_FILE}


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (httpx.Response(400, json={"error": "invalid_client"}), "gave no token: 400 invalid_client"),
        (httpx.Response(500, text="<html>"), "gave no token: 500"),
        (httpx.Response(200, text="nope"), "gave no token: 200"),
        (httpx.Response(200, json=["token"]), "gave no token: 200"),
        (httpx.Response(200, json={"access_token": "x"}), "something that is no token"),
        (httpx.Response(200, json={"access_token": "x", "expires_in": "soon"}), "something that is no token"),
        (httpx.Response(302, headers={"location": "https://evil.example"}), "gave no token: 302"),
    ],
)
def test_an_answer_that_is_no_token_is_said_and_not_kept(
    pool: FakePool, cache: TokenCache, directory: Path, answer: httpx.Response, words: str
) -> None:
    pool.answer = answer
    with pytest.raises(LoginFailed, match=words):
        tokens_of(pool, cache).machine(Scope.VIEW)
    assert not directory.exists()


def test_a_pool_that_does_not_answer_is_said(pool: FakePool, cache: TokenCache) -> None:
    pool.answer = httpx.ConnectError("secret is in here")
    with pytest.raises(StackUnreachable, match="does not answer: ConnectError") as raised:
        tokens_of(pool, cache).machine(Scope.VIEW)
    assert "secret" not in str(raised.value)


# ------------------------------------------------------------------------------------------------------------- people


def test_nobody_has_signed_in(pool: FakePool, cache: TokenCache) -> None:
    with pytest.raises(NotSignedIn, match="not signed in to stage staging: `holdfast login`"):
        tokens_of(pool, cache).person()
    assert pool.asked == []


def test_a_session_is_refreshed_when_its_token_ends_and_keeps_what_refreshes_it(
    pool: FakePool, cache: TokenCache
) -> None:
    tokens = tokens_of(pool, cache)
    tokens.sign_in(Token("first", NOW + 1800, "again"))
    assert tokens.person() == "first"
    pool.now += 1800
    assert tokens_of(pool, cache).person() == "token-1"
    assert tokens_of(pool, cache).person() == "token-1"
    assert tokens.person(fresh=True) == "token-2"
    assert pool.asked == [
        {
            "AuthFlow": "REFRESH_TOKEN_AUTH",
            "AuthParameters": {"REFRESH_TOKEN": "again"},
            "ClientId": "people-client",
        }
    ] * 2  # fmt: skip


@pytest.mark.parametrize("code", ["NotAuthorizedException", "UserNotFoundException", "ResourceNotFoundException"])
def test_a_session_that_has_ended_is_forgotten_and_said(
    pool: FakePool, cache: TokenCache, directory: Path, code: str
) -> None:
    tokens = tokens_of(pool, cache)
    tokens.sign_in(Token("first", NOW, "again"))
    pool.refused = code
    with pytest.raises(NotSignedIn, match="has ended: `holdfast login`"):
        tokens.person()
    assert list(directory.iterdir()) == []


def test_trouble_of_the_pool_does_not_end_a_session(pool: FakePool, cache: TokenCache, directory: Path) -> None:
    tokens = tokens_of(pool, cache)
    tokens.sign_in(Token("first", NOW, "again"))
    pool.refused = "InternalErrorException"
    with pytest.raises(ClientError):
        tokens.person()
    assert (directory / PERSON_FILE).exists()


def test_a_session_that_nothing_refreshes_ends_with_its_token(pool: FakePool, cache: TokenCache) -> None:
    tokens = tokens_of(pool, cache)
    tokens.sign_in(Token("first", NOW + 1800))
    assert tokens.person() == "first"
    pool.now += 1800
    with pytest.raises(NotSignedIn):
        tokens.person()
    assert pool.asked == []


def test_signing_out_ends_the_session_here_and_at_the_pool(pool: FakePool, cache: TokenCache, directory: Path) -> None:
    tokens = tokens_of(pool, cache)
    tokens.sign_in(Token("first", NOW + 1800, "again"))
    assert tokens.sign_out() is True
    assert pool.revoked == ["again"]
    assert list(directory.iterdir()) == []
    assert tokens.sign_out() is False


def test_a_token_tells_its_bearer_what_it_says() -> None:
    assert Token(jwt(username="ada", exp=1), NOW).claims() == {"username": "ada", "exp": 1}
    for broken in ("", "a", "a.b", "a.!.c", "a.e30x.c", f"a.{base64.urlsafe_b64encode(b'[1]').decode()}.c"):
        assert Token(broken, NOW).claims() == {}


# -------------------------------------------------------------------------------------------------------------- files


def test_files_are_for_their_owners_eyes_only_whatever_the_umask(
    pool: FakePool, cache: TokenCache, directory: Path
) -> None:
    before = os.umask(0)
    try:
        tokens_of(pool, cache).machine(Scope.VIEW)
        tokens_of(pool, cache).sign_in(Token("first", NOW + 1800, "again"))
    finally:
        os.umask(before)
    assert {path.name for path in directory.iterdir()} == {VIEW_FILE, PERSON_FILE}
    for path in directory.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b"{}",
        b'{"access": "x"}',
        b'{"access": 1, "expires_at": 9e9, "refresh": ""}',
        b'{"access": "x", "expires_at": "soon", "refresh": ""}',
        b'{"access": "x", "expires_at": null, "refresh": ""}',
        b'{"access": "x", "expires_at": [1], "refresh": ""}',
        b'{"access": "x", "expires_at": NaN, "refresh": ""}',
        b'{"access": "x", "expires_at": 9e9, "refresh": null}',
        b'{"access": "x", "expires_at": 9e9, "refresh": "", "more": 1}',
        b"\xff\xfe\x00",
        b"[" * 100_000,
    ],
)
def test_a_file_that_is_no_token_is_as_if_it_were_not_there(
    pool: FakePool, cache: TokenCache, directory: Path, content: bytes
) -> None:
    directory.mkdir(parents=True)
    file = directory / VIEW_FILE
    file.write_bytes(content)
    file.chmod(0o600)
    assert tokens_of(pool, cache).machine(Scope.VIEW) == "token-1"
    assert json.loads(file.read_text())["access"] == "token-1"


@pytest.mark.parametrize("mode", [0o644, 0o660, 0o604])
def test_a_file_that_others_could_read_or_write_is_fetched_anew(
    pool: FakePool, cache: TokenCache, directory: Path, mode: int
) -> None:
    tokens_of(pool, cache).machine(Scope.VIEW)
    (directory / VIEW_FILE).chmod(mode)
    assert tokens_of(pool, cache).machine(Scope.VIEW) == "token-2"
    assert stat.S_IMODE((directory / VIEW_FILE).stat().st_mode) == 0o600


def test_a_link_is_not_followed(pool: FakePool, cache: TokenCache, directory: Path, tmp_path: Path) -> None:
    tokens_of(pool, cache).machine(Scope.VIEW)
    (directory / VIEW_FILE).rename(tmp_path / "elsewhere")
    (directory / VIEW_FILE).symlink_to(tmp_path / "elsewhere")
    assert tokens_of(pool, cache).machine(Scope.VIEW) == "token-2"
    assert not (directory / VIEW_FILE).is_symlink()
    assert json.loads((tmp_path / "elsewhere").read_text())["access"] == "token-1"


def test_where_nothing_can_be_kept_a_token_is_given_and_that_is_said(pool: FakePool, directory: Path) -> None:
    directory.parent.write_text("a file where the directory should be")
    remarks: list[str] = []
    tokens = tokens_of(pool, TokenCache(directory), remarks)
    assert tokens.machine(Scope.VIEW) == "token-1"
    assert [remark.partition(":")[0] for remark in remarks] == ["the token is not kept for the next command"]


@pytest.mark.parametrize(
    ("environ", "place"),
    [
        ({"HOME": "/home/ada"}, "/home/ada/.cache/holdfast/tokens"),
        ({"HOME": "/home/ada", "XDG_CACHE_HOME": "/var/cache/ada"}, "/var/cache/ada/holdfast/tokens"),
        ({"HOME": "/home/ada", "XDG_CACHE_HOME": "relative"}, "/home/ada/.cache/holdfast/tokens"),
    ],
)
def test_tokens_lie_in_the_users_cache_directory(environ: dict[str, str], place: str) -> None:
    assert TokenCache.of_user(environ)._directory == Path(place)
