"""What strangers, careless senders and rotations do to ingress, over HTTP."""

from __future__ import annotations

import json

import httpx
import pytest

from ops import records
from ops.expectation import REFUND, WHERE
from ops.local import webhook_url
from ops.local.parameters import new_secret
from ops.traffic import Delivery
from tests.e2e.conftest import World


def test_a_secret_that_is_rotated_in_the_middle_of_a_burst_refuses_no_honest_event(world: World) -> None:
    name = f"{world.stack.output('SourcesPath')}/internal"
    ssm = world.stack.client("ssm")
    stored = ssm.get_parameter(Name=name, WithDecryption=True)["Parameter"]["Value"]
    before = world.letters("e2e-old", (REFUND,), 6)
    old = [_from(world, "internal", f"old-{number}") for number in range(10)]
    world.post([*old[:5], *(delivery for delivery, _ in before)])

    entry = json.loads(stored)
    entry["secrets"].insert(0, {"secret": new_secret("generic-hmac")})
    ssm.put_parameter(Name=name, Value=json.dumps(entry), Type="SecureString", Overwrite=True)
    try:
        world.sender.forget("internal")
        new = [_from(world, "internal", f"new-{number}") for number in range(10)]
        mixed = [delivery for pair in zip(new, old[5:] + old[5:], strict=True) for delivery in pair]
        answers = world.post(mixed)
    finally:
        ssm.put_parameter(Name=name, Value=stored, Type="SecureString", Overwrite=True)
        world.sender.forget("internal")
    assert [answer.status for answer in answers] == [202] * len(answers)
    world.await_settled(world.expect([*before]))


def _from(world: World, source: str, name: str) -> Delivery:
    return world.sender.message(
        source, ticket=f"e2e-{name}", text=REFUND.text, author="a@example.com", message_id=f"e2e-{name}"
    )


HOSTILE_BODIES = {
    "not JSON": b"{not json",
    "binary": bytes(range(256)),
    "no UTF-8": b'{"event": "\xff\xfe"}',
    "empty": b"",
    "deeply nested": b"[" * 100_000,
    "a number": b"1e999999",
    "half a surrogate": rb'{"event": "x", "id": "\ud800", "ticket": {"id": "1", "text": "\udfff"}}',
    "nothing in it": b"{}",
}


@pytest.mark.parametrize("what", HOSTILE_BODIES)
def test_a_signed_body_that_is_hostile_is_answered_without_a_5xx(world: World, what: str) -> None:
    delivery = world.sender.raw("internal", HOSTILE_BODIES[what], message_id=f"hostile-{what}")
    answer = world.post([delivery])[0]
    assert answer.status in (202, 400, 401), answer.document


def test_strangers_are_refused_and_leave_nothing_behind(world: World) -> None:
    honest = world.letters("e2e-neighbour", (WHERE,), 2)
    template = _from(world, "github", "stranger")
    url = webhook_url(world.stack, "github")
    before = {str(event["event_id"]) for event in records.events(world.stack)}
    attempts = [
        ("POST", webhook_url(world.stack, "nobody"), dict(template.headers), template.body),
        ("POST", url + "%2F..%2Fstripe", dict(template.headers), template.body),
        ("POST", url, {**template.headers, "x-hub-signature-256": "sha256=" + "0" * 64}, template.body),
        ("POST", url, {**template.headers, "x-hub-signature-256": "é".encode("latin-1").decode("latin-1")}, b"{}"),
        ("POST", url, {**template.headers, "x-filler": "x" * 7000}, template.body + b" "),
        ("POST", url, {"content-type": "application/json"}, b"x" * 4_500_000),
        ("GET", url, {}, b""),
        ("DELETE", url, {}, b""),
    ]
    statuses = []
    with httpx.Client(timeout=30) as client:
        for method, address, headers, body in attempts:
            raw = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
            statuses.append(client.request(method, address, headers=raw, content=body).status_code)
    assert all(400 <= status < 500 for status in statuses), statuses
    world.post([delivery for delivery, _ in honest])
    conversations = world.expect(honest)
    world.await_settled(conversations)
    assert world.problems_in(conversations) == []
    new = {str(event["event_id"]) for event in records.events(world.stack)} - before
    tried = {delivery.source for delivery, _ in honest} | {"github", "stripe", "nobody"}
    assert sum(one.partition(":")[0] in tried for one in new) == len(honest)


def test_a_body_over_the_limit_is_refused_with_413_even_when_it_is_signed(world: World) -> None:
    delivery = world.sender.raw("internal", json.dumps({"x": "y" * 4_100_000}).encode(), message_id="too-large")
    assert world.post([delivery])[0].status == 413


def test_the_same_event_twice_at_once_has_its_effects_once(world: World) -> None:
    letters = world.letters("e2e-twins", (WHERE,), 3)
    twins: list[Delivery] = [delivery for delivery, _ in letters for _ in range(3)]
    answers = world.post(twins)
    assert all(200 <= answer.status < 300 for answer in answers)
    conversations = world.expect(letters)
    world.await_settled(conversations)
    assert world.problems_in(conversations) == []
