"""Bulk replays in table, bucket and queues: the doubles and the adapters keep the same promises."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import pytest
from botocore.exceptions import ClientError

from functions.adapters.recovery import DynamoRecovery
from functions.adapters.replay_jobs import BOARD_KEY, DynamoReplayJobs
from functions.adapters.replay_plans import S3ReplayPlans
from functions.adapters.replay_starter import LambdaReplayStarter
from functions.adapters.sqs_backlog import SqsBacklog
from functions.core import ports
from functions.core import replay_job as rules
from functions.core.failure import Fenced, StorageUnavailable, VersionConflict
from functions.core.recovery import Change, Row, Status, replay
from functions.core.replay import Plan, PlanItem, PlanLost, Prediction
from functions.core.replay_job import Batch, BatchRecord, Board, Job, State
from tests import aws_tables
from tests.aws_tables import sdk_client
from tests.contract.storage import Flaky, Lost, client_error
from tests.control_fakes import FakeBacklog, FakeReplayJobs, FakeReplayPlans, FakeReplayStarter
from tests.fakes import NOON_MS, FakeIds, FakeRecovery, FakeTables
from tests.recovery_rows import dead

JOB = Job(
    job_id="INC-7-abc",
    state=State.PLANNING,
    actor="ada",
    reason="the helpdesk is back",
    filter='{"tenant":["acme"]}',
    cap=100,
    created_at_ms=NOON_MS,
    request_id="req-1",
    samples={"would_send": (("a", "why"),)},
    batch=Batch(1, 0, 2, NOON_MS, ("a", "b"), skipped={"a": "moved"}),
)
PLAN = Plan(
    tuple(PlanItem(f"{n:024d}", n, "helpdesk", Prediction.WOULD_SEND) for n in range(300)),
    (PlanItem("x", 1, "email", Prediction.UNKNOWN, 1, "nobody can tell"),),
)


@dataclass
class Stores:
    jobs: ports.ReplayJobs
    recovery: ports.Recovery
    audited: Any


@contextmanager
def in_memory() -> Iterator[Stores]:
    tables = FakeTables()
    yield Stores(FakeReplayJobs(tables), FakeRecovery(tables), lambda: sorted(event.id for event in tables.events))


@contextmanager
def in_dynamodb() -> Iterator[Stores]:
    with aws_tables.moto_tables() as client:
        yield over(client)


def over(client: Any) -> Stores:
    ids = FakeIds()

    def audited() -> list[str]:
        return sorted(item["id"]["S"] for item in client.scan(TableName=aws_tables.AUDIT)["Items"])

    return Stores(
        DynamoReplayJobs(
            client,
            ids,
            control_table=aws_tables.CONTROL,
            audit_table=aws_tables.AUDIT,
            recovery_table=aws_tables.RECOVERY,
            pause=lambda _: None,
        ),
        DynamoRecovery(client, ids, recovery_table=aws_tables.RECOVERY, audit_table=aws_tables.AUDIT),
        audited,
    )


@pytest.fixture(params=[in_memory, in_dynamodb], ids=["memory", "dynamodb"])
def stores(request: pytest.FixtureRequest) -> Iterator[Stores]:
    """Empty tables."""
    with request.param() as found:
        yield found


def put(stores: Stores, *rows: Row) -> list[Row]:
    for row in rows:
        assert stores.recovery.put_if_absent(Change(row, None))
    return list(rows)


def replayed(row: Row, job: Job) -> Change:
    return replay(row, NOON_MS, actor="ada", reason="back", request_id="r", job_id=job.job_id, scale=1.0)


def asked(stores: Stores) -> Job:
    change = rules.asked(JOB, stores.jobs.board())
    stores.jobs.store(change)
    return change.after


# ---------------------------------------------------------------------------------------------------------------- jobs


def test_a_job_its_board_and_its_audit_event_are_written_together_and_read_back(stores: Stores) -> None:
    assert (stores.jobs.get(JOB.job_id), stores.jobs.board()) == (None, Board())
    asked(stores)
    assert stores.jobs.get(JOB.job_id) == JOB
    assert stores.jobs.board() == Board({}, (JOB.job_id,), (JOB.job_id,), 1)
    assert stores.jobs.several([JOB.job_id, "nobody"]) == {JOB.job_id: JOB}
    assert len(stores.audited()) == 1


def test_of_two_who_saw_the_same_job_one_moves_it(stores: Stores) -> None:
    job = asked(stores)
    first = rules.leased(job, "one", NOON_MS)
    stores.jobs.store(first)
    with pytest.raises(VersionConflict):
        stores.jobs.store(rules.leased(job, "two", NOON_MS))
    assert stores.jobs.get(JOB.job_id) == first.after


def test_a_job_that_is_there_is_not_asked_for_again(stores: Stores) -> None:
    asked(stores)
    with pytest.raises(VersionConflict):
        stores.jobs.store(rules.asked(JOB, stores.jobs.board()))
    assert len(stores.audited()) == 1


def test_a_board_that_has_moved_on_keeps_the_job_from_moving(stores: Stores) -> None:
    old = stores.jobs.board()
    asked(stores)
    other = replace(JOB, job_id="another")
    with pytest.raises(VersionConflict):
        stores.jobs.store(rules.asked(other, old))
    assert stores.jobs.get("another") is None
    assert len(stores.audited()) == 1


def test_rows_are_written_while_the_job_is_what_it_was(stores: Stores) -> None:
    job = asked(stores)
    rows = put(stores, dead("a"), dead("b"))
    changes = [replayed(row, job) for row in rows]
    stores.jobs.apply(job, changes)
    stores.jobs.apply(job, changes)  # its own earlier success
    found = stores.recovery.several([row.recovery_id for row in rows])
    assert {row.status for row in found.values()} == {Status.REPLAYED}
    assert len(stores.audited()) == 3


def test_a_job_that_has_moved_on_writes_no_row(stores: Stores) -> None:
    job = asked(stores)
    (row,) = put(stores, dead("a"))
    stores.jobs.store(rules.leased(job, "one", NOON_MS))
    with pytest.raises(Fenced):
        stores.jobs.apply(job, [replayed(row, job)])
    with pytest.raises(Fenced):
        stores.jobs.apply(replace(job, job_id="nobody"), [replayed(row, job)])
    assert stores.recovery.get(row.recovery_id) == row
    assert len(stores.audited()) == 1


def test_a_row_that_has_moved_on_keeps_its_neighbours_from_being_written(stores: Stores) -> None:
    job = asked(stores)
    rows = put(stores, dead("a"), dead("b"))
    stores.recovery.commit([Change(replace(rows[1], version=2), rows[1])])
    with pytest.raises(VersionConflict):
        stores.jobs.apply(job, [replayed(row, job) for row in rows])
    assert stores.recovery.get(rows[0].recovery_id) == rows[0]
    with pytest.raises(VersionConflict):
        stores.jobs.apply(job, [replayed(dead("c"), job)])
    assert len(stores.audited()) == 1


def test_a_row_that_nobody_had_is_put_and_none_is_written_over(stores: Stores) -> None:
    job = asked(stores)
    stores.jobs.apply(job, [Change(dead("a"), None)])
    with pytest.raises(VersionConflict):
        stores.jobs.apply(job, [Change(replace(dead("a"), version=2), None), Change(dead("b"), None)])
    assert stores.recovery.several([dead(name).recovery_id for name in "ab"]) == {dead("a").recovery_id: dead("a")}


def test_a_write_whose_answer_was_lost_was_made() -> None:
    with aws_tables.moto_tables() as client:
        flaky = Flaky(client)
        stores = over(flaky)
        flaky.planned["transact_write_items"] = [Lost()]
        job = asked(stores)
        assert stores.jobs.get(JOB.job_id) == JOB
        (row,) = put(stores, dead("a"))
        flaky.planned["transact_write_items"] = [Lost()]
        stores.jobs.apply(job, [replayed(row, job)])
        found = stores.recovery.get(row.recovery_id)
        assert found is not None
        assert found.status is Status.REPLAYED


@pytest.mark.parametrize("operation", ["get_item", "put_item", "transact_write_items", "batch_get_item"])
def test_a_table_that_does_not_answer_is_trouble(operation: str) -> None:
    with aws_tables.moto_tables() as client:
        flaky = Flaky(client)
        stores = over(flaky)
        job = asked(stores)
        flaky.planned[operation] = [client_error("AccessDeniedException")]
        calls: dict[str, Any] = {
            "get_item": lambda: stores.jobs.get(JOB.job_id),
            "put_item": lambda: stores.jobs.store(rules.leased(job, "one", NOON_MS)),
            "transact_write_items": lambda: stores.jobs.apply(job, [replayed(dead("a"), job)]),
            "batch_get_item": lambda: stores.jobs.several([JOB.job_id]),
        }
        with pytest.raises(StorageUnavailable):
            calls[operation]()


@pytest.mark.parametrize("odd", [{}, {"job": {"S": "{}"}, "version": {"N": "1.5"}}, {"job": {"NULL": True}}])
def test_what_cannot_be_read_back_is_trouble_and_not_an_empty_item(odd: dict[str, Any]) -> None:
    with aws_tables.moto_tables() as client:
        jobs = over(client).jobs
        client.put_item(TableName=aws_tables.CONTROL, Item={"pk": {"S": "J#odd"}, **odd})
        client.put_item(TableName=aws_tables.CONTROL, Item={"pk": {"S": BOARD_KEY}, **odd})
        for read in (lambda: jobs.get("odd"), jobs.board):
            with pytest.raises(StorageUnavailable):
                read()


def test_a_job_that_cannot_be_read_back_keeps_nobody_from_the_others() -> None:
    with aws_tables.moto_tables() as client:
        stores = over(client)
        job = asked(stores)
        client.put_item(TableName=aws_tables.CONTROL, Item={"pk": {"S": "J#odd"}, "job": {"S": "{}"}})
        client.put_item(TableName=aws_tables.CONTROL, Item={"pk": {"S": "J#empty"}})
        assert stores.jobs.several(["odd", JOB.job_id, "empty"]) == {JOB.job_id: job}


# ---------------------------------------------------------------------------------------------------------------- rows


def test_rows_are_walked_through_and_read_together_with_their_versions(stores: Stores) -> None:
    rows = put(stores, *[dead(f"r{n}") for n in range(250)], dead("other", integration_id="email"))
    put(stores, dead("failed", status=Status.FAILED))
    walked = {row.recovery_id: row for row in stores.recovery.walk("helpdesk", Status.DLQ)}
    assert walked == {row.recovery_id: row for row in rows[:250]}
    assert list(stores.recovery.walk("nowhere", Status.DLQ)) == []
    ids = [row.recovery_id for row in rows]
    assert stores.recovery.several([*ids, "nobody", ids[0]]) == {row.recovery_id: row for row in rows}
    assert stores.recovery.versions([*ids, "nobody"]) == dict.fromkeys(ids, 1)
    assert stores.recovery.several([]) == {}


def test_keys_that_are_left_unprocessed_are_asked_for_again_and_given_up_in_the_end() -> None:
    with aws_tables.moto_tables() as client:
        stores = over(client)
        (row,) = put(stores, dead("a"))
        asked_for: list[int] = []

        class Busy:
            """Leaves everything unprocessed so many times."""

            def __init__(self, times: int) -> None:
                self.times = times

            def batch_get_item(self, **request: Any) -> Any:
                asked_for.append(1)
                self.times -= 1
                if self.times >= 0:
                    return {"Responses": {}, "UnprocessedKeys": request["RequestItems"]}
                return client.batch_get_item(**request)

        def over_busy(times: int) -> DynamoRecovery:
            busy: Any = Busy(times)
            return DynamoRecovery(
                busy, FakeIds(), recovery_table=aws_tables.RECOVERY, audit_table="a", pause=lambda _: None
            )

        assert over_busy(2).versions([row.recovery_id]) == {row.recovery_id: 1}
        assert len(asked_for) == 3
        with pytest.raises(StorageUnavailable):
            over_busy(9).several([row.recovery_id])


# --------------------------------------------------------------------------------------------------------------- plans


@pytest.fixture(params=["memory", "s3"])
def plans(request: pytest.FixtureRequest) -> Iterator[ports.ReplayPlans]:
    """An empty bucket."""
    if request.param == "memory":
        yield FakeReplayPlans()
        return
    with aws_tables.moto_tables():
        s3 = sdk_client("s3")
        s3.create_bucket(Bucket="bulk")
        yield S3ReplayPlans(s3, "bulk")


def test_a_plan_is_read_back_by_its_reference(plans: ports.ReplayPlans) -> None:
    reference = plans.put("j1", PLAN)
    assert reference.startswith("replays/j1/")
    assert plans.get(reference, PLAN.plan_hash) == PLAN
    assert plans.put("j1", PLAN) == reference
    other = plans.put("j1", Plan(PLAN.going[:5], ()))
    assert other != reference
    assert plans.get(reference, PLAN.plan_hash) == PLAN


def test_a_plan_that_is_not_there_or_is_another_is_lost(plans: ports.ReplayPlans) -> None:
    with pytest.raises(PlanLost):
        plans.get("replays/j1/plan-nothing.json.gz", PLAN.plan_hash)
    other = plans.put("j1", Plan(PLAN.going[:5], ()))
    with pytest.raises(PlanLost):
        plans.get(other, PLAN.plan_hash)


def test_what_became_of_batches_is_found_by_the_rows_that_are_asked_for(plans: ports.ReplayPlans) -> None:
    batches = [
        Batch(number, start, end, NOON_MS, tuple(item.recovery_id for item in PLAN.going[start:end]))
        for number, start, end in ((1, 0, 5), (2, 5, 15), (3, 15, 115), (4, 115, 130))
    ]
    kept = {
        batch.number: [
            BatchRecord(PLAN.going[n].recovery_id, "succeeded", "dlq", "replayed", "HTTP_503", 6, "p", "")
            for n in range(batch.start, batch.end)
        ]
        for batch in batches
    }
    for batch in batches[:3]:
        plans.put_record("j1", batch, kept[batch.number])
    plans.put_record("j2", batches[3], kept[4])
    assert plans.records("j1", 0, 1) == kept[1]
    assert plans.records("j1", 4, 6) == [*kept[1], *kept[2]]
    assert plans.records("j1", 100, 300) == kept[3]
    assert plans.records("j1", 115, 300) == []
    plans.put_record("j1", batches[0], kept[1][:1])
    assert plans.records("j1", 0, 5) == kept[1][:1]


def test_objects_that_cannot_be_read_back_are_lost_and_a_bucket_that_does_not_answer_is_trouble() -> None:
    with aws_tables.moto_tables():
        s3 = sdk_client("s3")
        s3.create_bucket(Bucket="bulk")
        adapter = S3ReplayPlans(s3, "bulk")
        for content in (b"{}", b"\x1f\x8b not gzip", gzip.compress(b"\xff"), gzip.compress(b"{}")):
            s3.put_object(Bucket="bulk", Key="replays/j1/plan-x", Body=content)
            with pytest.raises(PlanLost):
                adapter.get("replays/j1/plan-x", PLAN.plan_hash)
        with pytest.raises(StorageUnavailable):
            S3ReplayPlans(s3, "nobodys").get("replays/j1/plan-x", PLAN.plan_hash)
        s3.put_object(Bucket="bulk", Key="replays/j1/batch-000000-000005.json", Body=b"[[]]")
        with pytest.raises(StorageUnavailable):
            adapter.records("j1", 0, 5)


# -------------------------------------------------------------------------------------------------------------- others


class Functions:
    """Lambda, as far as it is asked here."""

    def __init__(self) -> None:
        self.invoked: list[tuple[str, str, Any]] = []
        self.is_down = False

    def invoke(self, FunctionName: str, InvocationType: str, Payload: bytes) -> dict[str, Any]:  # noqa: N803  # Lambda's names
        if self.is_down:
            raise ClientError({"Error": {"Code": "TooManyRequestsException", "Message": "made up"}}, "Invoke")
        self.invoked.append((FunctionName, InvocationType, json.loads(Payload)))
        return {"StatusCode": 202}


def test_a_job_is_started_without_waiting_for_it_and_trouble_is_an_answer() -> None:
    functions: Any = Functions()
    adapter = LambdaReplayStarter(functions, "replay")
    fake = FakeReplayStarter()
    assert adapter.start("j1") is fake.start("j1") is True
    assert functions.invoked == [("replay", "Event", {"job_id": "j1"})]
    functions.is_down = fake.is_down = True
    assert adapter.start("j1") is fake.start("j1") is False


def test_the_backlog_is_what_waits_in_the_events_queue() -> None:
    with aws_tables.moto_tables():
        sqs = sdk_client("sqs")
        url = sqs.create_queue(QueueName="events")["QueueUrl"]
        backlog, fake = SqsBacklog(sqs, url), FakeBacklog()
        assert backlog.waiting() == fake.waiting() == 0
        for _ in range(3):
            sqs.send_message(QueueUrl=url, MessageBody="x")
            fake.messages += 1
        assert backlog.waiting() == fake.waiting() == 3
        with pytest.raises(StorageUnavailable):
            SqsBacklog(sqs, url + "-gone").waiting()
