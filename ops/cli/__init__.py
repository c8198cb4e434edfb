"""`holdfast`: what operators and senders type, for the local stack or, with your own credentials, a stage on AWS.

Results go to standard output, remarks and progress to standard error. Exit codes: 0 done; 1 a check failed, or what was
asked for was refused or not found; 2 the command was not understood; 3 there is no such stack, or it does not answer.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import cache
from typing import Annotated

import typer
from botocore.exceptions import BotoCoreError, ClientError

from functions.core.failure import StorageUnavailable
from ops.cli import (
    doctor,
    environment,
    events,
    health,
    incidents,
    integrations,
    limits,
    login,
    logs,
    quarantine,
    queue,
    ready,
    recipients,
    rejections,
    replaying,
    sending,
    sources,
    status,
    switches,
    tracing,
    verifying,
)
from ops.cli.console import ExitCode, Refused, say
from ops.operator_api import ApiRefused
from ops.stack import StackNotFound, StackUnreachable, Wanted
from ops.tokens import LoginFailed
from ops.traffic import UnknownSource

__all__ = ["main", "run"]

app = typer.Typer(
    name="holdfast",
    help=__doc__,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def choose(
    ctx: typer.Context,
    stage: Annotated[
        str, typer.Option(envvar="HOLDFAST_STAGE", help="local (the running local stack), dev, staging or prod.")
    ] = "",
    endpoint: Annotated[
        str, typer.Option(envvar="AWS_ENDPOINT_URL", help="AWS endpoint, if it is not the usual one.")
    ] = "",
    region: Annotated[str, typer.Option(help="AWS region; without it, as your AWS configuration says.")] = "",
) -> None:
    """Take the options that hold for every command."""
    ctx.obj = Wanted(stage=stage, endpoint=endpoint, region=region)


app.command("env")(environment.show)
app.command("doctor")(doctor.show)
app.command("login")(login.login)
app.command("logout")(login.logout)
app.command("token")(login.token)
app.command("send")(sending.send)
app.command("events")(events.show)
app.add_typer(queue.app, name="queue")
app.command("limits")(limits.show)
app.command("integrations")(integrations.show)
app.command("verify")(verifying.verify)
app.command("rejections")(rejections.show)
app.command("logs")(logs.show)
app.command("status")(status.show)
app.command("ready")(ready.show)
app.command("trace")(tracing.trace)
app.command("audit")(tracing.audit)
app.add_typer(replaying.app, name="replay")
app.add_typer(sources.app, name="source")
app.add_typer(switches.app, name="switch")
app.add_typer(health.app, name="health")
app.add_typer(quarantine.app, name="quarantine")
app.add_typer(recipients.app, name="recipient")
app.add_typer(incidents.app, name="incident")
app.add_typer(incidents.pages, name="page")


def run(arguments: Sequence[str]) -> int:
    """Run one command; gives its exit code."""
    if not all(_is_text(argument) for argument in arguments):
        say("an argument is not UTF-8 text")
        return ExitCode.USAGE
    try:
        _command()(args=list(arguments), prog_name="holdfast")
    except SystemExit as exc:
        return exc.code if isinstance(exc.code, int) else int(ExitCode.OK if exc.code is None else ExitCode.REFUSED)
    except (ApiRefused, LoginFailed, Refused, UnknownSource) as exc:
        say(str(exc))
        return ExitCode.REFUSED
    except (StackNotFound, StackUnreachable) as exc:
        say(str(exc))
        return ExitCode.UNREACHABLE
    except ClientError as exc:
        error = exc.response.get("Error", {})
        say(f"AWS refused {exc.operation_name}: {error.get('Code', '?')}: {error.get('Message', '')}")
        return ExitCode.REFUSED
    except (BotoCoreError, StorageUnavailable) as exc:
        say(f"the stack does not answer: {exc}")
        return ExitCode.UNREACHABLE
    return ExitCode.OK


@cache
def _command() -> Callable[..., object]:
    """Every command, made once: calling `app` would make them all anew for each one that is run."""
    return typer.main.get_command(app)


def _is_text(argument: str) -> bool:
    """Whether it was decoded whole: Python smuggles in bytes that are no UTF-8 as halves of surrogate pairs."""
    return not any("\ud800" <= character <= "\udfff" for character in argument)


def main() -> None:
    """Entry point of the console script."""
    sys.exit(run(sys.argv[1:]))
