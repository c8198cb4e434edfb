"""What a function has logged lately, newest first and within bounds: what whoever is on call looks for.

A log can be as long as an attack, and can only be read forwards. It is read in slices from now on backwards, until
there is enough, the window is over, or the bound on pages is met; `since_ms` says how far back every line was seen.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from botocore.exceptions import ClientError

from ops.stack import Stack, StackNotFound

MAX_PAGES: Final = 40  # each of up to 1 MB or 10,000 events
PAGE_EVENTS: Final = 10_000
FIRST_SPAN_MS: Final = 120_000
SKEW_MS: Final = 60_000  # how far this machine's clock may be behind
QUIET_LEVELS: Final = frozenset({"INFO", "DEBUG", "TRACE"})
LONGEST: Final = 2_000  # characters of a line that is not ours

_SHOWN_ELSEWHERE: Final = frozenset({"level", "message", "timestamp", "service"})


@dataclass(frozen=True, slots=True)
class Line:
    """One line. `fields` are those of the vocabulary and of the exception; of a foreign line there are none."""

    at_ms: int
    level: str
    message: str
    fields: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_telling(self) -> bool:
        """Whether something was not as it should be."""
        return self.level not in QUIET_LEVELS


@dataclass(frozen=True, slots=True)
class Recent:
    """The newest lines that were asked for. Of what is older than `since_ms` nothing was read."""

    lines: tuple[Line, ...]
    since_ms: int
    is_complete: bool


def line_of(text: str, at_ms: int) -> Line | None:
    """One line of a log; None for metrics and empty lines. `at_ms` is when the log had it."""
    if not text.strip():
        return None
    try:
        said = json.loads(text)
    except (ValueError, RecursionError):
        said = None
    if not isinstance(said, dict):
        # Of a runtime that died, or of a process that did not live to finish its line.
        return Line(at_ms, "", text.strip()[:LONGEST])
    if "_aws" in said:
        return None
    kind = said.get("type")
    if isinstance(kind, str) and kind.startswith("platform."):
        return _of_platform(kind, said.get("record"), at_ms)
    level, message = said.get("level"), said.get("message")
    further = {name: value for name, value in said.items() if name not in _SHOWN_ELSEWHERE and value not in ("", None)}
    return Line(
        at_ms,
        level.upper() if isinstance(level, str) else "",
        message if isinstance(message, str) else json.dumps(message)[:LONGEST],
        further,
    )


def _of_platform(kind: str, record: Any, at_ms: int) -> Line:
    """Lambda's own words: https://docs.aws.amazon.com/lambda/latest/dg/telemetry-schema-reference.html."""
    status = record.get("status") if isinstance(record, dict) else None
    is_well = kind != "platform.fault" and status in (None, "success")
    about = {"request_id": record.get("requestId", "")} if isinstance(record, dict) else {}
    said = kind if status is None else f"{kind}: {status}"
    return Line(at_ms, "INFO" if is_well else "ERROR", f"{said} {record}"[:LONGEST] if not is_well else said, about)


def group_of(stack: Stack, function: str) -> str:
    """The log group of the function of that short name (`worker`). Raises `StackNotFound` if there is none."""
    name = stack.output(f"{''.join(part.title() for part in function.split('_'))}Function")
    configuration = stack.client("lambda").get_function_configuration(FunctionName=name)
    return str(configuration.get("LoggingConfig", {}).get("LogGroup") or f"/aws/lambda/{name}")


def functions_of(stack: Stack) -> list[str]:
    """The short names of the stage's functions."""
    named = [output.removesuffix("Function") for output in stack.outputs if output.endswith("Function")]
    return sorted("".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in one)[1:] for one in named)


class RecentLog:
    """The log group of one function."""

    def __init__(self, client: Any, group: str) -> None:
        self._client = client
        self._group = group

    @staticmethod
    def of(stack: Stack, function: str) -> RecentLog:
        """Of the function of that short name. Raises `StackNotFound`, naming those that there are."""
        known = functions_of(stack)
        if function not in known:
            raise StackNotFound(f"there is no function {function!r}; there are {', '.join(known)}")
        return RecentLog(stack.client("logs"), group_of(stack, function))

    def newest(
        self,
        since_ms: int,
        now_ms: int,
        *,
        limit: int,
        phrase: str = "",
        everything: bool = False,
        pages: int = MAX_PAGES,
    ) -> Recent:
        """The newest lines since then that hold the phrase; without `everything` only those that tell of trouble."""
        found: list[Line] = []
        reached_ms, span_ms, left = now_ms + SKEW_MS, FIRST_SPAN_MS, pages
        while reached_ms > since_ms and len(found) < limit and left > 0:
            from_ms = max(since_ms, reached_ms - span_ms)
            lines, used, is_whole = self._slice(from_ms, reached_ms - 1, phrase, left)
            left -= used
            found += sorted(
                (line for line in lines if everything or line.is_telling), key=lambda line: line.at_ms, reverse=True
            )
            if is_whole:
                reached_ms = from_ms
            # Few pages: look further back at once. Many: what is newest is wanted first, in bites that can be sorted.
            span_ms = span_ms * 4 if used <= 2 else max(1_000, span_ms // 2)
        return Recent(tuple(found[:limit]), max(since_ms, reached_ms), reached_ms <= since_ms or len(found) >= limit)

    def _slice(self, from_ms: int, to_ms: int, phrase: str, pages: int) -> tuple[list[Line], int, bool]:
        """The lines of a slice, both ends included; how many pages that took; whether it is all of them."""
        found: dict[str, list[Line]] = {}
        further: dict[str, Any] = {"startTime": from_ms}
        for used in range(1, pages + 1):
            page = self._page(to_ms, phrase, further)
            events = page.get("events", [])
            for event in events:
                at_ms = int(event.get("timestamp", 0))
                texts = str(event.get("message", "")).splitlines()
                lines = [line_of(text, at_ms) for text in texts if phrase in text]
                found[str(event.get("eventId") or len(found))] = [line for line in lines if line is not None]
            if page.get("nextToken"):
                further = {"startTime": from_ms, "nextToken": page["nextToken"]}
            elif len(events) >= PAGE_EVENTS and events[-1]["timestamp"] > further["startTime"]:
                further = {"startTime": events[-1]["timestamp"]}  # the emulator cuts a page off and gives no token
            else:
                return [line for lines in found.values() for line in lines], used, True
        return [line for lines in found.values() for line in lines], pages, False

    def _page(self, to_ms: int, phrase: str, further: Mapping[str, Any]) -> dict[str, Any]:
        request = {"logGroupName": self._group, "endTime": to_ms, "limit": PAGE_EVENTS, **further}
        if phrase:
            request["filterPattern"] = f'"{phrase}"'
        try:
            page: dict[str, Any] = self._client.filter_log_events(**request)
        except ClientError as exc:
            if exc.response.get("Error", {}).get("Code") == "ResourceNotFoundException":
                return {}  # nothing has been logged yet
            raise
        return page
