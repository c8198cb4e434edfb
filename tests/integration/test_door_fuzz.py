"""Fifty thousand hostile requests through the real handler: what comes out, and what is left behind.

Hypothesis draws what is done to requests and a seed; from those some hundreds of requests follow. What may be taken is
judged by `tests.door_requests`, which shares no code with what verifies.
"""

from __future__ import annotations

import base64
import json
import random
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from functions.core.event import Event
from functions.ingress.request import Route, request_of
from tests.door_requests import (
    CHALLENGE_SECRET,
    DAMAGES,
    MARK,
    OKTA_CHALLENGE,
    QUERY_MARK,
    VERIFY_TOKEN,
    Damage,
    Door,
    Genuine,
    hostile,
)
from tests.ingress_fakes import NOW_MS, problem_of

pytestmark = pytest.mark.no_cover  # it takes thrice as long when each line is counted, and others cover these lines

EXAMPLES = 125
REQUESTS = 400
REQUEST_ID = re.compile(r"[A-Za-z0-9_=-]{1,64}\Z")
DOOR = Door()
# What may be in no line of the log: secrets, codes and bodies of every sender.
PRIVATE = {MARK, QUERY_MARK, VERIFY_TOKEN, CHALLENGE_SECRET, OKTA_CHALLENGE}
PRIVATE |= {genuine.secret for genuine in DOOR.deliveries}
PRIVATE |= {code for each in DOOR.deliveries for codes in each.proof.values() for code in codes if len(code) > 30}


@dataclass
class Tally:
    """What was seen in all."""

    statuses: Counter[int] = field(default_factory=Counter)
    taken: Counter[str] = field(default_factory=Counter)
    stored: int = 0

    @property
    def requests(self) -> int:
        return self.statuses.total()


def body_of(event: dict[str, Any]) -> bytes:
    text = event.get("body")
    if not isinstance(text, str):
        return b""
    return base64.b64decode(text) if event.get("isBase64Encoded") is True else text.encode("utf-8", "surrogatepass")


def check_answer(answer: dict[str, Any]) -> None:
    """It is what the gateway wants of payload format 2.0, and bears its request's id."""
    assert set(answer) == {"statusCode", "headers", "body", "isBase64Encoded"}
    assert type(answer["statusCode"]) is int
    assert answer["isBase64Encoded"] is False
    json.dumps(answer).encode()
    for name, value in answer["headers"].items():
        assert re.fullmatch(r"[a-z0-9-]+", name)
        assert re.fullmatch(r"[ -~]*", value), (name, value)
    assert REQUEST_ID.match(answer["headers"]["x-request-id"])
    if answer["statusCode"] >= 400:
        problem = problem_of(answer)
        assert problem["status"] == answer["statusCode"]
        assert problem["request_id"] == answer["headers"]["x-request-id"]
        assert ("retry-after" in answer["headers"]) == (answer["statusCode"] in (429, 500, 503))


def check_line(lines: list[str], answer: dict[str, Any]) -> dict[str, Any]:
    """Exactly one line of JSON, with nothing private in it."""
    (line,) = lines
    assert "\n" not in line
    read: dict[str, Any] = json.loads(line)
    words = json.dumps(read, ensure_ascii=False)
    assert not [text for text in PRIVATE if text in words]
    assert (read["status"], read["request_id"]) == (answer["statusCode"], answer["headers"]["x-request-id"])
    return read


def check_taken(event: dict[str, Any], answer: dict[str, Any], stored: list[Event], shift_ms: int) -> str:
    """That a 2xx was due. Names what was taken."""
    route, source = request_of(event, "id").route, event["pathParameters"]["source"]
    if route is Route.CHALLENGE:
        assert stored == []
        check_challenge(source, event, answer)
        return "challenges"
    body = body_of(event)
    proved = [genuine for genuine in DOOR.by_source[source] if genuine.is_proved_by(event, body, shift_ms)]
    own = DOOR.by_source[source][0]
    sisters = [
        each
        for each in DOOR.deliveries
        if each.secret == own.secret and (each.proof or (each.signed_part and each.provider == own.provider))
    ]
    if not proved:  # several sources here have one secret: what was signed for one is signed for the others
        assert any(each.is_proved_by(event, body, shift_ms) for each in sisters), "taken, and nobody had signed it"
        assert [kept.body for kept in stored] in ([], [body])
        return "meant for a source of the same secret"
    if route is Route.TEST:
        assert stored == []
        assert json.loads(answer["body"])["source"] == source
        return "tests"
    if "x-event-id" not in answer["headers"]:
        assert stored == []
        return "handshakes"
    (kept,) = stored
    assert kept.body == body
    assert answer["headers"]["x-event-id"] == kept.event_id
    assert any(is_same_event(genuine, kept) for genuine in proved)
    return "events"


def is_same_event(genuine: Genuine, kept: Event) -> bool:
    """Whether what was stored is what was signed: no copy is another event, unless nothing signed tells them apart."""
    original = ORIGINALS[genuine.source, genuine.body]
    if original is None or genuine.provider in FREE:
        return True
    if "~c" in original.identity:  # its id's header is not signed, so the content counts
        return kept.identity.startswith("~w") or kept.identity.split("~c")[1:] == original.identity.split("~c")[1:]
    if original.identity.startswith("~w"):
        return kept.payload_hash == original.payload_hash
    return kept.identity == original.identity


# Whoever has the secret itself may send any body under any id.
FREE = {"richpanel", "generic-apikey", "generic-basic", "gitlab", "postmark", "okta"}


def check_challenge(source: str, event: dict[str, Any], answer: dict[str, Any]) -> None:
    text = event.get("rawQueryString")
    query = parse_qs(text if isinstance(text, str) else "", keep_blank_values=True)
    if source == "c-meta":
        assert query["hub.verify_token"] == [VERIFY_TOKEN]
        assert query["hub.mode"] == ["subscribe"]
        assert query["hub.challenge"] == [answer["body"]]
    elif source == "c-okta":
        assert event["headers"]["authorization"].strip() == CHALLENGE_SECRET
        assert json.loads(answer["body"])["verification"] == event["headers"]["x-okta-verification-challenge"]
    else:
        assert "x" in source
        (token,) = query["crc_token"]
        assert re.fullmatch(r"[A-Za-z0-9+/=_.-]{1,256}", token)


def check_unknown(event: dict[str, Any]) -> None:
    """That nobody but a sender who shows its secret itself hears that an event is not known: no signature of a delivery
    is one of a question.
    """
    assert request_of(event, "id").route is Route.PROGRESS
    source = event["pathParameters"]["source"]
    if source == "c-okta":
        assert event["headers"]["authorization"].strip() == CHALLENGE_SECRET
    else:
        assert {genuine.provider for genuine in DOOR.by_source[source]} <= FREE


def originals() -> dict[tuple[str, bytes], Event | None]:
    """Every genuine delivery, as it is taken untouched; None for a handshake."""
    found: dict[tuple[str, bytes], Event | None] = {}
    for genuine in DOOR.deliveries:
        answer: dict[str, Any] = DOOR.gate.handler(genuine.event(), None)
        assert 200 <= answer["statusCode"] < 300, (genuine.source, DOOR.gate.last_line)
        assert genuine.is_proved_by(genuine.event(), genuine.body, 0), genuine.source
        found[genuine.source, genuine.body] = next(iter(DOOR.gate.outbox.events), None)
        DOOR.gate.outbox.messages.clear()
    DOOR.gate.lines.clear()
    return found


ORIGINALS = originals()


def one(event: dict[str, Any], rng: random.Random, tally: Tally) -> None:
    gate = DOOR.gate
    shift_ms = rng.choice((0, 0, 0, 0, 299_000, -299_000, 301_000, -301_000))
    gate.outbox.is_down = rng.random() < 0.01
    gate.clock.ms = NOW_MS + shift_ms
    gate.lines.clear()
    gate.outbox.messages.clear()
    answer: dict[str, Any] = gate.handler(event, None)
    gate.clock.ms = NOW_MS
    check_answer(answer)
    check_line(gate.lines, answer)
    status = answer["statusCode"]
    tally.statuses[status] += 1
    stored = gate.outbox.events
    if 200 <= status < 300:
        tally.taken[check_taken(event, answer, stored, shift_ms)] += 1
        tally.stored += len(stored)
    else:
        assert stored == []
        if status == 404:
            check_unknown(event)
        else:
            assert status in (400, 401, 413, 429, 431) or (status == 503 and gate.outbox.is_down)
    assert gate.outbox.bucket.objects == {}


def test_no_hostile_request_is_taken_for_another_or_answered_with_an_error_of_ours(
    proved: Callable[[str], None],
) -> None:
    tally = Tally()

    @settings(max_examples=EXAMPLES)
    @given(
        seed=st.integers(0, 2**64),
        damages=st.lists(st.sampled_from(DAMAGES), min_size=1, unique=True).map(tuple),
        only=st.none() | st.sampled_from(DOOR.deliveries),
    )
    def run(seed: int, damages: tuple[Damage, ...], only: Genuine | None) -> None:
        rng = random.Random(seed)
        for _ in range(REQUESTS):
            genuine = rng.choice(DOOR.deliveries) if only is None or rng.random() < 0.5 else only
            one(hostile(genuine, damages, rng, DOOR.deliveries), rng, tally)

    run()
    assert tally.requests >= EXAMPLES * REQUESTS
    assert min(tally.taken[kind] for kind in ("events", "tests", "handshakes", "challenges")) > 50
    providers = {genuine.provider for genuine in DOOR.deliveries}
    taken = ", ".join(f"{count} {kind}" for kind, count in sorted(tally.taken.items()))
    refused = ", ".join(f"{status}: {count}" for status, count in sorted(tally.statuses.items()) if status >= 400)
    proved(
        f"door fuzz: {tally.requests} hostile requests of {len(providers)} providers; taken and rightly so: {taken}; "
        f"refused with nothing stored: {refused}; 0 exceptions, 0 x 5xx but the planned, 0 lines with secret or body"
    )
