"""`holdfast status`: one screen for whoever was just paged."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import typer
from botocore.exceptions import BotoCoreError, ClientError

from functions.adapters.ledger import DynamoLedger
from functions.catalog.loader import load
from functions.core.clock import SystemClock, SystemIds
from functions.core.failure import StorageUnavailable
from functions.core.fallback import MatrixRow, health_of, in_force
from functions.core.features import FeatureStatus, status_of
from functions.core.gate import Health
from functions.core.switches import is_everyday
from ops import balance, standing
from ops.cli import incidents, quarantine
from ops.cli.console import AsJson, clean, emit, say, show_table, stack_of, time_of
from ops.operator_api import ApiRefused, OperatorApi, connect
from ops.replays import Replays
from ops.stack import Stack, StackNotFound, StackUnreachable
from ops.tokens import LoginFailed

NOT_KNOWN = "not known"
_TROUBLE = (
    ApiRefused,
    BotoCoreError,
    ClientError,
    LoginFailed,
    StackNotFound,
    StackUnreachable,
    StorageUnavailable,
)
"""What one part of the screen may meet without the others: whoever was paged needs what can be told."""


def show(ctx: typer.Context, as_json: AsJson = False) -> None:
    """How the stage stands: what users are told, health, fallbacks, incidents, replays, queues, rows, switches,
    quarantine rules, and the balance of the last hours.

    Exit code 0 whatever it is: look at the states. A part that cannot be read says so, and the others are shown.
    Without the health of the integrations nothing is: exit code 3.
    """
    stack, catalog, now_ms = stack_of(ctx), load(), SystemClock().now_ms()
    ledger = DynamoLedger(stack.client("dynamodb"), SystemIds(), control_table=stack.output("ControlTable"))
    wanted = sorted({*catalog.integrations, *(name for one in catalog.features.values() for name in one.integrations)})
    states = ledger.read([], wanted).integrations
    statuses = status_of(catalog.features, states, now_ms)
    health = {name: health_of(states.get(name), now_ms) for name in wanted}
    fallbacks = in_force(catalog.fallbacks, health)
    api = _Once(stack)
    found = {
        "incidents": _told(lambda: list(api().call("GET", incidents.PATH)["incidents"])),
        "overrides": _told(lambda: _overrides(stack, wanted, now_ms)),
        "replays": _told(lambda: list(Replays(api()).every(active=True)["replays"])),
        "queues": _told(lambda: _queues(stack, now_ms)),
        "rows": _told(lambda: [asdict(one) for one in standing.rows(stack)]),
        "switches": _told(lambda: _unusual(api().call("GET", "/platform/switches")["switches"])),
        "quarantine": _told(lambda: list(api().call("GET", quarantine.PATH)["rules"])),
        "balance": _told(lambda: _balance(stack, now_ms)),
    }
    if as_json:
        emit(
            {
                "features": {status.id: status.to_data() for status in statuses},
                "integrations": {name: state.value for name, state in health.items()},
                "fallbacks": [
                    {"integration": name, "row": row.id, "does": row.does.value, "says": row.says}
                    for name, row in fallbacks
                ],
                **found,
            }
        )
        return
    _show_features(statuses)
    _show_health(health, fallbacks)
    for part in _PARTS:
        _show(part, found[part.key])
    _show_balance(found["balance"])


# ----------------------------------------------------------------------------------------------------------- the screen


@dataclass(frozen=True, slots=True)
class _Part:
    """One table of the screen: what it is of in JSON, its heading, its columns, and how a line of it reads."""

    key: str
    title: str
    columns: tuple[str, ...]
    line: Callable[[dict[str, Any]], tuple[Any, ...]]


def _job_line(job: dict[str, Any]) -> tuple[Any, ...]:
    progress = job.get("progress") or {}
    outcomes = ", ".join(f"{number} {name}" for name, number in (progress.get("outcomes") or {}).items())
    return (
        job["replay_id"],
        job["state"],
        progress.get("done", 0),
        progress.get("items", 0),
        outcomes,
        job.get("approved_by") or job["created_by"],
        job.get("stop_reason") or progress.get("held_because") or "",
    )


_PARTS: Final = (
    _Part("incidents", "incidents that are not over", incidents.COLUMNS, incidents.line_of),
    _Part(
        "overrides",
        "health that operators set",
        ("integration", "is", "machine says", "until", "by", "why"),
        lambda one: (
            one["integration"],
            one["state"],
            one["machine_says"],
            time_of(one["until_ms"]),
            one["by"],
            one["reason"],
        ),
    ),
    _Part(
        "replays",
        "bulk replays under way",
        ("job", "state", "done", "of", "what became of them", "by", "held by"),
        _job_line,
    ),
    _Part(
        "queues",
        "queues",
        ("queue", "messages", "oldest", "dead letters"),
        lambda one: (
            one["name"],
            one["messages"],
            NOT_KNOWN if one["oldest_seconds"] is None else quarantine.left_of(one["oldest_seconds"] * 1000),
            one["dead"],
        ),
    ),
    _Part(
        "rows",
        "unfinished or dead rows",
        ("integration", "rows", "how many", "oldest due"),
        lambda one: (one["integration"], one["status"], one["count"], time_of(one["oldest_due_ms"])),
    ),
    _Part(
        "switches",
        "switches that do not say what they say every day",
        ("switch", "says", "every day", "since", "until", "then"),
        lambda one: (
            one["name"],
            one["value"],
            one.get("everyday") or "",
            time_of(one["changed_at_ms"]),
            time_of(one.get("until_ms")),
            one.get("back_to") or "",
        ),
    ),
    _Part(
        "quarantine",
        "rules of quarantine",
        ("rule", "keeps aside", "until", "by", "why"),
        lambda one: (
            one["id"],
            quarantine.criteria_of(one),
            time_of(one["expires_at_ms"]),
            one["author"],
            one["reason"],
        ),
    ),
)


def _show(part: _Part, found: Any) -> None:
    if isinstance(found, dict):
        say(f"{part.title}: {NOT_KNOWN}: {found['not_known']}")
    elif found:
        show_table(f"\n{part.title}", part.columns, [part.line(one) for one in found])
    else:
        say(f"{part.title}: none")


def _show_features(statuses: Sequence[FeatureStatus]) -> None:
    show_table(
        "",
        ("feature", "state", "users are told", "not available", "more"),
        [
            (
                status.id,
                status.state.value,
                status.message,
                ", ".join(name for name, is_on in status.capabilities.items() if not is_on),
                time_of(status.next_update_ms)
                or (f"within {status.window_minutes} min" if status.window_minutes else ""),
            )
            for status in statuses
        ],
    )


def _show_health(health: Mapping[str, Health], fallbacks: Sequence[tuple[str, MatrixRow]]) -> None:
    unwell = [(name, state.value) for name, state in health.items() if state is not Health.HEALTHY]
    if not unwell:
        say("every integration is healthy: no fallback is in force")
        return
    show_table("", ("integration", "health"), unwell)
    lines = [(name, row.id, row.says) for name, row in fallbacks]
    show_table("", ("integration", "row of the matrix", "what it says"), lines)


# -------------------------------------------------------------------------------------------------------- what is asked


class _Once:
    """The operator API, connected to when first asked for, and no more than once."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._api: OperatorApi | None = None

    def __call__(self) -> OperatorApi:
        if self._api is None:
            self._api = connect(self._stack)
        return self._api


def _told(ask: Callable[[], Any]) -> Any:
    """What was asked for; where it cannot be known, an object that says why."""
    try:
        return ask()
    except _TROUBLE as trouble:
        return {"not_known": clean(str(trouble))}


def _queues(stack: Stack, now_ms: int) -> list[dict[str, Any]]:
    ages = _told(lambda: standing.ages(stack, now_ms))
    if "not_known" in ages:
        say(f"how old messages are: {NOT_KNOWN}: {ages['not_known']}")
        ages = {}
    return [asdict(one) for one in standing.queues(stack, ages)]


def _overrides(stack: Stack, integrations: list[str], now_ms: int) -> list[dict[str, Any]]:
    held = standing.health_records(stack).read(integrations)
    return [
        {
            "integration": name,
            "state": record.override.value,
            "machine_says": record.health.value,
            "until_ms": record.override_until_ms,
            "by": record.override_by,
            "reason": record.override_reason,
        }
        for name, record in held.items()
        if record.override is not None and now_ms < record.override_until_ms
    ]


def _unusual(switches: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those that say something else than every day; what is no switch, although it stands among them, is unusual."""
    return [one for one in switches if not is_everyday(one["name"], one["value"])]


def _balance(stack: Stack, now_ms: int) -> dict[str, Any]:
    hours = balance.balance(stack, now_ms)
    left = [one.unaccounted for one in hours]
    waiting = standing.in_queues(stack, standing.queues(stack, {}))
    known = [one for one in left if one is not None]
    return {
        "hours": [{**asdict(one), "unaccounted": one.unaccounted} for one in hours],
        "in_queues": waiting,
        "missing": max(0, sum(max(0, one) for one in known) - waiting) if len(known) == len(left) else None,
    }


def _show_balance(found: dict[str, Any]) -> None:
    if "not_known" in found:
        say(f"the balance: {NOT_KNOWN}: {found['not_known']}")
        return
    show_table(
        "\nthe balance by hour: accepted = again + done + waiting + ended + unaccounted",
        ("received since", *_FIGURES),
        [
            (time_of(hour["from_ms"]), *(NOT_KNOWN if hour[name] is None else hour[name] for name in _FIGURES))
            for hour in found["hours"]
        ],
    )
    missing, queued = found["missing"], found["in_queues"]
    if missing is None:
        say("the balance does not add up where a figure is not known")
    elif missing:
        say(
            f"{missing} deliveries are unaccounted for and not among the {queued} that wait for a worker: counts come "
            "minutes late, so look again before you believe it"
        )
    else:
        say(f"nothing is missing: {queued} deliveries wait for a worker")


_FIGURES = ("accepted", "again", "done", "waiting", "ended", "unaccounted", "spilled")
