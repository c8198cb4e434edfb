"""Bulk replays over real adapters and moto: replay λ, and whoever asks for jobs and approves them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from functions.adapters.ledger import DynamoLedger
from functions.adapters.recipients import DynamoRecipients
from functions.adapters.replay_jobs import DynamoReplayJobs
from functions.adapters.replay_plans import S3ReplayPlans
from functions.adapters.sqs_backlog import SqsBacklog
from functions.adapters.sqs_hints import SqsHints
from functions.core.clock import Ids
from functions.core.integration import Integration
from functions.core.ports import Recovery, Switches
from functions.core.replay import Filter
from functions.core.replay_job import MOST_ITEMS, Job, State, approved, asked
from functions.core.schema import Known
from functions.job_board import move
from functions.replay.handler import Handler, build
from functions.replay.ports import Ports
from tests import aws_tables
from tests.fakes import FakeClock
from tests.replay_world import REPLAY, Context
from tests.worker_world import FLOW

INVOCATION_MS = 900_000


class Bulk:
    """Jobs of one account. `meanwhile` is what others do while λ waits."""

    def __init__(
        self,
        dynamodb: Any,
        sqs: Any,
        s3: Any,
        bucket: str,
        *,
        urls: Mapping[str, str],
        clock: FakeClock,
        ids: Ids,
        recovery: Recovery,
        switches: Switches,
        integrations: Mapping[str, Integration],
        log: Any,
        metrics: Any,
    ) -> None:
        self.clock = clock
        self.ids = ids
        self.meanwhile: Callable[[], None] = lambda: None
        self.jobs = DynamoReplayJobs(
            dynamodb,
            ids,
            control_table=aws_tables.CONTROL,
            audit_table=aws_tables.AUDIT,
            recovery_table=aws_tables.RECOVERY,
        )
        self.plans = S3ReplayPlans(s3, bucket)
        self.handle: Handler = build(
            REPLAY,
            Ports(
                ledger=DynamoLedger(dynamodb, ids, ledger_table=aws_tables.LEDGER, control_table=aws_tables.CONTROL),
                recovery=recovery,
                jobs=self.jobs,
                plans=self.plans,
                recipients=DynamoRecipients(dynamodb, aws_tables.RECIPIENTS, aws_tables.AUDIT),
                switches=switches,
                replays=SqsHints(sqs, urls["replays"]),
                backlog=SqsBacklog(sqs, urls["events"]),
                integrations=integrations,
                known=Known({"support": (), FLOW: ()}, integrations, {("hello", 1)}),
                clock=clock,
                ids=ids,
                wait=self._wait,
                log=log,
                metrics=metrics,
            ),
        )

    def _wait(self, seconds: float) -> None:
        self.clock.advance(int(seconds * 1000))
        self.meanwhile()

    def planned(self, wanted: Filter, reason: str = "it is back") -> Job:
        """A new job with its plan."""
        job = Job(
            job_id=f"job-{self.ids.new_id()}",
            state=State.PLANNING,
            actor="anna",
            reason=reason,
            filter=wanted.to_json(),
            cap=MOST_ITEMS,
            created_at_ms=self.clock.now_ms(),
            request_id="asked",
        )
        move(self.jobs, None, lambda board: asked(job, board))
        self.invoke(job.job_id)
        return self.now(job.job_id)

    def approve(self, job: Job) -> Job:
        """Somebody has looked at it."""
        now_ms = self.clock.now_ms()
        return move(self.jobs, job, lambda board: approved(job, board, now_ms, actor="bob", request_id="operation-1"))

    def invoke(self, job_id: str, remaining_ms: int = INVOCATION_MS) -> str:
        """One invocation of λ."""
        return self.handle({"job_id": job_id}, Context(remaining_ms))["outcome"]

    def now(self, job_id: str) -> Job:
        """The job as it is."""
        job = self.jobs.get(job_id)
        assert job is not None
        return job
