"""`holdfast verify`."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from ops.cli.console import AsJson, ExitCode, Refused, clean, emit_line, say
from ops.verify import VALID, Explain, verify_lines


def verify(
    file: Annotated[Path | None, typer.Argument(help="NDJSON, one signed request per line; without it, stdin.")] = None,
    explained: Annotated[
        bool, typer.Option("--explain", help="Say of each invalid request what differs and what to change.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Check signed requests with the very code of ingress; needs no stack.

    Prints {"id", "verdict": "valid" | "invalid", "reason"} per line (with or without --json). Exit code 1 if any is
    invalid. A request is {"id", "provider", "secret", "headers", "body", "url", "method", "now"}.

    With --explain each line has its "findings" too, {"code", "detail", "fix"}; a terminal gets text, unless --json.
    Nothing of the secret, of the signature that would be right or of the body is printed.
    """
    counted = invalid = 0
    findings_of: Explain | None = None
    if explained:
        from ops.explain import explain  # noqa: PLC0415  # a plain check needs none of it

        findings_of = explain
    try:
        lines = sys.stdin if file is None or str(file) == "-" else file.open(encoding="utf-8", errors="surrogateescape")
    except OSError as exc:
        raise Refused(f"{file} cannot be read: {exc.strerror}") from exc
    is_read_by_people = explained and not as_json and is_terminal()
    with lines:
        for verdict in verify_lines(lines, explain=findings_of):
            if is_read_by_people:
                _tell(verdict)
            else:
                emit_line(verdict)
            counted += 1
            invalid += verdict["verdict"] != VALID
    say(f"{counted} checked, {invalid} invalid")
    if invalid:
        raise typer.Exit(ExitCode.REFUSED)


def is_terminal() -> bool:
    """Whether standard output is read by somebody."""
    return sys.stdout.isatty()


def _tell(verdict: Mapping[str, Any]) -> None:
    """A verdict and its findings for somebody who reads them at a terminal."""
    reason = f" ({clean(verdict['reason'])})" if verdict["reason"] else ""
    typer.echo(f"{clean(verdict['id'])}: {verdict['verdict']}{reason}")
    for finding in verdict["findings"]:
        typer.echo(f"  {finding['code']}: {clean(finding['detail'])}")
        typer.echo(f"    Fix: {clean(finding['fix'])}")
