"""A stage with a user pool that answers as Cognito does, without one."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

import httpx
from botocore.exceptions import ClientError

from ops.stack import Stack
from ops.tokens import TokenCache, Tokens

NOW = 1_800_000_000.0
OUTPUTS = {
    "UserPoolId": "eu-west-1_Pool",
    "LoginUrl": "https://login.example.com/",
    "PeopleClientId": "people-client",
    "ViewClientId": "view-client",
    "OperateClientId": "operate-client",
}


def jwt(**claims: Any) -> str:
    """A token that says so, signed by nobody."""

    def part(document: dict[str, Any]) -> str:
        return base64.urlsafe_b64encode(json.dumps(document).encode()).rstrip(b"=").decode()

    return f"{part({'alg': 'none'})}.{part(claims)}.x"


@dataclass
class FakePool:
    """What the pool was asked, and what it answers."""

    now: float = NOW
    asked: list[dict[str, Any]] = field(default_factory=list)
    answer: httpx.Response | Exception | None = None
    refused: str = ""
    revoked: list[str] = field(default_factory=list)
    given: int = 0

    def handle(self, request: httpx.Request) -> httpx.Response:
        """The token endpoint."""
        form = {name: values[0] for name, values in parse_qs(request.content.decode()).items()}
        self.asked.append({"url": str(request.url), "auth": request.headers.get("authorization", ""), **form})
        if isinstance(self.answer, Exception):
            raise self.answer
        if self.answer is not None:
            return self.answer
        self.given += 1
        return httpx.Response(
            200, json={"access_token": f"token-{self.given}", "expires_in": 1800, "refresh_token": "again"}
        )

    def describe_user_pool_client(self, **asked: str) -> dict[str, Any]:
        """As Cognito's API has it."""
        self.asked.append(asked)
        return {"UserPoolClient": {"ClientId": asked["ClientId"], "ClientSecret": f"secret of {asked['ClientId']}"}}

    def initiate_auth(self, **asked: Any) -> dict[str, Any]:
        """As Cognito's API has it: for refreshing only."""
        self.asked.append(asked)
        if self.refused:
            raise ClientError({"Error": {"Code": self.refused, "Message": "no"}}, "InitiateAuth")
        assert asked["AuthFlow"] == "REFRESH_TOKEN_AUTH"
        self.given += 1
        return {"AuthenticationResult": {"AccessToken": f"token-{self.given}", "ExpiresIn": 1800}}

    def revoke_token(self, **asked: str) -> None:
        """As Cognito's API has it."""
        self.revoked.append(asked["Token"])


class PoolStack(Stack):
    """A stage on AWS whose only service is that pool."""

    pool: FakePool

    def client(self, service: str) -> Any:
        """The pool."""
        assert service == "cognito-idp"
        return self.pool


def stack_of(pool: FakePool, stage: str = "staging", pool_id: str = OUTPUTS["UserPoolId"]) -> PoolStack:
    """The stage of that pool."""
    stack = PoolStack(stage=stage, region="eu-west-1", outputs={**OUTPUTS, "UserPoolId": pool_id})
    object.__setattr__(stack, "pool", pool)
    return stack


def tokens_of(pool: FakePool, cache: TokenCache, remarks: list[str] | None = None, **stack: str) -> Tokens:
    """The tokens of that pool, kept in that cache."""
    return Tokens(
        stack_of(pool, **stack),
        cache,
        transport=httpx.MockTransport(pool.handle),
        now=lambda: pool.now,
        remark=(remarks if remarks is not None else []).append,
    )
