"""`ports.SourceEntries` and `ports.FrontDoor`: parameter store and HTTP, and their doubles."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import httpx
import pytest
from moto import mock_aws

from functions.adapters.front_door import HttpFrontDoor
from functions.adapters.source_entries import SsmSourceEntries
from functions.core import ports
from functions.core.failure import StorageUnavailable
from tests.aws_tables import sdk_client
from tests.contract.storage import Flaky, client_error
from tests.synthetic_fakes import FakeFrontDoor, FakeSourceEntries

PATH = "/holdfast/test/sources"

# ------------------------------------------------------------------------------------------------------------- entries


@dataclass
class Entries:
    """The port, and what puts an entry or breaks the store."""

    port: ports.SourceEntries
    put: Callable[[str, str], None]
    break_down: Callable[[], None]


@contextmanager
def in_memory() -> Iterator[Entries]:
    fake = FakeSourceEntries()
    yield Entries(fake, fake.entries.__setitem__, lambda: setattr(fake, "is_down", True))


@contextmanager
def in_ssm() -> Iterator[Entries]:
    with mock_aws():
        client = sdk_client("ssm")
        flaky = Flaky(client)

        def put(source: str, text: str) -> None:
            client.put_parameter(Name=f"{PATH}/{source}", Value=text, Type="SecureString", Overwrite=True)

        def break_down() -> None:
            flaky.planned["get_parameter"] = [client_error("ThrottlingException")] * 10

        yield Entries(SsmSourceEntries(flaky, PATH), put, break_down)  # type: ignore[arg-type]  # it stands in for the client


@pytest.fixture(params=[in_memory, in_ssm], ids=["memory", "ssm"])
def entries(request: pytest.FixtureRequest) -> Iterator[Entries]:
    with request.param() as made:
        yield made


def test_an_entry_is_read_as_it_was_written_last_and_one_that_is_not_there_is_none(entries: Entries) -> None:
    assert entries.port.read("synthetic") is None
    entries.put("synthetic", '{"one": 1}')
    entries.put("other", "{}")
    assert entries.port.read("synthetic") == '{"one": 1}'
    entries.put("synthetic", '{"two": 2}')
    assert entries.port.read("synthetic") == '{"two": 2}'


def test_a_store_that_does_not_answer_is_told_from_an_entry_that_is_not_there(entries: Entries) -> None:
    entries.break_down()
    with pytest.raises(StorageUnavailable):
        entries.port.read("synthetic")


# ---------------------------------------------------------------------------------------------------------------- door


@dataclass
class Door:
    """The port, an address that it reaches, and what came there. `status` is what is answered."""

    port: ports.FrontDoor
    url: str
    came: list[tuple[str, Mapping[str, str], bytes]]
    answer: Callable[[int], None]


@contextmanager
def fake_door() -> Iterator[Door]:
    said = [202]
    fake = FakeFrontDoor(lambda url, *_: 0 if "nowhere" in url or not url.startswith("http") else said[0])
    yield Door(fake, "http://127.0.0.1:1/webhooks/synthetic", fake.posted, lambda status: said.__setitem__(0, status))  # type: ignore[arg-type]  # a list of one kind of mapping


@contextmanager
def real_door() -> Iterator[Door]:
    came: list[tuple[str, Mapping[str, str], bytes]] = []
    said = [202]

    class Answering(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            came.append((f"http://{self.headers['host']}{self.path}", dict(self.headers), body))
            self.send_response(said[0])
            self.send_header("location", "/elsewhere")
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            return

    with HTTPServer(("127.0.0.1", 0), Answering) as server:
        thread = Thread(target=server.serve_forever, daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}/webhooks/synthetic"
        yield Door(HttpFrontDoor(), url, came, lambda status: said.__setitem__(0, status))
        server.shutdown()
        thread.join()


@pytest.fixture(params=[fake_door, real_door], ids=["memory", "http"])
def door(request: pytest.FixtureRequest) -> Iterator[Door]:
    with request.param() as made:
        yield made


def test_what_is_posted_arrives_whole_once_and_the_status_comes_back(door: Door) -> None:
    for number, status in enumerate((202, 401, 503, 307), 1):
        door.answer(status)
        assert door.port.post(door.url, {"webhook-id": "one", "content-type": "application/json"}, b"{}") == status
        assert len(door.came) == number, "nobody is followed elsewhere, and nothing is repeated"
    url, headers, body = door.came[0]
    assert (url, body) == (door.url, b"{}")
    assert {name.lower(): value for name, value in headers.items()}.items() >= {"webhook-id": "one"}.items()


@pytest.mark.parametrize(
    "url", ["http://nowhere.invalid/webhooks/synthetic", "", "no address", "http://nowhere.invalid:99999/"]
)
def test_where_nobody_answers_it_is_0(door: Door, url: str) -> None:
    assert door.port.post(url, {}, b"{}") == 0


def test_an_answer_that_takes_too_long_is_none() -> None:
    def late(request: httpx.Request) -> httpx.Response:
        raise httpx.ReadTimeout("late", request=request)

    assert HttpFrontDoor(httpx.MockTransport(late)).post("https://hooks.example/webhooks/synthetic", {}, b"{}") == 0
