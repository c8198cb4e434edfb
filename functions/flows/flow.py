"""What a flow is: an event in, a decision out. Pure; the worker calls the LLM in between when the flow asks for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from functions.core.decision import Classification, Decision, Mode
from functions.core.event import Event
from functions.core.failure import ClassifierUnavailable, HoldfastError, RootCause


class UnreadableEvent(HoldfastError):
    """An event's body is not what its flow can read. `code` is stable; the text quotes nothing of the body."""

    def __init__(self, code: str, detail: str, root_cause: RootCause = RootCause.SCHEMA_MISMATCH) -> None:
        super().__init__(detail)
        self.code = code
        self.root_cause = root_cause


class Prepared(Protocol):
    """What a flow read of an event. `text` and `labels` (name to description) are for the LLM, if it is needed."""

    @property
    def needs_llm(self) -> bool:
        """Whether rules did not settle it."""
        ...

    @property
    def text(self) -> str:
        """Bounded, without control characters."""
        ...

    @property
    def labels(self) -> Mapping[str, str]:
        """What the LLM may answer."""
        ...

    @property
    def subject(self) -> str:
        """The conversation it is about."""
        ...


class Flow(Protocol):
    """One family of events."""

    @property
    def name(self) -> str:
        """As sources name it."""
        ...

    def prepare(self, event: Event) -> Prepared:
        """Read the body. Raises `UnreadableEvent`, never anything else."""
        ...

    def decide(
        self,
        event: Event,
        prepared: Prepared,
        verdict: Classification | ClassifierUnavailable | None,
        mode: Mode,
        now_ms: int,
    ) -> Decision:
        """The decision, its actions not yet bound to the event. `verdict` None: the LLM was not asked."""
        ...
