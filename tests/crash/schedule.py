"""What goes wrong in one run, as data: it can be drawn from a seed, written down, replayed to the letter and shrunk."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

# What can go wrong at one call of a port. A "boundary" is one such call; they are numbered as they begin.
STORAGE_FAULTS = (
    "die_before",
    "die_after",
    "lost_request",
    "lost_answer",
    "stall",  # the process is frozen until long after its lease, and then goes on as if nothing were
    "twice",  # the SDK sends it again, and it is carried out both times
    "late_request",  # no answer, and it is carried out after the process has given it up, perhaps after others' writes
)
# What changes nothing is not carried out halfway, late, or twice.
READ_FAULTS = ("die_before", "lost_request", "stall")
INDEX_FAULTS = (*READ_FAULTS, "lagging")  # it shows what was there a minute ago
READS = frozenset(
    {"snapshot", "read", "read_one", "person", "delay", "ledger.read", "recovery.get", "health.read", "counts.read"}
)
INDEXES = frozenset({"recovery.due", "recovery.find"})
PROVIDER_FAULTS = (
    "die_before",
    "die_after",
    "refused",  # the connection: nothing can have happened
    "rejected",  # 422
    "unauthorized",  # 401
    "conflict",  # 409: somebody else is at it
    "throttled",  # 429 without a word
    "paused",  # 429 with Retry-After
    "unavailable",  # 503, and nothing happened
    "unavailable_after_effect",  # 503, and it has happened
    "reset",  # no answer, and nothing happened
    "dropped_answer",  # no answer, and it has happened
    "late",  # no answer before the deadline, and it happens after it
)
ASKED_FAULTS = tuple(one for one in PROVIDER_FAULTS if one not in ("die_after", "unavailable_after_effect", "conflict"))
LLM_FAULTS = ("die_before", "die_after", "llm_down", "llm_late")


def faults_at(what: str) -> tuple[str, ...]:
    """What can go wrong at a boundary of that name; of what nobody could tell apart, one."""
    if what.startswith("send."):
        return PROVIDER_FAULTS
    if what.startswith(("look_up.", "read.")):
        return ASKED_FAULTS
    if what == "classify":
        return LLM_FAULTS
    if what in INDEXES:
        return INDEX_FAULTS
    return READ_FAULTS if what in READS else STORAGE_FAULTS


# What else happens, at a moment: (milliseconds, what).
ACTS = (
    "auto_reply=off",
    "auto_reply=on",
    "mode=hold",
    "mode=route_only",
    "mode=live",
    "disabled_integrations=all",
    "disabled_integrations=none",
    "replay=off",
    "replay=on",
    "opt_out",
    "person_sets",
    "kill",
    "replay",
    "replay_suppressed",
    "dismiss",
    "switches_down",
    "switches_up",
    "deliver_again",
    "new_credential",
    "outage",  # the provider is down, and the machine has found out
    "outage_unseen",  # it is down, and nobody knows
)


@dataclass(frozen=True, slots=True)
class Schedule:
    """One run. The seed draws what is not written here: latencies, orders, and how the clocks differ.

    `faults` are by boundary number, `acts` by milliseconds from the start. `copies` is how often the queue delivers
    each event at first; `doubled` are the batches (by number) that are handed to two workers at once. With
    `is_interleaved` others get their turn at each call of sweeper, triage and replay too.
    """

    scenario: str
    seed: int = 0
    events: int = 1
    copies: int = 1
    workers: int = 1
    faults: tuple[tuple[int, str], ...] = ()
    acts: tuple[tuple[int, str], ...] = ()
    doubled: tuple[int, ...] = ()
    is_jittery: bool = False
    is_interleaved: bool = False

    def to_json(self) -> str:
        """As it is printed, and given back to `--replay`."""
        data = {name: value for name, value in asdict(self).items() if value != getattr(Schedule(self.scenario), name)}
        return json.dumps({"scenario": self.scenario, **data}, separators=(",", ":"))

    @staticmethod
    def from_json(text: str) -> Schedule:
        """Read `to_json` back. Raises ValueError, KeyError or TypeError for anything else."""
        raw: dict[str, Any] = json.loads(text)
        for name in ("faults", "acts"):
            raw[name] = tuple((int(at), str(what)) for at, what in raw.get(name, ()))
        raw["doubled"] = tuple(raw.get("doubled", ()))
        return Schedule(**raw)

    def simpler(self) -> Iterator[Schedule]:
        """Schedules with a little less in them, the boldest cut first."""
        for name in ("faults", "acts", "doubled"):
            entries = getattr(self, name)
            for index in range(len(entries)):
                yield replace(self, **{name: entries[:index] + entries[index + 1 :]})
        if self.events > 1:
            yield replace(self, events=self.events - 1)
        if self.copies > 1:
            yield replace(self, copies=1)
        if self.workers > 1:
            yield replace(self, workers=self.workers - 1)
        if self.is_jittery:
            yield replace(self, is_jittery=False)
        if self.is_interleaved:
            yield replace(self, is_interleaved=False)


def drawn(seed: int, scenarios: tuple[str, ...]) -> Schedule:
    """The random schedule of that seed. A scenario is drawn as often as `scenarios` names it."""
    rng = random.Random(seed)
    scenario = rng.choice(scenarios)
    events = rng.choice((1, 1, 1, 1, 1, 2, 2, 3))
    length = rng.choice((12, 12, 40)) * events
    faults = {
        rng.randrange(length): rng.choice(STORAGE_FAULTS + PROVIDER_FAULTS + ("lagging",))
        for _ in range(rng.choice((1, 2, 2, 3, 4)))
    }
    acts: list[tuple[int, str]] = []
    for _ in range(rng.choice((0, 0, 1, 1, 1, 2))):
        what = rng.choice(ACTS)
        at = rng.choice((rng.randrange(200), rng.randrange(70_000), rng.randrange(900_000)))
        acts.append((at, what))
        opposite = {"off": "on", "hold": "live", "route_only": "live", "all": "none"}.get(what.rpartition("=")[2])
        if opposite:
            acts.append((at + rng.choice((100, 9_000, 120_000, 1_500_000)), f"{what.rpartition('=')[0]}={opposite}"))
        elif what == "switches_down":
            acts.append((at + rng.choice((3_000, 20_000, 700_000)), "switches_up"))
        elif what in ("replay", "replay_suppressed", "dismiss"):
            acts[-1] = (rng.choice((at, 1_200_000 + rng.randrange(3_000_000))), what)
    return Schedule(
        scenario=scenario,
        seed=seed,
        events=events,
        copies=rng.choice((1, 1, 2)),
        workers=rng.choice((1, 2, 3)),
        faults=tuple(sorted(faults.items())),
        acts=tuple(sorted(acts)),
        doubled=tuple(sorted({rng.randrange(6) for _ in range(rng.choice((0, 0, 1, 2)))})),
        is_jittery=rng.random() < 0.5,
        is_interleaved=rng.random() < 0.15,
    )
