"""Answers to the GETs by which providers ask whether we are there. Loaded by the first of them.

A text that we are asked to give back is bounded and has no character that a browser or a JSON reader could mistake for
more than a word. Where we sign it for whoever asks (X), its shape is one that no delivery of that provider may have:
see `functions.signatures.special.Unsolicited`.
"""

from __future__ import annotations

import hmac
from typing import Final
from urllib.parse import parse_qsl

from functions.ingress.answers import Answer, Refused, Rejection
from functions.ingress.trail import Trail
from functions.ingress.verification import Unproven, check
from functions.signatures.providers import Endpoint
from functions.signatures.scheme import Delivery

MAX_PARAMETERS: Final = 32


def answer_to_challenge(endpoint: Endpoint, delivery: Delivery, query: str, now_ms: int, trail: Trail) -> Answer:
    """What the source's provider wants to hear. Raises `Refused` for what is no challenge of it; `Unproven`."""
    challenge = endpoint.provider.challenge
    if challenge is None:
        raise Refused(Rejection.NO_CHALLENGE, why=f"{endpoint.provider.name} asks nothing by GET")
    parameters = _parameters(query)
    for name, value in challenge.says:
        if parameters.get(name) != value:
            raise Refused(Rejection.NO_CHALLENGE, why=f"{name} is missing, given twice or another")
    text = parameters.get(challenge.query, "") if challenge.query else delivery.headers.get(challenge.header, "")
    if not challenge.shape.match(text):
        raise Refused(Rejection.NO_CHALLENGE, why=f"{challenge.query or challenge.header} is missing or misshapen")
    if challenge.token:
        _check_token(parameters.get(challenge.token, ""), endpoint.source.verify_token)
    if challenge.is_signed:
        check(endpoint, delivery, now_ms, trail)
    trail.handshake = "challenge"
    body = challenge.reply(text, endpoint.newest_secret)
    return Answer(200, body, challenge.content_type, headers={"x-content-type-options": "nosniff"})


def _check_token(presented: str, expected: str) -> None:
    if not expected:
        raise Unproven(Rejection.BAD_SIGNATURE, "the source has no verify_token")
    if not hmac.compare_digest(presented.encode("utf-8", "surrogatepass"), expected.encode()):
        raise Unproven(Rejection.BAD_SIGNATURE, "the wrong verify_token")


def _parameters(query: str) -> dict[str, str]:
    """The query's parameters without those that are given twice: which one counts would be anybody's guess."""
    try:
        pairs = parse_qsl(query, keep_blank_values=True, errors="strict", max_num_fields=MAX_PARAMETERS)
    except ValueError:
        return {}
    found: dict[str, str] = {}
    for name, value in pairs:
        found[name] = "" if name in found else value
    return found
