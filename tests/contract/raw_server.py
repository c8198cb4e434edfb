"""A server that answers in ways no library would, and sees when its peer lets go of a connection."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator

Behaviour = Callable[["Peer"], None]


class Peer:
    """One connection, after its request has been read (or not, if the server is deaf)."""

    def __init__(self, connection: socket.socket, stopping: threading.Event, number: int) -> None:
        self.connection = connection
        self.number = number  # the first connection is 1
        self._stopping = stopping

    def say(self, content: bytes) -> None:
        """Send it. Raises OSError when the peer is gone."""
        self.connection.sendall(content)

    def wait(self, seconds: float) -> bool:
        """Whether time passed without the server being stopped. Raises OSError as soon as the peer is gone."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            readable, _, _ = select.select([self.connection], [], [], min(left, 0.05))
            if readable and not self.connection.recv(1, socket.MSG_PEEK):
                raise ConnectionAbortedError("the peer has let go")
            if self._stopping.wait(0.01 if readable else 0):
                return False
        return True

    def drip(self, content: bytes, pause: float = 0.02) -> None:
        """Send it byte by byte."""
        for index in range(len(content)):
            self.say(content[index : index + 1])
            if not self.wait(pause):
                return


class RawServer:
    """One behaviour for every connection. Requests are kept as they came."""

    def __init__(self, behaviour: Behaviour, *, is_deaf: bool = False) -> None:
        self._behaviour = behaviour
        self._is_deaf = is_deaf
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._threads: list[threading.Thread] = []
        self.requests: list[bytes] = []
        self.opened = 0
        self.let_go = 0

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def are_all_let_go(self, within_seconds: float = 3.0) -> bool:
        """Whether the peer closes every connection that it opened, by then."""
        deadline = time.monotonic() + within_seconds
        while time.monotonic() < deadline:
            with self._lock:
                if self.opened and self.let_go == self.opened:
                    return True
            time.sleep(0.01)
        return False

    def accept(self) -> None:
        """Take connections until the listener is closed."""
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                self.opened += 1
                number = self.opened
            thread = threading.Thread(target=self._serve, args=(connection, number), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket, number: int) -> None:
        with connection:
            connection.settimeout(20)
            try:
                while self._is_deaf or self._read(connection):
                    self._behaviour(Peer(connection, self._stopping, number))
                    if self._is_deaf:
                        break
                while connection.recv(65536):  # whatever else comes, until the peer closes
                    pass
            except TimeoutError:
                return  # it was kept open
            except OSError:
                pass  # a reset is an end as well
            if not self._stopping.is_set():
                with self._lock:
                    self.let_go += 1

    def _read(self, connection: socket.socket) -> bool:
        """Read one request; False at the end of the connection."""
        content = b""
        while b"\r\n\r\n" not in content:
            part = connection.recv(65536)
            if not part:
                return False
            content += part
        head, _, body = content.partition(b"\r\n\r\n")
        length = next(
            (int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")),
            0,
        )
        while len(body) < length:
            part = connection.recv(65536)
            if not part:
                return False
            body += part
        self.requests.append(head + b"\r\n\r\n" + body)
        return True

    def stop(self) -> None:
        """End the listener and every wait."""
        self._stopping.set()
        with contextlib.suppress(OSError):  # it may not be listening any more
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


@contextlib.contextmanager
def raw_server(behaviour: Behaviour, *, is_deaf: bool = False) -> Iterator[RawServer]:
    """Run one for as long as the block lasts."""
    server = RawServer(behaviour, is_deaf=is_deaf)
    thread = threading.Thread(target=server.accept, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.stop()
        thread.join(timeout=5)


def answer(body: bytes, *, status: str = "200 OK", headers: bytes = b"content-type: application/json\r\n") -> bytes:
    """A whole answer."""
    return b"HTTP/1.1 %s\r\n%scontent-length: %d\r\n\r\n%s" % (status.encode(), headers, len(body), body)


HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"


def silent(peer: Peer) -> None:
    """Nothing, ever."""
    peer.wait(15)


def drips_head(peer: Peer) -> None:
    """A head that never ends, byte by byte: each read succeeds in time."""
    peer.drip(b"HTTP/1.1 200 OK\r\n" + b"x-more: 1\r\n" * 1000)


def drips_body(peer: Peer) -> None:
    """A body that is slower than any deadline."""
    peer.say(HEAD + b"content-length: 5000\r\n\r\n")
    peer.drip(b" " * 5000)


def streams(peer: Peer) -> None:
    """Server-sent events, which nobody asked for."""
    peer.say(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
    for _ in range(1000):
        peer.say(b'12\r\ndata: {"a": "b"}\n\n\r\n')
        if not peer.wait(0.02):
            return


def endless(peer: Peer) -> None:
    """A body without end, as fast as it is taken."""
    peer.say(HEAD + b"transfer-encoding: chunked\r\n\r\n")
    chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    for _ in range(10_000):
        peer.say(chunk)


def huge_head(peer: Peer) -> None:
    """More header than any answer has."""
    peer.say(b"HTTP/1.1 200 OK\r\n")
    for number in range(20_000):
        peer.say(b"x-%d: %s\r\n" % (number, b"y" * 1000))


def page(peer: Peer) -> None:
    """A web page in the API's place."""
    peer.say(answer(b"<!doctype html><h1>Sign in</h1>", headers=b"content-type: text/html; charset=utf-8\r\n"))


def not_utf8(peer: Peer) -> None:
    """JSON to its content type, and no text."""
    peer.say(answer(b'{"id": "\xff\xfe", "choices": [{"message": {"content": "\xc3\x28"}}]}'))


def two_lengths(peer: Peer) -> None:
    """Headers that contradict one another."""
    peer.say(HEAD + b"content-length: 2\r\ncontent-length: 7\r\n\r\n{}")


def no_protocol(peer: Peer) -> None:
    """Another protocol altogether."""
    peer.say(b"SSH-2.0-OpenSSH_9.6\r\n")
    peer.wait(15)


def redirects(peer: Peer) -> None:
    """To itself, so that following would be seen."""
    peer.say(answer(b"", status="307 Temporary Redirect", headers=b"location: /elsewhere\r\n"))


# Those that go on until the caller ends it.
NEVER_ENDING = (silent, drips_head, drips_body, streams, endless, huge_head, no_protocol)
# Those that end by themselves.
ENDING = (page, not_utf8, two_lengths, redirects)
