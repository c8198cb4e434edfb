"""What schemathesis makes of our own OpenAPI, against the calls over real adapters: no answer that is not documented,
none of it a 5xx (004.19).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qsl, quote

import pytest
import schemathesis

from functions.core.attempt import Effect
from functions.core.recovery import Status
from functions.core.replay import Plan, PlanItem, Prediction
from functions.core.replay_job import Job, JobChange, State
from ops.operator_openapi import document
from tests.operator_calls import OPERATOR, call
from tests.operator_fuzz import CHECKS, examples
from tests.operator_world import OperatorWorld, operator_world
from tests.recovery_rows import row

EXAMPLES = 20  # of each call
StartResponse = Callable[[str, list[tuple[str, str]]], object]


class Gateway:
    """The calls as an HTTP server: WSGI in, the gateway's event to the function, its answer out."""

    def __init__(self) -> None:
        self.world: OperatorWorld | None = None
        self.statuses: dict[int, int] = {}

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        """One request."""
        path = quote(environ["PATH_INFO"].encode("latin-1"), safe="/%:@!$&'()*+,;=~-._")
        if path == "/openapi.json":
            start_response("200 OK", [("Content-Type", "application/json")])
            return [json.dumps(document()).encode()]
        assert self.world is not None
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        headers = {
            name[5:].replace("_", "-").lower(): str(value)
            for name, value in environ.items()
            if name.startswith("HTTP_")
        }
        if environ.get("CONTENT_TYPE"):
            headers["content-type"] = environ["CONTENT_TYPE"]
        query: dict[str, str] = {}
        for name, value in parse_qsl(environ.get("QUERY_STRING", ""), keep_blank_values=True):
            query[name] = f"{query[name]},{value}" if name in query else value  # as the gateway joins them
        event = call(environ["REQUEST_METHOD"], path, claims=OPERATOR, headers=headers, query=query)
        if body:
            event["body"] = body.decode("utf-8", "replace")
        answer = self.world.answering.handle(event, None)
        status = int(answer["statusCode"])
        self.statuses[status] = self.statuses.get(status, 0) + 1
        start_response(f"{status} -", [(name, str(value)) for name, value in answer["headers"].items()])
        return [str(answer.get("body") or "").encode()]


GATEWAY = Gateway()
SCHEMA = schemathesis.openapi.from_wsgi("/openapi.json", GATEWAY)


@pytest.fixture(scope="module", autouse=True)
def world() -> Iterator[OperatorWorld]:
    with operator_world() as made:
        made.put(row("dead", status=Status.DLQ, due_at_ms=0, failure_code="HTTP_503"))
        made.put(row("waits"))
        made.put(row("unknown", status=Status.FAILED, due_at_ms=0, effect=Effect.UNKNOWN))
        _put_jobs(made)
        made.judge()
        GATEWAY.world = made
        yield made
        GATEWAY.world = None


def _put_jobs(made: OperatorWorld) -> None:
    """A job that is planned, and one whose plan is yet to come."""
    for state, name in ((State.PLANNED, "planned-0123456789"), (State.PLANNING, "planning-0123456789")):
        going = (PlanItem("x" * 24, 1, "helpdesk", Prediction.WOULD_SEND),)
        plan = Plan(going, ()) if state is State.PLANNED else Plan((), ())
        job = Job(name, state, "ada", "back", '{"tenant":["acme"]}', 10, made.clock.now, "req-1", total=len(plan.going))
        if plan.going:
            reference = made.ports.plans.put(name, plan)
            job = replace(job, plan_hash=plan.plan_hash, plan_reference=reference, planned_at_ms=made.clock.now)
        board = made.ports.jobs.board()
        made.ports.jobs.store(JobChange(None, job, (board, board.with_job(job))))


@SCHEMA.parametrize()
@examples(EXAMPLES)
def test_every_answer_is_a_documented_one_and_none_is_a_5xx(case: schemathesis.Case[Any]) -> None:
    response = case.call()
    assert response.status_code < 500, response.text
    case.validate_response(response, checks=CHECKS)
