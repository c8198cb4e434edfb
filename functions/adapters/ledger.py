"""The ledger table, and the control items that its readers need in the same request (architecture §6).

A ledger item: `pk`, `status`, `owner`, `generation`, `lease_until`, `received_at`, `epoch`, `payload_hash` (bytes),
`decision` (compact JSON), `actions` (name to `{s: status, p: provider's id, h: hop}`), `slots` of a released one
(integration to milliseconds), `ttl` (seconds), and for those who trace it `rq` (request id), `tk` (ticket's key), `rc`
(recipient) and, where there is room within one write unit, `ev` (event's name). Three indexes hold the first three of
these, with the item's key and `received_at`, and only of items that have them. Times are epoch milliseconds. A control
item: `pk` =
`I#{integration}`, `paused_until`, `tat` and `busy_from` (milliseconds; `astray_tat` and `astray_from`: a `tat` that
nothing explains, and since when it was seen to stand still), and what `functions.adapters.health` keeps
there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar

from botocore.exceptions import ClientError

from functions.adapters import aws, items
from functions.adapters.audit import audit_puts
from functions.adapters.health import number_of, state_fields
from functions.adapters.quarantine import QUARANTINE_KEY, rules_or_none
from functions.adapters.recovery import row_put
from functions.adapters.transactions import Transactions, check_size
from functions.core.clock import Ids
from functions.core.decision import Decision
from functions.core.failure import Fenced, MalformedDecision, StorageUnavailable
from functions.core.gate import IntegrationState
from functions.core.ledger import (
    RETENTION_SECONDS,
    ActionMark,
    ActionStatus,
    Claim,
    Claimed,
    Handle,
    LedgerItem,
    LedgerStatus,
    Refused,
)
from functions.core.limiter import ASTRAY_FOR_MS, Full, Taken
from functions.core.ports import BatchView, Settlement
from functions.core.quarantine import Quarantine
from functions.core.recovery import Change

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

BATCH_SIZE: Final = 100
PAUSES_SECONDS: Final = (0.05, 0.1, 0.2, 0.4)  # before unprocessed keys are asked for again

_Kind = TypeVar("_Kind", str, int)
_HEX = re.compile(r"(?:[0-9a-f]{2})+\Z")
_OWN = "#owner = :owner AND #generation = :generation AND #status = :processing"

_KEEP_FIRST = (
    "received_at = if_not_exists(received_at, :received_at), epoch = if_not_exists(epoch, :epoch), "
    "decision = if_not_exists(decision, :decision), #actions = if_not_exists(#actions, :actions)"
)
_REPLACE = "received_at = :received_at, epoch = :epoch, decision = :decision, #actions = :actions"

HANDLES: Final[Mapping[Handle, str]] = {Handle.REQUEST: "rq", Handle.TICKET: "tk", Handle.RECIPIENT: "rc"}
"""What an event is found by, and the attribute that says so, which is the key of an index."""

_ROOM_BYTES: Final = 930
"""Up to which size of a claim the event's name is kept: marks grow until the settlement, and 1 KB is a write unit."""


class DynamoLedger:
    """`ports.Ledger`. A shell that only reads integrations, or only events, may leave out the other tables' names."""

    def __init__(
        self,
        client: DynamoDBClient,
        ids: Ids,
        *,
        ledger_table: str = "",
        control_table: str = "",
        recovery_table: str = "",
        audit_table: str = "",
        pause: aws.Pause = aws.pause,
    ) -> None:
        self._client = client
        self._ids = ids
        self._ledger_table = ledger_table
        self._control_table = control_table
        self._recovery_table = recovery_table
        self._audit_table = audit_table
        self._pause = pause
        self._transactions = Transactions(client, pause)

    # --------------------------------------------------------------------------------------------------------- reading

    def read(self, keys: Sequence[str], integrations: Sequence[str], *, with_rules: bool = False) -> BatchView:
        """One consistent BatchGetItem per 100 different keys, over both tables.

        Raises `MalformedDecision` if an item cannot be read, naming its key, and `StorageUnavailable`.
        """
        ledger_keys = {items.sound(key): key for key in keys}
        control_keys = {items.sound(f"I#{name}"): name for name in integrations}
        wanted = [(self._ledger_table, pk) for pk in ledger_keys] + [(self._control_table, pk) for pk in control_keys]
        wanted += [(self._control_table, QUARANTINE_KEY)] if with_rules else []
        found: dict[str, LedgerItem] = {}
        quarantine = Quarantine()
        states = {name: IntegrationState(name) for name in integrations}
        for chunk in items.chunks(wanted, BATCH_SIZE):
            for table, item in self._batch(chunk):
                pk = item["pk"]["S"]
                if table == self._ledger_table:
                    found[ledger_keys[pk]] = ledger_item(ledger_keys[pk], item)
                elif pk == QUARANTINE_KEY:
                    quarantine = rules_or_none(item)
                else:
                    states[control_keys[pk]] = integration_state(control_keys[pk], item)
        return BatchView(found, states, quarantine)

    def _batch(self, wanted: Iterable[tuple[str, str]]) -> list[tuple[str, Mapping[str, Any]]]:
        requests: dict[str, Any] = {}
        for table, pk in wanted:
            asked = requests.setdefault(table, {"Keys": [], "ConsistentRead": True})
            asked["Keys"].append({"pk": {"S": pk}})
        found: list[tuple[str, Mapping[str, Any]]] = []
        for attempt, seconds in enumerate((0.0, *PAUSES_SECONDS)):
            if attempt:
                self._pause(seconds)
            with aws.border("read the ledger and the control table"):
                answer = self._client.batch_get_item(RequestItems=requests)
            found.extend((table, item) for table, several in answer.get("Responses", {}).items() for item in several)
            requests = dict(answer.get("UnprocessedKeys") or {})
            if not requests:
                return found
        raise StorageUnavailable("read the ledger and the control table: keys were left unprocessed again and again")

    # -------------------------------------------------------------------------------------------------------- claiming

    def claim(self, claim: Claim) -> Claimed | Refused:
        """One conditional UpdateItem. Raises `MalformedDecision` if the decision that counts cannot be read.

        After the repeat window only a settled item at `seen_epoch_ms` (or none) is claimed: whoever came first may have
        died with a decision of its own, which a claim that replaces decisions must not touch.
        """
        is_afresh = claim.seen_epoch_ms is not None
        free = (
            "#status = :settled AND epoch = :seen_epoch"
            if is_afresh
            else "#status = :processing AND lease_until <= :now"
        )
        given: dict[str, Any] = {
            "processing": LedgerStatus.PROCESSING.value,
            "owner": _packed(claim.owner),
            "lease_until": claim.lease_until_ms,
            "payload_hash": _packed(claim.payload_hash),
            "received_at": claim.received_at_ms,
            "epoch": claim.epoch_ms,
            "decision": claim.decision.to_json(claim.handles.get(Handle.RECIPIENT, "")),
            "actions": marks_value(claim.marks),
            "ttl": claim.expires_at_s,
            "one": 1,
        }
        if is_afresh:
            given |= {"settled": LedgerStatus.SETTLED.value, "seen_epoch": claim.seen_epoch_ms}
        else:
            given["now"] = claim.now_ms
        told = _told(claim, sum(len(part) for part in given.values() if isinstance(part, str)))
        kept = [f"{name} = :{name}" if is_afresh else f"{name} = if_not_exists({name}, :{name})" for name in told]
        gone = [name for name in (*HANDLES.values(), "ev") if is_afresh and name not in told]
        with aws.border("claim an event"):
            try:
                answer = self._client.update_item(
                    TableName=self._ledger_table,
                    Key=_pk(claim.key),
                    UpdateExpression=(
                        "SET #status = :processing, #owner = :owner, lease_until = :lease_until, "
                        f"payload_hash = :payload_hash, #ttl = :ttl, "
                        f"{', '.join([_REPLACE if is_afresh else _KEEP_FIRST, *kept])} "
                        f"REMOVE {', '.join(['slots', *gone])} ADD #generation :one"
                    ),
                    ConditionExpression=f"attribute_not_exists(pk) OR ({free} AND payload_hash = :payload_hash)",
                    ExpressionAttributeNames=items.names(("status", "owner", "ttl", "actions", "generation")),
                    ExpressionAttributeValues=items.values(given | told),
                    ReturnValues="ALL_NEW",
                    ReturnValuesOnConditionCheckFailure="ALL_OLD",
                )
            except ClientError as exc:
                if not aws.is_refused(exc):
                    raise
                return self._refused(claim, _stored(exc))
        return Claimed(ledger_item(claim.key, answer["Attributes"]))

    def _refused(self, claim: Claim, stored: Mapping[str, Any]) -> Claimed | Refused:
        if not stored:
            raise StorageUnavailable("claim an event: refused without the item that stood in the way")
        item = ledger_item(claim.key, stored)
        is_ours = item.owner == claim.owner and item.status is LedgerStatus.PROCESSING
        return Claimed(item) if is_ours else Refused(item)

    # ------------------------------------------------------------------------------------------------- while it is ours

    def mark(self, key: str, owner: str, generation: int, name: str, mark: ActionMark) -> None:
        """Store one action's mark. Raises `Fenced` unless owner of that generation, or `StorageUnavailable`."""
        self._update_own(
            key,
            owner,
            generation,
            "SET #actions.#name = :mark",
            {"#actions": "actions", "#name": items.sound(name)},
            {"mark": _mark_value(mark)},
        )

    def release(
        self, key: str, owner: str, generation: int, ended_ms: int = 0, slots: Mapping[str, int] | None = None
    ) -> None:
        """Give up a claim under which nothing was tried: the lease ended at `ended_ms`. Raises `Fenced` like `mark`."""
        update, given = "SET lease_until = :ended", {"ended": ended_ms}
        kept = {"slots": dict(slots)} if slots else {}
        self._update_own(key, owner, generation, update + (", slots = :slots" if kept else ""), {}, given | kept)

    def _update_own(
        self, key: str, owner: str, generation: int, update: str, names: Mapping[str, str], given: Mapping[str, Any]
    ) -> None:
        with aws.border("write to a claimed event"):
            try:
                self._client.update_item(
                    TableName=self._ledger_table,
                    Key=_pk(key),
                    UpdateExpression=update,
                    ConditionExpression=_OWN,
                    ExpressionAttributeNames=items.names(("owner", "generation", "status")) | dict(names),
                    ExpressionAttributeValues=items.values(
                        {"owner": _packed(owner), "generation": generation, "processing": LedgerStatus.PROCESSING.value}
                        | dict(given)
                    ),
                )
            except ClientError as exc:
                if not aws.is_refused(exc):
                    raise
                raise _fenced(key, owner, generation) from exc

    # -------------------------------------------------------------------------------------------------------- settling

    def settle(self, settlement: Settlement) -> None:
        """One UpdateItem, or with changes one TransactWriteItems. Raises `Fenced` or `StorageUnavailable`.

        Raises ValueError for more changes and audit events than one transaction holds.
        """
        check_size(settlement.changes, others=1 + len(settlement.audit))
        update = self._settle_update(settlement)
        if settlement.changes or settlement.audit:
            self._settle_with_rows(settlement, update)
            return
        with aws.border("settle an event"):
            try:
                self._client.update_item(**update)
            except ClientError as exc:
                if not aws.is_refused(exc):
                    raise
                self._check_own_settlement(settlement, _stored(exc))

    def _settle_with_rows(self, settlement: Settlement, update: Mapping[str, Any]) -> None:
        """A row that is there already leaves the transaction with its audit events, and the rest is written."""
        changes = list(settlement.changes)
        write_id = self._ids.new_id()
        while True:
            audit = [*settlement.audit, *(event for change in changes for event in change.audit)]
            verdicts = self._transactions.write(
                [
                    {"Update": dict(update)},
                    *(row_put(change, self._recovery_table, write_id, is_new=True) for change in changes),
                    *audit_puts(audit, self._audit_table),
                ],
                "settle an event with its rows",
            )
            if verdicts is None:
                return
            if verdicts[0].is_refused:
                self._check_own_settlement(settlement, verdicts[0].stored)
                return
            changes = _without_refused(changes, [verdict.is_refused for verdict in verdicts[1:]])

    def _settle_update(self, settlement: Settlement) -> dict[str, Any]:
        given = {
            "owner": _packed(settlement.owner),
            "generation": settlement.generation,
            "processing": LedgerStatus.PROCESSING.value,
            "settled": LedgerStatus.SETTLED.value,
            "actions": marks_value(settlement.marks),
            "ttl": settlement.now_ms // 1000 + RETENTION_SECONDS,
        }
        return {
            "TableName": self._ledger_table,
            "Key": _pk(settlement.key),
            "UpdateExpression": "SET #status = :settled, #actions = :actions, #ttl = :ttl REMOVE lease_until",
            "ConditionExpression": _OWN,
            "ExpressionAttributeNames": items.names(("owner", "generation", "status", "actions", "ttl")),
            "ExpressionAttributeValues": items.values(given),
            "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
        }

    def _check_own_settlement(self, settlement: Settlement, stored: Mapping[str, Any]) -> None:
        """Return if the refusal only met the same owner's own settlement, whose answer was lost. Raises `Fenced`."""
        seen = {name: items.plain(stored[name]) for name in ("status", "owner", "generation") if name in stored}
        ours = {
            "status": LedgerStatus.SETTLED.value,
            "owner": _packed(settlement.owner),
            "generation": settlement.generation,
        }
        if seen != ours:
            raise _fenced(settlement.key, settlement.owner, settlement.generation)

    # -------------------------------------------------------------------------------------------- limiting and pausing

    def take(self, integration: str, cost_ms: int, now_ms: int, until_ms: int, seen_tat_ms: int = 0) -> Taken | Full:
        """Move `tat` on by `cost_ms`: one conditional UpdateItem, a second one where `seen_tat_ms` misled.

        `tat` only grows, and `now_ms` stays what it was given: once it was seen to be later, only one branch is left.
        The SDK's own second try after a lost answer moves it twice, which leaves time unused and is safe. Raises
        `StorageUnavailable`.
        """
        is_busy = seen_tat_ms > now_ms
        for _ in range(3):
            if is_busy:
                update, given = "ADD tat :cost", {"cost": cost_ms, "now": now_ms, "until": until_ms}
                condition = "tat > :now AND tat <= :until"
            else:
                update, given = "SET tat = :next, busy_from = :now", {"next": now_ms + cost_ms, "now": now_ms}
                condition = "attribute_not_exists(tat) OR tat <= :now"
            stored_ms, is_refused = self._moved(integration, update, condition, given)
            if not is_refused:
                return Taken(stored_ms - cost_ms)
            if stored_ms > max(now_ms, until_ms):
                return Full(stored_ms)
            is_busy = stored_ms > now_ms
        raise StorageUnavailable("take calls of an integration's limit: its item moved back and forth")

    def put_right(self, integration: str, seen_tat_ms: int, to_ms: int, now_ms: int, seen_paused_until_ms: int) -> int:
        """See the port. One UpdateItem, two where it was not noted yet; of several callers one moves it."""
        given = {"to": to_ms, "now": now_ms, "seen": seen_tat_ms, "paused": seen_paused_until_ms}
        still = "tat = :seen AND (attribute_not_exists(paused_until) OR paused_until <= :paused)"
        tat_ms, is_refused = self._moved(
            integration,
            "SET tat = :to, busy_from = :now REMOVE astray_tat, astray_from",
            f"{still} AND astray_tat = :seen AND astray_from <= :since",
            given | {"since": now_ms - ASTRAY_FOR_MS},
        )
        if is_refused and tat_ms == seen_tat_ms:
            del given["to"]
            self._moved(
                integration,
                "SET astray_tat = :seen, astray_from = :now",
                f"{still} AND (attribute_not_exists(astray_tat) OR astray_tat <> :seen OR astray_from > :now)",
                given,
            )
        return tat_ms

    def pause(self, integration: str, until_ms: int, tat_ms: int = 0) -> None:
        """Hold the whole fleet's calls until then; an earlier, longer pause stays. Raises `StorageUnavailable`.

        One UpdateItem; two more where only one of the two numbers has to move, which each does under its own condition.
        """
        numbers = {"paused_until": until_ms, "tat": max(tat_ms, until_ms)}
        together = " AND ".join(f"(attribute_not_exists({name}) OR {name} < :{name})" for name in numbers)
        update = "SET " + ", ".join(f"{name} = :{name}" for name in numbers)
        _, is_refused = self._moved(integration, update, together, numbers)
        if is_refused:
            for name, at_ms in numbers.items():
                later = f"attribute_not_exists({name}) OR {name} < :{name}"
                self._moved(integration, f"SET {name} = :{name}", later, {name: at_ms})

    def _moved(self, integration: str, update: str, condition: str, given: Mapping[str, int]) -> tuple[int, bool]:
        """Where `tat` is after one write to the control item (0: nowhere), and whether the write was refused."""
        with aws.border("move an integration's limit or pause"):
            try:
                stored: Mapping[str, Any] = self._client.update_item(
                    TableName=self._control_table,
                    Key=_pk(f"I#{integration}"),
                    UpdateExpression=update,
                    ConditionExpression=condition,
                    ExpressionAttributeValues=items.values(given),
                    ReturnValues="UPDATED_NEW",
                    ReturnValuesOnConditionCheckFailure="ALL_OLD",
                )["Attributes"]
            except ClientError as exc:
                if not aws.is_refused(exc):
                    raise
                return int(_stored(exc).get("tat", {}).get("N", "0")), True
        return int(stored.get("tat", {}).get("N", "0")), False


def _pk(key: str) -> items.Item:
    return {"pk": items.value(key)}


def _stored(exc: ClientError) -> Mapping[str, Any]:
    stored: Mapping[str, Any] = exc.response.get("Item", {})  # type: ignore[assignment]  # not in the error's general shape
    return stored


def _fenced(key: str, owner: str, generation: int) -> Fenced:
    return Fenced(f"{key} is not held by {owner} in generation {generation}")


def _without_refused(changes: Sequence[Change], refused: Sequence[bool]) -> list[Change]:
    """The changes whose rows were not there yet. Audit events have no condition, so only rows can be refused."""
    left = [change for change, is_refused in zip(changes, refused, strict=False) if not is_refused]
    if len(left) == len(changes):
        raise StorageUnavailable("settle an event with its rows: refused for none of its conditions")
    return left


def _mark_value(mark: ActionMark) -> dict[str, str | int]:
    value: dict[str, str | int] = {"s": mark.status.value}
    if mark.provider_id:
        value["p"] = mark.provider_id
    if mark.hop:
        value["h"] = mark.hop
    return value


def marks_value(marks: Mapping[str, ActionMark]) -> dict[str, dict[str, str | int]]:
    """The `actions` attribute."""
    return {name: _mark_value(mark) for name, mark in marks.items()}


def _told(claim: Claim, claim_bytes: int) -> dict[str, str]:
    """By attribute, what is written for those who trace the event. `claim_bytes`: of what must be written."""
    told = {HANDLES[handle]: key for handle, key in claim.handles.items()}
    size = len(claim.key) + claim_bytes + sum(len(each) for each in told.values()) + _FIXED_BYTES
    size += sum(len(name) + _MARK_BYTES for name in claim.marks)
    if claim.event_name and size + len(claim.event_name.encode("utf-8", "surrogatepass")) <= _ROOM_BYTES:
        told["ev"] = claim.event_name
    return told


_FIXED_BYTES: Final = 180
"""Names of attributes, numbers, hash and owner, at their longest."""
_MARK_BYTES: Final = 12
"""Of a mark in a claim, without its name."""


def _packed(text: str) -> str | bytes:
    """Hexadecimal digits take half the room as bytes, and an item is paid by the kilobyte."""
    return bytes.fromhex(text) if len(text) >= _WORTH_PACKING and _HEX.match(text) else text


_WORTH_PACKING: Final = 32


def _unpacked(stored: str | bytes) -> str:
    return stored.hex() if isinstance(stored, bytes) else _of(str, stored)


def _of(kind: type[_Kind], content: Any) -> _Kind:
    if not isinstance(content, kind):
        raise TypeError(f"{type(content).__name__} is not {kind.__name__}")
    return content


def ledger_item(key: str, stored: Mapping[str, Any]) -> LedgerItem:
    """A ledger item as it was read. Raises `MalformedDecision` if its decision, or anything else of it, cannot be."""
    try:
        seen = {name: items.plain(content) for name, content in stored.items()}
        return LedgerItem(
            key=key,
            status=LedgerStatus(seen["status"]),
            owner=_unpacked(seen["owner"]),
            generation=_of(int, seen["generation"]),
            lease_until_ms=_of(int, seen.get("lease_until", 0)),
            received_at_ms=_of(int, seen["received_at"]),
            epoch_ms=_of(int, seen["epoch"]),
            payload_hash=_unpacked(seen["payload_hash"]),
            decision=Decision.from_json(seen["decision"], seen.get("rc", "")),
            actions={
                name: ActionMark(ActionStatus(mark["s"]), mark.get("p", ""), _of(int, mark.get("h", 0)))
                for name, mark in seen["actions"].items()
            },
            slots={name: _of(int, at_ms) for name, at_ms in seen.get("slots", {}).items()},
            request_id=_of(str, seen.get("rq", "")),
            event_name=_of(str, seen.get("ev", "")),
            written_at_ms=max(0, _of(int, seen.get("ttl", 0)) - RETENTION_SECONDS) * 1000,
        )
    except MalformedDecision as exc:
        raise MalformedDecision(f"ledger item {key}: {exc}") from exc
    except (KeyError, ValueError, TypeError, AttributeError) as exc:
        raise MalformedDecision(f"ledger item {key} cannot be read: {exc!r}") from exc


def integration_state(integration: str, stored: Mapping[str, Any]) -> IntegrationState:
    """A control item as it was read, its health as `functions.adapters.health` understands it."""
    paused_until_ms, tat_ms, busy_from_ms = (number_of(stored, name) for name in ("paused_until", "tat", "busy_from"))
    return IntegrationState(
        integration,
        paused_until_ms=paused_until_ms,
        tat_ms=tat_ms,
        busy_from_ms=busy_from_ms,
        **state_fields(integration, stored),
    )
