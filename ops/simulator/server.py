"""The sockets of the simulator: HTTP/1.1 with keep-alive on the loopback, the control plane, and the faults that need
a socket.

Control plane (never subject to faults):

- `GET /_sim/health`
- `GET /_sim/effects` → `{"total", "dropped", "effects": [...]}`; `GET /_sim/requests` → likewise, with counts
- `POST /_sim/reset` forgets effects, requests, tickets, keys and faults
- `GET`, `POST` (a list), `DELETE /_sim/faults`; `DELETE /_sim/faults/{id}`
- `GET`, `PUT /_sim/tickets/{id}`: read a ticket, or change it as a person at the helpdesk would
- `GET`, `PUT /_sim/subscriptions/{id}`: read a subscription, or change it as a person at the dashboard would
- `GET`, `PUT /_sim/sms/{number}`: read the texts to a number, or change what became of them
- `PUT /_sim/credentials` `{"helpdesk": [keys] | null, …}`, likewise of the other providers: null accepts any key
- `POST /_sim/keys/prune` `{"older_than_seconds"}`
"""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from ops.simulator.control import SimulatorControl
from ops.simulator.email import Email
from ops.simulator.endpoints import Endpoints
from ops.simulator.faults import HAS_NO_EFFECT, BadFault, Fault, FaultBook, FaultMode, fault_from_json
from ops.simulator.helpdesk import Helpdesk
from ops.simulator.http import Call, Reply, Request, reply_json
from ops.simulator.llm import Llm
from ops.simulator.ocr import Ocr
from ops.simulator.payments import Payments
from ops.simulator.record import Record
from ops.simulator.sms import Sms

MAX_BODY_BYTES = 8 * 1024 * 1024  # the largest document in base64 and more
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER with zero seconds: close sends RST


class World:
    """Everything the simulated providers know. One lock guards it."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.disconnects = 0
        self.faults = FaultBook()
        self._start_over()

    def _start_over(self) -> None:
        self.record = Record()
        self.helpdesk = Helpdesk(self.record)
        self.llm = Llm()
        self.payments = Payments(self.record)
        self.ocr = Ocr(self.record)
        self.sms = Sms(self.record)
        self.email = Email(self.record)
        self.endpoints = Endpoints(self.record)

    def reset(self) -> None:
        """Forget everything, faults included."""
        with self.lock:
            self.faults.remove(None)
            self._start_over()

    def understand(self, request: Request) -> tuple[Call, Fault | None, Record]:
        """The call a request makes, the fault it meets, and the record it belongs to."""
        with self.lock:
            providers = (
                self.helpdesk,
                self.llm,
                self.payments,
                self.ocr,
                self.sms,
                self.email,
                self.endpoints,
            )
            call = next((found for each in providers if (found := each.call(request)) is not None), None)
            if call is None:
                missing = reply_json(404, {"error": {"message": "nobody lives here", "code": "NOT_FOUND"}})
                call = Call("none", "unknown", request.path[:100], lambda: missing)
            return call, self.faults.take(call), self.record


def fault_reply(fault: Fault) -> Reply:
    """The answer that a fault with a status gives."""
    code = fault.body_code or f"SIMULATED_{fault.status}"
    headers = dict(fault.headers)
    if fault.retry_after is not None:
        headers["Retry-After"] = fault.retry_after
    return reply_json(fault.status, {"error": {"message": "a simulated failure", "code": code}}, headers)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "holdfast-simulator"
    sys_version = ""
    timeout = 120
    wbufsize = 64 * 1024
    disable_nagle_algorithm = True
    server: SimulatorServer

    def do_GET(self) -> None:
        self._serve()

    do_POST = do_PUT = do_DELETE = do_PATCH = do_GET  # noqa: N815  # names that http.server calls

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the base class's name
        """The record is the log."""

    def _serve(self) -> None:
        request = self._read()
        if request is None:
            return
        if request.path == "/_sim" or request.path.startswith("/_sim/"):
            self._send(self.server.control_plane(request))
            return
        call, fault, record = self.server.world.understand(request)
        status, send = self._play(call, fault)
        with self.server.world.lock:  # before the answer goes out: who has it finds the record complete
            record.request(
                request,
                provider=call.provider,
                operation=call.operation,
                target=call.target,
                status=status,
                fault=fault.mode if fault else "",
            )
        send()

    def _read(self) -> Request | None:
        length_text = self.headers.get("Content-Length", "0")
        if "Transfer-Encoding" in self.headers or not length_text.isdigit():
            self.close_connection = True
            self._send(reply_json(411, {"error": {"message": "Content-Length is required", "code": "LENGTH_REQUIRED"}}))
            return None
        if int(length_text) > MAX_BODY_BYTES:
            self.close_connection = True
            self._send(reply_json(413, {"error": {"message": "the body is too large", "code": "TOO_LARGE"}}))
            return None
        body = self.rfile.read(int(length_text))
        parts = urlsplit(self.path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        return Request(self.command, parts.path, dict(parse_qsl(parts.query)), headers, body)

    def _play(self, call: Call, fault: Fault | None) -> tuple[int, Callable[[], None]]:
        """Carry the call out, or fail as told. Gives the status that goes out, 0 for none, and what sends it."""
        world = self.server.world
        if fault is not None and fault.mode in HAS_NO_EFFECT:
            return self._fail_without_effect(call, fault)
        if fault is not None and fault.mode is FaultMode.LATENCY:
            self.server.stopping.wait(fault.seconds)
        with world.lock:
            reply = call.perform()
            if fault is not None and fault.mode is FaultMode.TWICE:
                call.perform()
        match fault.mode if fault else None:
            case FaultMode.STATUS_AFTER_EFFECT if fault:
                reply = fault_reply(fault)
            case FaultMode.DROP_RESPONSE | FaultMode.TWICE:
                return 0, self._reset
            case FaultMode.MALFORMED:
                reply = Reply(reply.status, b'{"ticket": {"id": ', headers=reply.headers)
            case FaultMode.WRONG_CONTENT_TYPE:
                page = b"<!doctype html><title>Sign in</title><p>Please sign in to continue."
                reply = Reply(reply.status, page, content_type="text/html; charset=utf-8")
            case FaultMode.TRUNCATE:
                return reply.status, lambda: self._send_half(reply)
            case FaultMode.SLOW_BODY if fault:
                return reply.status, lambda: self._send_slowly(reply, fault.seconds)
        return reply.status, lambda: self._send(reply)

    def _fail_without_effect(self, call: Call, fault: Fault) -> tuple[int, Callable[[], None]]:
        reply = fault_reply(fault)
        with self.server.world.lock:
            if fault.mode is FaultMode.STORE_STATUS and call.settle_as is not None:
                call.settle_as(reply)
            else:
                call.abandon()
        if fault.mode in (FaultMode.STATUS, FaultMode.STORE_STATUS):
            return fault.status, lambda: self._send(reply)
        if fault.mode is FaultMode.HANG:
            return 0, lambda: self._hang(fault.seconds or 600)
        return 0, self._reset

    def _head(self, reply: Reply) -> None:
        self.send_response(reply.status)
        self.send_header("Content-Type", reply.content_type)
        self.send_header("Content-Length", str(len(reply.body)))
        for name, value in reply.headers.items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()

    def _send(self, reply: Reply) -> None:
        self._head(reply)
        self.wfile.write(reply.body)
        self.wfile.flush()

    def _send_half(self, reply: Reply) -> None:
        self.close_connection = True
        self._head(reply)
        self.wfile.write(reply.body[: len(reply.body) // 2])
        self.wfile.flush()

    def _send_slowly(self, reply: Reply, seconds: float) -> None:
        self._head(reply)
        self.wfile.flush()
        pause = seconds / max(1, len(reply.body))
        for index in range(len(reply.body)):
            self.wfile.write(reply.body[index : index + 1])
            self.wfile.flush()
            if self.server.stopping.wait(pause):
                self.close_connection = True
                return

    def _hang(self, seconds: float) -> None:
        self.server.stopping.wait(seconds)
        self._reset()

    def _reset(self) -> None:
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self.server.abort(self.connection)


class SimulatorServer(ThreadingHTTPServer):
    """The server. One thread per connection; `stop()` ends every one of them."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 512
    allow_reuse_address = True

    def __init__(self, port: int = 0) -> None:
        self.world = World()
        self.stopping = threading.Event()
        self._open: set[socket.socket] = set()
        self._open_lock = threading.Lock()
        super().__init__(("127.0.0.1", port), _Handler)

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self.server_address[1])

    def process_request(self, request: Any, client_address: Any) -> None:
        """Remember the connection, so that stopping can end it."""
        with self._open_lock:
            self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Forget the connection and close it. One that is to be reset is closed without a goodbye."""
        with self._open_lock:
            is_open = request in self._open
            self._open.discard(request)
        if is_open:
            super().shutdown_request(request)
        else:
            self.close_request(request)

    def abort(self, connection: socket.socket) -> None:
        """Close at once: with SO_LINGER at zero the peer sees a reset."""
        with self._open_lock:
            self._open.discard(connection)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is counted; anything else is ours and is shown."""
        error = sys.exception()
        if isinstance(error, ConnectionError | TimeoutError) or (isinstance(error, OSError) and self.stopping.is_set()):
            with self.world.lock:
                self.world.disconnects += 1
            return
        super().handle_error(request, client_address)

    def stop(self) -> None:
        """End the accept loop, every wait and every connection."""
        self.stopping.set()
        self.shutdown()
        with self._open_lock:
            connections = list(self._open)
        for connection in connections:
            with contextlib.suppress(OSError):  # already closed by its own thread
                connection.shutdown(socket.SHUT_RDWR)
        self.server_close()

    def control_plane(self, request: Request) -> Reply:
        """Answer one request of the control plane."""
        world = self.world
        parts = [unquote(part) for part in request.path.split("/")[2:]]
        with world.lock:
            match (request.method, parts):
                case ("GET", ["health"]):
                    return reply_json(200, {"status": "ok", "disconnects": world.disconnects})
                case ("GET", ["effects"]):
                    return reply_json(200, world.record.effects_json())
                case ("GET", ["requests"]):
                    tokens = {"prompt": world.llm.prompt_tokens, "completion": world.llm.completion_tokens}
                    return reply_json(200, {**world.record.requests_json(), "tokens": tokens})
                case ("POST", ["reset"]):
                    world.reset()
                    return reply_json(200, {"status": "ok"})
                case (_, ["faults", *rest]):
                    return _faults(world, request, rest)
                case ("GET" | "PUT", ["tickets" | "subscriptions" | "sms" as kind, name]):
                    return _kept(world, request, kind, name)
                case ("PUT", ["credentials"]):
                    return _credentials(world, request)
                case ("POST", ["keys", "prune"]):
                    age = float((request.json_object() or {}).get("older_than_seconds", 0))
                    return reply_json(200, {"pruned": world.endpoints.prune(age) + world.payments.prune(age)})
                case _:
                    return reply_json(404, {"error": {"message": "no such control", "code": "NOT_FOUND"}})


def _kept(world: World, request: Request, kind: str, name: str) -> Reply:
    """What a provider keeps: as it is, or as a person changes it."""
    change = request.json_object() if request.method == "PUT" else {}
    if change is None:
        return _refused("a change is a JSON object")
    is_change = request.method == "PUT"
    if kind == "tickets":
        ticket = world.helpdesk.person(name, change) if is_change else world.helpdesk.ticket(name)
        return reply_json(200, {"ticket": ticket.to_json()})
    if kind == "subscriptions":
        subscription = world.payments.person(name, change) if is_change else world.payments.subscription(name)
        return reply_json(200, subscription.to_json())
    messages = world.sms.change(name, change) if is_change else world.sms.messages(name)
    return reply_json(200, {"messages": messages})


def _refused(message: str) -> Reply:
    return reply_json(400, {"error": {"message": message, "code": "BAD_CONTROL"}})


def _faults(world: World, request: Request, rest: list[str]) -> Reply:
    if request.method == "DELETE" and len(rest) <= 1:
        return reply_json(200, {"removed": world.faults.remove(rest[0] if rest else None)})
    if request.method == "GET" and not rest:
        return reply_json(200, {"faults": world.faults.to_json()})
    if request.method != "POST" or rest:
        return reply_json(404, {"error": {"message": "no such control", "code": "NOT_FOUND"}})
    try:
        raw = json.loads(request.body)
        faults = [fault_from_json(item) for item in (raw if isinstance(raw, list) else [raw])]
    except (ValueError, RecursionError, BadFault) as exc:
        return _refused(str(exc))
    return reply_json(200, {"ids": world.faults.add(faults)})


def _credentials(world: World, request: Request) -> Reply:
    body = request.json_object()
    providers: dict[str, Helpdesk | Llm | Payments | Ocr | Sms | Email] = {
        "helpdesk": world.helpdesk,
        "llm": world.llm,
        "payments": world.payments,
        "ocr": world.ocr,
        "sms": world.sms,
        "email": world.email,
    }
    if body is None or not set(body) <= set(providers):
        return _refused(f"credentials are a list of keys for each of {', '.join(providers)}")
    for name, keys in body.items():
        if keys is not None and not isinstance(keys, list):
            return _refused(f"{name} is a list of keys, or null for any")
        accepted = None if keys is None else frozenset(str(key) for key in keys)
        providers[name].accepted_keys = accepted
    return reply_json(200, {"status": "ok"})


@dataclass(frozen=True, slots=True)
class RunningSimulator:
    """A simulator that is up. `helpdesk_url` and its like are what an adapter takes as its base URL."""

    base_url: str
    control: SimulatorControl

    @property
    def helpdesk_url(self) -> str:
        """Base URL of the helpdesk's API."""
        return f"{self.base_url}/richpanel/v1"

    @property
    def llm_url(self) -> str:
        """Base URL of the LLM's API."""
        return f"{self.base_url}/v1"

    @property
    def payments_url(self) -> str:
        """Base URL of the payments' API."""
        return f"{self.base_url}/stripe/v1"

    @property
    def ocr_url(self) -> str:
        """Base URL of the OCR's API."""
        return f"{self.base_url}/mindee/v2"

    @property
    def sms_url(self) -> str:
        """Base URL of the SMS provider's API."""
        return f"{self.base_url}/twilio"

    @property
    def email_url(self) -> str:
        """Base URL of the email provider's API."""
        return f"{self.base_url}/ses"


@contextlib.contextmanager
def serve(port: int = 0) -> Iterator[RunningSimulator]:
    """Run the simulator in this process for as long as the block lasts."""
    server = SimulatorServer(port)
    thread = threading.Thread(
        target=server.serve_forever, kwargs={"poll_interval": 0.05}, name="simulator", daemon=True
    )
    thread.start()
    base_url = f"http://127.0.0.1:{server.port}"
    try:
        yield RunningSimulator(base_url, SimulatorControl(base_url))
    finally:
        server.stop()
        thread.join()
