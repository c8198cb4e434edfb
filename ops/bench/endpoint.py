"""A local stand-in for SQS and Parameter Store that answers at once and counts who asked for what.

It speaks what both clients speak: JSON over HTTP/1.1 on one port, the operation in `X-Amz-Target`
(https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-making-api-requests-json.html), with
keep-alive and, unless told otherwise, TLS. Callers are told apart by the access key in their signature, which is not
verified: both would be right. It runs in a process of its own, so that its work is in nobody's figures.

- `POST /`: `AmazonSQS.SendMessage`, `AmazonSSM.GetParameter`; anything else is refused
- `GET /_bench/counts` → `{access_key: {operation: requests}}`
- `GET /_bench/last/{access_key}` → the body and attributes of the caller's last message
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import http.client
import ipaddress
import json
import re
import ssl
import struct
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

ROOT = Path(__file__).resolve().parent.parent.parent
HOST = "127.0.0.1"
MAX_BODY_BYTES = 2 * 1024 * 1024
_ACCESS_KEY = re.compile(r"AWS4-HMAC-SHA256 .*?Credential=([^/,\s]{1,128})/")
_PHRASES = {200: "OK", 400: "Bad Request", 403: "Forbidden", 404: "Not Found", 411: "Length Required", 413: "Too Large"}


class EndpointFailed(Exception):
    """The endpoint did not start, or does not know what it is asked for."""


class Refusal(Exception):
    """An answer that is no success. `code` is the error's name as AWS would give it."""

    def __init__(self, status: int, code: str) -> None:
        super().__init__(code)
        self.status = status
        self.code = code


@dataclass(slots=True)
class World:
    """What the endpoint knows and has seen."""

    parameters: Mapping[str, str]
    counts: dict[str, Counter[str]] = field(default_factory=dict)
    last: dict[str, dict[str, Any]] = field(default_factory=dict)

    def answer(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> dict[str, Any]:
        """What a request is answered. Raises `Refusal`."""
        if method == "GET" and path == "/_bench/counts":
            return {name: dict(counter) for name, counter in self.counts.items()}
        if method == "GET" and path.startswith("/_bench/last/"):
            last = self.last.get(path.removeprefix("/_bench/last/"))
            if last is None:
                raise Refusal(404, "NothingSent")
            return last
        if method != "POST" or path != "/":
            raise Refusal(404, "UnknownOperationException")
        signed = _ACCESS_KEY.match(headers.get("authorization", ""))
        if signed is None:
            raise Refusal(403, "MissingAuthenticationTokenException")
        caller, operation = signed.group(1), headers.get("x-amz-target", "")
        self.counts.setdefault(caller, Counter())[operation.rpartition(".")[2]] += 1
        try:
            asked = json.loads(body)
            match operation:
                case "AmazonSQS.SendMessage":
                    return self._sent(caller, asked)
                case "AmazonSSM.GetParameter":
                    return self._parameter(asked["Name"])
        except (ValueError, KeyError, TypeError, AttributeError) as exc:
            raise Refusal(400, "SerializationException") from exc
        raise Refusal(400, "UnknownOperationException")

    def _sent(self, caller: str, asked: dict[str, Any]) -> dict[str, Any]:
        body, attributes = asked["MessageBody"], asked.get("MessageAttributes", {})
        content = body.encode()
        digest = hashlib.md5(content, usedforsecurity=False).hexdigest()
        answer = {"MessageId": f"{digest[:8]}-0000-4000-8000-{digest[8:20]}", "MD5OfMessageBody": digest}
        if attributes:
            answer["MD5OfMessageAttributes"] = md5_of_attributes(attributes)
        self.last[caller] = {"body": body, "attributes": attributes, "queue_url": asked["QueueUrl"]}
        return answer

    def _parameter(self, name: str) -> dict[str, Any]:
        value = self.parameters.get(name)
        if value is None:
            raise Refusal(400, "ParameterNotFound")
        arn = f"arn:aws:ssm:us-east-1:000000000000:parameter{name}"
        kept = {"Name": name, "Type": "SecureString", "Value": value, "Version": 1, "LastModifiedDate": 1.7e9}
        return {"Parameter": {**kept, "ARN": arn, "DataType": "text"}}


def md5_of_attributes(attributes: Mapping[str, Mapping[str, str]]) -> str:
    """The digest that SQS gives of a message's attributes, as JSON has them (binary values in base64).

    https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-message-metadata.html
    """
    state = hashlib.md5(usedforsecurity=False)
    for name, attribute in sorted(attributes.items()):
        for text in (name, attribute["DataType"]):
            state.update(struct.pack(">I", len(text.encode())) + text.encode())
        is_binary = attribute["DataType"].startswith("Binary")
        value = base64.b64decode(attribute["BinaryValue"]) if is_binary else attribute["StringValue"].encode()
        state.update((b"\x02" if is_binary else b"\x01") + struct.pack(">I", len(value)) + value)
    return state.hexdigest()


async def _serve(world: World, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    # A caller that goes away in the middle, or whose headers have no end, ends its own connection and nothing else.
    with contextlib.suppress(asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError):
        while await _one_request(world, reader, writer):
            pass
    writer.close()


async def _one_request(world: World, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    """Answer one request; gives whether another may follow on this connection."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.rstrip("\r\n").split("\r\n")
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    stays = headers.get("connection", "").lower() != "close"
    try:
        method, path, *_ = first.split(" ")
        answer, status = world.answer(method, path, headers, await _body(headers, reader)), 200
    except ValueError:
        answer, status, stays = {"__type": "SerializationException"}, 400, False
    except Refusal as refusal:
        answer, status = {"__type": refusal.code, "message": refusal.code}, refusal.status
        stays = stays and status not in (411, 413)  # what was not read would pass for the next request
    content = json.dumps(answer, separators=(",", ":")).encode()
    writer.write(
        f"HTTP/1.1 {status} {_PHRASES[status]}\r\nx-amzn-RequestId: 00000000-0000-4000-8000-000000000000\r\n"
        f"Content-Type: application/x-amz-json-1.1\r\nConnection: {'keep-alive' if stays else 'close'}\r\n"
        f"Content-Length: {len(content)}\r\n\r\n".encode()
        + content
    )
    await writer.drain()
    return stays


async def _body(headers: Mapping[str, str], reader: asyncio.StreamReader) -> bytes:
    length = headers.get("content-length", "0")
    if "transfer-encoding" in headers or not length.isdigit():
        raise Refusal(411, "MissingContentLength")
    if int(length) > MAX_BODY_BYTES:
        raise Refusal(413, "RequestEntityTooLarge")
    return await reader.readexactly(int(length))


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1, signed by itself and good for a day, and its key: two PEM files.

    RSA with 2048 bits, like the certificates of AWS's own endpoints.
    """
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "holdfast bench endpoint")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(HOST))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    certificate_file, key_file = folder / "endpoint.pem", folder / "endpoint.key"
    certificate_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_file.touch(mode=0o600)
    key_file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return certificate_file, key_file


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A running endpoint as others see it. `certificate` is None where it speaks plain HTTP."""

    url: str
    port: int
    certificate: Path | None

    def counts(self, caller: str) -> dict[str, int]:
        """How often the caller has asked for each operation."""
        counts: dict[str, int] = self._get("/_bench/counts").get(caller, {})
        return counts

    def last_message(self, caller: str) -> dict[str, Any]:
        """The body, attributes and queue of the last message the caller sent. Raises `EndpointFailed`."""
        return self._get(f"/_bench/last/{caller}")

    def _get(self, path: str) -> dict[str, Any]:
        connection = (
            http.client.HTTPConnection(HOST, self.port, timeout=10)
            if self.certificate is None
            else http.client.HTTPSConnection(
                HOST, self.port, timeout=10, context=ssl.create_default_context(cafile=str(self.certificate))
            )
        )
        with contextlib.closing(connection):
            connection.request("GET", path)
            response = connection.getresponse()
            content = response.read()
        if response.status != 200:
            raise EndpointFailed(f"GET {path} was answered {response.status}")
        answer: dict[str, Any] = json.loads(content)
        return answer


@contextlib.contextmanager
def running(folder: Path, parameters: Mapping[str, str], *, is_tls: bool = True) -> Iterator[Endpoint]:
    """An endpoint in a process of its own that knows these parameters; `folder` gets its certificate.

    Raises `EndpointFailed`.
    """
    certificate, key = make_certificate(folder) if is_tls else (None, None)
    plan = {
        "parameters": dict(parameters),
        "certificate": str(certificate) if certificate else "",
        "key": str(key) if key else "",
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "ops.bench.endpoint"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None  # noqa: S101  # both are pipes, as asked for
    assert process.stdout is not None  # noqa: S101  # as above
    with process:
        try:
            process.stdin.write(json.dumps(plan) + "\n")
            process.stdin.flush()
            said = process.stdout.readline()
            if not said.strip().isdigit():
                raise EndpointFailed(f"the endpoint did not start (exit {process.poll()})")
            yield Endpoint(f"{'https' if is_tls else 'http'}://{HOST}:{int(said)}", int(said), certificate)
        finally:
            process.stdin.close()  # that is how it is told to end
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


async def _main() -> None:
    """Serve until standard input ends: whoever started this has then gone, or is done."""
    plan = json.loads(await asyncio.to_thread(sys.stdin.readline))
    context = None
    if plan["certificate"]:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(plan["certificate"], plan["key"])
    world = World(plan["parameters"])
    server = await asyncio.start_server(lambda r, w: _serve(world, r, w), HOST, 0, ssl=context)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.read)
    server.close()


if __name__ == "__main__":
    asyncio.run(_main())
