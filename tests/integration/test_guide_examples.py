"""The examples of the sender's page, run as they stand, against the door itself: what they send is accepted."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from functions.signatures.providers import endpoint_of
from ops.guide import SECRET_VARIABLE, SENT_BY_HAND, page
from ops.sources import new_secret
from tests.ingress_fakes import Gate, SettableClock, gateway_event

SHELL_TOOLS = ("sh", "curl", "openssl", "od", "mktemp")


@dataclass
class Door:
    """The real handler behind an HTTP server. The first answers may be others: `before`."""

    gate: Gate
    before: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    url: str = ""

    def answer(self, source: str, headers: dict[str, str], body: bytes) -> tuple[int, dict[str, str], str]:
        if self.before:
            status, said = self.before.pop(0)
            self.statuses.append(status)
            return status, said, ""
        answer: dict[str, Any] = self.gate.handler(gateway_event(source, headers, body), None)
        self.statuses.append(answer["statusCode"])
        return answer["statusCode"], answer["headers"], answer["body"]


@pytest.fixture
def door() -> Iterator[Door]:
    door = Door(Gate(clock=SettableClock(time.time_ns() // 1_000_000)))

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:  # as http.server calls it
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            source = self.path.rpartition("/")[2]
            status, headers, text = door.answer(source, dict(self.headers.items()), body)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(text.encode())))
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # as http.server names it
            return

    server = HTTPServer(("127.0.0.1", 0), Handler)
    door.url = f"http://127.0.0.1:{server.server_address[1]}/webhooks/shop"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield door
    server.shutdown()
    server.server_close()
    thread.join(5)


HMAC = {"header": "x-signature"}
ENTRIES: dict[str, dict[str, Any]] = {
    "hmac": {"provider": "generic-hmac", "scheme": HMAC},
    "hmac with a prefix, sha1": {
        "provider": "generic-hmac",
        "scheme": {**HMAC, "prefix": "sha1=", "algorithm": "sha1"},
    },
    "hmac in base64, sha512, base64 key": {
        "provider": "generic-hmac",
        "scheme": {**HMAC, "encoding": "base64", "algorithm": "sha512", "secret_encoding": "base64"},
    },
    "hmac with a hexadecimal key": {"provider": "generic-hmac", "scheme": {**HMAC, "secret_encoding": "hex"}},
    "hmac with seconds": {"provider": "generic-hmac", "scheme": {**HMAC, "timestamp_header": "x-time"}},
    "hmac with milliseconds and quotes": {
        "provider": "generic-hmac",
        "scheme": {
            **HMAC,
            "timestamp_header": "x-time",
            "timestamp_format": "ms",
            "content": 'it\'s "$HOME" `id` %s \\n {timestamp}|{body}',
        },
    },
    "hmac with a date, an id, the address and the method": {
        "provider": "generic-hmac",
        "scheme": {
            **HMAC,
            "timestamp_header": "x-time",
            "timestamp_format": "rfc3339",
            "id_header": "x-id",
            "content": "{method} {url} [{id}] {timestamp} {body}",
        },
        "identity": {"header": "x-id", "covered": True},
    },
    "hmac of a form": {
        "provider": "generic-hmac",
        "scheme": HMAC,
        "content": "form",
        "identity": {"pointers": ["/order number"]},
    },
    "hmac with an unsigned id and a name in headers": {
        "provider": "generic-hmac",
        "scheme": HMAC,
        "identity": {"header": "x-event-id"},
        "event_name": ["header:x-event", "/type"],
    },
    "api key": {"provider": "generic-apikey"},
    "api key with a prefix": {
        "provider": "generic-apikey",
        "scheme": {"header": "authorization", "prefix": "Bearer "},
    },
    "static header": {"provider": "static-header", "identity": {"pointers": ["/data/id", "/data/0/x~1y"]}},
    "basic": {"provider": "generic-basic"},
    "standard webhooks": {"provider": "standard-webhooks"},
}


def entry_of(what: str, door: Door) -> tuple[dict[str, Any], str]:
    entry = {
        "tenant": "acme",
        "flow": "support",
        "public_url": door.url,
        "fields": {"text": "/message", "author": "/customer/e-mail"},
        **ENTRIES[what],
    }
    secret = new_secret(entry["provider"], entry.get("scheme", {}))
    return {**entry, "secrets": [{"secret": secret}]}, secret


def example(door: Door, what: str, language: str) -> tuple[str, str]:
    """The page's example in that language, and the secret. The source is there, at the door."""
    entry, secret = entry_of(what, door)
    door.gate.parameters.put("shop", **entry)
    markdown = page(endpoint_of("shop", json.dumps(entry)), door.url)
    assert secret not in markdown
    found = re.findall(rf"^(`{{3,}}){language}\n(.*?)^\1$", markdown, re.MULTILINE | re.DOTALL)
    assert len(found) == 1
    return found[0][1], secret


def run(command: list[str], secret: str, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"], SECRET_VARIABLE: secret, "TMPDIR": str(tmp_path)}
    return subprocess.run(
        command, capture_output=True, text=True, timeout=60, check=False, env=environment, cwd=tmp_path
    )


def test_every_provider_whose_page_has_an_example_is_run_here() -> None:
    assert {entry["provider"] for entry in ENTRIES.values()} == SENT_BY_HAND


@pytest.mark.parametrize("what", ENTRIES)
def test_the_python_of_the_page_is_accepted(door: Door, what: str, tmp_path: Path) -> None:
    script, secret = example(door, what, "python")
    ran = run([sys.executable, "-I", "-W", "error", "-c", script], secret, tmp_path)
    assert (ran.returncode, door.statuses) == (0, [202]), ran.stderr + str(door.gate.lines)
    event = door.gate.outbox.events[0]
    assert json.loads(ran.stdout)["event_id"] == event.event_id
    assert_is_recognised(door, what)


@pytest.mark.skipif(not all(map(shutil.which, SHELL_TOOLS)), reason="this machine has not all the tools of the example")
@pytest.mark.parametrize("what", ENTRIES)
def test_the_shell_of_the_page_is_accepted(door: Door, what: str, tmp_path: Path) -> None:
    script, secret = example(door, what, "sh")
    ran = run(["sh", "-c", script], secret, tmp_path)
    assert (ran.returncode, door.statuses) == (0, [202]), ran.stderr + str(door.gate.lines)
    assert door.gate.outbox.events[0].event_id in ran.stdout
    assert_is_recognised(door, what)
    assert list(tmp_path.iterdir()) == []  # it leaves nothing behind


def assert_is_recognised(door: Door, what: str) -> None:
    """What the source looks for is in the example: an identity that lasts, and a name."""
    event = door.gate.outbox.events[0]
    has_identity = "identity" in ENTRIES[what] or what == "standard webhooks"
    assert (event.repeat_window_seconds == 0) == has_identity
    assert event.event_name == "example.created"


def test_the_python_of_the_page_sends_again_what_may_be_sent_again_and_waits_as_it_is_told(
    door: Door, tmp_path: Path
) -> None:
    script, secret = example(door, "standard webhooks", "python")
    door.before = [(503, {"retry-after": "0"}), (429, {"retry-after": "1"})]
    script = script.replace("time.sleep(wait)", "print(wait) or time.sleep(min(wait, 0.01))")
    ran = run([sys.executable, "-I", "-c", script], secret, tmp_path)
    assert (ran.returncode, door.statuses) == (0, [503, 429, 202]), ran.stderr
    waits = [float(line) for line in ran.stdout.splitlines()[:3]]
    assert waits[0] == 0
    assert waits[2] >= 1


def test_the_python_of_the_page_gives_up_on_what_it_cannot_mend(door: Door, tmp_path: Path) -> None:
    script, _ = example(door, "hmac", "python")
    ran = run([sys.executable, "-I", "-c", script], "another secret", tmp_path)
    assert (ran.returncode, door.statuses) == (1, [401])
    assert "INT-401-UNAUTHORIZED" in ran.stderr
