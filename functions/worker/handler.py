"""The worker: batches of the events, retries and replays queues, with partial batch responses (architecture §6).

A record is acknowledged only when its event or row is settled, or waits as a row. Everything else is named in
`batchItemFailures` and shown again when that makes sense.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from functions.core.event import ClaimCheck, Event, read_message
from functions.core.failure import Fenced, MalformedDecision, MalformedEnvelope, StorageUnavailable
from functions.core.gate import IntegrationState
from functions.core.ledger import LedgerItem
from functions.core.limiter import PATIENT_RECEIVES
from functions.core.ports import BatchView, Hint
from functions.worker.attempts import SWITCHES_MAX_AGE_MS, Attempts
from functions.worker.first_pass import Account, Admitted, EventResult, FirstPass, Later, lease_until
from functions.worker.leases import Leases
from functions.worker.ports import Budget, Ports
from functions.worker.recovery_pass import HintResult, RecoveryPass
from functions.worker.settings import WorkerSettings

Handler = Callable[[dict[str, Any], Any], dict[str, Any]]

RESERVE_MS = 6_000  # of the function's time: nothing starts that cannot end before it
SUSPECT_RECEIVES = 4  # received that often, a message goes last and alone: it may be what kills the others
FIRST_RETRY_SECONDS = 10
LONGEST_RETRY_SECONDS = 600


@dataclass(frozen=True, slots=True)
class Record:
    """One message of the batch."""

    message_id: str
    receipt_handle: str
    queue_arn: str
    receive_count: int
    body: str


def build(
    settings: WorkerSettings,
    ports: Ports,
    run: Callable[[Coroutine[Any, Any, dict[str, Any]]], dict[str, Any]] = asyncio.run,
    flush: Callable[[], None] = lambda: None,
) -> Handler:
    """The Lambda handler. `run` drives an invocation's coroutine to its end; `flush` writes its counts."""
    shares: dict[str, int] = {}  # the limiter's numbers of this environment, for when nobody else's can be asked

    def handle(event: dict[str, Any], _context: Any) -> dict[str, Any]:
        started_ms = ports.clock.now_ms()
        budget = Budget(
            ports.clock,
            ends_at_ms=started_ms + settings.timeout_seconds * 1000 - RESERVE_MS,
            lease_until_ms=lease_until(started_ms, settings.timeout_seconds),
        )
        try:
            return run(_Batch(settings, ports, budget, shares).process(_records(event)))
        finally:
            flush()

    return handle


def _records(event: dict[str, Any]) -> list[Record]:
    return [
        Record(
            message_id=raw["messageId"],
            receipt_handle=raw["receiptHandle"],
            queue_arn=raw["eventSourceARN"],
            receive_count=int(raw.get("attributes", {}).get("ApproximateReceiveCount", "1")),
            body=raw["body"],
        )
        for raw in event["Records"]
    ]


class _Batch:
    """One invocation's records."""

    def __init__(self, settings: WorkerSettings, ports: Ports, budget: Budget, shares: dict[str, int]) -> None:
        self._settings = settings
        self._ports = ports
        self._budget = budget
        self._failed: list[str] = []
        self._states: dict[str, IntegrationState] = {}
        self._leases = Leases(ports, settings.time_scale, self._states, shares)

    async def process(self, records: Sequence[Record]) -> dict[str, Any]:
        """Events and hints never share a batch, because they never share a queue."""
        events_queue = self._settings.events_queue_url.rpartition("/")[2]
        events = [record for record in records if record.queue_arn.rpartition(":")[2] == events_queue]
        hints = [record for record in records if record.queue_arn.rpartition(":")[2] != events_queue]
        if events:
            await self._events(events)
        if hints:
            await self._hints(hints)
        self._ports.meter.count("items_received", len(records))
        if self._failed:
            self._ports.meter.count("items_returned", len(self._failed))
        return {"batchItemFailures": [{"itemIdentifier": message_id} for message_id in self._failed]}

    # ---------------------------------------------------------------------------------------------------------- events

    async def _events(self, records: Sequence[Record]) -> None:
        readable = await self._readable(records)
        snapshot = await self._ports.io(self._ports.switches.snapshot, SWITCHES_MAX_AGE_MS)
        attempts = Attempts(self._ports, self._settings.time_scale, self._budget, self._states, self._leases)
        first_pass = FirstPass(self._ports, attempts, self._budget, snapshot, self._settings.time_scale)
        groups: dict[str, list[tuple[Record, Admitted]]] = {}
        for record, message in readable:
            admitted = first_pass.admitted(message)
            groups.setdefault(admitted.key, []).append((record, admitted))
        if not groups:
            return
        view = await self._read_groups(groups)
        if view is None:
            return
        self._states.update(view.integrations)
        first_pass.quarantine = view.quarantine
        ordered = sorted(groups.values(), key=lambda group: max(record.receive_count for record, _ in group))
        trusted = [group for group in ordered if all(record.receive_count < SUSPECT_RECEIVES for record, _ in group)]
        self._leases.expect(group[0][1].real_key for group in trusted)
        await _all([self._group(first_pass, group, view) for group in trusted])
        for group in ordered[len(trusted) :]:
            await self._group(first_pass, group, view)
        await attempts.tally.flush()

    async def _readable(self, records: Sequence[Record]) -> list[tuple[Record, Event | ClaimCheck]]:
        readable = []
        for record in records:
            try:
                readable.append((record, read_message(record.body)))
            except MalformedEnvelope as malformed:
                self._say_malformed(record, malformed)
                await self._return(record)
        return readable

    def _say_malformed(self, record: Record, malformed: MalformedEnvelope) -> None:
        self._ports.log.warning(
            "the message is no envelope: it goes to the DLQ, and triage makes a recovery item of it",
            extra={"message_id": record.message_id, "receive_count": record.receive_count, "reason": str(malformed)},
        )

    async def _read(self, keys: list[str], records: Sequence[Record]) -> BatchView | None:
        try:
            integrations = sorted(self._ports.integrations)
            return await self._ports.io(self._ports.ledger.read, keys, integrations, with_rules=True)
        except StorageUnavailable:
            self._ports.log.exception(
                "the ledger could not be read: the batch comes back", extra={"count": len(records)}
            )
            for record in records:
                await self._return(record)
            return None

    async def _read_groups(self, groups: dict[str, list[tuple[Record, Admitted]]]) -> BatchView | None:
        """The ledger's view of every event. One whose item cannot be read leaves `groups`: its neighbours go on."""
        keys = _keys(groups.values())
        try:
            return await self._read(keys, [record for group in groups.values() for record, _ in group])
        except MalformedDecision:
            self._ports.log.exception("a ledger item cannot be read: the batch's items are read one by one")
        view = await self._read([], [record for group in groups.values() for record, _ in group])
        if view is None:
            return None
        found: dict[str, LedgerItem] = {}
        for key, group in list(groups.items()):
            try:
                one = await self._ports.io(self._ports.ledger.read, _keys([group]), [])
            except (MalformedDecision, StorageUnavailable):
                self._ports.meter.count("items_failed")
                self._ports.log.exception(
                    "the event's ledger item could not be read: its messages come back, and end in the DLQ if it stays",
                    extra={"message_id": group[0][0].message_id, "receive_count": group[0][0].receive_count},
                )
                del groups[key]
                for record, _ in group:
                    await self._return(record)
            else:
                found.update(one.items)
        return replace(view, items=found)

    async def _group(self, first_pass: FirstPass, group: list[tuple[Record, Admitted]], view: BatchView) -> None:
        """Copies of one event: the oldest is processed, the others follow its result if they are the same.

        Two equal events beyond their repeat window come in any order; the newer one done first would hide the older.
        """
        group = sorted(group, key=lambda copy: copy[1].event.received_at_ms)
        leader, admitted = group[0]
        seen = replace(admitted.seen(view.items), may_wait=leader.receive_count <= PATIENT_RECEIVES)
        result = await self._guarded(leader, first_pass.process(seen))
        self._leases.leave(admitted.real_key)
        await self._answer(leader, result)
        for record, copy in group[1:]:
            if _is_copy(copy.event, admitted.event):
                if result is not None and not isinstance(result, Later):
                    self._ports.meter.count("idempotency_duplicates_detected", reason="same_batch")
                    if copy.event.request_id != admitted.event.request_id:
                        first_pass.account(copy.event, Account.AGAIN)
                await self._answer(record, result)
            else:
                await self._answer(record, Later(1, "another event under the same id was processed first"))

    # ----------------------------------------------------------------------------------------------------------- hints

    async def _hints(self, records: Sequence[Record]) -> None:
        hints: dict[str, tuple[Hint, list[Record]]] = {}
        for record in records:
            hint = Hint.from_message(record.body)
            if hint is None:
                self._ports.log.warning(
                    "the message is no hint: it goes to the DLQ, and triage looks at it",
                    extra={"message_id": record.message_id, "receive_count": record.receive_count},
                )
                await self._return(record)
                continue
            known = hints.setdefault(hint.recovery_id, (hint, []))
            known[1].append(record)
            if hint.version > known[0].version:
                hints[hint.recovery_id] = (hint, known[1])
        if not hints:
            return
        flat = [record for _, copies in hints.values() for record in copies]
        view = await self._read([], flat)
        if view is None:
            return
        self._states.update(view.integrations)
        snapshot = await self._ports.io(self._ports.switches.snapshot, SWITCHES_MAX_AGE_MS)
        attempts = Attempts(self._ports, self._settings.time_scale, self._budget, self._states, self._leases)
        first_pass = FirstPass(self._ports, attempts, self._budget, snapshot, self._settings.time_scale)
        recovery_pass = RecoveryPass(self._ports, attempts, self._budget, first_pass, self._settings.time_scale)
        recovery_pass.quarantine = view.quarantine
        self._leases.expect(hints)
        await _all([self._one_hint(recovery_pass, hint, copies) for hint, copies in hints.values()])
        await attempts.tally.flush()

    async def _one_hint(self, recovery_pass: RecoveryPass, hint: Hint, copies: Sequence[Record]) -> None:
        result = await self._guarded(copies[0], recovery_pass.handle(hint))
        self._leases.leave(hint.recovery_id)
        for record in copies:
            await self._answer(record, result)

    # --------------------------------------------------------------------------------------------------------- answers

    async def _guarded(
        self, record: Record, work: Coroutine[Any, Any, EventResult | HintResult]
    ) -> EventResult | HintResult | None:
        """The work's result, or None where it failed: one record's trouble is not its neighbours'."""
        try:
            return await work
        except (StorageUnavailable, Fenced):
            self._ports.log.exception(
                "storage did not do its part: the message comes back",
                extra={"message_id": record.message_id, "receive_count": record.receive_count},
            )
        except MalformedEnvelope as malformed:  # of a large event: what its claim check names
            self._say_malformed(record, malformed)
        except Exception:  # a defect met by one message; it is logged, counted, and ends in the DLQ if it stays
            self._ports.meter.count("items_failed")
            self._ports.log.exception(
                "the message could not be processed: it comes back, and ends in the DLQ if this goes on",
                extra={"message_id": record.message_id, "receive_count": record.receive_count},
            )
        return None

    async def _answer(self, record: Record, result: EventResult | HintResult | None) -> None:
        if result is None:
            await self._return(record)
        elif isinstance(result, Later):
            await self._show_again(record, result.seconds)

    async def _return(self, record: Record) -> None:
        """Back to the queue, a little later each time."""
        doubled = FIRST_RETRY_SECONDS * 2 ** min(record.receive_count - 1, 10)
        seconds = min(doubled, LONGEST_RETRY_SECONDS) * self._settings.time_scale
        await self._show_again(record, max(1, round(seconds)))

    async def _show_again(self, record: Record, seconds: int) -> None:
        self._failed.append(record.message_id)
        await self._ports.io(self._ports.visibility.delay, record.queue_arn, record.receipt_handle, seconds)


async def _all(work: Sequence[Coroutine[Any, Any, None]]) -> None:
    """Run them at once and return when every one has ended, whatever one of them met: nothing thaws in a later
    invocation.
    """
    outcomes = await asyncio.gather(*work, return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome


def _keys(groups: Iterable[Sequence[tuple[Record, Admitted]]]) -> list[str]:
    """The ledger keys of these events; of one in shadow mode also the real one, which may have been claimed before."""
    return list(dict.fromkeys(key for group in groups for _, copy in group[:1] for key in (copy.key, copy.real_key)))


def _is_copy(one: Event, other: Event) -> bool:
    """Whether two deliveries under one id are the same event, and not two that only meet in this batch."""
    if one.payload_hash != other.payload_hash:
        return False
    window_ms = one.repeat_window_seconds * 1000
    return window_ms == 0 or abs(one.received_at_ms - other.received_at_ms) <= window_ms
