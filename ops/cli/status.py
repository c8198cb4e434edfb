"""`holdfast status`: what users are told of each feature now, and to operators which fallbacks are in force."""

from __future__ import annotations

import typer

from functions.adapters.ledger import DynamoLedger
from functions.catalog.loader import load
from functions.core.clock import SystemClock, SystemIds
from functions.core.fallback import health_of, in_force
from functions.core.features import status_of
from functions.core.gate import Health
from ops.cli.console import AsJson, emit, say, show_table, stack_of, time_of


def show(ctx: typer.Context, as_json: AsJson = False) -> None:
    """The status of each feature, and the fallbacks in force. Exit code 0 whatever it is: look at the states."""
    stack, catalog, now_ms = stack_of(ctx), load(), SystemClock().now_ms()
    ledger = DynamoLedger(stack.client("dynamodb"), SystemIds(), control_table=stack.output("ControlTable"))
    wanted = sorted({*catalog.integrations, *(name for one in catalog.features.values() for name in one.integrations)})
    states = ledger.read([], wanted).integrations
    statuses = status_of(catalog.features, states, now_ms)
    health = {name: health_of(states.get(name), now_ms) for name in wanted}
    fallbacks = in_force(catalog.fallbacks, health)
    if as_json:
        emit(
            {
                "features": {status.id: status.to_data() for status in statuses},
                "integrations": {name: state.value for name, state in health.items()},
                "fallbacks": [
                    {"integration": name, "row": row.id, "does": row.does.value, "says": row.says}
                    for name, row in fallbacks
                ],
            }
        )
        return
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
    unwell = [(name, state.value) for name, state in health.items() if state is not Health.HEALTHY]
    if not unwell:
        say("every integration is healthy: no fallback is in force")
        return
    show_table("", ("integration", "health"), unwell)
    show_table(
        "", ("integration", "row of the matrix", "what it says"), [(name, row.id, row.says) for name, row in fallbacks]
    )
