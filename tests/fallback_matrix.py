"""The shipped fallback matrix over integrations as they will be: those that the catalog does not have yet, made up."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from functions.catalog.loader import load
from functions.core.decision import Action, MessageRef, Repeat
from functions.core.fallback import Matrix, Occasion
from functions.core.gate import Health, Standing
from functions.core.integration import Integration, KindRules
from functions.core.retry import RetryPolicy

THREE = RetryPolicy(3, (300, 600))


def _integration(name: str, kinds: dict[str, Repeat], **fields: Any) -> Integration:
    rules = {
        f"{name}.{verb}": KindRules(
            f"{name}.{verb}",
            repeat,
            key_window_seconds=86_400 if repeat is Repeat.KEYED else 0,
            can_look_up=repeat is Repeat.LOOKUP,
        )
        for verb, repeat in kinds.items()
    }
    return Integration(name, rules, **fields)


INTEGRATIONS = {
    "helpdesk": load().integrations["helpdesk"],
    "llm": load().integrations["llm"],
    "email": _integration("email", {"send": Repeat.LOOKUP}, channel="email", policy=THREE),
    "sms": _integration("sms", {"send": Repeat.LOOKUP}, channel="sms", policy=THREE),
    "payments": _integration(
        "payments",
        dict.fromkeys(("create_checkout_session", "change_plan", "cancel_subscription"), Repeat.KEYED),
    ),
    "ocr": _integration("ocr", {"parse": Repeat.IDEMPOTENT}),
    "parser": _integration("parser", {"parse": Repeat.IDEMPOTENT}),
    "ai": _integration("ai", {"summary": Repeat.IDEMPOTENT, "authenticity": Repeat.IDEMPOTENT}),
    "app": _integration("app", {"publish_packet": Repeat.SETTING}),
}
MATRIX: Matrix = replace(load().fallbacks, integrations=INTEGRATIONS)


def action(kind: str, **fields: Any) -> Action:
    """An action of that kind, bound; a message where people get one."""
    integration = kind.partition(".")[0]
    plain: dict[str, Any] = {
        "name": "it",
        "kind": kind,
        "integration": integration,
        "repeat": INTEGRATIONS[integration].kinds[kind].repeat,
        "target": "t1",
    }
    if INTEGRATIONS[integration].channel:
        plain |= {"message": MessageRef("billing", 1), "customer_visible": True, "recipient": "r1"}
    return Action(**(plain | fields)).bound("acme", "app:e-1", 0)


def occasion(kind: str, *, params: dict[str, Any] | None = None, **fields: Any) -> Occasion:
    """A new item that nothing speaks against, of a person who may be reached everywhere."""
    plain: dict[str, Any] = {
        "action": action(kind, params={} if params is None else params),
        "hop": 0,
        "is_critical": False,
        "standing": {"email": Standing.ALLOWED, "sms": Standing.ALLOWED},
        "is_new": True,
    }
    return Occasion(**(plain | fields))


def down(*integrations: str) -> dict[str, Health]:
    """These are down, all others well."""
    return dict.fromkeys(integrations, Health.HARD_DOWN)


def degraded(*integrations: str) -> dict[str, Health]:
    """These are degraded, all others well."""
    return dict.fromkeys(integrations, Health.DEGRADED)
