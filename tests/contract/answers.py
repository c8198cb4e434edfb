"""A service of AWS that gives one answer, without a socket, for what an adapter makes of it."""

from __future__ import annotations

import json
from typing import Any, cast

from functions.adapters.aws_wire import Endpoint, Service
from functions.adapters.sigv4 import Signer
from functions.adapters.wire import Answer


def success(document: object, **headers: str) -> Answer:
    """A 200 with a JSON document."""
    return Answer(200, headers, json.dumps(document).encode())


def error(status: int, code: str = "", **more: object) -> Answer:
    """An error in AWS's JSON protocol; without a code, an answer of something between."""
    return Answer(status, {}, json.dumps({"__type": code, **more}).encode() if code else b"<html>")


class ScriptedService(Service):
    """Gives one answer to whatever it is asked, and keeps what that was."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(Endpoint("service.test", 80, is_tls=False), Signer("service", "us-east-1"))
        self.answer = answer
        self.asked: list[tuple[str, str, dict[str, str], bytes, float]] = []

    def call(self, what: str, method: str, path: str, headers: Any, body: bytes, timeout_seconds: float) -> Answer:
        self.asked.append((method, path, dict(headers), body, timeout_seconds))
        return self.answer


def service_that_says(answer: object) -> ScriptedService:
    """See `ScriptedService`."""
    return ScriptedService(cast(Answer, answer))
