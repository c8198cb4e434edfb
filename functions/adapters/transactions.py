"""TransactWriteItems: which of its refusals are verdicts, and which only mean "again"."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from botocore.exceptions import BotoCoreError, ClientError

from functions.adapters.aws import Pause, code_of
from functions.core.event import digest
from functions.core.failure import StorageUnavailable
from functions.core.recovery import Change

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

MAX_ITEMS: Final = 100
PAUSES_SECONDS: Final = (0.05, 0.1, 0.2, 0.4)  # after each refusal that may pass; then it is given up
CONDITION: Final = "ConditionalCheckFailed"

# Of a cancelled transaction, per item; and of a request that was not carried out at all.
_PASSING_REASONS = frozenset({"None", "TransactionConflict", "ThrottlingError", "ProvisionedThroughputExceeded"})
_PASSING_ERRORS = frozenset(
    {
        "InternalServerError",
        "ProvisionedThroughputExceededException",
        "RequestLimitExceeded",
        "ServiceUnavailable",
        "ThrottlingException",
        "TransactionInProgressException",
    }
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """On one item of a refused transaction. `stored` is the item that stood in the way, where it was asked for."""

    is_refused: bool
    stored: Mapping[str, Any]


class Transactions:
    """Writes several items, all or nothing."""

    def __init__(self, client: DynamoDBClient, pause: Pause) -> None:
        self._client = client
        self._pause = pause

    def write(self, items: Sequence[Mapping[str, Any]], what: str) -> list[Verdict] | None:
        """Apply them all and return None, or nothing and return a verdict per item, at least one of them refused.

        A conflict with another transaction, throttling and the service's own errors are tried again after a pause; the
        token is the same for the SDK's own repeats and another for each of ours, because a new try must be judged anew.
        Raises `StorageUnavailable` when that does not help; it may have been written all the same.
        """
        content = json.dumps(items, sort_keys=True, default=bytes.hex)
        trouble: ClientError | None = None
        for attempt, seconds in enumerate((0.0, *PAUSES_SECONDS)):
            if attempt:
                self._pause(seconds)
            try:
                self._client.transact_write_items(
                    TransactItems=items,  # type: ignore[arg-type]  # typed values are built in `items`
                    ClientRequestToken=digest(content, str(attempt))[:36],
                )
            except ClientError as exc:
                verdicts = _verdicts(exc)
                if verdicts is not None:
                    return verdicts
                if not _may_pass(exc):
                    raise StorageUnavailable(f"{what}: {_named(exc)}") from exc
                trouble = exc
            except BotoCoreError as exc:
                raise StorageUnavailable(f"{what}: {code_of(exc)}") from exc
            else:
                return None
        raise StorageUnavailable(f"{what}: {_named(trouble)}, {len(PAUSES_SECONDS) + 1} times") from trouble


def _reasons(exc: ClientError) -> list[Mapping[str, Any]]:
    if code_of(exc) != "TransactionCanceledException":
        return []
    return list(exc.response.get("CancellationReasons", []))


def _verdicts(exc: ClientError) -> list[Verdict] | None:
    reasons = _reasons(exc)
    if not any(reason.get("Code") == CONDITION for reason in reasons):
        return None
    return [Verdict(reason.get("Code") == CONDITION, reason.get("Item") or {}) for reason in reasons]


def _may_pass(exc: ClientError) -> bool:
    reasons = _reasons(exc)
    if reasons:
        return all(reason.get("Code", "None") in _PASSING_REASONS for reason in reasons)
    return code_of(exc) in _PASSING_ERRORS


def _named(exc: ClientError | None) -> str:
    if exc is None:
        return "no answer"
    codes = {str(reason.get("Code")) for reason in _reasons(exc)} - {"None"}
    return ", ".join(sorted(codes)) or code_of(exc)


def check_size(changes: Sequence[Change], others: int = 0) -> None:
    """Raise ValueError for what no transaction can hold: the same row twice, or more than 100 items."""
    ids = [change.after.recovery_id for change in changes]
    if len(set(ids)) != len(ids):
        raise ValueError("one transaction cannot write the same row twice")
    size = others + len(ids) + sum(len(change.audit) for change in changes)
    if size > MAX_ITEMS:
        raise ValueError(f"{size} items do not fit one transaction of at most {MAX_ITEMS}")
