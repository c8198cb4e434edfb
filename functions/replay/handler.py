"""Bulk replay (architecture §7): plans jobs and carries them out. Who asks is the operator API; the sweeper calls it
again for a job that nobody works on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from functions.core.failure import Conflict, StorageUnavailable
from functions.replay.ports import Ports
from functions.replay.running import Runner
from functions.replay.settings import ReplaySettings

END_MARGIN_MS = 10_000  # of an invocation's time, for what is under way

Handler = Callable[[dict[str, Any], object], dict[str, str]]


def build(settings: ReplaySettings, ports: Ports) -> Handler:
    """The handler: `{"job_id"}` to what came of it. Raises nothing for trouble that passes: the job is there, its lease
    ends, and the sweeper sees to it; what keeps it from going on is counted (`replay_jobs_interrupted`).
    """

    def handle(payload: dict[str, Any], context: object) -> dict[str, str]:
        job_id = str(payload.get("job_id", ""))
        until_ms = ports.clock.now_ms() + _remaining_ms(context) - END_MARGIN_MS
        runner = Runner(ports, settings.time_scale, ports.ids.new_id(), until_ms)
        try:
            outcome = runner.run(job_id)
        except Conflict as moved:
            ports.log.info("somebody else has moved the bulk replay on", extra={"job_id": job_id, "reason": str(moved)})
            outcome = "moved"
        except StorageUnavailable:
            ports.metrics.count("replay_jobs_interrupted")
            ports.log.exception(
                "a bulk replay was interrupted: it goes on once its lease is over", extra={"job_id": job_id}
            )
            outcome = "interrupted"
        finally:
            ports.metrics.flush()
        return {"job_id": job_id, "outcome": outcome}

    return handle


def _remaining_ms(context: object) -> int:
    """What is left of the invocation; without a clock of Lambda's, a minute."""
    remaining = getattr(context, "get_remaining_time_in_millis", None)
    return 60_000 if remaining is None else int(remaining())
