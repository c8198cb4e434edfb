"""The other side of a connection, on this machine, doing what it is told to each who connects."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


@dataclass
class Guest:
    """One connection, as its server sees it."""

    sock: socket.socket
    peer: Peer
    unread: bytes = b""

    def hears(self) -> bytes:
        """The body of the next request, once it is whole. Raises ConnectionError where none comes."""
        while b"\r\n\r\n" not in self.unread:
            self._more()
        head, _, self.unread = self.unread.partition(b"\r\n\r\n")
        lengths = [line[15:] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
        length = int(lengths[0])
        while len(self.unread) < length:
            self._more()
        body, self.unread = self.unread[:length], self.unread[length:]
        self.peer.heads.append(head.decode("ascii"))
        self.peer.bodies.append(body)
        return body

    def says(self, *pieces: bytes) -> None:
        for piece in pieces:
            self.sock.sendall(piece)

    def answers(self, *pieces: bytes) -> None:
        self.hears()
        self.says(*pieces)

    def resets(self) -> None:
        """End the connection with a reset instead of an end."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
        self.sock.close()

    def waits_for_the_end(self) -> None:
        """Say nothing until the other side has closed."""
        with contextlib.suppress(OSError):
            while self.sock.recv(65536):
                pass

    def _more(self) -> None:
        piece = self.sock.recv(65536)
        if not piece:
            raise ConnectionError
        self.unread += piece


Script = Callable[[Guest], None]


@dataclass
class Peer:
    """A server. `connections` and what it has heard tell what a client did."""

    port: int
    connections: int = 0
    heads: list[str] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    ended: list[threading.Event] = field(default_factory=list)

    def has_ended(self, connection: int) -> bool:
        """Wait until the script of that connection, counted from 0, has ended and its socket is closed."""
        return self.ended[connection].wait(30)


def answering(*pieces: bytes) -> Script:
    """Gives these pieces as the answer to every request."""

    def script(guest: Guest) -> None:
        while True:
            guest.answers(*pieces)

    return script


@contextmanager
def peer(*scripts: Script, tls: ssl.SSLContext | None = None) -> Iterator[Peer]:
    """A server whose connections follow `scripts` in their order; those after the last follow the last."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = Peer(listening.getsockname()[1])
        threads: list[threading.Thread] = []
        socks: list[socket.socket] = []

        def serve(sock: socket.socket, script: Script, ended: threading.Event) -> None:
            try:
                with contextlib.suppress(OSError):
                    secured = tls.wrap_socket(sock, server_side=True) if tls else sock
                    socks.append(secured)
                    with secured:
                        script(Guest(secured, server))
            finally:
                sock.close()
                ended.set()

        def accept() -> None:
            while True:
                try:
                    sock, _ = listening.accept()
                except OSError:
                    return
                script = scripts[min(server.connections, len(scripts) - 1)]
                server.ended.append(threading.Event())
                server.connections += 1
                socks.append(sock)
                threads.append(threading.Thread(target=serve, args=(sock, script, server.ended[-1]), daemon=True))
                threads[-1].start()

        accepting = threading.Thread(target=accept, daemon=True)
        accepting.start()
        try:
            yield server
        finally:
            with contextlib.suppress(OSError):
                listening.shutdown(socket.SHUT_RDWR)
            accepting.join(30)
            for sock in socks:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
            for thread in threads:
                thread.join(30)
