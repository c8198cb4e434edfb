"""Who calls, what they may do, and under which ids their request is followed (architecture §11, runbook 004)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final

from functions.operator_api.settings import OPERATE, RESOURCE_SERVER, VIEW

PUBLIC: Final[Mapping[str, int]] = MappingProxyType({"/status": 15, "/health": 5})
"""What anybody may ask (GET), and for how many seconds an answer may be kept."""

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{8,64}\Z")
_TRACEPARENT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}\Z")


class Permission(StrEnum):
    """What a call needs. `operate` implies `view`. The value is the scope of the token, and the group of people."""

    VIEW = f"{RESOURCE_SERVER}/{VIEW}"
    OPERATE = f"{RESOURCE_SERVER}/{OPERATE}"

    @property
    def words(self) -> str:
        """As runbook 004 writes it: `platform.member_admin.operate`."""
        return self.value.replace("/", ".")


@dataclass(frozen=True, slots=True)
class Caller:
    """One request's caller. `name` is what the audit calls them: a person's user name, or a machine's client id."""

    name: str
    permissions: frozenset[Permission]
    request_id: str
    traceparent: str

    def may(self, needed: Permission) -> bool:
        """Whether they have it, or what implies it."""
        return needed in self.permissions or Permission.OPERATE in self.permissions


def needed_for(method: str, path: str) -> Permission | None:
    """What a call needs, known before its route is: looking needs `view`, everything else `operate`; None: nothing."""
    if is_public(method, path):
        return None
    return Permission.VIEW if method in ("GET", "HEAD") else Permission.OPERATE


def is_public(method: str, path: str) -> bool:
    """Whether anybody may ask that, without a token."""
    return path in PUBLIC and method == "GET"


def caller_of(event: Mapping[str, Any], new_id: str) -> Caller:
    """Read the gateway's event (payload version 2.0). The claims are those of a token that the gateway has verified.
    Raises nothing, whatever the event is: what cannot be read gives no name and no permission.

    A machine's token has scopes, a person's has groups named like them, or scopes too. The request id is the caller's
    `x-request-id` where it is well-formed, else `new_id` (32 hexadecimal digits), of which a trace is begun as well
    where none came in.
    """
    headers = {str(name).lower(): str(value) for name, value in mapping(event.get("headers")).items()}
    authorizer = mapping(mapping(event.get("requestContext")).get("authorizer"))
    claims = mapping(mapping(authorizer.get("jwt")).get("claims"))
    if claims.get("token_use", "access") != "access":
        # An id token tells an application who somebody is; it is not made to be handed on to us.
        claims = {}
    stated = set(str(claims.get("scope", "")).split()) | _groups(claims.get("cognito:groups"))
    sent_id, sent_trace = headers.get("x-request-id", ""), headers.get("traceparent", "")
    return Caller(
        name=str(claims.get("username") or claims.get("cognito:username") or claims.get("client_id") or ""),
        permissions=frozenset(permission for permission in Permission if permission.value in stated),
        request_id=sent_id if _REQUEST_ID.match(sent_id) else new_id,
        traceparent=sent_trace if _TRACEPARENT.match(sent_trace) else f"00-{new_id}-{new_id[:16]}-01",
    )


def mapping(value: object) -> Mapping[str, Any]:
    """What was found where an object belongs; nothing where something else was."""
    return value if isinstance(value, Mapping) else {}


def _groups(stated: object) -> set[str]:
    """Groups as the gateway gives them: a list, or its text `[one two]`."""
    words = stated if isinstance(stated, list) else str(stated or "").strip("[]").replace(",", " ").split()
    # A group's name holds no slash: `platform.member_admin.view` stands for the scope.
    return {str(word).replace(f"{RESOURCE_SERVER}.", f"{RESOURCE_SERVER}/") for word in words}
