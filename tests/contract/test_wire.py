"""HTTP over one kept connection: whatever the other side does, a call ends in time, with an answer or none at all."""

from __future__ import annotations

import datetime as dt
import hashlib
import ipaddress
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from functions.adapters import wire
from functions.adapters.wire import Answer, Connection, NoAnswer
from functions.core.clock import Deadline
from tests.contract.peer import OK, Guest, Script, answering, peer

AMPLE = 30.0  # seconds that no test comes near
SHORT = 0.1  # where waiting is what a test is about
HEADERS = {"host": "h"}
Open = Callable[..., Connection]


@pytest.fixture
def connected() -> Iterator[Open]:
    """Makes connections to a port of this machine, and closes them."""
    made: list[Connection] = []

    def connect(port: int, host: str = "127.0.0.1", *, is_tls: bool = False, **more: Any) -> Connection:
        made.append(Connection(host, port, is_tls=is_tls, **more))
        return made[-1]

    yield connect
    for connection in made:
        connection.close()


class Steps:
    """A clock that goes on by a second each time somebody looks, which is before each wait."""

    def __init__(self) -> None:
        self.now = 0.0
        self.looks = threading.Semaphore(0)

    def __call__(self) -> float:
        self.now += 1
        self.looks.release()
        return self.now


def say(connection: Connection, body: bytes = b"{}", seconds: float = AMPLE) -> Answer:
    return connection.call("POST", "/", HEADERS, body, seconds)


# ------------------------------------------------------------------------------------------------------------- answers


def test_requests_follow_each_other_on_one_connection(connected: Open) -> None:
    with peer(answering(OK)) as server:
        connection = connected(server.port)
        for body in (b"a", b"", b"c" * 3_000_000):
            assert say(connection, body) == Answer(200, {"content-length": "2"}, b"ok")
        assert server.connections == 1
        assert server.bodies == [b"a", b"", b"c" * 3_000_000]
        assert server.heads[0] == "POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 1"


ANSWERS = {
    "a length": (OK, b"ok"),
    "byte by byte": (b"HTTP/1.1 200 OK\r\nContent-Length:2\r\n\r\nok", b"ok"),
    "no reason": (b"HTTP/1.1 200\r\nCONTENT-LENGTH: \t 2 \r\n\r\nok", b"ok"),
    "nothing in it": (b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", b""),
    "in chunks": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n1\r\no\r\n0a;x=y\r\nk123456789\r\n0\r\n\r\n",
        b"ok123456789",
    ),
    "in chunks with trailers": (
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\na: b\r\nc: d\r\n\r\n",
        b"ok",
    ),
    "after interim ones": (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" + OK, b"ok"),
    "no content": (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
}


@pytest.mark.parametrize(("raw", "body"), ANSWERS.values(), ids=ANSWERS)
def test_an_answer_is_read_to_its_end_and_no_further(connected: Open, raw: bytes, body: bytes) -> None:
    pieces = [raw[at : at + 1] for at in range(len(raw))]
    with peer(answering(*pieces)) as server:
        connection = connected(server.port)
        assert [say(connection).body for _ in range(3)] == [body] * 3
        assert server.connections == 1


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 200 OK\r\nConnection: close\r\ncontent-length: 2\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok",
        OK + b"HTTP/1.1 500 Unasked\r\n",
    ],
    ids=["told to close", "an old version", "more than was asked for"],
)
def test_a_connection_that_cannot_take_another_request_is_not_given_one(connected: Open, raw: bytes) -> None:
    with peer(answering(raw)) as server:
        connection = connected(server.port)
        assert [say(connection).status for _ in range(2)] == [200, 200]
        assert server.connections == 2


@pytest.mark.parametrize("is_late", [False, True], ids=["at once", "later"])
def test_what_nobody_asked_for_is_not_taken_for_the_next_answer(connected: Open, is_late: bool) -> None:
    answered, said = threading.Event(), threading.Event()

    def unasked(guest: Guest) -> None:
        guest.answers(OK)
        if is_late:
            assert answered.wait(AMPLE)
        guest.says(b"HTTP/1.1 500 Unasked\r\ncontent-length: 0\r\n\r\n")
        said.set()
        guest.waits_for_the_end()

    with peer(unasked, answering(OK)) as server:
        connection = connected(server.port)
        assert say(connection).status == 200
        answered.set()
        assert said.wait(AMPLE)
        assert say(connection).status == 200
        assert server.connections == 2


def test_repeated_headers_are_joined_and_names_are_lowered(connected: Open) -> None:
    with peer(answering(b"HTTP/1.1 400 No\r\nX-A: 1\r\nx-a: 2\r\ncontent-length: 0\r\n\r\n")) as server:
        answer = say(connected(server.port))
    assert (answer.status, answer.headers["x-a"]) == (400, "1, 2")


GARBAGE = {
    "no HTTP": b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
    "another version": b"HTTP/2 200\r\ncontent-length: 0\r\n\r\n",
    "no status": b"HTTP/1.1 OK\r\ncontent-length: 0\r\n\r\n",
    "a status nobody knows": b"HTTP/1.1 999 Odd\r\ncontent-length: 0\r\n\r\n",
    "bare line feeds": b"HTTP/1.1 200 OK\ncontent-length: 0\n\n\r\n\r\n",
    "another protocol": b"HTTP/1.1 101 Switching\r\n\r\n",
    "a folded header": b"HTTP/1.1 200 OK\r\na: b\r\n c\r\ncontent-length: 0\r\n\r\n",
    "a header without a name": b"HTTP/1.1 200 OK\r\n: b\r\ncontent-length: 0\r\n\r\n",
    "a header without a colon": b"HTTP/1.1 200 OK\r\nab\r\ncontent-length: 0\r\n\r\n",
    "a name with a space": b"HTTP/1.1 200 OK\r\ncontent-length : 0\r\n\r\n",
    "a NUL": b"HTTP/1.1 200 OK\r\na: \0\r\ncontent-length: 0\r\n\r\n",
    "no length": b"HTTP/1.1 200 OK\r\n\r\nok",
    "a negative length": b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
    "a signed length": b"HTTP/1.1 200 OK\r\ncontent-length: +2\r\n\r\nok",
    "two lengths": b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nok",
    "an endless length": b"HTTP/1.1 200 OK\r\ncontent-length: " + b"9" * 4000 + b"\r\n\r\n",
    "a length and chunks": b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "another coding": b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "a chunk of no number": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nxyz\r\n",
    "a chunk of another size": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nok\r\n0\r\n\r\n",
    "a negative chunk": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n-1\r\n\r\n",
    "too much": b"HTTP/1.1 200 OK\r\ncontent-length: 65537\r\n\r\n",
    "too much in one chunk": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nffffffff\r\n",
    "too much in two chunks": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n8000\r\n%b\r\n8001\r\n"
    % (b"x" * 32768),
    "too long a line of a chunk": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1;" + b"x" * 5000,
    "too many trailers": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n" + b"a: bcdef\r\n" * 5000,
    "too many headers": b"HTTP/1.1 200 OK\r\n" + b"a: bcdef\r\n" * 5000,
}


@pytest.mark.parametrize("raw", GARBAGE.values(), ids=GARBAGE)
def test_what_cannot_be_read_is_no_answer_and_its_connection_is_done_with(connected: Open, raw: bytes) -> None:
    def garbage(guest: Guest) -> None:
        guest.answers(raw)
        guest.waits_for_the_end()

    with peer(garbage, answering(OK)) as server:
        connection = connected(server.port)
        with pytest.raises(NoAnswer):
            say(connection)
        assert server.has_ended(0)
        assert say(connection).body == b"ok"
        assert server.connections == 2


# ------------------------------------------------------------------------------------------------------------- trouble


def test_nobody_listening_is_no_answer(connected: Open) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        with pytest.raises(NoAnswer, match="ConnectionRefusedError"):
            say(connected(nobody.getsockname()[1]))


def cut(guest: Guest) -> None:
    guest.answers(OK[:-1])


def reset(guest: Guest) -> None:
    guest.answers(OK[:-1])
    guest.resets()


def ended(guest: Guest) -> None:
    guest.hears()


@pytest.mark.parametrize("script", [cut, reset, ended])
def test_an_answer_cut_short_is_no_answer_and_the_request_is_not_sent_again(connected: Open, script: Script) -> None:
    with peer(script, answering(OK)) as server:
        connection = connected(server.port)
        with pytest.raises(NoAnswer):
            say(connection)
        assert server.connections == 1
        assert say(connection).status == 200


@pytest.mark.parametrize("script", [cut, reset], ids=["cut", "reset"])
def test_an_answer_cut_short_on_a_kept_connection_is_not_asked_for_again_either(
    connected: Open, script: Script
) -> None:
    def second(guest: Guest) -> None:
        guest.answers(OK)
        script(guest)

    with peer(second, answering(OK)) as server:
        connection = connected(server.port)
        say(connection)
        with pytest.raises(NoAnswer):
            say(connection)
        assert server.connections == 1


def gone_at_once(guest: Guest) -> None:
    guest.answers(OK)


def gone_with_a_reset(guest: Guest) -> None:
    guest.answers(OK)
    guest.resets()


@pytest.mark.parametrize("script", [gone_at_once, gone_with_a_reset])
def test_a_kept_connection_that_was_closed_while_idle_is_opened_again(connected: Open, script: Script) -> None:
    with peer(script, answering(OK)) as server:
        connection = connected(server.port)
        say(connection, b"first")
        assert server.has_ended(0)
        assert say(connection, b"second").body == b"ok"
        assert server.connections == 2
        assert server.bodies == [b"first", b"second"]


def gone_when_asked(guest: Guest) -> None:
    guest.answers(OK)
    guest.hears()


def gone_when_asked_with_a_reset(guest: Guest) -> None:
    guest.answers(OK)
    guest.hears()
    guest.resets()


@pytest.mark.parametrize("script", [gone_when_asked, gone_when_asked_with_a_reset])
def test_a_kept_connection_that_closes_without_a_byte_is_opened_again_once(connected: Open, script: Script) -> None:
    with peer(script, answering(OK)) as server:
        connection = connected(server.port)
        say(connection, b"first")
        assert say(connection, b"second").body == b"ok"
        assert server.connections == 2
        assert server.bodies == [b"first", b"second", b"second"]


def test_it_is_opened_again_once_only(connected: Open) -> None:
    with peer(gone_when_asked, ended) as server:
        connection = connected(server.port)
        say(connection)
        with pytest.raises(NoAnswer):
            say(connection)
        assert server.connections == 2


# ---------------------------------------------------------------------------------------------------------------- time


def test_no_time_left_is_no_answer_and_nothing_is_sent(connected: Open) -> None:
    with peer(answering(OK)) as server:
        connection = connected(server.port)
        say(connection)
        for seconds in (0.0, -1.0):
            with pytest.raises(NoAnswer, match="TimeoutError"):
                say(connection, seconds=seconds)
        assert len(server.bodies) == 1


def silent(guest: Guest) -> None:
    guest.waits_for_the_end()


def silent_when_kept(guest: Guest) -> None:
    guest.answers(OK)
    guest.waits_for_the_end()


def test_silence_is_no_answer_and_what_comes_late_is_not_the_next_ones(connected: Open) -> None:
    with peer(silent, answering(OK)) as server:
        connection = connected(server.port)
        with pytest.raises(NoAnswer, match="TimeoutError"):
            say(connection, seconds=SHORT)
        assert server.has_ended(0)
        assert say(connection).status == 200


def test_silence_on_a_kept_connection_uses_the_time_up_without_another_try(connected: Open) -> None:
    with peer(silent_when_kept, answering(OK)) as server:
        connection = connected(server.port)
        say(connection)
        with pytest.raises(NoAnswer, match="TimeoutError"):
            say(connection, seconds=SHORT)
        assert server.connections == 1


HEAD = b"HTTP/1.1 200 OK\r\ncontent-length: 60000\r\n\r\n"
DRIPS: dict[str, tuple[bytes, bytes]] = {
    "a head without end": (b"HTTP/1.1 200 OK\r\na: ", b"x"),
    "a body": (HEAD, b"x"),
    "chunks": (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
    "interim answers for ever": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
}


@pytest.mark.parametrize(("start", "drop"), DRIPS.values(), ids=DRIPS)
def test_a_dripping_answer_does_not_outlast_the_call(connected: Open, start: bytes, drop: bytes) -> None:
    """Each drop comes at once when it is waited for, so that no timeout of one wait ever ends it."""
    clock = Steps()

    def drip(guest: Guest) -> None:
        guest.answers(start)
        while clock.looks.acquire(timeout=AMPLE):
            guest.says(drop)

    with peer(drip) as server:
        with pytest.raises(NoAnswer, match="TimeoutError"):
            say(connected(server.port, monotonic=clock), seconds=40)
        assert 40 < clock.now < 45
        clock.looks.release(1000)
        assert server.has_ended(0)


def test_a_peer_that_takes_nothing_in_does_not_hold_the_call(connected: Open) -> None:
    done = threading.Event()

    def deaf(guest: Guest) -> None:
        done.wait(AMPLE)

    with peer(deaf) as server:
        with pytest.raises(NoAnswer, match="TimeoutError"):
            say(connected(server.port), b"x" * 30_000_000, seconds=0.3)
        done.set()


def test_a_peer_that_takes_in_sip_by_sip_does_not_hold_the_call(connected: Open) -> None:
    clock = Steps()

    def sip(guest: Guest) -> None:
        while guest.sock.recv(100):
            pass

    with peer(sip) as server:
        with pytest.raises(NoAnswer, match="TimeoutError"):
            say(connected(server.port, monotonic=clock), b"x" * 30_000_000, seconds=20)
        assert 20 < clock.now < 25


class RecordingSocket:
    """Takes and gives a little at a time, and keeps how long it might have waited."""

    def __init__(self) -> None:
        self.timeouts: list[float] = []
        self.unsent = [10, 10, 1000]
        self.answer = [OK[at : at + 9] for at in range(0, len(OK), 9)]

    def settimeout(self, seconds: float) -> None:
        self.timeouts.append(seconds)

    def send(self, piece: memoryview) -> int:
        return min(self.unsent.pop(0), len(piece))

    def recv(self, _: int) -> bytes:
        return self.answer.pop(0)


def test_every_wait_of_a_call_gets_what_is_left_of_it() -> None:
    recording = RecordingSocket()
    stream = wire._Stream(recording)  # type: ignore[arg-type]  # as much of a socket as is used
    deadline = Deadline.after(100, Steps())
    stream.send(b"x" * 30, deadline)
    answer, is_kept = stream.answer(100, deadline)
    assert (answer.body, is_kept) == (b"ok", True)
    assert recording.timeouts == [100.0 - waits for waits in range(1, 4 + -(-len(OK) // 9))]


# ----------------------------------------------------------------------------------------------------- names, addresses


class Names:
    """A resolver that answers when it is let."""

    def __init__(self, *addresses: tuple[str, int]) -> None:
        self.addresses = addresses
        self.asked: list[object] = []
        self.may_answer = threading.Event()
        self.trouble: OSError | None = None

    def __call__(self, host: object, port: int, **_: object) -> list[Any]:
        self.asked.append(host)
        self.may_answer.wait(AMPLE)
        if self.trouble is not None:
            raise self.trouble
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", address) for address in self.addresses]


def test_a_resolver_that_hangs_is_given_up_on_and_its_late_word_is_used(
    connected: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    with peer(answering(OK)) as server:
        names = Names(("127.0.0.1", server.port))
        monkeypatch.setattr(socket, "getaddrinfo", names)
        connection = connected(server.port, "sqs.example")
        for _ in range(3):
            with pytest.raises(NoAnswer, match="TimeoutError"):
                say(connection, seconds=0.02)
        assert names.asked == [b"sqs.example"]  # one at a time
        names.may_answer.set()
        assert say(connection).status == 200
        connection.close()
        assert say(connection).status == 200
        assert len(names.asked) == 2  # what was found is not believed for ever


def test_a_name_that_nobody_knows_is_no_answer_and_is_looked_up_again(
    connected: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    with peer(answering(OK)) as server:
        names = Names(("127.0.0.1", server.port))
        names.may_answer.set()
        names.trouble = socket.gaierror(socket.EAI_NONAME, "unknown")
        monkeypatch.setattr(socket, "getaddrinfo", names)
        connection = connected(server.port, "sqs.example")
        with pytest.raises(NoAnswer, match="gaierror"):
            say(connection)
        names.trouble = None
        assert say(connection).status == 200


def test_a_late_failure_of_the_resolver_is_not_the_next_calls(connected: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next call may come hours later, when the environment is thawed."""
    with peer(answering(OK)) as server:
        names = Names(("127.0.0.1", server.port))
        monkeypatch.setattr(socket, "getaddrinfo", names)
        connection = connected(server.port, "sqs.example")
        before = set(threading.enumerate())
        with pytest.raises(NoAnswer, match="TimeoutError"):
            say(connection, seconds=0.02)
        names.trouble = socket.gaierror(socket.EAI_AGAIN, "try again")
        left = set(threading.enumerate()) - before
        names.may_answer.set()
        for lookup in left:
            lookup.join(AMPLE)
        names.trouble = None
        assert say(connection).status == 200


def test_no_address_at_all_is_no_answer(connected: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    names = Names()
    names.may_answer.set()
    monkeypatch.setattr(socket, "getaddrinfo", names)
    with pytest.raises(NoAnswer):
        say(connected(1, "sqs.example"))


def test_a_machine_out_of_threads_is_no_answer(connected: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_more(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with peer(answering(OK)) as server:
        connection = connected(server.port)
        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", no_more)
            with pytest.raises(NoAnswer, match="thread"):
                say(connection)
        assert say(connection).status == 200


def test_an_address_that_refuses_leaves_the_next_one_its_turn(connected: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    with peer(answering(OK)) as server, socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        names = Names(nobody.getsockname(), ("127.0.0.1", server.port))
        names.may_answer.set()
        monkeypatch.setattr(socket, "getaddrinfo", names)
        assert say(connected(1, "sqs.example")).status == 200


def test_an_address_that_swallows_everything_leaves_the_next_one_half_of_the_time(
    connected: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float | None] = []

    class Swallowing(socket.socket):
        def connect(self, address: object) -> None:
            waits.append(self.gettimeout())
            raise TimeoutError

    names = Names(*[("127.0.0.1", 1)] * 3)
    names.may_answer.set()
    monkeypatch.setattr(socket, "getaddrinfo", names)
    monkeypatch.setattr(socket, "socket", Swallowing)
    with pytest.raises(NoAnswer, match="TimeoutError"):
        say(connected(1, "sqs.example", monotonic=Steps()), seconds=101)
    assert waits == [99 / 2, 98 / 2, 97]


# ----------------------------------------------------------------------------------------------------------------- TLS


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A key and a certificate of its own authority, for 127.0.0.1 only."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a test")])
    born = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(born)
        .not_valid_after(born.replace(year=2120))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path / "both.pem"
    path.write_bytes(
        made.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return path


@pytest.fixture
def tls(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


@pytest.fixture
def trusted(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The process trusts the certificate, as an operator would have it."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    forget_whom_to_trust()
    yield
    forget_whom_to_trust()


def forget_whom_to_trust() -> None:
    wire._trusting_amazon.cache_clear()
    wire._trusting_everybody.cache_clear()


# https://www.amazontrust.com/repository/: SHA-256 of the certificates, in DER.
AMAZON_ROOTS = {
    "Amazon Root CA 1": "8ecde6884f3d87b1125ba31ac3fcb13d7016de7f57cc904fe1cb97c6ae98196e",
    "Amazon Root CA 2": "1ba5b2aa8c65401a82960118f80bec4f62304d83cec4713a19c39c011ea46db4",
    "Amazon Root CA 3": "18ce6cfe7bf14e60b2e347b8dfe868cb31d02ebb3ada271569f50343b46db3a4",
    "Amazon Root CA 4": "e35d28419ed02025cfa69038cd623962458da5c695fbdea3c22b0bfb25897092",
    "Starfield Services Root Certificate Authority - G2": (
        "568d6905a2c88708a4b3025190edcfedb1974a606a13c6e5290fcb2ae63edab5"
    ),
}


def test_the_authorities_trusted_first_are_amazons_own_and_no_others() -> None:
    parts = Path(wire._AMAZON_ROOTS).read_text().split("-----END CERTIFICATE-----\n")
    found = {
        hashlib.sha256(ssl.PEM_cert_to_DER_cert(f"{part}-----END CERTIFICATE-----\n")).hexdigest()
        for part in parts
        if part
    }
    assert found == set(AMAZON_ROOTS.values())


def test_a_peer_that_amazon_does_not_vouch_for_needs_the_systems_trust(
    connected: Open, tls: ssl.SSLContext, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a company's own proxy stands between, or after Amazon has founded another authority."""
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    forget_whom_to_trust()
    systems = ssl.create_default_context(cafile=str(certificate))
    monkeypatch.setattr(wire, "_trusting_everybody", lambda: systems)
    with peer(answering(OK), tls=tls) as server:
        connection = connected(server.port, is_tls=True)
        assert [say(connection).status for _ in range(2)] == [200, 200]
        assert server.connections == 2  # one was refused before anything was said on it
        assert len(server.heads) == 2


@pytest.mark.usefixtures("trusted")
def test_a_trusted_peer_is_spoken_to_over_one_secured_connection(connected: Open, tls: ssl.SSLContext) -> None:
    with peer(answering(OK), tls=tls) as server:
        connection = connected(server.port, is_tls=True)
        assert [say(connection, b"x" * 300_000).body for _ in range(3)] == [b"ok"] * 3
        assert server.connections == 1


@pytest.mark.usefixtures("trusted")
def test_a_secured_connection_closed_while_idle_is_opened_again(connected: Open, tls: ssl.SSLContext) -> None:
    with peer(gone_at_once, gone_when_asked, answering(OK), tls=tls) as server:
        connection = connected(server.port, is_tls=True)
        say(connection)
        assert server.has_ended(0)
        assert say(connection).status == 200
        assert say(connection).status == 200
        assert server.connections == 3


def test_an_untrusted_peer_hears_nothing(connected: Open, tls: ssl.SSLContext) -> None:
    with peer(answering(OK), tls=tls) as server:
        with pytest.raises(NoAnswer, match="SSLCertVerificationError"):
            say(connected(server.port, is_tls=True))
        assert server.heads == []


@pytest.mark.usefixtures("trusted")
def test_a_peer_with_somebody_elses_certificate_hears_nothing(connected: Open, tls: ssl.SSLContext) -> None:
    with peer(answering(OK), tls=tls) as server:
        with pytest.raises(NoAnswer, match="SSLCertVerificationError"):
            say(connected(server.port, "localhost", is_tls=True))
        assert server.heads == []


def test_a_handshake_that_never_ends_does_not_hold_the_call(connected: Open) -> None:
    with peer(silent) as server:
        with pytest.raises(NoAnswer, match="TimeoutError"):
            say(connected(server.port, is_tls=True), seconds=SHORT)
        assert server.has_ended(0)


def test_a_peer_without_tls_hears_nothing_of_the_request(connected: Open) -> None:
    def plain(guest: Guest) -> None:
        guest.says(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with peer(plain) as server:
        with pytest.raises(NoAnswer, match="Error"):
            say(connected(server.port, is_tls=True))
        assert server.heads == []
