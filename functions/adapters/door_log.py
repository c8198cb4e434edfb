"""What ingress has logged of its requests, newest first: the one place that reads the door's log.

Ingress writes one JSON line per request and no table (architecture §5), so its log group is where an accepted or a
refused delivery can be looked up. A log can be as long as an attack: every reading is bounded by a window of time and a
number of pages, and says how far back it came.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

from botocore.exceptions import ClientError

from functions.adapters import aws
from functions.core.ports import DoorLine, Rejections, Sighting

if TYPE_CHECKING:
    from mypy_boto3_logs import CloudWatchLogsClient

ACCEPTED: Final = "webhook accepted"
REFUSED: Final = "webhook refused"
MAX_PAGES: Final = 40  # each of up to 1 MB or 10,000 lines
PAGE_LINES: Final = 10_000
SKEW_MS: Final = 60_000  # how far this machine's clock may be behind
FIRST_SPAN_MS: Final = 60_000
_NOT_PLAIN: Final = re.compile(r'[^\x20-\x7e]|["\\]')


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
        tenant=_text(raw, "tenant"),
        event_name=_text(raw, "event_name"),
        stored_in=_text(raw, "stored_in"),
    )


def _plain(phrase: str) -> str:
    """As much of its beginning as stands in a line as it is, and in a pattern of the log's service: a quotation mark
    would end a term, and JSON writes what is not ASCII otherwise. It finds more lines, which are looked at in any case.
    """
    return _NOT_PLAIN.split(phrase, maxsplit=1)[0]


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
        self._phrases = [plain for phrase in phrases if (plain := _plain(phrase))]
        self._pattern = " ".join(f'"{phrase}"' for phrase in self._phrases)
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


def rejections(
    log: DoorLog,
    since_ms: int,
    now_ms: int,
    *,
    source: str,
    reason: str,
    limit: int,
    request_id: str = "",
    pages: int = MAX_PAGES,
) -> Rejections:
    """What was refused since then, of one source, for one reason and under one request id if these are not empty."""
    phrases = [REFUSED, *(text for text in (source, reason, request_id) if text)]
    walk = log.newest_first(since_ms, now_ms, *phrases, pages=pages)
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


def sighting(
    log: DoorLog, since_ms: int, now_ms: int, *, request_id: str = "", event_id: str = "", pages: int = MAX_PAGES
) -> Sighting:
    """The newest line under that request id, or about that event."""
    walk = log.newest_first(since_ms, now_ms, *(text for text in (request_id, event_id) if text), pages=pages)
    found = next(
        (
            line
            for line in walk
            if (not request_id or line.request_id == request_id) and (not event_id or line.event_id == event_id)
        ),
        None,
    )
    reached_ms = since_ms if found is not None else max(since_ms, walk.reached_ms)
    return Sighting(found, reached_ms, found is not None or walk.is_complete)


def accepted(log: DoorLog, source: str, since_ms: int, now_ms: int, *, pages: int = MAX_PAGES) -> Sighting:
    """The newest delivery of that source that was accepted."""
    walk = log.newest_first(since_ms, now_ms, ACCEPTED, source, pages=pages)
    # Slices reach a little further back and ahead than asked for, and a source may have another's name in its lines.
    found = next(
        (line for line in walk if line.source == source and not line.is_refused and line.at_ms >= since_ms), None
    )
    reached_ms = since_ms if found is not None else max(since_ms, walk.reached_ms)
    return Sighting(found, reached_ms, found is not None or walk.is_complete)


class CloudWatchDoor:
    """`ports.Door`. `pages` bounds what one question reads: a page takes up to half a second."""

    def __init__(self, client: CloudWatchLogsClient, group: str, pages: int = MAX_PAGES // 2) -> None:
        self._log = DoorLog(client, group)
        self._pages = pages

    def rejections(
        self, since_ms: int, now_ms: int, *, source: str = "", reason: str = "", request_id: str = "", limit: int = 50
    ) -> Rejections:
        """See the port."""
        with aws.border("read the log of ingress"):
            return rejections(
                self._log,
                since_ms,
                now_ms,
                source=source,
                reason=reason,
                request_id=request_id,
                limit=limit,
                pages=self._pages,
            )

    def sighting(self, since_ms: int, now_ms: int, *, request_id: str = "", event_id: str = "") -> Sighting:
        """See the port."""
        with aws.border("read the log of ingress"):
            return sighting(self._log, since_ms, now_ms, request_id=request_id, event_id=event_id, pages=self._pages)

    def accepted(self, source: str, since_ms: int, now_ms: int) -> Sighting:
        """See the port."""
        with aws.border("read the log of ingress"):
            return accepted(self._log, source, since_ms, now_ms, pages=self._pages)
