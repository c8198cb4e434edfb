"""`holdfast switch list | get | set`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import typer
from botocore.exceptions import ClientError

from functions.catalog.loader import load
from functions.core.event import NAME
from functions.core.integration import INTAKE
from functions.core.switches import problem
from ops.cli.console import AsJson, Refused, check_integrations, emit, say, show_table, stack_of
from ops.stack import Stack

app = typer.Typer(help="The operators' switches: show them, or set one.", no_args_is_help=True)

REASON_BYTES = 1000  # SSM keeps 1024 characters of description with each version
Name = Annotated[str, typer.Argument(help="mode, auto_reply, limits/helpdesk, flow/support/auto_reply, ...")]


@app.command("list")
def show_all(ctx: typer.Context, as_json: AsJson = False) -> None:
    """Every switch that is set, narrowing ones included."""
    stack = stack_of(ctx)
    switches = read(stack)
    if as_json:
        emit({name: {"value": item["value"], "version": item["version"]} for name, item in switches.items()})
        return
    show_table(
        "",
        ("switch", "value", "version", "changed"),
        [(name, item["value"], item["version"], item["changed"]) for name, item in sorted(switches.items())],
    )


@app.command("get")
def show_one(ctx: typer.Context, name: Name, as_json: AsJson = False) -> None:
    """One switch's value. Exit code 1 if it is not set."""
    switches = read(stack_of(ctx))
    if name not in switches:
        raise Refused(f"the switch {name!r} is not set; there are {', '.join(sorted(switches))}")
    if as_json:
        emit({"name": name, **{key: switches[name][key] for key in ("value", "version")}})
    else:
        typer.echo(switches[name]["value"])


@app.command("set")
def change(
    ctx: typer.Context,
    name: Name,
    value: Annotated[str, typer.Argument()],
    reason: Annotated[str, typer.Option(help="Why; it is kept with the parameter's version.")],
    as_json: AsJson = False,
) -> None:
    """Set a switch. A value that nobody could read is refused, exit code 1, and nothing is written."""
    stack = stack_of(ctx)
    wrong = problem(name, value) or _unfit(name)
    if wrong:
        raise Refused(wrong)
    if not reason.strip() or len(reason.encode()) > REASON_BYTES:
        raise Refused(f"give a reason of at most {REASON_BYTES} bytes")
    value = _checked(name, value)
    before, version = write(stack, name, value, reason.strip())
    if as_json:
        emit({"name": name, "before": before, "value": value, "version": version})
    else:
        say(f"{name}: {'not set' if before is None else before} → {value} (version {version})")
    if _without_scope(name)[0] == "limits" and 0 < float(value) < 1:
        integration = _without_scope(name)[1]
        if load().integrations[integration].rate is None:
            say(f"it is kept, and slows nothing down: {integration} has no rate in the catalog, so only 0 parks it")
        else:
            say("new calls go by it within half a minute; what has its turn already keeps it: holdfast limits")


def read(stack: Stack) -> dict[str, dict[str, Any]]:
    """Every switch by its name below the switches' path: `value`, `version`, `changed`."""
    path = stack.output("SwitchesPath")
    pages = stack.client("ssm").get_paginator("get_parameters_by_path").paginate(Path=path, Recursive=True)
    return {
        parameter["Name"].removeprefix(f"{path}/"): {
            "value": parameter["Value"],
            "version": parameter["Version"],
            "changed": str(parameter.get("LastModifiedDate", "")),
        }
        for page in pages
        for parameter in page["Parameters"]
    }


def write(stack: Stack, name: str, value: str, reason: str) -> tuple[str | None, int]:
    """Put the value; gives the one before and the new version. The reason becomes the version's description."""
    ssm = stack.client("ssm")
    parameter = f"{stack.output('SwitchesPath')}/{name}"
    try:
        before: str | None = ssm.get_parameter(Name=parameter)["Parameter"]["Value"]
    except ClientError as exc:
        if exc.response.get("Error", {}).get("Code") != "ParameterNotFound":
            raise
        before = None
    request: dict[str, Any] = {"Name": parameter, "Value": value, "Type": "String", "Description": reason}
    pattern = _pattern(ssm, parameter)
    if pattern:
        request["AllowedPattern"] = pattern  # a version without one would let the next writer put anything
    version = ssm.put_parameter(**request, Overwrite=before is not None)["Version"]
    return before, int(version)


def _pattern(ssm: Any, parameter: str) -> str:
    described = ssm.describe_parameters(ParameterFilters=[{"Key": "Name", "Option": "Equals", "Values": [parameter]}])[
        "Parameters"
    ]
    return str(described[0].get("AllowedPattern", "")) if described else ""


def _checked(name: str, value: str) -> str:
    """The value as the parameter's pattern takes it. Raises `Refused` for integrations that it would do nothing to."""
    switch = _without_scope(name)
    if switch[0] == "limits":
        check_integrations(switch[1:])
    if switch[0] not in ("disabled_integrations", "replay_blocked_integrations"):
        return value
    words = [word.strip() for word in value.split(",") if word.strip()]
    if words in (["none"], ["all"]):
        return words[0]
    if not words or {"none", "all"} & set(words):
        raise Refused("none and all stand alone; else name integrations, with commas between")
    # Whole events may be kept from replays; nothing is sent for them, so there is nothing of them to disable.
    if switch[0] == "replay_blocked_integrations":
        _check_replayed(words)
    else:
        check_integrations(words)
    return ",".join(words)


def _without_scope(name: str) -> list[str]:
    """The switch's own name, in parts, without `flow/NAME/`, `source/NAME/` or `tenant/NAME/`."""
    parts = name.split("/")
    return parts[2:] if parts[0] in ("flow", "source", "tenant") and len(parts) > 2 else parts


def _check_replayed(named: Sequence[str]) -> None:
    """Raise `Refused` for an integration that no action goes to: blocking it would be obeyed and do nothing."""
    check_integrations(named, [INTAKE])
    integrations = load().integrations
    for one in named:
        if one in integrations and not integrations[one].kinds:
            raise Refused(f"no action goes to {one!r}: nothing of it is ever replayed")


def _unfit(name: str) -> str | None:
    """Why no switch can bear that name, if none can: each part is a name as tenants and sources have them."""
    return None if all(NAME.match(part) for part in name.split("/")) else f"{name!r} cannot be a switch's name"
