"""What the storage contracts are tried on: one world in memory, one in moto, with the same questions to ask of both."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from functions.adapters.audit import DynamoAudit, audit_item
from functions.adapters.audit_log import DynamoAuditLog
from functions.adapters.caps import DynamoCaps
from functions.adapters.control import DynamoSwitchMarks
from functions.adapters.event_index import DynamoEventIndex
from functions.adapters.found_sources import DynamoFoundSources
from functions.adapters.health import DynamoHealthCounts, DynamoHealthRecords
from functions.adapters.incidents import DynamoIncidents
from functions.adapters.ledger import DynamoLedger
from functions.adapters.operator_changes import DynamoOperatorChanges
from functions.adapters.quarantine import DynamoQuarantines
from functions.adapters.recipients import DynamoRecipients
from functions.adapters.recovery import DynamoRecovery
from functions.adapters.replay_jobs import DynamoReplayJobs
from functions.adapters.switch_returns import DynamoSwitchReturns
from functions.core import ports
from functions.core.attempt import Effect
from functions.core.decision import Action, Classification, DecidedBy, Decision, MessageRef, Mode, Repeat
from functions.core.gate import Health, IntegrationState, WaitingFor
from functions.core.ledger import ActionMark, ActionStatus, Claim, LedgerItem
from functions.core.recovery import Change, Row, Status, Subject, action_recovery_id, parked_first
from tests import aws_tables
from tests.control_fakes import FakeFoundSources, FakeReplayJobs, FakeSwitchMarks, FakeSwitchReturns
from tests.fakes import (
    NOON_MS,
    FakeAudit,
    FakeAuditLog,
    FakeCaps,
    FakeEventIndex,
    FakeHealthCounts,
    FakeHealthRecords,
    FakeIds,
    FakeLedger,
    FakeOperatorChanges,
    FakeQuarantines,
    FakeRecipients,
    FakeRecovery,
    FakeTables,
)
from tests.incident_fakes import FakeIncidents

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

KEY = "E#acme#desk:1"
LEASE_MS = 65_000


@dataclass
class World:
    """The storage ports over one set of tables, and ways to look at those that are no port's business."""

    ledger: ports.Ledger
    recovery: ports.Recovery
    audit: ports.Audit
    recipients: ports.Recipients
    audit_ids: Callable[[], list[str]]
    set_health: Callable[[str, Health], None]
    caps: ports.Caps
    index: ports.EventIndex
    audit_log: ports.AuditLog
    counts: ports.HealthCounts
    records: ports.HealthRecords
    marks: ports.SwitchMarks
    jobs: ports.ReplayJobs
    incidents: ports.Incidents
    audit_items: Callable[[], list[Any]]
    operators: ports.OperatorChanges
    quarantines: ports.Quarantines
    returns: ports.SwitchReturns
    sources: ports.FoundSources

    def item(self, key: str = KEY) -> LedgerItem | None:
        """The ledger item now."""
        return self.ledger.read([key], []).items.get(key)

    def stored(self, key: str = KEY) -> LedgerItem:
        """The ledger item, which must be there."""
        item = self.item(key)
        assert item is not None
        return item


@contextmanager
def in_memory() -> Iterator[World]:
    """Over the doubles."""
    tables = FakeTables()

    def set_health(integration: str, health: Health) -> None:
        seen = tables.integrations.get(integration, IntegrationState(integration))
        tables.integrations[integration] = replace(seen, health=health)

    yield World(
        FakeLedger(tables),
        FakeRecovery(tables),
        FakeAudit(tables),
        FakeRecipients(tables),
        audit_ids=lambda: sorted(event.id for event in tables.events),
        set_health=set_health,
        caps=FakeCaps(tables),
        index=FakeEventIndex(tables),
        audit_log=FakeAuditLog(tables),
        counts=FakeHealthCounts(tables),
        records=FakeHealthRecords(tables),
        marks=FakeSwitchMarks(),
        jobs=FakeReplayJobs(tables),
        incidents=FakeIncidents(tables),
        audit_items=lambda: _in_order(audit_item(event) for event in tables.events),
        operators=FakeOperatorChanges(tables),
        quarantines=FakeQuarantines(tables),
        returns=FakeSwitchReturns(tables),
        sources=FakeFoundSources(),
    )


def dynamo_world(client: DynamoDBClient, pauses: list[float] | None = None) -> World:
    """Over the adapters. `pauses` collects the waits that they ask for."""
    ids = FakeIds()
    waited: list[float] = [] if pauses is None else pauses

    def audit_ids() -> list[str]:
        return sorted(item["id"]["S"] for item in client.scan(TableName=aws_tables.AUDIT)["Items"])

    def audit_items() -> list[Any]:
        return _in_order(client.scan(TableName=aws_tables.AUDIT)["Items"])

    def set_health(integration: str, health: Health) -> None:
        client.update_item(
            TableName=aws_tables.CONTROL,
            Key={"pk": {"S": f"I#{integration}"}},
            UpdateExpression="SET health = :health",
            ExpressionAttributeValues={":health": {"S": health.value}},
        )

    return World(
        DynamoLedger(
            client,
            ids,
            ledger_table=aws_tables.LEDGER,
            control_table=aws_tables.CONTROL,
            recovery_table=aws_tables.RECOVERY,
            audit_table=aws_tables.AUDIT,
            pause=waited.append,
        ),
        DynamoRecovery(
            client, ids, recovery_table=aws_tables.RECOVERY, audit_table=aws_tables.AUDIT, pause=waited.append
        ),
        DynamoAudit(client, aws_tables.AUDIT),
        DynamoRecipients(client, aws_tables.RECIPIENTS, aws_tables.AUDIT, pause=waited.append),
        audit_ids,
        set_health,
        DynamoCaps(client, aws_tables.CONTROL),
        DynamoEventIndex(
            client, ledger_table=aws_tables.LEDGER, recovery_table=aws_tables.RECOVERY, pause=waited.append
        ),
        DynamoAuditLog(client, aws_tables.AUDIT),
        DynamoHealthCounts(client, aws_tables.CONTROL, ids),
        DynamoHealthRecords(
            client, ids, control_table=aws_tables.CONTROL, audit_table=aws_tables.AUDIT, pause=waited.append
        ),
        DynamoSwitchMarks(client, aws_tables.CONTROL),
        DynamoReplayJobs(
            client,
            ids,
            control_table=aws_tables.CONTROL,
            audit_table=aws_tables.AUDIT,
            recovery_table=aws_tables.RECOVERY,
            pause=waited.append,
        ),
        DynamoIncidents(
            client, ids, control_table=aws_tables.CONTROL, audit_table=aws_tables.AUDIT, pause=waited.append
        ),
        audit_items,
        DynamoOperatorChanges(
            client,
            ids,
            recovery_table=aws_tables.RECOVERY,
            audit_table=aws_tables.AUDIT,
            control_table=aws_tables.CONTROL,
            pause=waited.append,
        ),
        DynamoQuarantines(client, aws_tables.CONTROL, aws_tables.AUDIT, pause=waited.append),
        DynamoSwitchReturns(client, aws_tables.CONTROL, aws_tables.AUDIT, pause=waited.append),
        DynamoFoundSources(client, aws_tables.CONTROL, pause=waited.append),
    )


def _in_order(events: Iterable[Any]) -> list[Any]:
    return sorted(events, key=lambda item: (item["pk"]["S"], item["sk"]["S"]))


@contextmanager
def in_dynamodb() -> Iterator[World]:
    """Over the adapters and moto."""
    with aws_tables.moto_tables() as client, aws_tables.one_request_at_a_time():
        yield dynamo_world(client)


class Flaky:
    """A client whose next requests of some operations fail: `planned[operation]` holds what to raise, in order.

    A planned `Lost` carries the request out and then raises. `after[operation]` is called once, when the operation has
    been carried out, and before its answer is given.
    """

    def __init__(self, client: Any) -> None:
        self.client = client
        self.planned: dict[str, list[Exception]] = {}
        self.after: dict[str, Callable[[], object]] = {}
        self.calls: list[tuple[str, dict[str, Any]]] = []

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.client, name)

        def call(**request: Any) -> Any:
            self.calls.append((name, request))
            queue = self.planned.get(name, [])
            if not queue:
                answer = method(**request)
                self.after.pop(name, lambda: None)()
                return answer
            error = queue.pop(0)
            if isinstance(error, Lost):
                method(**request)
                self.after.pop(name, lambda: None)()
                raise error.error
            raise error

        return call

    def requests(self, name: str) -> list[dict[str, Any]]:
        """What an operation was called with."""
        return [request for called, request in self.calls if called == name]


class Stopping:
    """A client whose queries say where they stopped whenever they gave `Limit` items, as DynamoDB's do, even where that
    was the end, and refuse to start outside of what they were asked for. Moto does neither.
    """

    def __init__(self, client: Any) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def query(self, **request: Any) -> Any:
        """See above."""
        start = request.get("ExclusiveStartKey", {}).get("sk", {}).get("S", "")
        if start > request["ExpressionAttributeValues"].get(":until", {}).get("S", start):
            raise client_error("ValidationException")
        answer = self._client.query(**request)
        found = answer["Items"]
        if found and len(found) == request.get("Limit"):
            table = request["TableName"]
            index = aws_tables.INDEXES.get(table, {}).get(request.get("IndexName", ""), ())
            answer["LastEvaluatedKey"] = {name: found[-1][name] for name in (*aws_tables.KEYS[table], *index)}
        return answer


@dataclass
class Lost(Exception):
    """The request arrives, its answer does not: the caller sees `error`."""

    error: Exception = field(default_factory=lambda: client_error("InternalServerError"))


def client_error(code: str, *reasons: str) -> ClientError:
    """The SDK's error of that code, for a cancelled transaction with a reason per item."""
    answer: dict[str, Any] = {"Error": {"Code": code, "Message": "made up"}}
    if reasons:
        answer["CancellationReasons"] = [{"Code": reason} for reason in reasons]
    return ClientError(answer, "Made-up")  # type: ignore[arg-type]  # the stub knows no CancellationReasons


# ------------------------------------------------------------------------------------------------------------- builders


def decision(label: str = "billing") -> Decision:
    """Three actions, the last for the customer's eyes."""
    tag = Action("tag", "helpdesk.add_tags", "helpdesk", Repeat.IDEMPOTENT, "c-1", params={"tags": [label]})
    assign = Action("assign", "helpdesk.assign_team", "helpdesk", Repeat.SETTING, "c-1", params={"team": "t-7"})
    reply = Action(
        "reply",
        "helpdesk.reply",
        "helpdesk",
        Repeat.LOOKUP,
        "c-1",
        message=MessageRef("ack", 3, {"team": "Billing"}),
        requires=("tag",),
        customer_visible=True,
        recipient="p-1",
        expires_seconds=900,
    )
    said = Classification(label, 0.9, DecidedBy.LLM, "m-1", ("clear",))
    return Decision("support", Mode.LIVE, said, (tag, assign, reply), NOON_MS)


def claim(
    owner: str = "one",
    now_ms: int = NOON_MS,
    *,
    key: str = KEY,
    label: str = "billing",
    payload_hash: str = "p",
    received_at_ms: int = NOON_MS - 100,
    epoch_ms: int = 0,
    seen_epoch_ms: int | None = None,
) -> Claim:
    """A claim with a lease of a good minute."""
    return Claim(
        key=key,
        owner=owner,
        now_ms=now_ms,
        lease_until_ms=now_ms + LEASE_MS,
        received_at_ms=received_at_ms,
        epoch_ms=epoch_ms,
        payload_hash=payload_hash,
        decision=decision(label),
        seen_epoch_ms=seen_epoch_ms,
    )


def settlement(
    owner: str = "one",
    generation: int = 1,
    *,
    key: str = KEY,
    changes: Sequence[Change] = (),
    status: ActionStatus = ActionStatus.DONE,
) -> ports.Settlement:
    """All actions in one status, a minute after noon."""
    marks = {name: ActionMark(status, f"id-of-{name}") for name in ("tag", "assign", "reply")}
    return ports.Settlement(key, owner, generation, NOON_MS + 60_000, marks, changes)


def blank(name: str = "tag", *, integration: str = "helpdesk", event_id: str = "desk:1") -> Row:
    """The row of one action of the decision, before anything happened."""
    action = decision().bound("acme", event_id, 0).action(name)
    return Row(
        recovery_id=action_recovery_id(action.action_id),
        subject=Subject.ACTION,
        integration_id=integration,
        status=Status.PENDING,
        tenant="acme",
        source="desk",
        flow="support",
        event_id=event_id,
        epoch_ms=0,
        event_name="ticket.created",
        event_version="1",
        received_at_ms=NOON_MS - 100,
        origin_request_id="req-1",
        traceparent="00-1-2-01",
        envelope_ref="envelopes/acme/1",
        created_at_ms=NOON_MS,
        updated_at_ms=NOON_MS,
        request_id="req-1",
        action=action,
        decided_at_ms=NOON_MS,
        expires_at_ms=NOON_MS + 900_000,
        effect=Effect.NONE,
    )


def full_row() -> Row:
    """No field empty."""
    action = decision().bound("acme", "desk:1", 0).action("reply")
    return replace(
        blank("reply"),
        status=Status.REPLAYED,
        version=7,
        stand_in=decision().bound("acme", "desk:1", 0).action("tag"),
        action=replace(action, params={"nested": {"list": [1, "two", 3.5, None, True]}}),
        decision_mode=Mode.ROUTE_ONLY,
        priority=1,
        attempt_count=3,
        first_attempt_at_ms=NOON_MS + 1,
        first_sent_at_ms=NOON_MS + 2,
        last_possible_send_ms=NOON_MS + 3,
        stored_errors=2,
        takeovers=1,
        verify_only=True,
        lease_until_ms=NOON_MS + 4,
        not_before_ms=NOON_MS + 5,
        due_at_ms=NOON_MS + 6,
        effect=Effect.UNKNOWN,
        failure_class="transient",
        failure_code="HTTP_503",
        failure_detail="the provider answered 503: „später“ \U0001f600",
        root_cause="transient_infra",
        waiting_for=WaitingFor.BACKOFF,
        waits_for=("a" * 24, "b" * 24),
        children=("c" * 24,),
        credential_version="12",
        provider_id="p-1",
        replayed_from="dlq",
        replay_no=2,
        result="failed",
        job_id="job-1",
        incident_id="inc-1",
        response_snapshot="{}",
        hop=1,
        hops=("email:HTTP_422",),
        hop_kind="sms.send",
        hop_repeat="blind",
        slot_ms=NOON_MS + 7,
        dead_hints=1,
        dead_hint_version=6,
        history=(
            {"at": 1, "from": "", "to": "pending", "why": "x"},
            {"at": 2, "from": "pending", "to": "dlq", "why": "y"},
        ),
    )


def parked(name: str = "tag", due_at_ms: int = NOON_MS + 60_000, *, event_id: str = "desk:1") -> Change:
    """A new row that waits until then, with its audit event."""
    return parked_first(blank(name, event_id=event_id), WaitingFor.HEALTH, "helpdesk is down", due_at_ms)


def at_once(attempts: Sequence[Callable[[], Any]]) -> list[Any]:
    """Run them all at the same time; each one's result, or the exception it raised."""
    gate = threading.Barrier(len(attempts))
    results: list[Any] = [None] * len(attempts)

    def run(place: int, attempt: Callable[[], Any]) -> None:
        gate.wait()
        try:
            results[place] = attempt()
        except Exception as exc:  # noqa: BLE001  # it is the result that the test judges
            results[place] = exc

    threads = [threading.Thread(target=run, args=(place, attempt)) for place, attempt in enumerate(attempts)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results
