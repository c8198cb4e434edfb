"""Moto behind a socket, for adapters that are not built on the SDK which moto replaces.

Each request's signature is first checked against the SDK's signer, so that what is taken is signed as AWS wants it.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

from botocore.awsrequest import AWSPreparedRequest
from botocore.compat import HTTPHeaders
from moto import mock_aws
from moto.core.botocore_stubber import BotocoreStubber

from functions.adapters.aws_wire import Endpoint, Service
from functions.adapters.sigv4 import Signer
from tests.sdk_signing import sdk_signature

REGION = "us-east-1"
_AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256 Credential=[^/]+/\d{8}/(?P<region>[^/]+)/(?P<service>[^/]+)/aws4_request, "
    r"SignedHeaders=(?P<names>[^,]+), Signature=(?P<signature>[0-9a-f]{64})"
)


@dataclass
class MotoServer:
    """Moto as it is while the block of `moto_server` runs; the SDK's clients see the same state."""

    url: str
    requests: list[str] = field(default_factory=list)  # the operations asked for, in order
    services: list[Service] = field(default_factory=list)

    def service(self, name: str) -> Service:
        """What an adapter needs to talk to that service here."""
        parts = urlsplit(self.url)
        assert parts.hostname is not None
        assert parts.port is not None
        endpoint = Endpoint(parts.hostname, parts.port, is_tls=False, is_override=True)
        service = Service(endpoint, Signer(name, REGION))
        self.services.append(service)
        return service


@contextmanager
def moto_server() -> Iterator[MotoServer]:
    """Moto, empty, for the SDK's clients of this process and for whoever speaks to its address."""
    moto, one_at_a_time = BotocoreStubber(), threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            with one_at_a_time:
                status, headers, content = self._answer(body)
            self.send_response(status)
            for name, value in headers.items():
                if name.lower() not in {"content-length", "transfer-encoding", "connection", "date", "server"}:
                    self.send_header(name, str(value))
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_PUT = do_POST  # noqa: N815  # as the library wants them named

        def _answer(self, body: bytes) -> tuple[int, dict[str, Any], bytes]:
            signed = _AUTHORIZATION.fullmatch(self.headers["authorization"])
            if signed is None:
                return 403, {}, b'{"__type": "IncompleteSignature"}'
            expected = sdk_signature(
                signed["service"],
                signed["region"],
                os.environ["AWS_SECRET_ACCESS_KEY"],  # moto puts one of its own there
                method=self.command,
                url=f"http://{self.headers['host']}{self.path}",
                headers={name: self.headers[name] for name in signed["names"].split(";")},
                body=body,
            )
            if signed["signature"] != expected:
                return 403, {}, b'{"__type": "InvalidSignatureException"}'
            target = self.headers.get("x-amz-target", f"{signed['service']}.{self.command}")
            server.requests.append(target.rpartition(".")[2])
            headers = HTTPHeaders()
            for name, value in self.headers.items():
                headers[name] = value
            # Moto finds a service by the address that the SDK would have used.
            url = f"https://{signed['service']}.{signed['region']}.amazonaws.com{self.path}"
            request = AWSPreparedRequest(self.command, url, headers, body, stream_output=False)
            answer = moto.process_request(request)
            assert answer is not None
            status, given, content = answer
            return status, dict(given), content if isinstance(content, bytes) else content.encode()

        def log_message(self, *_: object) -> None:
            return

    with mock_aws(), ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        listening.daemon_threads = True
        server = MotoServer(f"http://127.0.0.1:{listening.server_address[1]}")
        thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            for service in server.services:
                service.close()
            listening.shutdown()
            thread.join()
