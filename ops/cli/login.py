"""`holdfast login`, `holdfast logout` and `holdfast token`."""

from __future__ import annotations

import webbrowser
from typing import Annotated, Any

import typer

from functions.operator_api.caller import Permission
from ops import login as signing_in
from ops.cli.console import AsJson, ExitCode, emit, say, show_fields, stack_of, time_of
from ops.local import people
from ops.tokens import Scope, Token, Tokens


def login(
    ctx: typer.Context,
    no_browser: Annotated[
        bool, typer.Option("--no-browser", help="The browser is on another machine: paste the address it ends at.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Sign in with your browser; the session holds for a shift. On a local stack nobody is asked for anything."""
    stack = stack_of(ctx)
    tokens = Tokens(stack, remark=say)
    if no_browser:
        token = signing_in.sign_in_elsewhere(stack, tokens, _tell, _ask)
    else:
        token = signing_in.sign_in(stack, tokens, people.browser(stack) if stack.is_local else _open)
    tokens.person()  # a session that could not be kept is none
    document = _about(token)
    if as_json:
        emit(document)
    else:
        show_fields({**document, "may": ", ".join(document["may"]) or "nothing"}.items())
    if not document["may"]:
        say(f"you may nothing: ask for the group {Permission.VIEW.words} or {Permission.OPERATE.words}")
        raise typer.Exit(ExitCode.REFUSED)


def logout(ctx: typer.Context) -> None:
    """End your session, here and at the user pool. A token in use stays good for up to half an hour."""
    if not Tokens(stack_of(ctx), remark=say).sign_out():
        say("you were not signed in")


def token(
    ctx: typer.Context,
    scope: Annotated[Scope, typer.Option(help="What it is good for; operate implies view.")] = Scope.VIEW,
    mine: Annotated[
        bool, typer.Option("--mine", help="Your own, as you signed in: with your permissions, and named in the audit.")
    ] = False,
) -> None:
    """Print a bearer token for curl and scripts, and nothing else.

    It is the stage's machine client's, whose secret your AWS credentials must be able to read.
    """
    tokens = Tokens(stack_of(ctx), remark=say)
    typer.echo(tokens.person() if mine else tokens.machine(scope))


def _about(token: Token) -> dict[str, Any]:
    claims = token.claims()
    groups = claims.get("cognito:groups", [])
    return {
        "name": str(claims.get("username", "")),
        "may": [permission.name.lower() for permission in Permission if permission.words in groups],
        "token_until": time_of(token.expires_at * 1000),
    }


def _tell(address: str) -> None:
    say(f"sign in at {address}")


def _open(address: str) -> None:
    _tell(address)
    webbrowser.open(address)


def _ask() -> str:
    return str(typer.prompt("The address that the browser ends at (its page does not load there)", err=True))
