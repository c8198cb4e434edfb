"""The flow `synthetic`: an event of our own, which is decided and settled like any other and calls for nothing."""

from __future__ import annotations

from functions.core.decision import Classification, DecidedBy, Decision, Mode
from functions.core.event import Event
from functions.core.failure import RootCause
from functions.core.synthetic import EVENT_NAME, FLOW
from functions.flows.flow import Finding, Prepared, UnreadableEvent, Verdict

_NOTHING = Finding(
    Classification("synthetic", 1.0, DecidedBy.RULES, "synthetic-1"), is_final=True, calls_for_nothing=True
)


class Synthetic:
    """See the module."""

    name = FLOW

    def prepare(self, event: Event) -> Prepared:
        """Nothing of it is read but its name. Raises `UnreadableEvent` for one that was sent by somebody else."""
        if event.event_name != EVENT_NAME:
            raise UnreadableEvent(RootCause.BAD_SOURCE_DATA, f"the flow {FLOW} takes {EVENT_NAME} only")
        return Prepared(subject="", text="", labels={}, needs_llm=False, finding=_NOTHING)

    def decide(self, event: Event, prepared: Prepared, verdict: Verdict, mode: Mode, now_ms: int) -> Decision:  # noqa: ARG002  # as every flow
        """Nothing to be done, in whatever mode."""
        return Decision(self.name, mode, prepared.finding.classification, (), now_ms)
