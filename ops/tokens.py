"""Bearer tokens for the operator API, a person's own and those of a stage's machine clients, and where they are kept.

Machines' secrets are kept nowhere: the pool tells them to whoever may read its clients with AWS credentials.
"""

from __future__ import annotations

import base64
import json
import os
import stat
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import httpx
from botocore.exceptions import ClientError

from functions.operator_api.settings import OPERATE, RESOURCE_SERVER, VIEW
from ops.stack import LOCAL, Stack, StackUnreachable

PERSON = "person"
_MARGIN_SECONDS = 60
"""A token that ends sooner is as good as ended: the call it goes with may take a while, and clocks differ."""


class Scope(StrEnum):
    """What a machine's token is good for. `operate` implies `view`."""

    VIEW = VIEW
    OPERATE = OPERATE


class LoginFailed(Exception):
    """No token was given. The text says by whom and why."""


class NotSignedIn(LoginFailed):
    """The person has not signed in, or their session has ended."""


@dataclass(frozen=True, slots=True)
class Token:
    """An access token, and until when (epoch seconds) it is good. A person's session has what refreshes it."""

    access: str
    expires_at: float
    refresh: str = ""

    @staticmethod
    def of(answer: Mapping[str, Any], now: float) -> Token:
        """As a token endpoint answers. Raises `LoginFailed` for what is no such answer."""
        try:
            return Token(
                str(answer["access_token"]), now + float(answer["expires_in"]), str(answer.get("refresh_token", ""))
            )
        except (KeyError, TypeError, ValueError) as exc:
            raise LoginFailed("the user pool answered something that is no token") from exc

    def is_good(self, now: float) -> bool:
        """Whether it can still be used."""
        return now < self.expires_at - _MARGIN_SECONDS

    def claims(self) -> dict[str, Any]:
        """What it says of its bearer, unverified: only for telling the bearer. Empty for what is no JWT."""
        try:
            part = self.access.split(".")[1]
            found = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
        except (ValueError, IndexError):
            return {}
        return found if isinstance(found, dict) else {}


class TokenCache:
    """One file per stage, user pool and kind of token, for its owner's eyes only. What cannot be read is not there."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    @staticmethod
    def of_user(environ: Mapping[str, str] | None = None) -> TokenCache:
        """In the user's cache directory."""
        environ = os.environ if environ is None else environ
        home = environ.get("XDG_CACHE_HOME", "")
        base = Path(home) if home.startswith("/") else Path(environ.get("HOME") or Path.home()) / ".cache"
        return TokenCache(base / "holdfast" / "tokens")

    def read(self, name: str) -> Token | None:
        """What was stored under that name. None for what others could have read or written, too."""
        try:
            with os.fdopen(os.open(self._path(name), os.O_RDONLY | os.O_NOFOLLOW), encoding="utf-8") as file:
                about = os.fstat(file.fileno())
                if about.st_uid != os.getuid() or about.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
                    return None
                stored = json.load(file)
            token = Token(**stored)
            is_one = isinstance(token.access, str) and isinstance(token.refresh, str) and float(token.expires_at) >= 0
        except (OSError, ValueError, TypeError, RecursionError):
            return None
        return token if is_one else None

    def write(self, name: str, token: Token) -> None:
        """Store it in one step: whoever reads at the same time sees the old one or the new. Raises `OSError`."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle, scratch = tempfile.mkstemp(dir=self._directory, prefix=".new-")  # with mode 0600
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump(asdict(token), file)
            Path(scratch).replace(self._path(name))
        except BaseException:
            with suppress(FileNotFoundError):
                Path(scratch).unlink()
            raise

    def forget(self, name: str) -> None:
        """Remove it. Raises `OSError`."""
        self._path(name).unlink(missing_ok=True)

    def keep_only(self, stage: str, pool: str) -> None:
        """Remove what is of that stage but of other pools: a local stack has a new one each time it starts."""
        for path in self._directory.glob(f"{_safe(stage)}.*.json"):
            if not path.name.startswith(f"{_safe(stage)}.{_safe(pool)}."):
                path.unlink(missing_ok=True)

    def _path(self, name: str) -> Path:
        return self._directory / f"{name}.json"


def _safe(text: str) -> str:
    return "".join(character if character.isalnum() or character in "-_" else "-" for character in text)


class Tokens:
    """The tokens of one stage. Safe to share between calls, not between threads."""

    def __init__(
        self,
        stack: Stack,
        cache: TokenCache | None = None,
        *,
        transport: httpx.BaseTransport | None = None,
        now: Callable[[], float] = time.time,
        remark: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._stack = stack
        self._cache = TokenCache.of_user() if cache is None else cache
        self._transport = transport
        self._now = now
        self._remark = remark

    @property
    def login_url(self) -> str:
        """The pool's own pages, without a trailing slash."""
        return self._stack.endpoint or self._stack.output("LoginUrl").rstrip("/")

    def machine(self, scope: Scope, *, fresh: bool = False) -> str:
        """A machine client's token for that scope; `fresh` if the one at hand was not taken.

        Raises `LoginFailed`, `StackUnreachable`, and boto3's errors if these AWS credentials may not read the client.
        """
        known = None if fresh else self._cache.read(self._name(scope))
        if known is not None and known.is_good(self._now()):
            return known.access
        stack = self._stack
        client_id = stack.output("OperateClientId" if scope is Scope.OPERATE else "ViewClientId")
        client = stack.client("cognito-idp").describe_user_pool_client(
            UserPoolId=stack.output("UserPoolId"), ClientId=client_id
        )
        answer = self.ask(
            {"grant_type": "client_credentials", "scope": f"{RESOURCE_SERVER}/{scope}"},
            auth=(client_id, client["UserPoolClient"]["ClientSecret"]),
        )
        return self._kept(self._name(scope), Token.of(answer, self._now())).access

    def person(self, *, fresh: bool = False) -> str:
        """The token of the person who has signed in, refreshed if need be. Raises `NotSignedIn`, and boto3's errors."""
        known = self._cache.read(self._name(PERSON))
        if known is None:
            raise NotSignedIn(f"you are not signed in to stage {self._stack.stage}: `holdfast login`")
        if not fresh and known.is_good(self._now()):
            return known.access
        if not known.refresh:
            raise self._ended()
        try:
            # By the pool's API rather than its token endpoint: there the emulator forgets a person's groups.
            answer = self._stack.client("cognito-idp").initiate_auth(
                AuthFlow="REFRESH_TOKEN_AUTH",
                AuthParameters={"REFRESH_TOKEN": known.refresh},
                ClientId=self._stack.output("PeopleClientId"),
            )["AuthenticationResult"]
        except ClientError as exc:
            if exc.response.get("Error", {}).get("Code") not in _ENDED:
                raise
            raise self._ended() from exc
        now = self._now()
        # Where the pool rotates what refreshes, it gives a new one.
        token = Token(answer["AccessToken"], now + answer["ExpiresIn"], answer.get("RefreshToken") or known.refresh)
        return self._kept(self._name(PERSON), token).access

    def redeem(self, form: Mapping[str, str]) -> Token:
        """What a person brought back from the pool, for a session, which is kept. Raises as `ask` does."""
        token = Token.of(self.ask(form), self._now())
        self.sign_in(token)
        return token

    def sign_in(self, token: Token) -> None:
        """Keep a person's session for the commands that follow."""
        self._kept(self._name(PERSON), token)

    def sign_out(self) -> bool:
        """End the person's session, here and at the pool. Gives whether there was one. Raises boto3's errors."""
        known = self._cache.read(self._name(PERSON))
        if known is None:
            return False
        self._cache.forget(self._name(PERSON))
        if known.refresh:
            self._stack.client("cognito-idp").revoke_token(
                Token=known.refresh, ClientId=self._stack.output("PeopleClientId")
            )
        return True

    def ask(self, form: Mapping[str, str], auth: tuple[str, str] | None = None) -> dict[str, Any]:
        """What the pool's token endpoint answers to that form. Raises `LoginFailed`, `StackUnreachable`."""
        try:
            # On this machine's loopback no proxy is asked.
            with httpx.Client(
                timeout=15, auth=auth, transport=self._transport, trust_env=not self._stack.is_local
            ) as http:
                answer = http.post(f"{self.login_url}/oauth2/token", data=dict(form))
        except httpx.HTTPError as exc:
            raise StackUnreachable(f"the user pool at {self.login_url} does not answer: {type(exc).__name__}") from exc
        try:
            document = answer.json()
        except ValueError:
            document = None
        if answer.status_code != httpx.codes.OK or not isinstance(document, dict):
            error = document.get("error", "") if isinstance(document, dict) else ""
            raise LoginFailed(f"the user pool gave no token: {answer.status_code} {error}".rstrip())
        return document

    def _ended(self) -> NotSignedIn:
        with suppress(OSError):  # what cannot be removed is found to have ended the next time, too
            self._cache.forget(self._name(PERSON))
        return NotSignedIn(f"your session at stage {self._stack.stage} has ended: `holdfast login`")

    def _kept(self, name: str, token: Token) -> Token:
        try:
            self._cache.write(name, token)
            self._cache.keep_only(self._stack.stage, self._stack.output("UserPoolId"))
        except OSError as exc:
            self._remark(f"the token is not kept for the next command: {exc.strerror or type(exc).__name__}")
        return token

    def _name(self, kind: str) -> str:
        return ".".join(_safe(part) for part in (self._stack.stage or LOCAL, self._stack.output("UserPoolId"), kind))


_ENDED = ("NotAuthorizedException", "UserNotFoundException", "ResourceNotFoundException")
"""What the pool says of a session that was revoked, has expired, or whose person is no more."""
