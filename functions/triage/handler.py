"""Makes a recovery row of every message that a queue gave up, and only then lets it go (architecture §7, Triage)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from aws_lambda_powertools import Logger

from functions.core.clock import Clock, Ids
from functions.core.event import NAME, ClaimCheck, Event, read_message
from functions.core.failure import HoldfastError, MalformedEnvelope
from functions.core.ledger import ledger_key
from functions.core.ports import Envelopes, Hint, Ledger, Recovery
from functions.core.recovery import hint_died, poisoned
from functions.core.triage import (
    Again,
    Delivery,
    Handled,
    TooEarly,
    judge_event,
    judge_hint,
    judge_unreadable,
)
from functions.dead_letters import DeadLetters, Recorded
from functions.ended import count_ended
from functions.observability import Metrics

Handler = Callable[[dict[str, Any], object], dict[str, Any]]


class NotYet(HoldfastError):
    """A worker is at the message's event or row at this moment."""


def build(
    *,
    ledger: Ledger,
    recovery: Recovery,
    envelopes: Envelopes,
    clock: Clock,
    ids: Ids,
    log: Logger,
    metrics: Metrics,
    max_receives: int,
) -> Handler:
    """The handler of the three dead-letter queues, with partial batch responses. `max_receives`: how often workers get
    a message before its queue gives it up.

    A message is let go once what it stood for is settled, or is a row with its envelope. Anything that goes wrong
    before that leaves it in its queue, where its age raises the alarm "triage is broken".
    """
    dead_letters = DeadLetters(recovery, envelopes, clock, metrics)
    triage = _Triage(ledger, recovery, dead_letters, clock, ids, log, metrics, max_receives)

    def handle(event: dict[str, Any], _context: object) -> dict[str, Any]:
        try:
            kept = [record["messageId"] for record in event["Records"] if not triage.is_done(record)]
        finally:
            metrics.flush()
        return {"batchItemFailures": [{"itemIdentifier": message_id} for message_id in kept]}

    return handle


class _Triage:
    def __init__(
        self,
        ledger: Ledger,
        recovery: Recovery,
        dead_letters: DeadLetters,
        clock: Clock,
        ids: Ids,
        log: Logger,
        metrics: Metrics,
        max_receives: int,
    ) -> None:
        self._max_receives = max_receives
        self._ledger = ledger
        self._recovery = recovery
        self._dead_letters = dead_letters
        self._clock = clock
        self._ids = ids
        self._log = log
        self._metrics = metrics

    def is_done(self, record: dict[str, Any]) -> bool:
        """Whether the message may go. One message's trouble is not its neighbours'."""
        delivery = _delivery(record, self._max_receives)
        seen = {"message_id": delivery.message_id, "queue": delivery.queue, "receive_count": delivery.receive_count}
        try:
            about = self._dispose(record["body"], record.get("messageAttributes", {}), delivery)
        except NotYet:
            self._metrics.count("triage_too_early")
            self._log.info("somebody is at it: the message stays", extra=seen)
            return False
        except Exception:  # noqa: BLE001  # whatever it was, it is logged, counted, and the message stays
            self._metrics.count("triage_failed")
            self._log.exception("the message could not be triaged: it stays", extra=seen)
            return False
        self._log.warning("triaged", extra=seen | about)
        return True

    def _dispose(self, body: str, attributes: dict[str, Any], delivery: Delivery) -> dict[str, Any]:
        hint = Hint.from_message(body)
        if hint is not None:
            return self._hint(hint, delivery)
        try:
            message = read_message(body)
        except MalformedEnvelope as malformed:
            return self._unreadable(body, attributes, delivery, str(malformed))
        return self._event(message, delivery)

    def _event(self, message: Event | ClaimCheck, delivery: Delivery) -> dict[str, Any]:
        """A claim check is judged by what it says of the event: the body is not needed."""
        event = message.head if isinstance(message, ClaimCheck) else message
        now_ms = self._clock.now_ms()
        keys = [ledger_key(event), ledger_key(event, is_shadow=True)]
        found = self._ledger.read(keys, []).items
        verdict = judge_event(event, [found.get(key) for key in keys], delivery, now_ms)
        about = {
            "tenant": event.tenant,
            "source": event.source,
            "event_id": event.event_id,
            "request_id": event.request_id,
        }
        match verdict:
            case TooEarly():
                raise NotYet(event.event_id)
            case Handled(outcome):
                return about | self._needless(outcome)
        return about | self._counted(self._dead_letters.event(message, verdict))

    def _unreadable(self, body: str, attributes: dict[str, Any], delivery: Delivery, problem: str) -> dict[str, Any]:
        request_id = _attribute(attributes, "request_id") or self._ids.new_id()
        said = [f"{name} {value}" for name in ("tenant", "source") if (value := _attribute(attributes, name))]
        claimed = f" (it says {', '.join(said)})" if said else ""
        finding = judge_unreadable(delivery, problem + claimed)
        content = body.encode("utf-8", "surrogatepass")  # JSON can smuggle in half a surrogate pair
        return self._counted(self._dead_letters.unreadable(content, finding, request_id))

    def _counted(self, recorded: Recorded) -> dict[str, Any]:
        if recorded.is_new:
            self._metrics.count("triaged", reason=recorded.finding.root_cause.value)
        else:
            self._needless("row_exists")
        return recorded.about

    def _hint(self, hint: Hint, delivery: Delivery) -> dict[str, Any]:
        now_ms = self._clock.now_ms()
        about = {"recovery_id": hint.recovery_id, "version": hint.version}
        row = self._recovery.get(hint.recovery_id)
        if row is None:
            return about | self._needless("no_row")
        verdict = judge_hint(row, hint, delivery, now_ms)
        match verdict:
            case TooEarly():
                raise NotYet(hint.recovery_id)
            case Handled(outcome):
                return about | self._needless(outcome)
            case Again(evidence):
                self._recovery.commit([hint_died(row, evidence, now_ms)])
                self._metrics.count("hints_given_up", integration=row.integration_id)
                return about | {"integration": row.integration_id, "outcome": "again", "count": row.dead_hints + 1}
        change = poisoned(row, verdict.evidence, now_ms)
        self._recovery.commit([change])
        count_ended(self._metrics, change, is_critical=False)  # poison is never less
        self._metrics.count("triaged", reason=verdict.root_cause.value)
        return about | {"code": verdict.code, "root_cause": verdict.root_cause.value, "outcome": "recorded"}

    def _needless(self, outcome: str) -> dict[str, Any]:
        self._metrics.count("triage_needless", outcome=outcome)
        return {"outcome": outcome}


def _delivery(record: dict[str, Any], max_receives: int) -> Delivery:
    attributes = record.get("attributes", {})
    receive_count = int(attributes.get("ApproximateReceiveCount", "1"))
    return Delivery(
        message_id=record["messageId"],
        queue=str(record.get("eventSourceARN", "")).rpartition(":")[2],
        receive_count=receive_count,
        sent_at_ms=int(attributes.get("SentTimestamp", "0")),
        work_receives=min(receive_count, max_receives),
    )


def _attribute(attributes: dict[str, Any], name: str) -> str:
    """A message attribute that is a plain id, else nothing: it comes with a message nobody could read."""
    value = attributes.get(name, {}).get("stringValue", "")
    return value if isinstance(value, str) and NAME.match(value) else ""
