"""Who signs in to a local stack: whoever works on this machine, without being asked for anything."""

from __future__ import annotations

import getpass
import secrets
from collections.abc import Callable
from contextlib import suppress
from urllib.parse import parse_qsl, urlsplit

import httpx

from functions.operator_api.settings import OPERATE, RESOURCE_SERVER
from ops.stack import Stack
from ops.tokens import LoginFailed

_TRIES = 5
"""Another command of the same person may be giving them another password at this very moment."""


def local_name() -> str:
    """What the audit of a local stack calls the person at this machine."""
    try:
        return f"local/{getpass.getuser()}"
    except (OSError, KeyError):  # a container may run under a user without a name
        return "local/operator"


def browser(stack: Stack, name: str = "") -> Callable[[str], None]:
    """What a person would do in a browser at the emulator's sign-in page, done: as someone who may operate.

    They are made if there is nobody of that name, and get a new password each time, which nobody keeps.
    """

    def visit(address: str) -> None:
        person, asked = name or local_name(), dict(parse_qsl(urlsplit(address).query))
        with httpx.Client(timeout=15, trust_env=False) as http:
            http.get(address).raise_for_status()
            for _ in range(_TRIES):
                password = _password()
                _make(stack, person, password)
                form = {**asked, "username": person, "password": password}
                answer = http.post(f"{stack.endpoint}/login", data=form)
                if answer.is_redirect:
                    http.get(answer.headers["location"]).raise_for_status()
                    return
        raise LoginFailed(f"the emulator does not let {person} in: {answer.status_code}")

    return visit


def _make(stack: Stack, person: str, password: str) -> None:
    pool, cognito = stack.output("UserPoolId"), stack.client("cognito-idp")
    with suppress(cognito.exceptions.UsernameExistsException):
        cognito.admin_create_user(
            UserPoolId=pool,
            Username=person,
            TemporaryPassword=password,
            MessageAction="SUPPRESS",
            UserAttributes=[{"Name": "email", "Value": "operator@holdfast.example"}],
        )
    cognito.admin_set_user_password(UserPoolId=pool, Username=person, Password=password, Permanent=True)
    cognito.admin_add_user_to_group(UserPoolId=pool, Username=person, GroupName=f"{RESOURCE_SERVER}.{OPERATE}")


def _password() -> str:
    return f"Aa1-{secrets.token_urlsafe(24)}"
