"""Integration health in the control table (architecture §8).

Counts: items `H#{integration}#{minute}#{shard}` with `ok`, `error`, `unreachable`, `rate_limited`, `auth`, `ours`
(numbers), `auth_tenants` (set of texts) and `ttl`. Each environment writes to one of four shards.

The record: attributes of the integration's control item `I#{integration}`, which holds other things too: `health`,
`health_since`, `health_reason`, `health_version`, `override` with `override_until`, `override_by`, `override_reason`,
`probe_at`, `probe_by`, `probe_ok`, `reopened`, `ramp_from`, `health_timers` (JSON), which nobody but the machine reads,
and `health_write`, by which a call knows its own write when its answer was lost.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from botocore.exceptions import ClientError

from functions.adapters import aws, items
from functions.adapters.audit import audit_puts
from functions.adapters.transactions import Transactions
from functions.core.clock import Ids
from functions.core.failure import StorageUnavailable, VersionConflict
from functions.core.gate import Health
from functions.core.health import Counts, HealthChange, Record, has_taken

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

SHARDS: Final = 4
RETENTION_SECONDS: Final = 2 * 3600
BATCH_SIZE: Final = 100
PAUSES_SECONDS: Final = (0.05, 0.1, 0.2, 0.4)  # before unprocessed keys are asked for again

_LOG = logging.getLogger(__name__)
_NUMBERS: Final = ("ok", "error", "unreachable", "rate_limited", "auth", "ours")
# Attribute of the control item to the record's field, by type.
_TEXTS: Final = {
    "health_reason": "reason",
    "override_by": "override_by",
    "override_reason": "override_reason",
    "probe_by": "probe_by",
}
_INTS: Final = {
    "health_since": "since_ms",
    "health_version": "version",
    "override_until": "override_until_ms",
    "probe_at": "probe_at_ms",
    "probe_ok": "probe_ok",
    "reopened": "reopened",
    "ramp_from": "ramp_from_ms",
}
_TIMERS: Final = ("minute", "bad", "good", "collapsed", "refused", "silent", "unbroken", "unbroken_from", "recent")


class DynamoHealthCounts:
    """`ports.HealthCounts`."""

    def __init__(self, client: DynamoDBClient, table: str, ids: Ids, *, pause: aws.Pause = aws.pause) -> None:
        self._client = client
        self._table = table
        self._shard = int(ids.new_id(), 16) % SHARDS
        self._pause = pause

    def add(self, minute: int, counts: Mapping[str, Counts], now_ms: int) -> None:
        """See the port. One UpdateItem per integration."""
        trouble: StorageUnavailable | None = None
        for integration, counted in counts.items():
            try:
                self._add(_count_key(integration, minute, self._shard), counted, now_ms)
            except StorageUnavailable as exc:
                trouble = exc
        if trouble is not None:
            raise trouble

    def _add(self, key: str, counted: Counts, now_ms: int) -> None:
        numbers = {name: getattr(counted, name) for name in _NUMBERS if getattr(counted, name)}
        if not numbers:
            return
        added = [f"#{name} :{name}" for name in numbers]
        given = items.values(numbers) | items.values({"ttl": now_ms // 1000 + RETENTION_SECONDS})
        if counted.auth_tenants:
            added.append("#auth_tenants :auth_tenants")
            given[":auth_tenants"] = {"SS": sorted(counted.auth_tenants)}
            numbers["auth_tenants"] = 0
        with aws.border("count calls"):
            self._client.update_item(
                TableName=self._table,
                Key={"pk": items.value(key)},
                UpdateExpression=f"SET #ttl = :ttl ADD {', '.join(added)}",
                ExpressionAttributeNames=items.names([*numbers, "ttl"]),
                ExpressionAttributeValues=given,
            )

    def read(self, integration: str, minutes: Sequence[int]) -> Mapping[int, Counts]:
        """See the port. One BatchGetItem per 25 minutes."""
        keys = {_count_key(integration, minute, shard): minute for minute in minutes for shard in range(SHARDS)}
        found: dict[int, Counts] = {}
        for item in _batch(self._client, self._table, list(keys), self._pause, "read the counts of calls"):
            minute = keys[item["pk"]["S"]]
            found[minute] = found.get(minute, Counts()) + _counts_of(item)
        return found


def _count_key(integration: str, minute: int, shard: int) -> str:
    return items.sound(f"H#{integration}#{minute}#{shard}")


def _counts_of(item: Mapping[str, Any]) -> Counts:
    numbers = {name: int(item[name]["N"]) for name in _NUMBERS if "N" in item.get(name, {})}
    return Counts(**numbers, auth_tenants=frozenset(item.get("auth_tenants", {}).get("SS", ())))


class DynamoHealthRecords:
    """`ports.HealthRecords`."""

    def __init__(
        self, client: DynamoDBClient, ids: Ids, *, control_table: str, audit_table: str, pause: aws.Pause = aws.pause
    ) -> None:
        self._client = client
        self._ids = ids
        self._table = control_table
        self._audit_table = audit_table
        self._pause = pause
        self._transactions = Transactions(client, pause)

    def read(self, integrations: Sequence[str]) -> Mapping[str, Record]:
        """See the port. One BatchGetItem per 100 integrations."""
        keys = {_control_key(name): name for name in integrations}
        found = {name: Record() for name in integrations}
        for item in _batch(self._client, self._table, list(keys), self._pause, "read the health of integrations"):
            name = keys[item["pk"]["S"]]
            found[name] = record_of(name, item)
        return found

    def store(self, integration: str, change: HealthChange) -> None:
        """See the port. One TransactWriteItems, or without audit events one UpdateItem."""
        write_id = self._ids.new_id()
        update = _update(self._table, integration, change, write_id)
        if change.audit:
            writes = [{"Update": update}, *audit_puts(change.audit, self._audit_table)]
            verdicts = self._transactions.write(writes, "store the health of an integration with its audit")
            if verdicts is not None:
                _check_own(integration, change, verdicts[0].stored, write_id)
            return
        with aws.border("store the health of an integration"):
            try:
                self._client.update_item(**update)
            except ClientError as exc:
                if not aws.is_refused(exc):
                    raise
                stored: Any = exc.response.get("Item", {})
                _check_own(integration, change, stored, write_id)

    def take_probe(self, integration: str, taken_by: str, now_ms: int, until_ms: int) -> bool:
        """See the port. One UpdateItem."""
        given = {"by": taken_by, "now": now_ms, "until": until_ms, "down": Health.HARD_DOWN.value, "one": 1}
        with aws.border("take the probe of an integration"):
            try:
                self._client.update_item(
                    TableName=self._table,
                    Key={"pk": items.value(_control_key(integration))},
                    UpdateExpression="SET probe_at = :until, probe_by = :by ADD health_version :one",
                    ConditionExpression=(
                        "health = :down AND (attribute_not_exists(probe_at) OR probe_at <= :now) "
                        "AND (attribute_not_exists(override_until) OR override_until <= :now)"
                    ),
                    ExpressionAttributeValues=items.values(given),
                    ReturnValuesOnConditionCheckFailure="ALL_OLD",
                )
            except ClientError as exc:
                if not aws.is_refused(exc):
                    raise
                stored: Any = exc.response.get("Item", {})
                return has_taken(record_of(integration, stored), taken_by, now_ms, until_ms)
        return True


def _check_own(integration: str, change: HealthChange, stored: Mapping[str, Any], write_id: str) -> None:
    """Return if the refusal only met what this very call had written, its answer having been lost."""
    if stored.get("health_write") != items.value(write_id):
        raise VersionConflict(f"the health of {integration} is not at version {change.seen_version} any more")


def _control_key(integration: str) -> str:
    return items.sound(f"I#{integration}")


def _update(table: str, integration: str, change: HealthChange, write_id: str) -> dict[str, Any]:
    """The whole record, in place of the version that was seen. What the item holds beside it stays."""
    attributes = record_attributes(change.after) | {"health_write": write_id}
    kept = {name: content for name, content in attributes.items() if content not in ("", 0)}
    dropped = [name for name in attributes if name not in kept]
    setting = ", ".join(f"#{name} = :{name}" for name in kept)
    removing = f" REMOVE {', '.join(f'#{name}' for name in dropped)}" if dropped else ""
    is_first = change.seen_version == 0
    return {
        "TableName": table,
        "Key": {"pk": items.value(_control_key(integration))},
        "UpdateExpression": f"SET {setting}{removing}",
        "ConditionExpression": "attribute_not_exists(#health_version)" if is_first else "#health_version = :seen",
        "ExpressionAttributeNames": items.names(attributes),
        "ExpressionAttributeValues": items.values(kept | ({} if is_first else {"seen": change.seen_version})),
        "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
    }


def record_attributes(record: Record) -> dict[str, Any]:
    """A record as attributes of the control item; 0 and empty texts mean that there is none."""
    timers = {name: getattr(record, name) for name in _TIMERS}
    return {
        "health": record.health.value,
        "override": "" if record.override is None else record.override.value,
        **{attribute: getattr(record, field) for attribute, field in _TEXTS.items()},
        **{attribute: getattr(record, field) for attribute, field in _INTS.items()},
        "health_timers": json.dumps({**timers, "window": record.window}, separators=(",", ":")),
    }


def record_of(integration: str, item: Mapping[str, Any]) -> Record:
    """A record as it was read. Timers that cannot be read are begun anew; a health that cannot be is down: parked is
    safe, and seen.
    """
    texts: dict[str, Any] = {field: str(item.get(name, {}).get("S", "")) for name, field in _TEXTS.items()}
    numbers: dict[str, Any] = {field: number_of(item, name) for name, field in _INTS.items()}
    return Record(
        health=_machine_says(integration, item),
        override=_override(integration, item.get("override", {}).get("S", "")),
        **texts,
        **numbers,
        **_timers(integration, item.get("health_timers", {}).get("S", "{}")),
    )


def state_fields(integration: str, item: Mapping[str, Any]) -> dict[str, Any]:
    """What of a control item's health goes into `IntegrationState`; one that nobody can understand counts as down."""
    ints = ("health_since", "override_until", "probe_at", "probe_ok", "ramp_from")
    return {
        "health": _machine_says(integration, item),
        "reason": str(item.get("health_reason", {}).get("S", "")),
        "override": _override(integration, item.get("override", {}).get("S", "")),
        **{_INTS[attribute]: number_of(item, attribute) for attribute in ints},
    }


def number_of(item: Mapping[str, Any], attribute: str) -> int:
    """A whole number of an item; 0 where there is none, or none that can be read."""
    try:
        return int(item.get(attribute, {}).get("N", "0"))
    except ValueError:
        return 0


def _health(integration: str, said: str) -> Health:
    try:
        return Health(said)
    except ValueError:
        _LOG.error(
            "an integration's health cannot be read: it counts as down until its control item is mended",
            extra={"integration": integration},
        )
        return Health.HARD_DOWN


def _machine_says(integration: str, item: Mapping[str, Any]) -> Health:
    return _health(integration, item.get("health", {}).get("S", Health.HEALTHY.value))


def _override(integration: str, said: str) -> Health | None:
    return None if not said else _health(integration, said)


def _timers(integration: str, text: str) -> dict[str, Any]:
    try:
        stored = json.loads(text)
        timers: dict[str, Any] = {name: int(stored.get(name, 0)) for name in _TIMERS if name != "recent"}
        recent = str(stored.get("recent", ""))
        window = tuple((int(ok), int(error)) for ok, error in stored.get("window", ()))
    except (ValueError, TypeError, AttributeError):
        _LOG.error(
            "the timers of an integration's health cannot be read: they begin anew", extra={"integration": integration}
        )
        return {}
    return {**timers, "recent": recent, "window": window}


def _batch(
    client: DynamoDBClient, table: str, keys: Sequence[str], pause: aws.Pause, what: str
) -> Iterable[Mapping[str, Any]]:
    """The items that are there, read consistently; unprocessed keys are asked for again."""
    found: list[Mapping[str, Any]] = []
    for chunk in items.chunks(keys, BATCH_SIZE):
        requests: dict[str, Any] = {table: {"Keys": [{"pk": {"S": key}} for key in chunk], "ConsistentRead": True}}
        for attempt, seconds in enumerate((0.0, *PAUSES_SECONDS)):
            if attempt:
                pause(seconds)
            with aws.border(what):
                answer = client.batch_get_item(RequestItems=requests)
            found.extend(item for several in answer.get("Responses", {}).values() for item in several)
            requests = dict(answer.get("UnprocessedKeys") or {})
            if not requests:
                break
        else:
            raise StorageUnavailable(f"{what}: keys were left unprocessed again and again")
    return found
