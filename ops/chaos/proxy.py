"""The fault proxy: stands before the emulator and lets a share of the AWS calls fail, each in one of the ways.

It passes the request on as it came, the name of the host included: that is signed, so the emulator goes on checking
signatures and roles. `GET /_chaos` tells what came, from whom, and what was done to it, `PUT /_chaos` `{way: share}`
sets the shares. It is a double of trouble and of nothing else: every answer that is not a fault is the emulator's own.

    python -m ops.chaos.proxy --upstream http://127.0.0.1:4566 --seed 1

prints one JSON line with its address, and ends when its standard input does: with whoever started it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import queue
import random
import signal
import socket
import struct
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

from ops.chaos.calls import (
    ONLY_FOR,
    Answer,
    Operation,
    Way,
    all_refused,
    error_code,
    operation_of,
    partly_refused,
    refusal,
    unprocessed,
)

CONTROL = "/_chaos"
HOLD_SECONDS: Mapping[str, float] = {"ssm": 0.9, "s3": 4.6}
"""Longer than the functions wait for these services (`functions/adapters/aws.py`)."""
_HOLD_SECONDS = 2.4  # likewise, for all others
_SLOW_SECONDS = 0.3
_STARTS_WITH = "ssm"  # all that a function reads before it may be given work
_KEPT_SECONDS = 2.0  # shorter than the emulator keeps a connection that nobody uses
_MAX_HEAD_BYTES = 64 * 1024
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER with zero seconds: close sends RST
_HOP_BY_HOP = frozenset({"connection", "keep-alive", "transfer-encoding", "content-length"})


@dataclass(slots=True)
class Trouble:
    """Which share of the calls meets which way, and what has been seen. One call meets one way at most.

    The draws are seeded; which call meets which draw is up to the order in which they come. `at_work` are the ports of
    the clients that are connected and have asked for more than what a function reads as it starts.
    """

    seed: int = 0
    shares: dict[Way, float] = field(default_factory=dict)
    calls: Counter[str] = field(default_factory=Counter)
    fired: Counter[tuple[str, str]] = field(default_factory=Counter)
    errors: Counter[tuple[str, str]] = field(default_factory=Counter)
    broken: Counter[str] = field(default_factory=Counter)
    at_work: set[int] = field(default_factory=set)
    chance: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)  # noqa: S311  # repeatable draws, no secret

    def draw(self, operation: Operation) -> Way | None:
        """What becomes of a call of that operation, counted."""
        self.calls[operation.label] += 1
        drawn = self.chance.random()
        for way, share in self.shares.items():
            if ONLY_FOR.get(way, operation.name) != operation.name:
                continue
            drawn -= share
            if drawn < 0:
                self.fired[(operation.label, way)] += 1
                return way
        return None

    def to_json(self) -> dict[str, Any]:
        """Everything that was seen."""
        return {
            "shares": dict(self.shares),
            "calls": dict(self.calls),
            "fired": [[operation, way, count] for (operation, way), count in sorted(self.fired.items())],
            "errors": [[operation, code, count] for (operation, code), count in sorted(self.errors.items())],
            "broken": dict(self.broken),
            "at_work": sorted(self.at_work),
        }


@dataclass(frozen=True, slots=True)
class _Request:
    method: str
    target: str
    headers: Mapping[str, str]
    raw: bytes
    body: bytes

    @property
    def keeps_alive(self) -> bool:
        return self.headers.get("connection", "").lower() != "close"


class Proxy:
    """Serves connections of one event loop."""

    def __init__(self, upstream_url: str, trouble: Trouble) -> None:
        parts = urlsplit(upstream_url)
        if parts.hostname is None or parts.port is None:
            raise ValueError("the upstream is http://host:port")
        self._upstream = parts.hostname, parts.port
        self._trouble = trouble
        self._idle: deque[tuple[float, asyncio.StreamReader, asyncio.StreamWriter]] = deque()
        self._serving: set[asyncio.Task[None]] = set()

    def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """A client has come. Its task is held here: nobody else would hold it for as long as it waits."""
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def close(self) -> None:
        """End every connection."""
        waiting = [*self._serving]
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        writers = [writer for _, _, writer in self._idle]
        for writer in writers:
            writer.close()
        await asyncio.gather(*(writer.wait_closed() for writer in writers), return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One client's connection, until it ends or a fault ends it."""
        port: int = writer.get_extra_info("peername")[1]
        try:
            while (request := await _request(reader, writer)) is not None:
                if not await self._answer(request, writer, port):
                    break
        except (ConnectionError, asyncio.IncompleteReadError):
            self._trouble.broken["by the client"] += 1
        finally:
            self._trouble.at_work.discard(port)
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def _answer(self, request: _Request, writer: asyncio.StreamWriter, port: int) -> bool:
        """Whether the connection may go on."""
        if request.target == CONTROL:
            await _send(writer, request, self._control(request))
            return request.keeps_alive
        operation = operation_of(request.method, request.target, request.headers, request.body)
        if operation.service != _STARTS_WITH:
            self._trouble.at_work.add(port)
        answer = await self._met(self._trouble.draw(operation), operation, request)
        if answer is None:
            _reset(writer)
            return False
        await _send(writer, request, answer)
        return request.keeps_alive

    async def _met(self, way: Way | None, operation: Operation, request: _Request) -> Answer | None:
        """The answer that goes out, None for a reset."""
        chance = self._trouble.chance
        hold_seconds = HOLD_SECONDS.get(operation.service, _HOLD_SECONDS)
        match way:
            case Way.RESET:
                return None
            case Way.THROTTLED | Way.ERROR | Way.CONFLICT:
                return refusal(way, operation, request.body, chance)
            case Way.SILENT:
                await asyncio.sleep(hold_seconds)
                return None
            case Way.PARTLY if chance.random() < 0.5:
                return all_refused(request.body)
            case Way.BELATED:
                await asyncio.sleep(hold_seconds)
            case Way.SLOW:
                await asyncio.sleep(chance.uniform(0, _SLOW_SECONDS))
        answer = await self._passed_on(operation, request)
        match way:
            case Way.DROPPED | Way.BELATED:
                return None
            case Way.ERROR_AFTER:
                return refusal(way, operation, request.body, chance)
            case Way.LATE:
                await asyncio.sleep(hold_seconds)
            case Way.UNPROCESSED if answer is not None:
                return unprocessed(request.body, answer, chance)
            case Way.PARTLY if answer is not None:
                return partly_refused(answer, chance)
        return answer

    async def _passed_on(self, operation: Operation, request: _Request) -> Answer | None:
        """What the emulator answers; None where it gave no whole answer, which is its own trouble and counted."""
        try:
            reader, writer = await self._connection()
            try:
                writer.write(request.raw)
                await writer.drain()
                answer, is_kept = await _answer_of(reader, request.method)
            except BaseException:
                writer.close()
                raise
        except (OSError, ValueError, asyncio.IncompleteReadError) as exc:
            self._trouble.broken[f"by the emulator: {type(exc).__name__}"] += 1
            return None
        if is_kept:
            self._idle.append((time.monotonic(), reader, writer))
        else:
            writer.close()
        if answer.status >= 400:
            self._trouble.errors[(operation.label, error_code(answer))] += 1
        return answer

    async def _connection(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """One that is surely open: a request that meets a closing one could not be repeated."""
        while self._idle:
            since, reader, writer = self._idle.pop()
            if time.monotonic() - since < _KEPT_SECONDS and not reader.at_eof():
                return reader, writer
            writer.close()
        return await asyncio.open_connection(*self._upstream, limit=_MAX_HEAD_BYTES)

    def _control(self, request: _Request) -> Answer:
        if request.method == "PUT":
            self._trouble.shares = {Way(way): float(share) for way, share in json.loads(request.body).items()}
        body = json.dumps(self._trouble.to_json()).encode()
        return Answer(HTTPStatus.OK, {"content-type": "application/json"}, body)


async def _request(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> _Request | None:
    """The next request of the connection, whole; None where the client has ended it."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as exc:
        if not exc.partial:
            return None
        raise
    lines = head[:-4].split(b"\r\n")
    method, target, _ = lines[0].decode("latin-1").split(" ", 2)
    headers = _fields(lines[1:])
    if headers.get("expect", "").lower() == "100-continue":
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        await writer.drain()
        lines = [line for line in lines if not line.lower().startswith(b"expect:")]
    if "transfer-encoding" in headers:
        raise ConnectionError("a request without a length")
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return _Request(method, target, headers, b"\r\n".join([*lines, b"", body]), body)


def _fields(lines: list[bytes]) -> dict[str, str]:
    pairs = (line.decode("latin-1").partition(":") for line in lines)
    return {name.lower(): value.strip() for name, _, value in pairs}


async def _answer_of(reader: asyncio.StreamReader, method: str) -> tuple[Answer, bool]:
    """The final answer, whole, and whether the connection may be used again."""
    status = 100
    while status < 200:
        head = (await reader.readuntil(b"\r\n\r\n"))[:-4].split(b"\r\n")
        status, headers = int(head[0].split(b" ", 2)[1]), _fields(head[1:])
    is_kept = headers.get("connection", "").lower() != "close"
    if method == "HEAD" or status in (204, 304):
        body = b""
    elif headers.get("transfer-encoding", "").lower() == "chunked":
        body = await _chunks(reader)
    elif "content-length" in headers:
        body = await reader.readexactly(int(headers["content-length"]))
    else:
        body, is_kept = await reader.read(), False
    length = {"content-length": headers["content-length"]} if method == "HEAD" and "content-length" in headers else {}
    kept = {name: value for name, value in headers.items() if name not in _HOP_BY_HOP}
    return Answer(status, kept | length, body), is_kept


async def _chunks(reader: asyncio.StreamReader) -> bytes:
    parts = []
    while size := int((await reader.readline()).partition(b";")[0], 16):
        parts.append(await reader.readexactly(size))
        await reader.readexactly(2)
    while (await reader.readline()).strip():
        pass  # trailers
    return b"".join(parts)


async def _send(writer: asyncio.StreamWriter, request: _Request, answer: Answer) -> None:
    headers = {"content-length": str(len(answer.body)), **answer.headers}
    if not request.keeps_alive:
        headers["connection"] = "close"
    head = [
        f"HTTP/1.1 {answer.status} {_reason(answer.status)}",
        *(f"{name}: {text}" for name, text in headers.items()),
    ]
    writer.write("\r\n".join([*head, "", ""]).encode("latin-1") + answer.body)
    await writer.drain()


def _reason(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"


def _reset(writer: asyncio.StreamWriter) -> None:
    if writer.is_closing():
        return  # its client was quicker
    connection = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    writer.transport.abort()


async def _run(upstream_url: str, trouble: Trouble, until: asyncio.Event, say: Callable[[str], None]) -> None:
    proxy = Proxy(upstream_url, trouble)
    server = await asyncio.start_server(proxy.connected, "127.0.0.1", 0, limit=_MAX_HEAD_BYTES, backlog=512)
    say(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    await until.wait()
    server.close()
    await proxy.close()


@contextlib.contextmanager
def serving(upstream_url: str, trouble: Trouble) -> Iterator[str]:
    """The proxy in a thread of this process, for as long as the block lasts. Gives its address."""
    started: queue.Queue[tuple[str, Callable[[], None]]] = queue.Queue()

    async def run() -> None:
        loop, until = asyncio.get_running_loop(), asyncio.Event()
        await _run(
            upstream_url,
            trouble,
            until,
            lambda url: started.put((url, lambda: _from_elsewhere(loop, until))),
        )

    thread = threading.Thread(target=asyncio.run, args=(run(),), name="fault-proxy", daemon=True)
    thread.start()
    url, stop = started.get(timeout=30)
    try:
        yield url
    finally:
        stop()
        thread.join()


def _from_elsewhere(loop: asyncio.AbstractEventLoop, until: asyncio.Event) -> None:
    with contextlib.suppress(RuntimeError):  # the loop has ended by itself meanwhile
        loop.call_soon_threadsafe(until.set)


async def _main(upstream_url: str, seed: int) -> None:
    until, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, until.set)
    # Whoever started this holds the other end: when that process is gone, however it went, there is nothing to read.
    threading.Thread(target=_await_end, args=(loop, until), name="owner", daemon=True).start()
    await _run(upstream_url, Trouble(seed), until, lambda url: print(json.dumps({"url": url}), flush=True))


def _await_end(loop: asyncio.AbstractEventLoop, until: asyncio.Event) -> None:
    while os.read(sys.stdin.fileno(), 1024):
        pass
    _from_elsewhere(loop, until)


def main(argv: list[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="ops.chaos.proxy", description="Lets a share of AWS calls fail.")
    parser.add_argument("--upstream", required=True, help="http://host:port of the emulator")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(argv)
    asyncio.run(_main(options.upstream, options.seed))
    return 0


if __name__ == "__main__":
    sys.exit(main())
