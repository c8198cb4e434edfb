"""What schemathesis makes of our OpenAPI document against the deployed stack, through its gateway and with real tokens
of both scopes: no answer that is not documented, none of it a 5xx (004.19).
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import pytest
import requests
import schemathesis
from rich.console import Console

from ops.demo.story import Story
from ops.expectation import BANK
from ops.local import LocalStack
from ops.operator_openapi import document
from ops.simulator import Fault, FaultMode
from ops.tokens import Scope, TokenCache, Tokens
from tests.e2e.conftest import World
from tests.e2e.operator_desk import Desk
from tests.operator_fuzz import CHECKS, examples

SCHEMA = schemathesis.openapi.from_dict(document())
SCHEMA.config.phases.coverage.enabled = False  # thousands of requests; in front of the handler itself they are made
COUNTS_ALL = "/platform/integrations"  # takes nothing that could be made up: who may look asks it, and that is enough
OF_EACH_CALL = 8
TO_LOOK = 2
OTHER = "ocr"  # the integration whose health is played with: no event of this tier calls it
REAL = 0.7  # of the requests that name something name what is there


@dataclass
class Fuzz:
    """Who asks, and what there is to be named. `answered` counts statuses by scope."""

    desk: Desk
    ids: dict[str, str]
    http: requests.Session
    answered: Counter[tuple[Scope, int]] = field(default_factory=Counter)

    def play(self, case: schemathesis.Case[Any], scope: Scope) -> int:
        """One request; gives the status of its answer, which is as documented."""
        self._name_what_is_there(case)
        response = case.call(
            base_url=self.desk.stack.api_url,
            session=self.http,
            headers={"Authorization": f"Bearer {self.desk.tokens.machine(scope)}"},
        )
        assert response.status_code < 500, response.text
        case.validate_response(response, checks=CHECKS)
        self.answered[scope, response.status_code] += 1
        return response.status_code

    def _name_what_is_there(self, case: schemathesis.Case[Any]) -> None:
        chance = random.Random(f"{case.path_parameters} {case.body!r}")
        for name in case.path_parameters or {}:
            if name in self.ids and chance.random() < REAL:
                case.path_parameters[name] = self.ids[name]
        if case.path.endswith("/health") and case.path_parameters.get("integration_id") == "helpdesk":
            case.path_parameters["integration_id"] = OTHER
        if case.path_parameters.get("name") == self.ids["name"] and isinstance(case.body, dict):
            case.body["value"] = "1"


@pytest.fixture(scope="module")
def fuzz(local_stack: LocalStack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fuzz]:
    """There are a failed item of a real event, a bulk replay of it that nobody approves, and a rule that means no event
    of ours; in the end nothing is in force.
    """
    local_stack.simulator.clear_faults()
    world = World(local_stack, Story(Console(quiet=True)), seed=5)
    tokens = Tokens(local_stack.stack, TokenCache(tmp_path_factory.mktemp("tokens")))
    with closing(Desk(local_stack.stack, tokens)) as desk, requests.Session() as http:
        http.trust_env = False
        yield Fuzz(desk, there_is(world, desk), http)
        for rule in desk.get("/platform/quarantine")["rules"]:
            path = f"/platform/quarantine/{rule['id']}"
            assert desk.ask("DELETE", path, query={"reason": "the fuzz is over"}).status == 200
        lifted = desk.ask(
            "PUT", f"/platform/integrations/{OTHER}/health", {"state": None, "reason": "the fuzz is over"}
        )
        assert lifted.status == 200


def there_is(world: World, desk: Desk) -> dict[str, str]:
    """By the names of the paths' parameters, what a request may name."""
    letter = world.sender.message(
        "github",
        ticket="e2e-fuzz",
        text=BANK.text,
        author="customer5@example.com",
        message_id=f"msg_e2e_fuzz_{time.time_ns()}",
    )
    (conversation,) = world.expect([(letter, BANK)])
    world.simulator.add_faults(Fault("helpdesk", FaultMode.STATUS, status=422, target=conversation))
    (answer,) = world.post([letter])
    found: list[str] = []

    def missing() -> str:
        items = desk.get("/platform/integrations/helpdesk/recovery/queue", status="failed")["items"]
        found[:] = [one["recovery_id"] for one in items if one["event_id"] == answer.event_id]
        return "" if found else "nothing of it has failed"

    world.eventually(missing)
    world.simulator.clear_faults()
    plan = {"filter": {"recovery_id": found}, "reason": "to be looked at"}
    job = desk.ask("POST", "/platform/replays", plan)
    rule = desk.ask(
        "POST", "/platform/quarantine", {"source": "no-such-source", "for": "1h", "reason": "to be removed"}
    )
    assert (job.status, rule.status) == (202, 201)
    return {
        "integration_id": "helpdesk",
        "recovery_id": found[0],
        "event_id": answer.event_id,
        "replay_id": job.document["replay_id"],
        "quarantine_id": rule.document["id"],
        "name": "limits/ocr",
    }


@SCHEMA.exclude(path=COUNTS_ALL).parametrize()
@examples(OF_EACH_CALL)
def test_whoever_may_operate_is_answered_as_documented(case: schemathesis.Case[Any], fuzz: Fuzz) -> None:
    fuzz.play(case, Scope.OPERATE)


@SCHEMA.parametrize()
@examples(TO_LOOK)
def test_whoever_may_only_look_is_answered_as_documented_and_changes_nothing(
    case: schemathesis.Case[Any], fuzz: Fuzz
) -> None:
    status = fuzz.play(case, Scope.VIEW)
    if status != 401:  # it leaves the token out, too
        assert (status == 403) is (case.method != "GET")


def test_the_requests_came_as_far_as_they_were_meant_to(
    fuzz: Fuzz, request: pytest.FixtureRequest, proved: Callable[[str], None]
) -> None:
    """Made up as they are, they were understood, refused for every reason, and carried out."""
    asked = sum(fuzz.answered.values())
    if asked < len(list(SCHEMA.get_all_operations())):
        pytest.skip("only with all tests of this file")
    by_operator = {status for scope, status in fuzz.answered if scope is Scope.OPERATE}
    assert {200, 400, 401, 404, 409} <= by_operator
    assert {200, 400, 403, 404} <= {status for scope, status in fuzz.answered if scope is Scope.VIEW}
    told = Counter(status for (_, status), times in fuzz.answered.items() for _ in range(times))
    proved(f"fuzz over HTTP: {asked} requests, 0 × 5xx, 0 undocumented answers; {dict(sorted(told.items()))}")
