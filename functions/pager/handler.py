"""Hears alarms, makes incidents of them, throws the switch that a SEV0 asks for, and tells whoever is on call; each
minute it looks at the clocks (architecture §10).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from aws_lambda_powertools import Logger

from functions.core.alarms import Sev
from functions.core.clock import Clock, Ids
from functions.core.containment import containment_of, to_contain
from functions.core.failure import StorageUnavailable, VersionConflict
from functions.core.incident import (
    Board,
    Contained,
    Incident,
    IncidentChange,
    Rules,
    State,
    Who,
    acknowledged,
    and_contained,
    call_of,
    contained,
    is_news,
    rang,
    ticked,
)
from functions.core.ports import Incidents, OnCallChannels, Visibility
from functions.incident_board import TRIES, move
from functions.observability import Metrics
from functions.pager.containing import Containment
from functions.pager.delivering import Delivery
from functions.pager.heard import FIRING, QUIET, Heard, UnreadableAlarm, read
from functions.pager.settings import PagerSettings

BUDGET_MARGIN_MS = 15_000  # for the page that is being made and sent when the time is over
AGAIN_SECONDS = 15  # what could not be taken down comes back after that, then twice that, and so on
LATEST_SECONDS = 300  # ten times come to more than half an hour, which a table may be down
MOST_STEPS = 5  # of one incident in one tick
AHEAD_MS = 3_600_000  # that clocks may be apart, and more than they are

Handler = Callable[[dict[str, Any], object], dict[str, Any]]


def build(
    settings: PagerSettings,
    *,
    incidents: Incidents,
    channels: OnCallChannels,
    containment: Containment,
    delivery: Delivery,
    visibility: Visibility,
    rules: Rules,
    clock: Clock,
    ids: Ids,
    log: Logger,
    metrics: Metrics,
) -> Handler:
    """The handler of both: a batch of the queue `pages`, with partial batch responses, and the tick of each minute.

    A message is let go once what it says is written down. That a page did not go out keeps no message: the page is
    written down as well, and the tick sends it.
    """
    pager = _Pager(incidents, channels, containment, delivery, visibility, rules, clock, ids, log, metrics)

    def handle(event: dict[str, Any], _context: object) -> dict[str, Any]:
        deadline_ms = clock.now_ms() + settings.timeout_seconds * 1000 - BUDGET_MARGIN_MS
        try:
            return pager.batch(event["Records"], deadline_ms) if "Records" in event else pager.tick(deadline_ms)
        finally:
            metrics.flush()

    return handle


class _Pager:
    def __init__(
        self,
        incidents: Incidents,
        channels: OnCallChannels,
        containment: Containment,
        delivery: Delivery,
        visibility: Visibility,
        rules: Rules,
        clock: Clock,
        ids: Ids,
        log: Logger,
        metrics: Metrics,
    ) -> None:
        self._incidents = incidents
        self._channels = channels
        self._containment = containment
        self._delivery = delivery
        self._visibility = visibility
        self._rules = rules
        self._clock = clock
        self._ids = ids
        self._log = log
        self._metrics = metrics
        self._left = frozenset[str]()  # that the last tick has not reached: first in the next

    # ---------------------------------------------------------------------------------------------------------- alarms

    def batch(self, records: list[dict[str, Any]], deadline_ms: int) -> dict[str, Any]:
        """All of a batch is heard before anybody is told: what fires together is one page. Pages for which no time is
        left are the tick's.
        """
        failed, told = [], dict[str, None]()
        for record in records:
            try:
                incident_id = self._hear(read(record["body"]))
            except Exception:  # noqa: BLE001  # whatever it was, it is logged, counted, and the message stays
                self._metrics.count("alarms_unheard")
                self._log.exception(
                    "what an alarm said could not be taken down: it stays in its queue",
                    extra={"message_id": record["messageId"]},
                )
                failed.append({"itemIdentifier": record["messageId"]})
                self._soon_again(record)
                continue
            if incident_id:
                told[incident_id] = None
        for number, incident_id in enumerate(told):
            if number and self._clock.now_ms() >= deadline_ms:
                self._metrics.count("pages_left", len(told) - number)
                break
            try:
                self._delivery.run(incident_id, deadline_ms)
            except Exception:  # noqa: BLE001  # logged and counted; the page is written down
                self._metrics.count("pages_failed")
                self._log.exception(
                    "a page could not be delivered: the next tick tries again", extra={"incident_id": incident_id}
                )
        return {"batchItemFailures": failed}

    def _soon_again(self, record: dict[str, Any]) -> None:
        """The queue's own timeout is made for long work: somebody is to hear of this sooner."""
        tried = int(record.get("attributes", {}).get("ApproximateReceiveCount", "1"))
        seconds = min(AGAIN_SECONDS << min(tried - 1, 10), LATEST_SECONDS)
        self._visibility.delay(record["eventSourceARN"], record["receiptHandle"], seconds)

    def _hear(self, heard: Heard) -> str:
        """The incident that it is of; empty where it changes none."""
        if heard.at_ms > self._clock.now_ms() + AHEAD_MS:
            raise UnreadableAlarm("its StateChangeTime is still to come: nothing that happens before would be heard")
        if heard.state not in (FIRING, QUIET):
            self._metrics.count("alarms_heard", outcome="unknown")
            return ""
        is_firing = heard.state == FIRING
        done: Contained | None = None
        for tried in range(1, TRIES + 1):
            board = self._board(heard, is_firing=is_firing)
            if not is_news(board, heard.symptom.name, is_firing=is_firing, at_ms=heard.at_ms):
                self._metrics.count("alarms_heard", outcome="repeated")
                return ""
            if is_firing and done is None:
                done = self._contain(heard)
            try:
                change = self._change(heard, board, is_firing=is_firing, done=done)
                self._incidents.store(change)
            except VersionConflict:
                if tried == TRIES:
                    raise
                continue
            self._metrics.count("alarms_heard", outcome="firing" if is_firing else "quiet")
            return self._told(heard, change)
        raise AssertionError("the last try returns or raises")

    def _board(self, heard: Heard, *, is_firing: bool) -> Board:
        try:
            return self._incidents.board()
        except StorageUnavailable:
            # Nothing can be written down; what does harm each second is stopped nevertheless.
            if is_firing and heard.symptom.sev is Sev.SEV0:
                self._contain(heard)
            raise

    def _contain(self, heard: Heard) -> Contained | None:
        wanted = containment_of(heard.symptom, self._clock.now_ms(), self._rules.scale)
        return None if wanted is None else self._containment.set(wanted)

    def _change(self, heard: Heard, board: Board, *, is_firing: bool, done: Contained | None) -> IncidentChange:
        now_ms = self._clock.now_ms()
        open_one = board.open.get(heard.symptom.group)
        change = rang(
            heard.symptom,
            is_firing=is_firing,
            at_ms=heard.at_ms,
            incident=None if open_one is None else self._open(open_one),
            board=board,
            now_ms=now_ms,
            new_id=self._ids.new_id(),
            rules=self._rules,
        )
        if change is None:
            raise AssertionError("it was news a moment ago, on the same board")
        return change if done is None else and_contained(change, done, now_ms)

    def _open(self, incident_id: str) -> Incident:
        """The open incident of a group, as the board says. One that has ended meanwhile has moved the board too."""
        incident = self._incidents.get(incident_id)
        if incident is None or incident.is_over:
            raise VersionConflict(f"{incident_id} has moved on since the board was read")
        return incident

    def _told(self, heard: Heard, change: IncidentChange) -> str:
        about = {"reason": heard.symptom.name, "status": heard.symptom.sev.value}
        if change.after is None:
            self._log.info("an alarm is quiet, of which there is no incident", extra=about)
            return ""
        about["incident_id"] = change.after.incident_id
        if change.before is None:
            self._metrics.count("incidents_opened")
            self._log.warning("an incident was opened", extra=about)
        else:
            self._log.info("an alarm of an incident has changed", extra=about)
        return change.after.incident_id

    # ------------------------------------------------------------------------------------------------------------ tick

    def tick(self, deadline_ms: int) -> dict[str, Any]:
        """Clocks, switches that could not be set, acknowledgements and pages of every incident that is not over. One's
        trouble stops no other's, and fails the tick at its end.
        """
        active = self._incidents.board().active
        failures: list[Exception] = []
        self._hear_acknowledgements(active, failures)
        moved = paged = reached = 0
        in_turn = sorted(active, key=lambda one: one not in self._left)
        for incident_id in in_turn:
            if self._clock.now_ms() >= deadline_ms:
                self._metrics.count("ticks_cut_short")
                break
            reached += 1
            try:
                moved += self._step(incident_id)
                paged += self._delivery.run(incident_id, deadline_ms)
            except Exception as error:  # noqa: BLE001  # raised at the end, with the others'
                failures.append(error)
                self._metrics.count("duties_failed")
                self._log.exception(
                    "an incident could not be looked at", extra={"duty": "clocks", "incident_id": incident_id}
                )
        self._left = frozenset(in_turn[reached:])
        self._metrics.count("incidents_open", len(active))
        if failures:
            raise ExceptionGroup("incidents could not be looked at", failures)
        if reached == len(active):
            self._metrics.count("heartbeat")
        return {"active": len(active), "moved": moved, "paged": paged}

    def _hear_acknowledgements(self, active: tuple[str, ...], failures: list[Exception]) -> None:
        try:
            waiting = {
                call_of(incident.incident_id, incident.recurrences): incident.incident_id
                for incident in self._incidents.several(active).values()
                if incident.state is State.OPEN
            }
            for call, who in self._channels.acknowledged(list(waiting)).items():
                move(self._incidents, waiting[call], self._acknowledge(call, who))
                self._metrics.count("acknowledged_elsewhere")
        except Exception as error:  # noqa: BLE001  # as below
            failures.append(error)
            self._metrics.count("duties_failed")
            self._log.exception("acknowledgements could not be taken down", extra={"duty": "acknowledgements"})

    def _acknowledge(self, call: str, who: str) -> Callable[[Incident, Board], IncidentChange | None]:
        def change(incident: Incident, board: Board) -> IncidentChange | None:
            if incident.state is not State.OPEN or call_of(incident.incident_id, incident.recurrences) != call:
                return None
            return acknowledged(incident, board, self._clock.now_ms(), Who(who), "where it was paged")

        return change

    def _step(self, incident_id: str) -> int:
        """What the time that has passed leads to; how many changes."""
        incident = self._incidents.get(incident_id)
        if incident is None:
            return 0
        for wanted in to_contain(incident, self._clock.now_ms(), self._rules.scale):
            done = self._containment.set(wanted)
            if done.is_done:
                move(self._incidents, incident_id, self._now_contained(done))
        for number in range(MOST_STEPS):
            before = incident
            incident = move(self._incidents, incident_id, self._ticked)
            if incident is None or before is None or incident.version == before.version:
                return number
        return MOST_STEPS

    def _now_contained(self, done: Contained) -> Callable[[Incident, Board], IncidentChange]:
        def change(incident: Incident, board: Board) -> IncidentChange:
            return contained(incident, done, board, self._clock.now_ms())

        return change

    def _ticked(self, incident: Incident, board: Board) -> IncidentChange | None:
        return ticked(incident, board, self._clock.now_ms(), self._rules)
