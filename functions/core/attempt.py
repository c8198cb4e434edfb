"""How an action of each kind may be tried again (the table of architecture §6): what to do next, and what an outcome
means.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from functions.core.decision import Repeat
from functions.core.failure import Done, Failure, FailureClass
from functions.core.integration import KindRules

KEY_WINDOW_SHARE = 0.9  # of the provider's key window: clocks differ, and a call takes time
STORED_ERROR_LIMIT = 2  # the same stored 5xx under the same key will not go away


class Effect(StrEnum):
    """What is known about the outside world, for kinds where a second effect would do harm; `none` for the others."""

    NONE = "none"
    UNKNOWN = "unknown"
    DONE = "done"


@dataclass(frozen=True, slots=True)
class Superseded:
    """A person, or a later event's decision, has set the target since: our value is out of date."""

    detail: str = ""


Result = Done | Superseded | Failure


@dataclass(frozen=True, slots=True)
class History:
    """What earlier attempts may have left behind. `had_lease`: somebody held a claim on it before this attempt."""

    had_lease: bool = False
    may_have_been_sent: bool = False
    first_sent_at_ms: int = 0
    last_possible_send_ms: int = 0
    stored_errors: int = 0


@dataclass(frozen=True, slots=True)
class SendNow:
    """Send it, with its own key."""


@dataclass(frozen=True, slots=True)
class LookUp:
    """Ask the provider by our marker; send only if there is nothing. `only`: do not send in any case."""

    only: bool = False


@dataclass(frozen=True, slots=True)
class ReadFirst:
    """Read the target; send only if it neither has our value nor a newer one."""


@dataclass(frozen=True, slots=True)
class WaitUntil:
    """The provider's index may still miss what we sent."""

    at_ms: int


@dataclass(frozen=True, slots=True)
class AskPerson:
    """It may have happened, and nothing can tell: OUTCOME_UNKNOWN."""

    detail: str


Step = SendNow | LookUp | ReadFirst | WaitUntil | AskPerson


def next_step(rules: KindRules, history: History, now_ms: int, scale: float) -> Step:
    """What an attempt does, given what earlier ones may have done. `scale` shortens the settle delay on the local
    stage.
    """
    match rules.repeat:
        case Repeat.IDEMPOTENT:
            return SendNow()
        case Repeat.SETTING:
            return ReadFirst() if history.had_lease else SendNow()
    if not history.may_have_been_sent:
        return SendNow()
    match rules.repeat:
        case Repeat.KEYED if _key_holds(rules, history, now_ms):
            return SendNow()
        case Repeat.BLIND:
            return AskPerson("it may have been sent, and the provider can neither be asked nor told to ignore a repeat")
    if not rules.can_look_up:
        return AskPerson("the provider's key window is over, and it cannot be asked")
    settled_at_ms = settled_at(rules, history.last_possible_send_ms, scale)
    return WaitUntil(settled_at_ms) if now_ms < settled_at_ms else LookUp()


def settled_at(rules: KindRules, last_possible_send_ms: int, scale: float) -> int:
    """From when on a lookup can be believed."""
    return last_possible_send_ms + int(rules.settle_seconds * 1000 * scale)


def _key_holds(rules: KindRules, history: History, now_ms: int) -> bool:
    window_ms = rules.key_window_seconds * 1000 * KEY_WINDOW_SHARE
    return now_ms - history.first_sent_at_ms < window_ms and history.stored_errors < STORED_ERROR_LIMIT


def interpret(rules: KindRules, failure: Failure) -> Failure:
    """The failure as the action's kind makes it: after a send that may have happened, some kinds do not know the
    outcome.
    """
    if not failure.may_have_happened or rules.repeat in (Repeat.IDEMPOTENT, Repeat.KEYED):
        return failure
    if rules.repeat is Repeat.BLIND:
        return replace(
            failure,
            failure_class=FailureClass.UNKNOWN_OUTCOME,
            code="OUTCOME_UNKNOWN",
            detail=f"{failure.code}: {failure.detail}",
            is_retryable=False,
        )
    return replace(failure, failure_class=FailureClass.UNKNOWN_OUTCOME)


def effect_after(rules: KindRules, before: Effect, failure: Failure, *, was_sent: bool) -> Effect:
    """What is known after a failed attempt. A failed lookup tells nothing new."""
    if rules.repeat in (Repeat.IDEMPOTENT, Repeat.SETTING):
        return Effect.NONE
    return Effect.UNKNOWN if was_sent and failure.may_have_happened else before
