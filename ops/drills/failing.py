"""AWS services that fail on purpose: addresses on this machine that a function is led to instead of the emulator."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from enum import StrEnum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from ops.stack import Stack

_UPDATE_SECONDS = 30.0


class Trouble(StrEnum):
    """How a service fails, for every request."""

    THROTTLED = "throttled"
    ERROR = "error"
    SILENT = "silent"
    REFUSED = "refused"


class _Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        trouble, over = self.server.trouble, self.server.over  # type: ignore[attr-defined]  # set below
        if trouble is Trouble.SILENT:
            over.wait()
            self.close_connection = True
            return
        self.rfile.read(int(self.headers.get("content-length", "0")))
        is_throttled = trouble is Trouble.THROTTLED
        # AWS's JSON protocol names the error in the body; a throttled request is a 400 there.
        body = b'{"__type":"com.amazonaws.sqs#%s"}' % (b"RequestThrottled" if is_throttled else b"InternalError")
        self.send_response(400 if is_throttled else 500)
        self.send_header("content-type", "application/x-amz-json-1.0")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_PUT(self) -> None:
        self.do_POST()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the name is the base class's
        """Say nothing: the functions' own logs tell."""


@contextlib.contextmanager
def failing(trouble: Trouble) -> Iterator[str]:
    """The address of a service that fails in this way for as long as the context lasts."""
    if trouble is Trouble.REFUSED:
        with socket.socket() as taken:  # bound and not listening: nobody else gets the port, and nobody gets in
            taken.bind(("127.0.0.1", 0))
            yield f"http://127.0.0.1:{taken.getsockname()[1]}"
        return
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Answer)
    server.daemon_threads = True
    over = threading.Event()
    server.trouble, server.over = trouble, over  # type: ignore[attr-defined]  # read by the handler
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        over.set()
        server.shutdown()
        server.server_close()


@contextlib.contextmanager
def pointed_at(stack: Stack, function_output: str, endpoints: Mapping[str, str]) -> Iterator[None]:
    """The function with other addresses of some services (`SQS`, `S3`, `SSM`), for as long as the context lasts."""
    function = stack.output(function_output)
    before = dict(_configuration(stack, function).get("Environment", {}).get("Variables", {}))
    other = {f"AWS_ENDPOINT_URL_{service}": url for service, url in endpoints.items()}
    _set_environment(stack, function, before | other)
    try:
        yield
    finally:
        _set_environment(stack, function, before)


def _set_environment(stack: Stack, function: str, variables: Mapping[str, str]) -> None:
    stack.client("lambda").update_function_configuration(
        FunctionName=function, Environment={"Variables": dict(variables)}
    )
    deadline = time.monotonic() + _UPDATE_SECONDS
    while _configuration(stack, function).get("LastUpdateStatus", "Successful") != "Successful":
        if time.monotonic() > deadline:
            raise TimeoutError(f"{function} was not updated within {_UPDATE_SECONDS:.0f} s")
        time.sleep(0.1)


def _configuration(stack: Stack, function: str) -> Mapping[str, Any]:
    configuration: Mapping[str, Any] = stack.client("lambda").get_function_configuration(FunctionName=function)
    return configuration
