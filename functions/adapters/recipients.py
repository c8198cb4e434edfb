"""The recipients table: whom we may contact, on which channel and where.

`pk` = `{tenant}#{recipient}`; `opted_out` (false if absent), `consent` and `contacts` by channel, `contact_since` in
milliseconds by channel, `wrong` (hashes of contacts that reach somebody else, by channel), `version`, `updated_at`,
`write_id` (the audit event of the last change). The table is encrypted at rest, and the only place where a contact is.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from functions.adapters import items
from functions.adapters.audit import audit_puts
from functions.adapters.aws import Pause, border, pause
from functions.adapters.transactions import Transactions
from functions.core.failure import VersionConflict
from functions.core.person import PersonChange
from functions.core.recipient import Person, blocked_of

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

CONVERSATION = "conversation"  # stands for the empty channel, which can be no key of a map

_LOG = logging.getLogger(__name__)


class DynamoRecipients:
    """`ports.Recipients`. A shell that only reads may leave out the audit table's name."""

    def __init__(self, client: DynamoDBClient, table: str, audit_table: str = "", *, pause: Pause = pause) -> None:
        self._client = client
        self._table = table
        self._audit_table = audit_table
        self._transactions = Transactions(client, pause)

    def person(self, tenant: str, recipient: str) -> Person:
        """See the port. What cannot be understood is logged without a word of it."""
        with border("read a recipient"):
            found = self._client.get_item(TableName=self._table, Key=_key(tenant, recipient), ConsistentRead=True).get(
                "Item"
            )
        if found is None:
            return Person()
        try:
            return person_of(tenant, found)
        except (ValueError, TypeError):
            _LOG.error(
                "a recipient's entry cannot be read: sends to them wait until it is mended",
                extra={"tenant": tenant, "recipient": recipient},
            )
            return Person(is_readable=False)

    def store(self, change: PersonChange) -> None:
        """See the port. Only what the record holds is written: attributes that a newer version added stay."""
        after, write_id = change.after, change.audit.id
        written: dict[str, Any] = {
            "opted_out": after.opted_out,
            "consent": {channel or CONVERSATION: is_given for channel, is_given in after.consent.items()},
            "contacts": dict(after.contacts),
            "contact_since": dict(after.contact_since_ms),
            "wrong": {channel: sorted(hashes) for channel, hashes in after.wrong.items()},
            "version": after.version,
            "updated_at": after.updated_at_ms,
            "write_id": write_id,
        }
        update = {
            "TableName": self._table,
            "Key": _key(change.tenant, change.recipient),
            "UpdateExpression": "SET " + ", ".join(f"#{name} = :{name}" for name in written) + " REMOVE suppressed",
            # Written by hand, a record may have no version: then nobody changed it since it was read as such.
            "ConditionExpression": "#version = :seen" if change.before.version else "attribute_not_exists(#version)",
            "ExpressionAttributeNames": items.names(written),
            "ExpressionAttributeValues": items.values(
                {**written, **({"seen": change.before.version} if change.before.version else {})}
            ),
            "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
        }
        writes = [{"Update": update}, *audit_puts([change.audit], self._audit_table)]
        verdicts = self._transactions.write(writes, "change a recipient with its audit event")
        if verdicts is None or verdicts[0].stored.get("write_id") == items.value(write_id):
            return
        raise VersionConflict(f"the record of {change.recipient} has moved on since it was read")


def _key(tenant: str, recipient: str) -> items.Item:
    return {"pk": items.value(f"{tenant}#{recipient}")}


def person_of(tenant: str, stored: Mapping[str, Any]) -> Person:
    """A record as it was read. Raises ValueError or TypeError for one that cannot be understood: never permission."""
    seen = {name: items.plain(content) for name, content in stored.items()}
    contacts = _map(seen, "contacts", str)
    wrong = {channel: frozenset(_texts(several)) for channel, several in _map(seen, "wrong", list).items()}
    is_suppressed = _of(seen.get("suppressed", False), bool)  # how records of the first form say it
    return Person(
        opted_out=_of(seen.get("opted_out", False), bool) or is_suppressed,
        consent={
            "" if channel == CONVERSATION else channel: is_given
            for channel, is_given in _map(seen, "consent", bool).items()
        },
        contacts=contacts,
        blocked=blocked_of(tenant, contacts, wrong),
        wrong=wrong,
        contact_since_ms=_map(seen, "contact_since", int),
        version=_of(seen.get("version", 0), int),
        updated_at_ms=_of(seen.get("updated_at", 0), int),
    )


def _of(content: Any, kind: type) -> Any:
    if type(content) is not kind:
        raise TypeError(f"not of type {kind.__name__}")
    return content


def _map(seen: Mapping[str, Any], name: str, kind: type) -> dict[str, Any]:
    return {key: _of(content, kind) for key, content in _of(seen.get(name, {}), dict).items()}


def _texts(several: list[Any]) -> list[str]:
    return [_of(one, str) for one in several]
