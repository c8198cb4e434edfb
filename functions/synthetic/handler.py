"""Every few minutes: a synthetic event is sent to the public address, as any sender would send one (architecture §10).

Nobody waits here for what becomes of it: the worker that settles it counts `synthetic_settled`, and the alarm is on
that. What is counted here says at which end to look: whether it was taken in at the door.
"""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from aws_lambda_powertools import Logger

from functions.core.clock import Clock, Ids
from functions.core.failure import StorageUnavailable
from functions.core.ports import FrontDoor, SourceEntries
from functions.core.synthetic import SOURCE, UnusableSyntheticSource, delivery
from functions.observability import Metrics
from functions.synthetic.settings import SyntheticSettings

Handler = Callable[[dict[str, Any], object], dict[str, int]]


def build(
    settings: SyntheticSettings,
    *,
    entries: SourceEntries,
    door: FrontDoor,
    clock: Clock,
    ids: Ids,
    log: Logger,
    metrics: Metrics,
) -> Handler:
    """The handler of one of them. Answers how many were taken in: 1 or 0. Raises nothing for what stands in its way:
    the next one comes in minutes, and it is their absence that calls somebody.
    """

    def handle(_event: dict[str, Any], _context: object) -> dict[str, int]:
        new_id = ids.new_id()
        why_not, said = attempt(new_id)
        about = {"source": SOURCE, "traceparent": f"00-{new_id}-{new_id[:16]}-01"}
        if why_not:
            metrics.count("synthetic_not_sent", reason=why_not)
            log.error("the synthetic event was not taken in", extra={**about, "reason": said or why_not})
        else:
            metrics.count("synthetic_sent")
            log.info("the synthetic event was taken in", extra=about)
        metrics.flush()
        return {"sent": int(not why_not)}

    def attempt(new_id: str) -> tuple[str, str]:
        """Why it was not taken in, by a stable word and by what was said; empty texts if it was."""
        try:
            entry = entries.read(SOURCE)
        except StorageUnavailable as unavailable:
            return "no_parameter_store", str(unavailable)
        if entry is None:
            return "no_source", ""
        try:
            made = delivery(entry, new_id, clock.now_ms())
        except UnusableSyntheticSource as unusable:
            return "unusable_source", str(unusable)
        status = door.post(made.url or settings.webhook_url, made.headers, made.body)
        if status == 0:
            return "not_answered", ""
        if HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
            return "", ""
        return ("refused" if status < HTTPStatus.INTERNAL_SERVER_ERROR else "failed"), f"HTTP_{status}"

    return handle
