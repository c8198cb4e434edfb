"""A chat and a pager on this machine's loopback: who is on call by them, and what they were told.

The chat takes `{"text": …}` as Slack does: every letter, tickets too. The pager speaks PagerDuty's Events API v2: it
hears what is to wake somebody, who has it in hand, and that it is over.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from functions.core.incident import PageKind
from ops.stack import Stack

CHAT, PAGER = "drill-chat", "drill-pager"
"""The channels' names, as a page's `took` has them."""

Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Call:
    """Somebody is to wake. `kind` is why, `at` the monotonic moment at which it came."""

    incident_id: str
    kind: str
    severity: str
    runbook: str
    title: str
    at: float


@dataclass(frozen=True, slots=True)
class Letter:
    """What stands in the chat."""

    text: str
    at: float

    @property
    def kind(self) -> str:
        """Why it came, as `functions.core.incident.PageKind` has it: every title but the first one's begins with it."""
        _, _, title = self.text.partition("] ")
        return title.partition(":")[0] if title[:1].islower() else PageKind.OPENED.value


@dataclass(slots=True)
class Receiver:
    """Keeps what it is sent, in order. `is_refusing`: it answers 503 to everything."""

    letters: list[Letter] = field(default_factory=list)
    events: list[tuple[float, Document]] = field(default_factory=list)
    is_refusing: bool = False
    url: str = ""

    @property
    def calls(self) -> list[Call]:
        """What woke somebody."""
        return [
            Call(
                event["dedup_key"].partition("#")[0],  # one call for each time that an incident is open
                event["payload"]["class"],
                event["payload"]["summary"].partition("[")[2].partition(" ")[0],
                _runbook_in(event["payload"]["custom_details"]["page"]),
                event["payload"]["summary"],
                at,
            )
            for at, event in list(self.events)
            if event["event_action"] == "trigger"
        ]

    def calls_of(self, incident_id: str) -> list[Call]:
        """Those of one incident."""
        return [call for call in self.calls if call.incident_id == incident_id]

    def letters_of(self, incident_id: str) -> list[Letter]:
        """Those of one incident."""
        return [letter for letter in list(self.letters) if incident_id in letter.text]

    def take(self, path: str, said: Document) -> None:
        """One request."""
        if path == "/chat":
            self.letters.append(Letter(str(said["text"]), time.monotonic()))
        else:
            self.events.append((time.monotonic(), said))


def _runbook_in(page: str) -> str:
    return next((line.removeprefix("Then: ") for line in page.splitlines() if line.startswith("Then: ")), "")


@contextlib.contextmanager
def listening() -> Iterator[Receiver]:
    """A receiver for as long as the block lasts."""
    made = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            said = json.loads(self.rfile.read(int(self.headers["content-length"])))
            if not made.is_refusing:
                made.take(self.path, said)
            self.send_response(503 if made.is_refusing else 202)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the name is the base class's
            """Say nothing: what it was sent is kept."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    made.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    try:
        yield made
    finally:
        server.shutdown()
        server.server_close()


@contextlib.contextmanager
def on_call_by(stack: Stack, receiver: Receiver) -> Iterator[None]:
    """The stage tells the receiver, as chat and as pager, for as long as the block lasts."""
    ssm, path = stack.client("ssm"), stack.output("OncallPath")
    entries: dict[str, Document] = {
        CHAT: {"kind": "slack", "url": f"{receiver.url}/chat"},
        PAGER: {"kind": "pagerduty", "routing_key": "drill", "events_url": f"{receiver.url}/pager"},
    }
    for name, entry in entries.items():
        ssm.put_parameter(Name=f"{path}/{name}", Value=json.dumps(entry), Type="SecureString", Overwrite=True)
    try:
        yield
    finally:
        for name in entries:
            ssm.delete_parameter(Name=f"{path}/{name}")
