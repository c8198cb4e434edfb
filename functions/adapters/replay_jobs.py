"""Bulk replays in the control table: items `J#{job_id}` (the job as JSON, with `version`, `state` and `write_id`), kept
for 400 days, and one item `RB`, the board of them all. What a job does to rows is written together with a check of its
item.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from botocore.exceptions import ClientError

from functions.adapters import aws, items
from functions.adapters.audit import audit_puts
from functions.adapters.control_items import ControlItems
from functions.adapters.recovery import row_item, row_put
from functions.adapters.transactions import Transactions, Verdict, check_size
from functions.core.clock import Ids
from functions.core.failure import Fenced, VersionConflict
from functions.core.recovery import Change
from functions.core.replay_job import Board, Job, JobChange

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

BOARD_KEY: Final = "RB"
PREFIX: Final = "J#"
RETENTION_SECONDS: Final = 400 * 86_400


class DynamoReplayJobs:
    """`ports.ReplayJobs`. Who only reads or stores jobs may leave out the recovery table."""

    def __init__(
        self,
        client: DynamoDBClient,
        ids: Ids,
        *,
        control_table: str,
        audit_table: str = "",
        recovery_table: str = "",
        pause: aws.Pause = aws.pause,
    ) -> None:
        self._client = client
        self._items = ControlItems(client, control_table, "bulk replay", pause)
        self._ids = ids
        self._table = control_table
        self._audit_table = audit_table
        self._recovery_table = recovery_table
        self._transactions = Transactions(client, pause)

    def get(self, job_id: str) -> Job | None:
        """See the port."""
        return self._items.one(_job_key(job_id), _job)

    def several(self, job_ids: Sequence[str]) -> Mapping[str, Job]:
        """See the port. One BatchGetItem for 100 jobs."""
        found = self._items.several([_job_key(job_id) for job_id in job_ids], _job)
        return {key.removeprefix(PREFIX): job for key, job in found.items()}

    def board(self) -> Board:
        """See the port."""
        return self._items.one(BOARD_KEY, _board) or Board()

    # --------------------------------------------------------------------------------------------------------- writing

    def store(self, change: JobChange) -> None:
        """See the port."""
        write_id = self._ids.new_id()
        job = change.after
        item = {
            "pk": _job_key(job.job_id),
            "job": job.to_json(),
            "version": job.version,
            "state": job.state.value,
            "ttl": job.created_at_ms // 1000 + RETENTION_SECONDS,
        }
        puts = [self._put(item, write_id, None if change.before is None else change.before.version)]
        if change.board is not None:
            before, after = change.board
            board = {
                "pk": BOARD_KEY,
                "holders": dict(after.holders),
                "working": list(after.working),
                "recent": list(after.recent),
                "version": after.version,
            }
            puts.append(self._put(board, write_id, before.version or None))
        writes = [*puts, *audit_puts(change.audit, self._audit_table)]
        verdicts = self._one(puts[0]) if len(writes) == 1 else self._transactions.write(writes, "write a bulk replay")
        if verdicts is None or _all_own(verdicts[: len(puts)], write_id):
            return
        which = "the job" if verdicts[0].is_refused else "the board of jobs"
        raise VersionConflict(f"{which} has moved on since {job.job_id} was read")

    def _one(self, put: Mapping[str, Any]) -> list[Verdict] | None:
        """A lease or a checkpoint: nothing goes with it."""
        with aws.border("write a bulk replay"):
            try:
                self._client.put_item(**put["Put"])
            except ClientError as exc:
                if not aws.is_refused(exc):
                    raise
                stored: Any = exc.response.get("Item", {})
                return [Verdict(is_refused=True, stored=stored)]
        return None

    def _put(self, item: Mapping[str, Any], write_id: str, seen: int | None) -> dict[str, Any]:
        put: dict[str, Any] = {
            "TableName": self._table,
            "Item": items.item({**item, "write_id": write_id}),
            "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
        }
        if seen is None:
            return {"Put": put | {"ConditionExpression": "attribute_not_exists(pk)"}}
        return {"Put": put | _at_version(seen)}

    def apply(self, job: Job, changes: Sequence[Change]) -> None:
        """See the port. At most 49 changes of one audit event each fit one call."""
        check_size(changes, others=1)
        write_id = self._ids.new_id()
        check = {
            "TableName": self._table,
            "Key": items.item({"pk": _job_key(job.job_id)}),
            "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
            **_at_version(job.version),
        }
        puts = [row_put(change, self._recovery_table, write_id, is_new=False) for change in changes]
        audit = [event for change in changes for event in change.audit]
        writes = [{"ConditionCheck": check}, *puts, *audit_puts(audit, self._audit_table)]
        verdicts = self._transactions.write(writes, "write rows of a bulk replay")
        if verdicts is None:
            return
        rows = list(zip(changes, verdicts[1:], strict=False))
        if rows and all(verdict.is_refused and _is_there(change, verdict.stored) for change, verdict in rows):
            return  # its own earlier try was carried out, and only the answer was lost
        if verdicts[0].is_refused:
            raise Fenced(f"the job {job.job_id} is not at version {job.version} any more")
        moved = [change.after.recovery_id for change, verdict in rows if verdict.is_refused]
        raise VersionConflict(f"moved on since it was read: {', '.join(moved)}")


def _at_version(seen: int) -> dict[str, Any]:
    return {
        "ConditionExpression": "#version = :seen",
        "ExpressionAttributeNames": items.names(["version"]),
        "ExpressionAttributeValues": items.values({"seen": seen}),
    }


def _all_own(verdicts: Sequence[Verdict], write_id: str) -> bool:
    return all(one.is_refused and one.stored.get("write_id") == items.value(write_id) for one in verdicts)


def _is_there(change: Change, stored: Mapping[str, Any]) -> bool:
    """Whether the row is what this change makes of it. None of a job's changes gives a lease, so that it does no harm
    where another's equal change is taken for one's own.
    """
    return {name: content for name, content in stored.items() if name != "write_id"} == row_item(change.after)


def _job(stored: Mapping[str, Any]) -> Job:
    return Job.from_json(stored["job"])


def _board(stored: Mapping[str, Any]) -> Board:
    return Board(dict(stored["holders"]), tuple(stored["working"]), tuple(stored["recent"]), int(stored["version"]))


def _job_key(job_id: str) -> str:
    return f"{PREFIX}{job_id}"
