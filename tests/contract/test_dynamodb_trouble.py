"""What the DynamoDB adapters make of lost answers, conflicts, throttling and unreadable items (architecture §6)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from botocore.exceptions import EndpointConnectionError, ReadTimeoutError

from functions.adapters.ledger import DynamoLedger
from functions.core.clock import SystemIds
from functions.core.failure import Fenced, MalformedDecision, StorageUnavailable, VersionConflict
from functions.core.gate import Health
from functions.core.ledger import RETENTION_SECONDS, ActionMark, ActionStatus, Claimed, LedgerStatus
from functions.core.recovery import claim as claim_row
from functions.core.recovery import end, hinted
from tests import aws_tables
from tests.contract.storage import (
    KEY,
    LEASE_MS,
    Flaky,
    Lost,
    World,
    blank,
    claim,
    client_error,
    dynamo_world,
    parked,
    settlement,
)
from tests.fakes import NOON_MS

SOON = NOON_MS + 60_000
CONFLICT = ("None", "TransactionConflict", "None")


@dataclass
class Shaky:
    """The adapters over a client that can be told to fail, and the pauses they asked for."""

    flaky: Flaky
    pauses: list[float] = field(default_factory=list)
    world: World = field(init=False)

    def __post_init__(self) -> None:
        self.world = dynamo_world(self.flaky, self.pauses)  # type: ignore[arg-type]  # it stands in for the client

    def plan(self, operation: str, *errors: Exception) -> None:
        self.flaky.planned[operation] = list(errors)

    def count(self, operation: str) -> int:
        return len(self.flaky.requests(operation))


@pytest.fixture
def shaky() -> Iterator[Shaky]:
    with aws_tables.moto_tables() as client:
        yield Shaky(Flaky(client))


def timeout() -> Exception:
    return ReadTimeoutError(endpoint_url="http://127.0.0.1")


# -------------------------------------------------------------------------------------------------------- lost answers


def test_a_claim_whose_answer_was_lost_is_still_ours_when_it_is_asked_again(shaky: Shaky) -> None:
    shaky.plan("update_item", Lost(timeout()))
    with pytest.raises(StorageUnavailable, match="ReadTimeoutError"):
        shaky.world.ledger.claim(claim())
    again = shaky.world.ledger.claim(claim())
    assert isinstance(again, Claimed)
    assert again.item.generation == 1


def test_a_settlement_whose_answer_was_lost_is_settled_when_it_is_asked_again(shaky: Shaky) -> None:
    shaky.world.ledger.claim(claim())
    shaky.plan("update_item", Lost(timeout()))
    with pytest.raises(StorageUnavailable):
        shaky.world.ledger.settle(settlement())
    shaky.world.ledger.settle(settlement())
    assert shaky.world.stored().status is LedgerStatus.SETTLED


def test_a_settlement_with_rows_whose_answer_was_lost_is_not_written_twice(shaky: Shaky) -> None:
    shaky.world.ledger.claim(claim())
    shaky.plan("transact_write_items", Lost(client_error("InternalServerError")))
    changes = [parked("tag"), parked("reply")]
    shaky.world.ledger.settle(settlement(changes=changes))
    assert shaky.world.stored().status is LedgerStatus.SETTLED
    assert len(shaky.world.audit_ids()) == 2
    assert shaky.count("transact_write_items") == 2


def test_a_claimed_row_whose_answer_was_lost_is_ours_when_the_same_call_asks_again(shaky: Shaky) -> None:
    """A transaction repeats itself within one call: it knows its own write by its id; two callers would look alike."""
    row, other = parked("tag"), parked("reply")
    shaky.world.recovery.commit([row, other])
    shaky.plan("transact_write_items", Lost(client_error("InternalServerError")))
    taken = claim_row(row.after, SOON, SOON + LEASE_MS, "req-2")
    shaky.world.recovery.commit([taken, hinted(other.after, SOON, 1.0)])
    assert shaky.world.recovery.get(row.after.recovery_id) == taken.after


def test_a_claimed_row_whose_answer_was_lost_for_good_is_left_to_its_lease(shaky: Shaky) -> None:
    row = parked()
    shaky.world.recovery.commit([row])
    taken = claim_row(row.after, SOON, SOON + LEASE_MS, "req-2")
    shaky.plan("put_item", Lost(timeout()))
    with pytest.raises(StorageUnavailable):
        shaky.world.recovery.commit([taken])
    with pytest.raises(VersionConflict):
        shaky.world.recovery.commit([taken])
    assert shaky.world.recovery.get(row.after.recovery_id) == taken.after


def test_a_new_row_whose_answer_was_lost_counts_as_put(shaky: Shaky) -> None:
    shaky.plan("transact_write_items", Lost(client_error("InternalServerError")))
    assert shaky.world.recovery.put_if_absent(parked())
    assert not shaky.world.recovery.put_if_absent(parked())


# -------------------------------------------------------------------------------------- what passes, and what does not


@pytest.mark.parametrize(
    "trouble",
    [
        client_error("TransactionCanceledException", *CONFLICT),
        client_error("TransactionCanceledException", "ThrottlingError", "None", "ProvisionedThroughputExceeded"),
        client_error("TransactionInProgressException"),
        client_error("ThrottlingException"),
        client_error("InternalServerError"),
    ],
    ids=lambda error: str(error.response["Error"]["Code"]),
)
def test_a_transaction_that_meets_passing_trouble_is_tried_again_after_a_pause(
    shaky: Shaky, trouble: Exception
) -> None:
    shaky.world.ledger.claim(claim())
    shaky.plan("transact_write_items", trouble, trouble)
    shaky.world.ledger.settle(settlement(changes=[parked()]))
    assert shaky.world.stored().status is LedgerStatus.SETTLED
    assert shaky.world.recovery.get(blank().recovery_id) == parked().after
    assert shaky.pauses == [0.05, 0.1]
    tokens = [request["ClientRequestToken"] for request in shaky.flaky.requests("transact_write_items")]
    assert len(set(tokens)) == 3
    assert all(len(token) == 36 for token in tokens)


def test_a_conflict_is_no_verdict_however_often_it_comes(shaky: Shaky) -> None:
    """Only ConditionalCheckFailed may fence: a busy table must not make a worker forget an action."""
    held = shaky.world.ledger.claim(claim())
    assert isinstance(held, Claimed)
    shaky.plan("transact_write_items", *[client_error("TransactionCanceledException", *CONFLICT)] * 5)
    with pytest.raises(StorageUnavailable, match="TransactionConflict, 5 times"):
        shaky.world.ledger.settle(settlement(changes=[parked()]))
    assert shaky.world.item() == held.item
    assert shaky.world.recovery.get(blank().recovery_id) is None


def test_a_refused_condition_is_a_verdict_even_beside_a_conflict(shaky: Shaky) -> None:
    shaky.world.ledger.claim(claim())
    mixed = client_error("TransactionCanceledException", "ConditionalCheckFailed", "TransactionConflict", "None")
    shaky.plan("transact_write_items", mixed)
    with pytest.raises(Fenced):
        shaky.world.ledger.settle(settlement(changes=[parked()]))
    row = parked()
    shaky.world.recovery.commit([row])
    shaky.plan("transact_write_items", mixed)
    with pytest.raises(VersionConflict):
        shaky.world.recovery.commit([end(row.after, "DISMISSED", "x", SOON)])


@pytest.mark.parametrize(
    "trouble",
    [
        client_error("AccessDeniedException"),
        client_error("TransactionCanceledException", "ValidationError", "None", "None"),
        EndpointConnectionError(endpoint_url="http://127.0.0.1"),
    ],
    ids=["denied", "invalid", "unreachable"],
)
def test_trouble_that_does_not_pass_is_told_at_once_with_its_name(shaky: Shaky, trouble: Exception) -> None:
    shaky.world.ledger.claim(claim())
    shaky.plan("transact_write_items", trouble)
    with pytest.raises(StorageUnavailable, match=r"AccessDenied|ValidationError|EndpointConn") as caught:
        shaky.world.ledger.settle(settlement(changes=[parked()]))
    assert caught.value.__cause__ is trouble
    assert shaky.pauses == []


@pytest.mark.parametrize("code", ["ThrottlingException", "AccessDeniedException", "ResourceNotFoundException"])
def test_every_operation_turns_the_services_errors_into_unavailable_storage(shaky: Shaky, code: str) -> None:
    ledger, recovery = shaky.world.ledger, shaky.world.recovery
    done = ActionMark(ActionStatus.DONE)
    reads: dict[str, Callable[[], object]] = {
        "batch_get_item": lambda: ledger.read([KEY], []),
        "get_item": lambda: recovery.get("0" * 24),
        "query": lambda: recovery.due("helpdesk", SOON, 5),
    }
    for operation, call in reads.items():
        shaky.plan(operation, *[client_error(code)] * 24)
        with pytest.raises(StorageUnavailable, match=code):
            call()
    writes: list[Callable[[], object]] = [
        lambda: ledger.claim(claim()),
        lambda: ledger.mark(KEY, "one", 1, "tag", done),
        lambda: ledger.release(KEY, "one", 1),
        lambda: ledger.settle(settlement()),
        lambda: ledger.pause("helpdesk", 1),
        lambda: ledger.take("helpdesk", 1, 1, 1),
    ]
    for write in writes:
        shaky.plan("update_item", client_error(code))
        with pytest.raises(StorageUnavailable, match=code):
            write()


def test_keys_left_unprocessed_are_asked_for_again(shaky: Shaky) -> None:
    keys = [f"E#acme#desk:{n}" for n in range(5)]
    for key in keys:
        shaky.world.ledger.claim(claim(key=key))
    half = HalfDone(shaky.flaky, most=2)
    ledger = DynamoLedger(
        half,  # type: ignore[arg-type]  # it stands in for the client
        SystemIds(),
        ledger_table=aws_tables.LEDGER,
        control_table=aws_tables.CONTROL,
        pause=shaky.pauses.append,
    )
    shaky.world.ledger.pause("helpdesk", 9)
    view = ledger.read(keys, ["helpdesk"])
    assert set(view.items) == set(keys)
    assert view.integrations["helpdesk"].paused_until_ms == 9
    assert shaky.pauses == [0.05, 0.1]
    assert all(asked["ConsistentRead"] for request in half.asked for asked in request.values())


def test_keys_that_stay_unprocessed_are_unavailable_storage_not_absent_events(shaky: Shaky) -> None:
    half = HalfDone(shaky.flaky, most=0)
    ledger = DynamoLedger(half, SystemIds(), ledger_table=aws_tables.LEDGER, pause=shaky.pauses.append)  # type: ignore[arg-type]
    with pytest.raises(StorageUnavailable, match="unprocessed"):
        ledger.read([KEY], [])
    assert len(half.asked) == 5


class HalfDone:
    """A client whose BatchGetItem does at most so many keys of a request."""

    def __init__(self, client: Any, most: int) -> None:
        self._client = client
        self._most = most
        self.asked: list[dict[str, Any]] = []

    def batch_get_item(self, *, RequestItems: dict[str, Any]) -> dict[str, Any]:  # noqa: N803  # the service's own name
        self.asked.append(RequestItems)
        wanted = [(table, key) for table, asked in RequestItems.items() for key in asked["Keys"]]
        done, left = wanted[: self._most], wanted[self._most :]
        answer: dict[str, Any] = {"Responses": {}, "UnprocessedKeys": {}}
        if done:
            answer = self._client.batch_get_item(RequestItems=_requests(done))
        answer["UnprocessedKeys"] = _requests(left)
        return answer


def _requests(keys: list[tuple[str, Any]]) -> dict[str, Any]:
    requests: dict[str, Any] = {}
    for table, key in keys:
        requests.setdefault(table, {"Keys": [], "ConsistentRead": True})["Keys"].append(key)
    return requests


# ------------------------------------------------------------------------------------------------- unreadable contents


def corrupt(shaky: Shaky, attribute: str, value: dict[str, Any]) -> None:
    shaky.flaky.client.update_item(
        TableName=aws_tables.LEDGER,
        Key={"pk": {"S": KEY}},
        UpdateExpression="SET #a = :v",
        ExpressionAttributeNames={"#a": attribute},
        ExpressionAttributeValues={":v": value},
    )


@pytest.mark.parametrize(
    ("attribute", "value"),
    [
        ("decision", {"S": "{"}),
        ("decision", {"S": '{"v":1}'}),
        ("decision", {"N": "1"}),
        ("status", {"S": "sleeping"}),
        ("actions", {"S": "none"}),
        ("generation", {"B": b"1"}),
    ],
)
def test_a_ledger_item_that_cannot_be_read_is_told_with_its_key(
    shaky: Shaky, attribute: str, value: dict[str, Any]
) -> None:
    shaky.world.ledger.claim(claim())
    corrupt(shaky, attribute, value)
    with pytest.raises(MalformedDecision, match=f"ledger item {KEY}"):
        shaky.world.ledger.read([KEY], [])
    with pytest.raises(MalformedDecision, match=f"ledger item {KEY}"):
        shaky.world.ledger.claim(claim("two", NOON_MS + 1, payload_hash="p"))


def test_a_takeover_of_a_decision_that_cannot_be_read_is_told(shaky: Shaky) -> None:
    shaky.world.ledger.claim(claim())
    corrupt(shaky, "decision", {"S": "[]"})
    with pytest.raises(MalformedDecision):
        shaky.world.ledger.claim(claim("two", NOON_MS + LEASE_MS))


def test_a_health_that_nobody_understands_parks(shaky: Shaky) -> None:
    item = {"pk": {"S": "I#helpdesk"}, "health": {"S": "fine?"}}
    shaky.flaky.client.put_item(TableName=aws_tables.CONTROL, Item=item)
    assert shaky.world.ledger.read([], ["helpdesk"]).integrations["helpdesk"].health is Health.HARD_DOWN


def test_a_row_that_cannot_be_read_does_not_hide_the_others(shaky: Shaky) -> None:
    good, bad = parked("tag"), parked("reply")
    shaky.world.recovery.commit([good, bad])
    shaky.flaky.client.update_item(
        TableName=aws_tables.RECOVERY,
        Key={"pk": {"S": bad.after.recovery_id}},
        UpdateExpression="SET effect = :v",
        ExpressionAttributeValues={":v": {"S": "perhaps"}},
    )
    assert shaky.world.recovery.due("helpdesk", SOON, 9) == [good.after]
    with pytest.raises(MalformedDecision, match=bad.after.recovery_id):
        shaky.world.recovery.get(bad.after.recovery_id)


# ---------------------------------------------------------------------------------------------------- what it costs


def test_items_expire_when_they_should_and_open_rows_never(shaky: Shaky) -> None:
    ledger, client = shaky.world.ledger, shaky.flaky.client
    ledger.claim(claim())
    row = parked()
    ledger.settle(settlement(changes=[row]))
    item = client.get_item(TableName=aws_tables.LEDGER, Key={"pk": {"S": KEY}})["Item"]
    assert int(item["ttl"]["N"]) == NOON_MS // 1000 + 60 + RETENTION_SECONDS
    key = {"pk": {"S": row.after.recovery_id}}
    assert "ttl" not in client.get_item(TableName=aws_tables.RECOVERY, Key=key)["Item"]
    ended = end(row.after, "DISMISSED", "x", SOON)
    shaky.world.recovery.commit([ended])
    stored = client.get_item(TableName=aws_tables.RECOVERY, Key=key)["Item"]
    assert int(stored["ttl"]["N"]) == ended.after.expires_ttl_s > 0


def test_a_pass_takes_one_batched_read_one_claim_and_one_settling_request(shaky: Shaky) -> None:
    ledger = shaky.world.ledger
    ledger.read([KEY, "E#acme#desk:2"], ["helpdesk"])
    ledger.claim(claim())
    ledger.settle(settlement())
    assert [name for name, _ in shaky.flaky.calls] == ["batch_get_item", "update_item", "update_item"]
    shaky.flaky.calls.clear()
    ledger.claim(claim(key="E#acme#desk:2"))
    ledger.settle(settlement(key="E#acme#desk:2", changes=[parked("tag"), parked("reply")]))
    assert [name for name, _ in shaky.flaky.calls] == ["update_item", "transact_write_items"]


def test_due_rows_take_one_query_per_shard_and_open_status(shaky: Shaky) -> None:
    assert shaky.world.recovery.due("helpdesk", SOON, 5) == []
    assert shaky.count("query") == 8 * 3
