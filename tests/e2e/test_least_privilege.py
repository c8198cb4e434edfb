"""Every grant is needed: without one, something that a user sees fails, and the log says AccessDenied."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from ops.expectation import WHERE
from ops.local import webhook_url
from ops.simulator import Fault, FaultMode
from ops.traffic import post_all
from tests.e2e.conftest import World


@contextmanager
def without(world: World, function_output: str, *actions: str) -> Iterator[None]:
    """The function's role without these actions; put back in any case."""
    role = world.role_of(function_output)
    iam = world.stack.client("iam")
    stored = world.policies_of(role)
    removed = 0
    for name, document in stored.items():
        changed = copy.deepcopy(document)
        for statement in changed["Statement"]:
            granted = statement["Action"] if isinstance(statement["Action"], list) else [statement["Action"]]
            left = [action for action in granted if action not in actions]
            removed += len(granted) - len(left)
            statement["Action"] = left or ["sts:GetCallerIdentity"]
        iam.put_role_policy(RoleName=role, PolicyName=name, PolicyDocument=json.dumps(changed))
    assert removed, f"{role} had none of {actions}"
    try:
        yield
    finally:
        for name, document in stored.items():
            iam.put_role_policy(RoleName=role, PolicyName=name, PolicyDocument=json.dumps(document))


def test_without_the_grant_to_send_events_wait_in_the_spill_and_the_log_says_access_denied(world: World) -> None:
    letters = world.letters("e2e-iam-ingress", (WHERE,), 4)
    with without(world, "IngressFunction", "sqs:SendMessage"):
        answers = world.post([delivery for delivery, _ in letters])
        assert {200 <= answer.status < 300 for answer in answers} == {True}
        lines = [world.line_of(answer) for answer in answers]
    assert {line["stored_in"] for line in lines} == {"spill"}
    assert any("AccessDenied" in line["queue_trouble"] for line in lines)  # a busy machine may let one time out
    conversations = world.expect(letters)
    world.await_settled(conversations)
    assert world.problems_in(conversations) == []


def test_without_any_grant_to_store_ingress_answers_503(world: World) -> None:
    with without(world, "IngressFunction", "sqs:SendMessage", "s3:PutObject"):
        refused = world.sender.message(
            "github", ticket="e2e-iam", text=WHERE.text, author="a@example.com", message_id="iam-1"
        )
        (answer,) = post_all([refused])
    assert answer.status == 503
    assert answer.document["code"] == "INT-503-DEPENDENCY-UNAVAILABLE"
    assert "AccessDenied" in world.line_of(answer)["why"]


def test_without_the_grant_to_write_rows_no_event_is_settled_and_none_is_lost(world: World) -> None:
    """The helpdesk fails, so the settle is a transaction with rows; it is refused whole, and made up for later."""
    before = world.log_of("WorkerFunction").count("AccessDenied")
    letters = world.letters("e2e-iam-worker", (WHERE,), 2)
    world.simulator.add_faults(Fault("helpdesk", FaultMode.STATUS, status=503, times=4))
    with without(world, "WorkerFunction", "dynamodb:PutItem"):
        world.post([delivery for delivery, _ in letters])
        conversations = world.expect(letters)
        world.eventually(
            lambda: "" if world.log_of("WorkerFunction").count("AccessDenied") > before else "nothing was denied"
        )
        assert world.unsettled(conversations)() != ""
    world.await_settled(conversations)
    assert world.problems_in(conversations) == []


def test_while_sources_cannot_be_read_nobody_is_refused_for_it(world: World) -> None:
    """Known sources go on or are asked to come again; unknown ones too, for nobody can know that they are unknown."""
    warm = world.sender.message(
        "github", ticket="e2e-ssm", text=WHERE.text, author="a@example.com", message_id="ssm-warm"
    )
    assert world.post([warm])[0].status == 202
    stranger = replace(warm, url=webhook_url(world.stack, "nobody-has-asked-yet"))
    with without(world, "IngressFunction", "ssm:GetParameter"):
        known = post_all([warm] * 10, concurrency=2)
        unknown = post_all([stranger] * 3, concurrency=1)
    assert {answer.status for answer in known} <= {202, 503}
    assert 202 in {answer.status for answer in known}
    assert {answer.status for answer in unknown} == {503}
