"""Parts that the tests of the core put together: short to write, and of the kind that the shells build."""

from __future__ import annotations

from typing import Any

from functions.core.decision import Action, Classification, DecidedBy, Decision, Mode, Repeat
from functions.core.failure import Failure, FailureClass, NetworkCause, failure_of_network, failure_of_status
from functions.core.gate import WaitingFor
from functions.core.integration import KindRules
from functions.core.recovery import Row, Status, Subject, parked_first

NOON_MS = 1_767_225_600_000
SECOND = 1_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR

KEY_WINDOW_SECONDS = 24 * 3600
RULES: dict[Repeat, KindRules] = {
    Repeat.IDEMPOTENT: KindRules("helpdesk.tag", Repeat.IDEMPOTENT),
    Repeat.SETTING: KindRules("helpdesk.assign", Repeat.SETTING),
    Repeat.KEYED: KindRules("payments.charge", Repeat.KEYED, key_window_seconds=KEY_WINDOW_SECONDS),
    Repeat.LOOKUP: KindRules("helpdesk.reply", Repeat.LOOKUP, can_look_up=True),
    Repeat.BLIND: KindRules("sms.send", Repeat.BLIND),
}

CONNECT_REFUSED = failure_of_network(NetworkCause.CONNECT_REFUSED)
READ_TIMEOUT = failure_of_network(NetworkCause.READ_TIMEOUT)
HTTP_503 = failure_of_status(503)
HTTP_422 = failure_of_status(422)
HTTP_401 = failure_of_status(401)
HTTP_429 = failure_of_status(429)
ROLE_REFUSED = Failure(FailureClass.AUTH_ERROR, "ROLE_NOT_PERMITTED", "our role may not", True, False, status=403)


def stated_429(wait_ms: int) -> Failure:
    """A rate limit that says for how long."""
    return failure_of_status(429, retry_after_ms=wait_ms)


class Chance:
    """Draws the same share of every interval: 0 its low end, 1 its high end."""

    def __init__(self, share: float = 1.0) -> None:
        self.share = share

    def uniform(self, low: float, high: float) -> float:
        return low + self.share * (high - low)


def action(repeat: Repeat = Repeat.IDEMPOTENT, **fields: Any) -> Action:
    """An action of that kind, with an id."""
    kind = RULES[repeat].kind
    plain: dict[str, Any] = {
        "name": repeat.value,
        "kind": kind,
        "integration": kind.partition(".")[0],
        "repeat": repeat,
        "target": "ticket-7",
    }
    return Action(**(plain | fields)).bound("acme", "shop:m-1", 0)


def decision(*actions: Action, **fields: Any) -> Decision:
    """What was decided at noon."""
    plain: dict[str, Any] = {
        "flow": "support",
        "mode": Mode.LIVE,
        "classification": Classification("refund", 0.9, DecidedBy.RULES, "rules-1", ("word:refund",)),
        "actions": actions,
        "decided_at_ms": NOON_MS,
    }
    return Decision(**(plain | fields))


def blank(repeat: Repeat = Repeat.IDEMPOTENT, **fields: Any) -> Row:
    """The row of an action of that kind, before anything is known of its failure."""
    plain: dict[str, Any] = {
        "recovery_id": "r1",
        "subject": Subject.ACTION,
        "integration_id": RULES[repeat].kind.partition(".")[0],
        "status": Status.PENDING,
        "tenant": "acme",
        "source": "shop",
        "flow": "support",
        "event_id": "shop:m-1",
        "epoch_ms": 0,
        "event_name": "message.created",
        "event_version": "1",
        "received_at_ms": NOON_MS - SECOND,
        "origin_request_id": "q0",
        "traceparent": "00-trace",
        "envelope_ref": "envelopes/acme/1",
        "created_at_ms": NOON_MS,
        "updated_at_ms": NOON_MS,
        "request_id": "q0",
        "action": action(repeat),
        "decided_at_ms": NOON_MS,
        "expires_at_ms": NOON_MS + 7 * DAY,
    }
    return Row(**(plain | fields))


def event_blank(**fields: Any) -> Row:
    """The row of a whole event."""
    return blank(**({"action": None, "subject": Subject.EVENT, "integration_id": "intake"} | fields))


def parked(repeat: Repeat = Repeat.IDEMPOTENT, **fields: Any) -> Row:
    """A row that waits for its first attempt and is due at noon."""
    return parked_first(blank(repeat, **fields), WaitingFor.SWITCH, "disabled", NOON_MS).after


def retryable(detail: str = "try again", **fields: Any) -> Failure:
    """A failure of no particular status."""
    plain: dict[str, Any] = {"is_retryable": True, "may_have_happened": False}
    return Failure(FailureClass.TRANSIENT, "SOME", detail, **(plain | fields))
