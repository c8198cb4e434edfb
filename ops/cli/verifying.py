"""`holdfast verify`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from ops.cli.console import AsJson, ExitCode, Refused, emit_line, say
from ops.verify import VALID, verify_lines


def verify(
    file: Annotated[Path | None, typer.Argument(help="NDJSON, one signed request per line; without it, stdin.")] = None,
    as_json: AsJson = False,
) -> None:
    """Check signed requests with the very code of ingress; needs no stack.

    Prints {"id", "verdict": "valid" | "invalid", "reason"} per line (with or without --json). Exit code 1 if any is
    invalid. A request is {"id", "provider", "secret", "headers", "body", "url", "method", "now"}.
    """
    del as_json  # the output is NDJSON as it is
    counted = invalid = 0
    try:
        lines = sys.stdin if file is None or str(file) == "-" else file.open(encoding="utf-8", errors="surrogateescape")
    except OSError as exc:
        raise Refused(f"{file} cannot be read: {exc.strerror}") from exc
    with lines:
        for verdict in verify_lines(lines):
            emit_line(verdict)
            counted += 1
            invalid += verdict["verdict"] != VALID
    say(f"{counted} checked, {invalid} invalid")
    if invalid:
        raise typer.Exit(ExitCode.REFUSED)
