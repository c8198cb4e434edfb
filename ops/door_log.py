"""What ingress has logged of its requests, for the command line: `functions.adapters.door_log` found by a stack."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from functions.adapters import door_log
from functions.adapters.door_log import ACCEPTED, MAX_PAGES, REFUSED, line_of, rejections
from functions.core.ports import DoorLine, Rejections
from ops.stack import Stack

__all__ = [
    "ACCEPTED",
    "MAX_PAGES",
    "REFUSED",
    "DoorLine",
    "DoorLog",
    "Rejections",
    "Seen",
    "Sightings",
    "line_of",
    "rejections",
    "sightings",
]


class DoorLog(door_log.DoorLog):
    """The log group of one stage's ingress."""

    @staticmethod
    def of(stack: Stack) -> DoorLog:
        """Found by the function's own configuration, so that no output has to name it."""
        function = stack.output("IngressFunction")
        configuration = stack.client("lambda").get_function_configuration(FunctionName=function)
        group = configuration.get("LoggingConfig", {}).get("LogGroup") or f"/aws/lambda/{function}"
        return DoorLog(stack.client("logs"), str(group))


@dataclass(frozen=True, slots=True)
class Seen:
    """What the log tells of one source. None: nothing in the part of the window that was read."""

    accepted: DoorLine | None = None
    refused: DoorLine | None = None


@dataclass(frozen=True, slots=True)
class Sightings:
    """The newest accepted and refused delivery of sources, and since when the log was read for each kind."""

    seen: dict[str, Seen]
    accepted_since_ms: int
    refused_since_ms: int


def sightings(log: DoorLog, names: Sequence[str], since_ms: int, now_ms: int) -> Sightings:
    """When each of these sources was last heard, and last refused. Stops as soon as nothing is left to find."""
    only = names if len(names) == 1 else ()
    newest: dict[bool, dict[str, DoorLine]] = {False: {}, True: {}}
    reached: dict[bool, int] = {}
    for is_refused, phrase in ((False, ACCEPTED), (True, REFUSED)):
        walk = log.newest_first(since_ms, now_ms, phrase, *only, pages=MAX_PAGES // 2)
        wanted, found = set(names), newest[is_refused]
        if not wanted:
            continue
        for line in walk:
            if line.is_refused is is_refused and line.source in wanted and line.is_looked_up:
                found[line.source] = line
                wanted.discard(line.source)
                if not wanted:
                    break
        reached[is_refused] = walk.reached_ms
    return Sightings(
        {name: Seen(newest[False].get(name), newest[True].get(name)) for name in names},
        reached.get(False, since_ms),
        reached.get(True, since_ms),
    )
