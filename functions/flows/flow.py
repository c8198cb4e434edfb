"""What a flow is: an event in, a decision out. Flows are pure; the worker asks the LLM and stores what was decided."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from functions.core.decision import Classification, Decision, Mode
from functions.core.event import Event
from functions.core.failure import ClassifierUnavailable, HoldfastError, RootCause

Verdict = Classification | ClassifierUnavailable | None


class UnreadableEvent(HoldfastError):
    """An event's body is not what its flow can read. The text names what is missing and quotes nothing of the body.

    `root_cause` is the proposal for triage: `schema_mismatch` where something is not where it should be,
    `bad_source_data` where what is there cannot be used. `code` is stable, for rows and metrics.
    """

    code: Final = "UNREADABLE_EVENT"

    def __init__(self, root_cause: RootCause, detail: str) -> None:
        super().__init__(detail)
        self.root_cause = root_cause


@dataclass(frozen=True, slots=True)
class Finding:
    """What is known without the LLM. `reply` is the message that may be sent for it, empty for none.

    `is_final` findings are never put to the LLM. One that `calls_for_nothing` has no actions in any mode.
    """

    classification: Classification
    team: str = ""
    tag: str = ""
    reply: str = ""
    needs_person: bool = False
    is_final: bool = False
    calls_for_nothing: bool = False


@dataclass(frozen=True, slots=True)
class Prepared:
    """What a flow read from an event.

    `subject` is the conversation at the helpdesk. `text` and `labels` (name to description) are for the LLM, and
    meant for it only if `needs_llm`. `recipient` is the author's pseudonym. `finding` stands where the LLM has no
    say or no answer.
    """

    subject: str
    text: str
    labels: Mapping[str, str]
    needs_llm: bool
    finding: Finding
    recipient: str = ""


class Flow(Protocol):
    """One family of events."""

    @property
    def name(self) -> str:
        """As in `Event.flow`."""
        ...

    def prepare(self, event: Event) -> Prepared:
        """Read the event. Raises `UnreadableEvent`, and nothing else whatever the body is."""
        ...

    def decide(self, event: Event, prepared: Prepared, verdict: Verdict, mode: Mode, now_ms: int) -> Decision:
        """What the event calls for. The actions are not bound to the event yet. What is needed of the body is in
        `prepared`: that of a large event is gone by now.

        `verdict` is the LLM's answer, or that it gave none; None if it was not asked. Never raises for what the LLM
        said.
        """
        ...
