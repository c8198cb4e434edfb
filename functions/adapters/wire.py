"""HTTP/1.1 to one host over one connection that is kept, each call bounded in time and in size.

Written on sockets. The standard library's client loads the email package, which costs a small Lambda's cold start more
than everything here, and its timeout bounds each wait of a call, not the call: a peer that sends a byte a second holds
it for ever.

What is read strictly is what decides where an answer ends (RFC 9112, sections 2 to 7): an answer misread is taken for
the next request's. After any trouble the connection is closed, never used again half-read.
"""

from __future__ import annotations

import os
import re
import select
import socket
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from functions.core.clock import Deadline, Monotonic, system_monotonic
from functions.core.failure import HoldfastError

if TYPE_CHECKING:
    import ssl

MAX_HEAD_BYTES: Final = 16 * 1024
MAX_BODY_BYTES: Final = 64 * 1024
_MAX_LINE_BYTES: Final = 1024
_PIECE_BYTES: Final = 64 * 1024

_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9]{2})(?: [^\r\n\0]*)?")
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\r\n\0]*?)[ \t]*")
_LENGTH = re.compile(r"[0-9]{1,10}")
_AMAZON_ROOTS: Final = f"{os.path.dirname(__file__)}/amazon_roots.pem"  # noqa: PTH120  # pathlib takes longer to load
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,8})[ \t]*(?:;[^\r\n\0]*)?")


class NoAnswer(HoldfastError):
    """No answer that can be trusted came in time. The request may have been carried out all the same."""


class _Ended(ConnectionError):
    """The other side closed the connection before its answer was whole."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A final answer, whole. Names of headers are in lower case; the values of a repeated one are joined by `, `."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Connection:
    """Calls one host. Not for several threads: a Lambda environment handles one request at a time."""

    def __init__(
        self,
        host: str,
        port: int,
        *,
        is_tls: bool,
        monotonic: Monotonic = system_monotonic,
        max_body_bytes: int = MAX_BODY_BYTES,
    ) -> None:
        self._host = host
        self._port = port
        self._tls = _trusting_amazon() if is_tls else None
        self._monotonic = monotonic
        self._max_body_bytes = max_body_bytes
        self._lookup: _Lookup | None = None
        self._stream: _Stream | None = None

    def call(self, method: str, target: str, headers: Mapping[str, str], body: bytes, timeout_seconds: float) -> Answer:
        """Send a request and read its answer, whatever its status. Adds the length; `headers` name the host.

        Everything together takes `timeout_seconds` at most, looking up the name included. Raises `NoAnswer`.
        """
        lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
        request = "\r\n".join([*lines, f"content-length: {len(body)}", "", ""]).encode("ascii") + body
        deadline = Deadline.after(timeout_seconds, self._monotonic)
        try:
            return self._call(request, deadline)
        except OSError as exc:
            self.close()
            raise NoAnswer(type(exc).__name__.lstrip("_")) from exc
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the connection if there is one; the next call opens another."""
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.close()

    def _call(self, request: bytes, deadline: Deadline) -> Answer:
        """Use the connection at hand, or open one.

        A kept connection may have been closed by the other side while nothing was asked, which shows only in its use.
        So a failure before the first byte of an answer, on a kept connection, is met with a new one at once, within
        the same time. The first request may have been carried out even so. Every caller can bear that: events are
        stored at least once and the ledger makes one of two, an object put twice is the same object, and the rest is
        read.
        """
        kept = self._stream
        if kept is not None and kept.is_quiet():
            try:
                return self._asked(kept, request, deadline)
            except TimeoutError:
                raise
            except OSError:
                if kept.has_heard:
                    raise
        self.close()
        self._stream = self._opened(deadline)
        return self._asked(self._stream, request, deadline)

    def _asked(self, stream: _Stream, request: bytes, deadline: Deadline) -> Answer:
        stream.send(request, deadline)
        answer, is_kept = stream.answer(self._max_body_bytes, deadline)
        if not is_kept:
            self.close()
        return answer

    def _opened(self, deadline: Deadline) -> _Stream:
        plain = self._reached(deadline)
        if self._tls is None:
            return _Stream(plain)
        import ssl  # noqa: PLC0415  # loaded with the certificates

        try:
            return _Stream(self._secured(plain, self._tls, deadline))
        except ssl.SSLCertVerificationError:
            if self._tls is _trusting_everybody():
                raise
        # A company's own proxy, or an authority of Amazon's that is newer than this code.
        self._tls = _trusting_everybody()
        return _Stream(self._secured(self._reached(deadline), self._tls, deadline))

    def _reached(self, deadline: Deadline) -> socket.socket:
        """Try the host's addresses in turn, each for half of what is left: a dead one leaves time for the next."""
        addresses = self._addresses(deadline)
        for later in reversed(range(len(addresses))):
            try:
                return _reached(addresses[-1 - later], _left(deadline) / (2 if later else 1))
            except OSError:
                if not later:
                    raise
        raise NoAnswer("its name has no address")

    def _secured(self, plain: socket.socket, tls: ssl.SSLContext, deadline: Deadline) -> socket.socket:
        try:
            # As bytes, here and in the look-up, or the codec for international names is loaded.
            name = self._host.encode("ascii")
            secured = tls.wrap_socket(plain, server_hostname=name, do_handshake_on_connect=False)
        except BaseException:
            plain.close()
            raise
        try:
            secured.settimeout(_left(deadline))  # of the handshake as a whole
            secured.do_handshake()
        except BaseException:
            secured.close()
            raise
        return secured

    def _addresses(self, deadline: Deadline) -> list[Any]:
        """Look the host's name up, or wait for the look-up that an earlier call gave up on.

        That may have failed long ago, before this environment was frozen: then it is asked anew.
        """
        lookup = self._lookup
        if lookup is None or lookup.has_failed():
            lookup = self._lookup = _Lookup(self._host, self._port)
        if not lookup.has_ended(_left(deadline)):
            raise TimeoutError
        self._lookup = None
        return lookup.addresses()


class _Lookup:
    """Looks up a name in a thread of its own, because nothing else can bound the time that it takes.

    Giving up on it is harmless: it writes to this object only, holds no lock and keeps no process alive, and the
    system's resolver ends by itself. There is one at a time per connection.
    """

    def __init__(self, host: str, port: int) -> None:
        self._where = (host.encode("ascii"), port)
        self._addresses: list[Any] = []
        self._trouble: Exception | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        try:
            self._thread.start()
        except RuntimeError as exc:
            raise NoAnswer("no thread to look up a name") from exc

    def _run(self) -> None:
        try:
            self._addresses = socket.getaddrinfo(*self._where, type=socket.SOCK_STREAM)
        except Exception as exc:  # noqa: BLE001  # raised again where it is waited for
            self._trouble = exc

    def has_failed(self) -> bool:
        return self._trouble is not None

    def has_ended(self, seconds: float) -> bool:
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def addresses(self) -> list[Any]:
        if self._trouble is not None:
            raise self._trouble
        return self._addresses


def _reached(found: Any, seconds: float) -> socket.socket:
    """A connection to an address as `getaddrinfo` gives it."""
    family, kind, protocol, _, address = found
    plain = socket.socket(family, kind, protocol)
    try:
        plain.settimeout(seconds)
        plain.connect(address)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except BaseException:
        plain.close()
        raise
    return plain


class _Stream:
    """An open connection. Each wait gets what is left of the call's time."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self._read = bytearray()
        self.has_heard = False

    def close(self) -> None:
        self._socket.close()

    def is_quiet(self) -> bool:
        """Whether nothing has come since the last answer: neither an end nor what nobody asked for."""
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        return not poll.poll(0)

    def send(self, request: bytes, deadline: Deadline) -> None:
        self.has_heard = False
        unsent = memoryview(request)
        while unsent:
            self._socket.settimeout(_left(deadline))
            unsent = unsent[self._socket.send(unsent[:_PIECE_BYTES]) :]

    def answer(self, max_body_bytes: int, deadline: Deadline) -> tuple[Answer, bool]:
        """The final answer, and whether the connection can take another request."""
        version, status, headers = self._head(deadline)
        while 100 <= status < 200:
            if status == 101:
                raise NoAnswer("it answered in another protocol")
            version, status, headers = self._head(deadline)
        body = self._body(status, headers, max_body_bytes, deadline)
        is_closing = "close" in headers.get("connection", "").lower()
        return Answer(status, headers, body), version == 1 and not is_closing and not self._read

    def _head(self, deadline: Deadline) -> tuple[int, int, dict[str, str]]:
        first, *fields = self._until(b"\r\n\r\n", MAX_HEAD_BYTES, deadline).split(b"\r\n")
        start = _STATUS_LINE.fullmatch(first)
        if start is None:
            raise NoAnswer("it did not answer in HTTP")
        headers: dict[str, str] = {}
        for line in fields:
            field = _FIELD.fullmatch(line)
            if field is None:
                raise NoAnswer("a header of the answer cannot be read")
            name, value = field[1].decode("ascii").lower(), field[2].decode("latin-1")
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
        return int(start[1]), int(start[2]), headers

    def _body(self, status: int, headers: Mapping[str, str], max_bytes: int, deadline: Deadline) -> bytes:
        coding, length = headers.get("transfer-encoding"), headers.get("content-length")
        if status in (204, 304):
            return b""
        if coding is not None:
            if length is not None or coding.lower() != "chunked":
                raise NoAnswer("where the answer ends cannot be told")
            return self._chunks(max_bytes, deadline)
        # Without a length an answer ends with the connection, and one cut short looks whole.
        if length is None or not _LENGTH.fullmatch(length):
            raise NoAnswer("where the answer ends cannot be told")
        if int(length) > max_bytes:
            raise NoAnswer("the answer is too large")
        return self._take(int(length), deadline)

    def _chunks(self, max_bytes: int, deadline: Deadline) -> bytes:
        body = bytearray()
        while True:
            chunk = _CHUNK.fullmatch(self._until(b"\r\n", _MAX_LINE_BYTES, deadline))
            if chunk is None:
                raise NoAnswer("a chunk of the answer cannot be read")
            size = int(chunk[1], 16)
            if len(body) + size > max_bytes:
                raise NoAnswer("the answer is too large")
            if not size:
                break
            body += self._take(size, deadline)
            if self._take(2, deadline) != b"\r\n":
                raise NoAnswer("a chunk of the answer cannot be read")
        trailers = 0
        while line := self._until(b"\r\n", _MAX_LINE_BYTES, deadline):
            trailers += len(line)
            if trailers > MAX_HEAD_BYTES:
                raise NoAnswer("the answer is too large")
        return bytes(body)

    def _until(self, end: bytes, max_bytes: int, deadline: Deadline) -> bytes:
        """What comes before `end`, which is read too."""
        seen = 0
        while (at := self._read.find(end, max(0, seen - len(end) + 1))) < 0:
            seen = len(self._read)
            if seen > max_bytes:
                raise NoAnswer("the answer is too large, or not HTTP")
            self._hear(deadline)
        found = bytes(self._read[:at])
        del self._read[: at + len(end)]
        return found

    def _take(self, size: int, deadline: Deadline) -> bytes:
        while len(self._read) < size:
            self._hear(deadline)
        taken = bytes(self._read[:size])
        del self._read[:size]
        return taken

    def _hear(self, deadline: Deadline) -> None:
        self._socket.settimeout(_left(deadline))
        piece = self._socket.recv(_PIECE_BYTES)
        if not piece:
            raise _Ended
        self.has_heard = True
        self._read += piece


def _left(deadline: Deadline) -> float:
    """What a socket may wait. Never 0, which would mean not to wait at all: then it is over."""
    seconds = deadline.remaining_seconds()
    if seconds <= 0:
        raise TimeoutError
    return seconds


@cache
def _trusting_amazon() -> ssl.SSLContext:
    """For the first try at every host: the five authorities that AWS's endpoints have their certificates from.

    Reading those of the whole world costs a cold start more than everything else here; reading five costs a tenth of
    that. Where SSL_CERT_FILE says whom to trust, that is whom. From https://www.amazontrust.com/repository/.
    """
    if os.environ.get("SSL_CERT_FILE"):
        return _trusting_everybody()
    import ssl  # noqa: PLC0415  # a plain endpoint, on a developer's machine, does without

    return ssl.create_default_context(cafile=_AMAZON_ROOTS)


@cache
def _trusting_everybody() -> ssl.SSLContext:
    """The authorities that the system or SSL_CERT_FILE names."""
    import ssl  # noqa: PLC0415  # see above

    return ssl.create_default_context()
