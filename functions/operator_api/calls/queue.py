"""The recovery queue of one integration: list, look at, replay one, end one, say something of one (runbook 004).

A row of another integration than the path says is not there. Every change names its person in the audit, in the same
transaction; where that is not possible nothing happens, and the answer is 503.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal

from aws_lambda_powertools.event_handler.openapi.params import Header, Path, Query
from aws_lambda_powertools.event_handler.openapi.types import OpenAPIResponse
from aws_lambda_powertools.event_handler.router import APIGatewayHttpRouter
from pydantic import Field

from functions.core import operations
from functions.core.decision import Action
from functions.core.failure import (
    IllegalTransition,
    MalformedDecision,
    RootCause,
    StorageUnavailable,
    VersionConflict,
)
from functions.core.fallback import action_at
from functions.core.integration import INTAKE, KindRules
from functions.core.operations import KEY_PATTERN, Answered, Person, Refused
from functions.core.ports import Hint
from functions.core.recovery import Change, Row, Status
from functions.core.switches import FRESH_FOR_MS, KNOWN_FOR_MS, view
from functions.operator_api.bodies import Body, Reason
from functions.operator_api.caller import Caller
from functions.operator_api.handler import caller
from functions.operator_api.ports import Ports
from functions.operator_api.problems import Code, Refusal

TAG = "recovery queue"
QUEUE = "/platform/integrations/<integration_id>/recovery/queue"
ITEM = f"{QUEUE}/<recovery_id>"
_NOT_THERE: OpenAPIResponse = {"description": "There is no such integration, or no such item of it."}
_UNREADABLE: OpenAPIResponse = {"description": "Another version wrote the item, and this one cannot read it."}
TRIES = 3  # of a change, where only what waits for the item has moved on meanwhile
_CONFLICT: OpenAPIResponse = {
    "description": "The item is not in a state in which this may be done: `current_status` says in which."
}

IntegrationId = Annotated[str, Path(max_length=64)]
RecoveryId = Annotated[str, Path(max_length=64)]
Key = Annotated[
    str, Header(alias="Idempotency-Key", pattern=KEY_PATTERN, description="One per click; a repeat gets its answer.")
]


class Confirmation(Body):
    """That what may have happened has not."""

    checked: Annotated[str, Field(min_length=1, max_length=500, pattern=r"\S", description="What was looked at.")]
    effect: Literal["none"]


class Replay(Body):
    """Why it is tried once more."""

    reason: Reason
    confirmation: Confirmation | None = None


class Dismissal(Body):
    """Why it ends here. `done_by_hand`: a person has done what it was about."""

    reason: Reason
    done_by_hand: bool = False


class Cancellation(Body):
    """Why it must not be sent any more."""

    reason: Reason


class Judgement(Body):
    """Another root cause than was proposed."""

    root_cause: RootCause
    reason: Reason


class Note(Body):
    """What whoever reads it next should know."""

    note: Reason


class ToldItem(Body):
    """One item of the queue. Times are epoch milliseconds; 0: never, or none."""

    recovery_id: str
    integration_id: str
    status: str
    version: int
    subject: str
    kind: Annotated[str, Field(description="The action's; empty for a whole event.")]
    tenant: str
    source: str
    flow: str
    event_id: str
    event_name: str
    event_version: str
    action_id: str
    attempt_count: int
    effect: str
    failure_class: str
    failure_code: str
    failure_detail: str
    root_cause: str
    waiting_for: str
    due_at_ms: int
    not_before_ms: int
    expires_at_ms: int
    received_at_ms: int
    created_at_ms: int
    updated_at_ms: int
    is_under_way: bool
    replay_no: int
    replayed_from: str
    result: str
    provider_id: str
    job_id: str
    request_id: str
    origin_request_id: str


class ToldStep(Body):
    """One entry of an item's history."""

    at_ms: int
    before: str
    after: str
    why: str


class ToldHealth(Body):
    """How its integration is."""

    integration_id: str
    health: str
    since_ms: int
    reason: str


class ToldWhole(ToldItem):
    """One item with its last steps, what is known of it at its provider, and how its integration is."""

    target: Annotated[str, Field(description="What at the provider it is about.")]
    provider_key: Annotated[str, Field(description="The key or marker that the provider has of it, if it has any.")]
    response_snapshot: Annotated[
        str,
        Field(
            description="What the provider answered to the last attempt that failed, as JSON: status, its own request "
            "id, codes. What could be personal or secret is told by its kind and length. Empty: no answer came."
        ),
    ]
    first_sent_at_ms: int
    last_possible_send_ms: Annotated[int, Field(description="When it may have been sent the last time.")]
    lease_until_ms: Annotated[int, Field(description="Until when a worker is at it, at the latest.")]
    hops: Annotated[list[str], Field(description="The ways that it has left, each with why.")]
    waits_for: Annotated[list[str], Field(description="Items that must have succeeded before it is sent.")]
    waited_for_by: Annotated[list[str], Field(description="Items that wait for this one.")]
    priority: int
    incident_id: str
    traceparent: str
    history: list[ToldStep]
    integration: ToldHealth
    replay_refused: Annotated[
        str, Field(description="Why a replay would be refused that comes without a confirmation; empty: it would not.")
    ]
    replayable_until_ms: int


class ToldQueue(Body):
    """A page of the queue, status by status, oldest first. `unreadable` are ids of items that another version wrote."""

    items: list[ToldItem]
    cursor: Annotated[str, Field(description="For the next page; empty on the last.")]
    unreadable: list[str]


class ToldReplay(Body):
    """The replay is on its way: one attempt."""

    recovery_id: str
    status: Literal["replayed"]
    request_id: str
    integration: ToldHealth


def routes(ports: Ports) -> APIGatewayHttpRouter:
    """The calls of this subject."""
    router = APIGatewayHttpRouter()  # type: ignore[no-untyped-call]  # Powertools leaves it untyped
    queue = _Queue(ports)

    @router.get(
        QUEUE,
        summary="What is unfinished, dead, or was replayed",
        operation_id="listRecoveryQueue",
        tags=[TAG],
        responses={200: {"description": "A page."}, 404: {"description": "There is no such integration."}},
    )
    def show(
        integration_id: IntegrationId,
        status: Annotated[list[Status], Query(description="In any of these; without it in any but `succeeded`.")] = [],  # noqa: B006  # Powertools reads the default, nobody changes it
        limit: Annotated[int, Query(ge=1, le=200)] = 50,
        cursor: Annotated[str, Query(max_length=400)] = "",
    ) -> ToldQueue:
        return queue.page(integration_id, status, limit, cursor)

    @router.get(
        ITEM,
        summary="One item",
        operation_id="getRecoveryItem",
        tags=[TAG],
        responses={200: {"description": "The item."}, 404: _NOT_THERE, 409: _UNREADABLE},
    )
    def look(integration_id: IntegrationId, recovery_id: RecoveryId) -> ToldWhole:
        return queue.look(integration_id, recovery_id)

    @router.post(
        f"{ITEM}/replay",
        summary="Try it once more",
        operation_id="replayRecoveryItem",
        tags=[TAG],
        status_code=202,
        responses={
            202: {"description": "It is on its way, or was by the same call before."},
            404: _NOT_THERE,
            409: _CONFLICT,
            422: {"description": "Another call was made under this key."},
        },
    )
    def again(
        integration_id: IntegrationId, recovery_id: RecoveryId, wanted: Replay, idempotency_key: Key
    ) -> ToldReplay:
        return queue.replay(caller(router), integration_id, recovery_id, wanted, idempotency_key)

    def change(path: str, operation: str, summary: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        made: Callable[[Callable[..., Any]], Callable[..., Any]] = router.post(
            f"{ITEM}/{path}",
            summary=summary,
            operation_id=operation,
            tags=[TAG],
            responses={200: {"description": "The item as it is now."}, 404: _NOT_THERE, 409: _CONFLICT},
        )
        return made

    @change("dismiss", "dismissRecoveryItem", "End it: it is not wanted, or a person has done it")
    def dismiss(integration_id: IntegrationId, recovery_id: RecoveryId, wanted: Dismissal) -> ToldWhole:
        code = "DONE_BY_HAND" if wanted.done_by_hand else "DISMISSED"
        return queue.end(caller(router), integration_id, recovery_id, code, wanted.reason)

    @change("cancel", "cancelRecoveryItem", "End what still waits: it must not be sent any more")
    def cancel(integration_id: IntegrationId, recovery_id: RecoveryId, wanted: Cancellation) -> ToldWhole:
        return queue.end(caller(router), integration_id, recovery_id, "CANCELLED", wanted.reason)

    @change("root-cause", "correctRootCause", "Say what its root cause is")
    def judge(integration_id: IntegrationId, recovery_id: RecoveryId, wanted: Judgement) -> ToldWhole:
        who = caller(router)

        def judged(row: Row, person: Person, now_ms: int) -> Change:
            return operations.judged(row, person, wanted.root_cause, wanted.reason, now_ms)

        return queue.changed(who, integration_id, recovery_id, judged)

    @change("note", "noteOnRecoveryItem", "Leave a note on it")
    def note(integration_id: IntegrationId, recovery_id: RecoveryId, wanted: Note) -> ToldWhole:
        def noted(row: Row, person: Person, now_ms: int) -> Change:
            return operations.noted(row, person, wanted.note, now_ms)

        return queue.changed(caller(router), integration_id, recovery_id, noted)

    return router


class _Queue:
    """What the calls do."""

    def __init__(self, ports: Ports) -> None:
        self._ports = ports

    # --------------------------------------------------------------------------------------------------------- looking

    def page(self, integration_id: str, statuses: list[Status], limit: int, cursor: str) -> ToldQueue:
        """See `listRecoveryQueue`."""
        self._check_known(integration_id)
        wanted = statuses or [one for one in Status if one is not Status.SUCCEEDED]
        page = self._ports.operator_changes.page(integration_id, wanted, _place(cursor), limit)
        now_ms = self._ports.clock.now_ms()
        return ToldQueue(
            items=[ToldItem(**_told(row, now_ms)) for row in page.rows],
            cursor=base64.urlsafe_b64encode(page.after.encode()).decode() if page.after else "",
            unreadable=list(page.unreadable),
        )

    def row(self, integration_id: str, recovery_id: str) -> Row:
        """The item. Raises `Refusal` if it is not there, or another integration's."""
        self._check_known(integration_id)
        try:
            row = self._ports.recovery.get(recovery_id)
        except MalformedDecision as malformed:
            raise Refusal(
                Code.REPLAY_CONFLICT, "another version wrote the item, and this one cannot read it", current_status=""
            ) from malformed
        if row is None or row.integration_id != integration_id:
            raise Refusal(Code.RECOVERY_NOT_FOUND, f"{integration_id} has no item {recovery_id[:64]}")
        return row

    def look(self, integration_id: str, recovery_id: str) -> ToldWhole:
        """See `getRecoveryItem`."""
        row = self.row(integration_id, recovery_id)
        return self._whole(row, self._health(integration_id))

    def _whole(self, row: Row, health: ToldHealth) -> ToldWhole:
        """The item as it is told. Reads nothing that could fail: it is told after changes, too."""
        now_ms = self._ports.clock.now_ms()
        current = self._current(row)
        stopped = self._stopped(row, now_ms)
        refused = operations.why_refused(row, self._rules(row), now_ms, self._ports.time_scale)
        unknown = self._ports.known.why_not(row)
        return ToldWhole(
            **_told(row, now_ms),
            target="" if current is None else current.target,
            provider_key="" if current is None else current.action_id,
            response_snapshot=row.response_snapshot,
            first_sent_at_ms=row.first_sent_at_ms,
            last_possible_send_ms=row.last_possible_send_ms,
            lease_until_ms=row.lease_until_ms if row.lease_until_ms > now_ms else 0,
            hops=list(row.hops),
            waits_for=list(row.waits_for),
            waited_for_by=list(row.children),
            priority=row.priority,
            incident_id=row.incident_id,
            traceparent=row.traceparent,
            history=[
                ToldStep(
                    at_ms=int(one.get("at", 0)),
                    before=str(one.get("from", "")),
                    after=str(one.get("to", "")),
                    why=str(one.get("why", "")),
                )
                for one in row.history
            ],
            integration=health,
            replay_refused=refused or _UNKNOWN_SCHEMA * bool(unknown) or (stopped[0] if stopped else ""),
            replayable_until_ms=operations.replayable_until(row),
        )

    def _current(self, row: Row) -> Action | None:
        """Its action on the way that it goes now: by that its provider knows it."""
        if row.action is None:
            return None
        try:
            return action_at(row.action, row.hop, self._ports.fallbacks)
        except IllegalTransition:  # the matrix has that way no more; the item says so when it is tried
            return row.action

    def _health(self, integration_id: str) -> ToldHealth:
        if integration_id == INTAKE:
            return _OF_INTAKE
        record = self._ports.health.read([integration_id])[integration_id]
        state = record.state(integration_id)
        return ToldHealth(
            integration_id=integration_id,
            health=state.health_at(self._ports.clock.now_ms()).value,
            since_ms=record.since_ms,
            reason=record.reason,
        )

    def _check_known(self, integration_id: str) -> None:
        if integration_id != INTAKE and integration_id not in self._ports.integrations:
            known = ", ".join(sorted((*self._ports.integrations, INTAKE)))
            raise Refusal(Code.NOT_FOUND, f"there is no integration {integration_id!r}; there are {known}")

    # ------------------------------------------------------------------------------------------------------- replaying

    def replay(self, who: Caller, integration_id: str, recovery_id: str, wanted: Replay, key: str) -> ToldReplay:
        """See `replayRecoveryItem`."""
        body = wanted.model_dump(mode="json", exclude_none=True)
        asked = operations.asked(f"{integration_id}/{recovery_id}/replay", body)
        known = self._known(who, key)
        if known is not None:
            return _first_answer(known, asked)
        try:
            return self._replayed(who, integration_id, recovery_id, wanted, key, asked)
        except Refusal as refusal:
            # Of a click that came twice the other one may have been carried out since the look at the key.
            known = self._known(who, key) if refusal.code is Code.REPLAY_CONFLICT else None
            if known is None:
                raise
            return _first_answer(known, asked)

    def _known(self, who: Caller, key: str) -> Answered | None:
        return self._ports.operator_changes.answered(who.name, key, self._ports.clock.now_ms())

    def _replayed(
        self, who: Caller, integration_id: str, recovery_id: str, wanted: Replay, key: str, asked: str
    ) -> ToldReplay:
        ports, now_ms = self._ports, self._ports.clock.now_ms()
        row = self.row(integration_id, recovery_id)
        checked = wanted.confirmation.checked if wanted.confirmation else ""
        try:
            change = operations.replayed_by(
                row, self._rules(row), _person(who), wanted.reason, now_ms, ports.time_scale, checked=checked
            )
        except Refused as refused:
            raise _conflict(row, refused.what, reason=refused.reason) from refused
        unknown = ports.known.why_not(row)
        if unknown:
            raise _conflict(row, f"{unknown}: nothing could be made of it", reason=_UNKNOWN_SCHEMA)
        stopped = self._stopped(row, now_ms)
        if stopped is not None:
            reason, detail = stopped
            if reason == _SWITCHES_UNKNOWN:
                raise Refusal(Code.UNAVAILABLE, f"{detail}: nothing was replayed; call again")
            raise _conflict(row, detail, reason=reason)
        answer = ToldReplay(
            recovery_id=row.recovery_id,
            status="replayed",
            request_id=who.request_id,
            integration=self._health(row.integration_id),
        )
        own = Answered(who.name, key, asked, answer.model_dump_json(), now_ms)
        try:
            known = self._commit(change, own)
        except VersionConflict as moved:
            raise self._moved(integration_id, recovery_id) from moved
        if known is not None and known != own:  # of its own, only the answer was lost: nobody else hints at it
            return _first_answer(known, asked)
        after = change.after
        # What the queue does not take, the sweeper sends when the row is due: the replay stands.
        ports.replays.send([Hint(after.recovery_id, after.version, now_ms, after.tenant)], now_ms)
        return answer

    def _rules(self, row: Row) -> KindRules | None:
        integration = None if row.action is None else self._ports.integrations.get(row.integration_id)
        return None if integration is None else integration.kinds.get(row.kind)

    def _stopped(self, row: Row, now_ms: int) -> tuple[str, str] | None:
        """What stops replays of such rows, as a word and for people; None: nothing does."""
        snapshot = self._ports.switches.snapshot(FRESH_FOR_MS)
        seen = view(snapshot, flow=row.flow, source=row.source, tenant=row.tenant, now_ms=now_ms)
        if seen.age_ms is None or seen.age_ms > KNOWN_FOR_MS:
            return _SWITCHES_UNKNOWN, "the switches cannot be read"
        if not seen.replay:
            return "replay_off", "the switch `replay` is off"
        if row.integration_id in seen.replay_blocked:
            return "replay_blocked", f"the switch `replay_blocked_integrations` names {row.integration_id}"
        return None

    # -------------------------------------------------------------------------------------------------------- changing

    def end(self, who: Caller, integration_id: str, recovery_id: str, code: str, reason: str) -> ToldWhole:
        """End it for good, as that code. What waited for what a person has done goes on."""

        def ended(row: Row, person: Person, now_ms: int) -> Change:
            if code == "CANCELLED" and not row.is_open:
                raise IllegalTransition("it does not wait any more: nothing of it will be sent")
            if row.is_final:
                raise IllegalTransition("it has ended for good already")
            return operations.ended_by(row, code, person, reason, now_ms)

        return self.changed(who, integration_id, recovery_id, ended, releases=code == "DONE_BY_HAND")

    def changed(
        self,
        who: Caller,
        integration_id: str,
        recovery_id: str,
        change: Callable[[Row, Person, int], Change],
        *,
        releases: bool = False,
    ) -> ToldWhole:
        """The item after a change. Raises `Refusal`. All that is told is read before it is made: a change that is made
        is answered.
        """
        health = self._health(integration_id) if integration_id in self._ports.integrations else _OF_INTAKE
        row = self.row(integration_id, recovery_id)
        for _ in range(TRIES):
            now_ms = self._ports.clock.now_ms()
            if row.lease_until_ms > now_ms:
                seconds = -(-(row.lease_until_ms - now_ms) // 1000)
                detail = f"a worker is at it at this moment, for {seconds} seconds at the most: call again after that"
                raise _conflict(row, detail, reason="under_way")
            try:
                made = change(row, _person(who), now_ms)
            except IllegalTransition as illegal:
                raise _conflict(row, str(illegal), reason="ended" if row.is_final else "not_possible") from illegal
            released = operations.released_by_hand(row, self._children(row), now_ms) if releases else ()
            try:
                self._commit(made, released=released)
            except VersionConflict as moved:
                seen, row = row, self.row(integration_id, recovery_id)
                if row.version != seen.version:
                    raise self._moved(integration_id, recovery_id) from moved
                continue  # what waits for it has moved, not the item
            return self._whole(made.after, health)
        raise self._moved(integration_id, recovery_id)

    def _children(self, row: Row) -> list[Row]:
        found = []
        for recovery_id in row.children:
            try:
                child = self._ports.recovery.get(recovery_id)
            except MalformedDecision:  # it ends when it expires; whoever looks at it is told
                continue
            if child is not None:
                found.append(child)
        return found

    def _commit(
        self, change: Change, answered: Answered | None = None, released: Sequence[Change] = ()
    ) -> Answered | None:
        """See the port. Raises `Refusal` where nobody can tell whether it was written."""
        try:
            return self._ports.operator_changes.commit(change, answered, released)
        except StorageUnavailable as unavailable:
            if self._is_written(change):
                return None
            raise Refusal(
                Code.UNAVAILABLE,
                "storage or audit did not confirm the change: look at the item before you call again; with the same "
                "Idempotency-Key a replay is never made twice",
            ) from unavailable

    def _is_written(self, change: Change) -> bool:
        """Whether only the answer was lost."""
        try:
            return self._ports.recovery.get(change.after.recovery_id) == change.after
        except (StorageUnavailable, MalformedDecision):
            return False

    def _moved(self, integration_id: str, recovery_id: str) -> Refusal:
        now = self.row(integration_id, recovery_id)
        return _conflict(now, "it moved on at the same moment: look at it, and call again if it is still wanted")


_OF_INTAKE = ToldHealth(integration_id=INTAKE, health="healthy", since_ms=0, reason="")  # it is ours
_SWITCHES_UNKNOWN = "switches_unknown"
_UNKNOWN_SCHEMA = "schema_unknown"  # as a plan says it


def _conflict(row: Row, detail: str, **more: str) -> Refusal:
    status, code = row.status.value, row.failure_code
    return Refusal(Code.REPLAY_CONFLICT, detail, current_status=status, failure_code=code, result=row.result, **more)


def _first_answer(known: Answered, asked: str) -> ToldReplay:
    if known.asked != asked:
        raise Refusal(Code.KEY_REUSED, "another call was made under this Idempotency-Key: use one key per click")
    return ToldReplay.model_validate_json(known.answer)


def _person(who: Caller) -> Person:
    return Person(who.name, who.request_id, who.traceparent)


def _place(cursor: str) -> str:
    if not cursor:
        return ""
    try:
        place = base64.b64decode(cursor.encode(), altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError) as exc:
        raise Refusal(Code.INVALID_PAYLOAD, "the cursor is none that a page has given") from exc
    if place.partition("#")[0] not in {status.value for status in Status}:
        raise Refusal(Code.INVALID_PAYLOAD, "the cursor is none that a page has given")
    return place


def _told(row: Row, now_ms: int) -> Mapping[str, Any]:
    stated = {
        name: getattr(row, name)
        for name in ToldItem.model_fields
        if name not in ("status", "subject", "action_id", "effect", "waiting_for", "is_under_way")
    }
    return {
        **stated,
        "status": row.status.value,
        "subject": row.subject.value,
        "action_id": "" if row.action is None else row.action.action_id,
        "effect": row.effect.value,
        "waiting_for": row.waiting_for.value,
        "is_under_way": row.lease_until_ms > now_ms,
    }
