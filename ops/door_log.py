"""What ingress has logged of its requests, newest first: the one place that reads the door's log.

Ingress writes one JSON line per request and no table (architecture §5), so its log group is where an accepted or a
refused delivery can be looked up. A log can be as long as an attack: every reading is bounded by a window of time and a
number of pages, and says how far back it came.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from botocore.exceptions import ClientError

from ops.stack import Stack

ACCEPTED: Final = "webhook accepted"
REFUSED: Final = "webhook refused"
MAX_PAGES: Final = 40  # each of up to 1 MB or 10,000 lines
PAGE_LINES: Final = 10_000
SKEW_MS: Final = 60_000  # how far this machine's clock may be behind
FIRST_SPAN_MS: Final = 60_000
NO_PROVIDER: Final = "none"  # what ingress logs for a source that it has not found


@dataclass(frozen=True, slots=True)
class DoorLine:
    """One request that was accepted or refused. What the line does not say is empty.

    `source` is in the sender's own words while `provider` is `none`: nobody had looked it up yet. `secret_number`
    counts from 1 the source's secrets, of which the first is the newest.
    """

    at_ms: int
    is_refused: bool
    source: str = ""
    provider: str = ""
    request_id: str = ""
    event_id: str = ""
    status: int = 0
    reason: str = ""
    why: str = ""
    headers_missing: tuple[str, ...] = ()
    header_malformed: tuple[str, ...] = ()
    secret_number: int = 0

    @property
    def is_looked_up(self) -> bool:
        """Whether ingress knew the source when it wrote the line: then the id is one of ours."""
        return bool(self.source) and self.provider not in ("", NO_PROVIDER)


def line_of(message: str, at_ms: int) -> DoorLine | None:
    """Read one log line; None for whatever is not ingress telling of an accepted or a refused request.

    `at_ms` is the log's own time, for a line that gives none.
    """
    try:
        raw = json.loads(message)
    except (ValueError, RecursionError):
        return None
    if not isinstance(raw, dict) or raw.get("service") != "ingress" or raw.get("message") not in (ACCEPTED, REFUSED):
        return None
    return DoorLine(
        at_ms=_whole(raw, "timestamp", at_ms),
        is_refused=raw["message"] == REFUSED,
        source=_text(raw, "source"),
        provider=_text(raw, "provider"),
        request_id=_text(raw, "request_id"),
        event_id=_text(raw, "event_id"),
        status=_whole(raw, "status", 0),
        reason=_text(raw, "reason"),
        why=_text(raw, "why"),
        headers_missing=_names(raw, "headers_missing"),
        header_malformed=_names(raw, "header_malformed"),
        secret_number=_whole(raw, "secret_number", 0),
    )


def _whole(raw: dict[str, Any], name: str, default: int) -> int:
    value = raw.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**15 else default


def _names(raw: dict[str, Any], key: str) -> tuple[str, ...]:
    """Header names: a list of them, or a single one."""
    value = raw.get(key)
    names = value if isinstance(value, list) else [value]
    return tuple(name for name in names if isinstance(name, str))


def _text(raw: dict[str, Any], name: str) -> str:
    value = raw.get(name)
    return value if isinstance(value, str) else ""


class DoorLog:
    """The log group of one stage's ingress."""

    def __init__(self, client: Any, group: str) -> None:
        self._client = client
        self._group = group

    @staticmethod
    def of(stack: Stack) -> DoorLog:
        """Found by the function's own configuration, so that no output has to name it."""
        function = stack.output("IngressFunction")
        configuration = stack.client("lambda").get_function_configuration(FunctionName=function)
        group = configuration.get("LoggingConfig", {}).get("LogGroup") or f"/aws/lambda/{function}"
        return DoorLog(stack.client("logs"), str(group))

    def newest_first(self, since_ms: int, now_ms: int, *phrases: str, pages: int = MAX_PAGES) -> Walk:
        """The lines since then that hold every one of these phrases, to be walked through backwards."""
        return Walk(self._client, self._group, since_ms, now_ms + SKEW_MS, phrases, pages)


class Walk:
    """A walk back through the log, slice by slice: the log itself can only be read forwards.

    While it is walked, and after, `reached_ms` says since when every line has been seen, and `is_complete` whether that
    is the whole window. A slice that met the bound on pages gives what was read of it.
    """

    def __init__(
        self, client: Any, group: str, since_ms: int, until_ms: int, phrases: Sequence[str], pages: int
    ) -> None:
        self._client = client
        self._group = group
        self._since_ms = max(0, since_ms)
        # Quoted, each is one term, and a line must hold all of them. AWS would take a pattern on JSON fields as well;
        # this one is understood everywhere, and each line is looked at again here in any case.
        self._pattern = " ".join(f'"{phrase}"' for phrase in phrases)
        self._phrases = phrases
        self._pages_left = pages
        self.reached_ms = until_ms

    @property
    def is_complete(self) -> bool:
        """Whether every line of the window has been seen."""
        return self.reached_ms <= self._since_ms

    def __iter__(self) -> Iterator[DoorLine]:
        span_ms = FIRST_SPAN_MS + SKEW_MS
        while not self.is_complete and self._pages_left > 0:
            from_ms = max(self._since_ms, self.reached_ms - span_ms)
            before = self._pages_left
            lines, is_whole = self._slice(from_ms, self.reached_ms - 1)
            lines.sort(key=lambda line: line.at_ms, reverse=True)
            yield from lines
            if is_whole:
                self.reached_ms = from_ms
            # Few pages: look further back at once. Many: what is newest is wanted first, in bites that can be sorted.
            span_ms = span_ms * 4 if before - self._pages_left <= 2 else max(1000, span_ms // 2)

    def _slice(self, from_ms: int, to_ms: int) -> tuple[list[DoorLine], bool]:
        """The lines of a slice, both ends included, and whether that is all of them."""
        found: dict[str, DoorLine] = {}
        further: dict[str, Any] = {"startTime": from_ms}
        while self._pages_left > 0:
            self._pages_left -= 1
            page = self._page(to_ms, further)
            events = page.get("events", [])
            for event in events:
                message = str(event.get("message", ""))
                line = line_of(message, int(event.get("timestamp", 0)))
                if line is not None and all(phrase in message for phrase in self._phrases):
                    found[str(event.get("eventId") or len(found))] = line
            if page.get("nextToken"):
                further = {"startTime": from_ms, "nextToken": page["nextToken"]}
            elif len(events) >= PAGE_LINES and events[-1]["timestamp"] > further["startTime"]:
                further = {"startTime": events[-1]["timestamp"]}  # the emulator cuts a page off and gives no token
            else:
                return list(found.values()), True
        return list(found.values()), False

    def _page(self, to_ms: int, further: dict[str, Any]) -> dict[str, Any]:
        request = {"logGroupName": self._group, "endTime": to_ms, "limit": PAGE_LINES, **further}
        if self._pattern:
            request["filterPattern"] = self._pattern
        try:
            page: dict[str, Any] = self._client.filter_log_events(**request)
        except ClientError as exc:
            if exc.response.get("Error", {}).get("Code") == "ResourceNotFoundException":
                return {}  # nothing has been logged yet
            raise
        return page


@dataclass(frozen=True, slots=True)
class Seen:
    """What the log tells of one source. None: nothing in the part of the window that was read."""

    accepted: DoorLine | None = None
    refused: DoorLine | None = None


@dataclass(frozen=True, slots=True)
class Sightings:
    """The newest accepted and refused delivery of sources, and since when the log was read for each kind."""

    seen: dict[str, Seen]
    accepted_since_ms: int
    refused_since_ms: int


def sightings(log: DoorLog, names: Sequence[str], since_ms: int, now_ms: int) -> Sightings:
    """When each of these sources was last heard, and last refused. Stops as soon as nothing is left to find."""
    only = names if len(names) == 1 else ()
    newest: dict[bool, dict[str, DoorLine]] = {False: {}, True: {}}
    reached: dict[bool, int] = {}
    for is_refused, phrase in ((False, ACCEPTED), (True, REFUSED)):
        walk = log.newest_first(since_ms, now_ms, phrase, *only, pages=MAX_PAGES // 2)
        wanted, found = set(names), newest[is_refused]
        if not wanted:
            continue
        for line in walk:
            if line.is_refused is is_refused and line.source in wanted and line.is_looked_up:
                found[line.source] = line
                wanted.discard(line.source)
                if not wanted:
                    break
        reached[is_refused] = walk.reached_ms
    return Sightings(
        {name: Seen(newest[False].get(name), newest[True].get(name)) for name in names},
        reached.get(False, since_ms),
        reached.get(True, since_ms),
    )


@dataclass(frozen=True, slots=True)
class Rejections:
    """Refused requests, newest first, at most as many as were asked for; `counts` by reason are of all that were read.

    `since_ms` is how far back every line has been read; `is_complete`: that is the whole window.
    """

    newest: tuple[DoorLine, ...]
    counts: dict[str, int]
    since_ms: int
    is_complete: bool


def rejections(
    log: DoorLog, since_ms: int, now_ms: int, *, source: str, reason: str, limit: int, request_id: str = ""
) -> Rejections:
    """What was refused since then, of one source, for one reason and under one request id if these are not empty."""
    phrases = [REFUSED, *(text for text in (source, reason, request_id) if text)]
    walk = log.newest_first(since_ms, now_ms, *phrases)
    newest: list[DoorLine] = []
    counts: Counter[str] = Counter()
    for line in walk:
        if not line.is_refused or (source and line.source != source) or (reason and line.reason != reason):
            continue
        if request_id and line.request_id != request_id:
            continue
        counts[line.reason or "unknown"] += 1
        if len(newest) < limit:
            newest.append(line)
    newest.sort(key=lambda line: line.at_ms, reverse=True)  # slices are parted by the log's time, lines tell their own
    return Rejections(tuple(newest), dict(counts.most_common()), max(since_ms, walk.reached_ms), walk.is_complete)
