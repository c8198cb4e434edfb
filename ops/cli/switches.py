"""`holdfast switch list | get | set`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any
from urllib.parse import quote

import typer
from botocore.exceptions import ClientError

from functions.adapters.ssm import CUSTOMER_VISIBLE, OTHER
from functions.catalog.loader import load
from functions.core.audit import unfit_reason
from functions.core.clock import SystemClock
from functions.core.switches import UnfitSwitch, written
from ops import standing
from ops.cli.console import AsJson, Refused, emit, say, show_table, stack_of, time_of
from ops.operator_api import connect
from ops.stack import Stack

app = typer.Typer(help="The operators' switches: show them, or set one.", no_args_is_help=True)

PATH = "/platform/switches"
Name = Annotated[str, typer.Argument(help="mode, auto_reply, limits/helpdesk, flow/support/auto_reply, ...")]


@app.command("list")
def show_all(
    ctx: typer.Context,
    lag: Annotated[
        bool, typer.Option("--lag", help="Say how long workers took to obey what was changed in the last day.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Every switch that is set, narrowing ones included."""
    if lag:
        _show_lag(stack_of(ctx), as_json=as_json)
        return
    switches = _told(ctx)
    if as_json:
        emit({name: {"value": item["value"], "version": item["version"]} for name, item in switches.items()})
        return
    show_table(
        "",
        ("switch", "value", "every day", "version", "changed", "until", "then"),
        [
            (
                name,
                item["value"],
                item.get("everyday") or "",
                item["version"],
                time_of(item["changed_at_ms"]),
                time_of(item.get("until_ms")),
                item.get("back_to") or "",
            )
            for name, item in sorted(switches.items())
        ],
    )


def _show_lag(stack: Stack, *, as_json: bool) -> None:
    """Measured by the workers themselves: for how long, after a change, they still went by what was said before."""
    lags = standing.switch_lags(stack, SystemClock().now_ms())
    if as_json:
        emit([asdict(one) for one in lags])
        return
    if not lags:
        say("no worker has seen a change: nothing was changed, or none was at work")
        return
    show_table(
        "how long the old value was gone by after a change",
        ("for", "changes seen", "at most"),
        [(_OF_WHOM[one.outcome], one.seen, f"{one.worst_ms / 1000:.1f} s") for one in lags],
    )


_OF_WHOM = {
    CUSTOMER_VISIBLE: "messages to customers (promised: 15 s, with the send itself)",
    OTHER: "everything else (at most 30 s, and the call under way)",
}


@app.command("get")
def show_one(ctx: typer.Context, name: Name, as_json: AsJson = False) -> None:
    """One switch's value. Exit code 1 if it is not set."""
    switches = _told(ctx)
    if name not in switches:
        raise Refused(f"the switch {name!r} is not set; there are {', '.join(sorted(switches))}")
    if as_json:
        emit({"name": name, **{key: switches[name][key] for key in ("value", "version")}})
    else:
        typer.echo(switches[name]["value"])


@app.command("set")
def change(
    ctx: typer.Context,
    *,
    name: Name,
    value: Annotated[str, typer.Argument()],
    reason: Annotated[str, typer.Option(help="Why; it is kept in the audit, and with the parameter's version.")],
    lasts: Annotated[
        str, typer.Option("--for", help="For how long: 90s, 30m, 4h, 2d; then it says again what it says now.")
    ] = "",
    direct: Annotated[
        bool,
        typer.Option(
            "--direct",
            help="Past the operator API, with your own AWS credentials: for when it, or the audit, does not answer. "
            "The audit hears of it from the parameter's history.",
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Set a switch. A value that nobody could read is refused, exit code 1, and nothing is written."""
    stack = stack_of(ctx)
    value = _checked(name, value)
    wrong = unfit_reason(reason)
    if wrong is not None:
        raise Refused(wrong)
    if direct and lasts:
        raise Refused("only the operator API sets a switch for a time")
    until_ms: int | None = None
    back_to: str | None = None
    if direct:
        before, version = write(stack, name, value, reason.strip())
    else:
        body = {"value": value, "reason": reason.strip(), **({"for": lasts} if lasts else {})}
        changed = connect(stack).call("PUT", f"{PATH}/{quote(name, safe='')}", body=body)
        before, version = changed.get("before"), changed["version"]
        until_ms, back_to = changed.get("until_ms"), changed.get("back_to")
    if as_json:
        ends = {"until_ms": until_ms, "back_to": back_to} if until_ms else {}
        emit({"name": name, "before": before, "value": value, "version": version, **ends})
    else:
        ends_at = f", until {time_of(until_ms)}: then {back_to}" if until_ms else ""
        say(f"{name}: {'not set' if before is None else before} → {value} (version {version}){ends_at}")
    if _without_scope(name)[0] == "limits" and 0 < float(value) < 1:
        integration = _without_scope(name)[1]
        if load().integrations[integration].rate is None:
            say(f"it is kept, and slows nothing down: {integration} has no rate in the catalog, so only 0 parks it")
        else:
            say("new calls go by it within half a minute; what has its turn already keeps it: holdfast limits")


def _told(ctx: typer.Context) -> dict[str, dict[str, Any]]:
    """Every switch by its name, as the operator API tells it."""
    return {one["name"]: one for one in connect(stack_of(ctx)).call("GET", PATH)["switches"]}


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
    """The value as the parameter's pattern takes it. Raises `Refused`."""
    try:
        return written(name, value, load().integrations)
    except UnfitSwitch as unfit:
        raise Refused(str(unfit)) from unfit


def _without_scope(name: str) -> list[str]:
    """The switch's own name, in parts, without `flow/NAME/`, `source/NAME/` or `tenant/NAME/`."""
    parts = name.split("/")
    return parts[2:] if parts[0] in ("flow", "source", "tenant") and len(parts) > 2 else parts
