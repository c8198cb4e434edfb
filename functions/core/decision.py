"""What an event calls for: a classification and ordered actions with their final parameters.

A decision is stored in the write that claims its event, before any side effect, and never made again. Its stored form
leaves the action ids out: they follow from tenant, event, epoch and content, so that they cannot drift from what they
name.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import lru_cache
from typing import Any, Final

from functions.core.compact import compact
from functions.core.event import digest
from functions.core.failure import MalformedDecision

DAY_SECONDS = 86_400
REPLY_EXPIRES_SECONDS = 15 * 60
REPLAYED_REPLY_EXPIRES_SECONDS = 30 * 60
DEFAULT_EXPIRES_SECONDS = 7 * DAY_SECONDS


@lru_cache(maxsize=256)
def _effect_id(tenant: str, event_id: str, epoch_ms: int, kind: str, target: str, content: str) -> str:
    """Each step of an event asks for the same ones: claim, send, mark, row."""
    return digest(tenant, event_id, str(epoch_ms), kind, target, content)


class DecidedBy(StrEnum):
    """Who or what classified an event."""

    LLM = "llm"
    RULES = "rules"
    DEFAULT = "default"
    HUMAN = "human"


COUNTED: Final = "counted_action_id"
"""The parameter of an action that counts another's effects and has none itself: the other's id."""


class Repeat(StrEnum):
    """How an action may be repeated (architecture §6): what a second call of it does."""

    IDEMPOTENT = "idempotent"
    SETTING = "setting"
    KEYED = "keyed"
    LOOKUP = "lookup"
    BLIND = "blind"

    @property
    def is_once(self) -> bool:
        """Whether a second effect is one too many, and not the same again."""
        return self in (Repeat.KEYED, Repeat.LOOKUP, Repeat.BLIND)


class Mode(StrEnum):
    """How far automation goes, from the freest to the strictest."""

    LIVE = "live"
    ROUTE_ONLY = "route_only"
    MANUAL = "manual"
    SHADOW = "shadow"
    HOLD = "hold"

    @property
    def strictness(self) -> int:
        """0 for `live`, growing."""
        return _STRICTNESS[self]


_STRICTNESS = {mode: place for place, mode in enumerate(Mode)}


def stricter(one: Mode, other: Mode) -> Mode:
    """The mode that allows less."""
    return one if one.strictness >= other.strictness else other


@dataclass(frozen=True, slots=True)
class Classification:
    """What an event is about. `version` names the model and prompt, or the rules, that said so."""

    label: str
    confidence: float
    decided_by: DecidedBy
    version: str
    reason_codes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class MessageRef:
    """A text of the message catalog. `params` hold nothing personal: a decision is stored where no payload is."""

    id: str
    version: int
    params: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Action:
    """One side effect on one integration.

    `name` is unique within its decision; `requires` and `instead_of` name others of it. An action with `instead_of`
    runs only when the gate suppresses that one. `action_id` is also the provider's idempotency key.
    `recipient` is the pseudonym of the person a customer-visible action reaches.
    """

    name: str
    kind: str
    integration: str
    repeat: Repeat
    target: str
    params: Mapping[str, Any] = field(default_factory=dict)
    message: MessageRef | None = None
    requires: tuple[str, ...] = ()
    instead_of: str = ""
    customer_visible: bool = False
    recipient: str = ""
    expires_seconds: int = DEFAULT_EXPIRES_SECONDS
    priority: int = 5
    action_id: str = ""

    @property
    def counted_id(self) -> str:
        """The id of the action whose effects this one counts; empty for one that has effects of its own."""
        counted = self.params.get(COUNTED)
        return counted if isinstance(counted, str) else ""

    @property
    def content_version(self) -> str:
        """What of the action's content counts for its id: the message and its version, else the parameters."""
        if self.message is not None:
            return f"{self.message.id}@{self.message.version}"
        return compact(dict(self.params))

    def bound(self, tenant: str, event_id: str, epoch_ms: int) -> Action:
        """This action with the id it has for that event."""
        return replace(self, action_id=self.id_for(tenant, event_id, epoch_ms))

    def id_for(self, tenant: str, event_id: str, epoch_ms: int) -> str:
        """The id it has for that event: of the same effect, the same."""
        return _effect_id(tenant, event_id, epoch_ms, self.kind, self.target, self.content_version)

    def to_data(self, known_recipient: str = "") -> dict[str, Any]:
        """Short keys, defaults left out; read back by `from_data`. The id is left out: `bound` makes it again.

        The integration is left out where the kind begins with it, as kinds of the catalog do. A recipient that is
        written beside it is said by a mere 1.
        """
        data: dict[str, Any] = {"n": self.name, "k": self.kind, "r": self.repeat.value, "t": self.target}
        if self.integration != self.kind.partition(".")[0]:
            data["i"] = self.integration
        if self.params:
            data["p"] = dict(self.params)
        if self.message is not None:
            data["m"] = [self.message.id, self.message.version, dict(self.message.params)]
        if self.requires:
            data["q"] = list(self.requires)
        if self.instead_of:
            data["o"] = self.instead_of
        if self.customer_visible:
            data["c"] = 1
        if self.recipient:
            data["w"] = 1 if self.recipient == known_recipient else self.recipient
        if self.expires_seconds != DEFAULT_EXPIRES_SECONDS:
            data["x"] = self.expires_seconds
        if self.priority != 5:
            data["y"] = self.priority
        return data

    @staticmethod
    def from_data(data: Mapping[str, Any], known_recipient: str = "") -> Action:
        """Read `to_data` back. Raises `MalformedDecision`."""
        try:
            message = data.get("m")
            return Action(
                name=str(data["n"]),
                kind=str(data["k"]),
                integration=str(data.get("i", str(data["k"]).partition(".")[0])),
                repeat=Repeat(data["r"]),
                target=str(data["t"]),
                params=dict(data.get("p", {})),
                message=None if message is None else MessageRef(str(message[0]), int(message[1]), dict(message[2])),
                requires=tuple(data.get("q", ())),
                instead_of=str(data.get("o", "")),
                customer_visible=bool(data.get("c", 0)),
                recipient=known_recipient if data.get("w") == 1 else str(data.get("w", "")),
                expires_seconds=int(data.get("x", DEFAULT_EXPIRES_SECONDS)),
                priority=int(data.get("y", 5)),
            )
        except (KeyError, ValueError, TypeError, AttributeError, IndexError, OverflowError) as exc:
            raise MalformedDecision(f"a stored action cannot be read: {exc!r}") from exc


@dataclass(frozen=True, slots=True)
class Decision:
    """A classification and its ordered actions. `decided_at_ms` is when; `mode` what was in force then."""

    flow: str
    mode: Mode
    classification: Classification
    actions: tuple[Action, ...]
    decided_at_ms: int
    version: int = 1

    def __post_init__(self) -> None:
        seen: set[str] = set()
        for action in self.actions:
            if action.name in seen:
                raise ValueError(f"two actions are named {action.name!r}")
            for needed in action.requires:
                if needed not in seen:
                    raise ValueError(f"{action.name!r} requires {needed!r}, which does not come before it")
            if action.instead_of and action.instead_of not in seen:
                raise ValueError(f"{action.name!r} stands in for {action.instead_of!r}, which does not come before it")
            seen.add(action.name)

    def bound(self, tenant: str, event_id: str, epoch_ms: int) -> Decision:
        """This decision with the action ids it has for that event. Raises ValueError if two actions are the same
        effect.
        """
        ids = self.ids_for(tenant, event_id, epoch_ms)
        bound = (replace(action, action_id=known) for action, known in zip(self.actions, ids, strict=True))
        return replace(self, actions=tuple(bound))

    def ids_for(self, tenant: str, event_id: str, epoch_ms: int) -> list[str]:
        """The ids of its actions for that event. Raises ValueError if two actions are the same effect."""
        ids = [action.id_for(tenant, event_id, epoch_ms) for action in self.actions]
        if len(set(ids)) != len(ids):
            raise ValueError("two actions of one decision are the same effect")
        return ids

    def action(self, name: str) -> Action:
        """The action of that name. Raises KeyError."""
        for action in self.actions:
            if action.name == name:
                return action
        raise KeyError(name)

    def stand_in(self, name: str) -> Action | None:
        """What runs instead when the action of that name is suppressed."""
        return next((action for action in self.actions if action.instead_of == name), None)

    def to_json(self, known_recipient: str = "") -> str:
        """Compact JSON, read back by `from_json` with the same recipient, who is written beside it.

        A target that all actions share is written once: a ledger item under 1 KB costs one write unit.
        """
        said = self.classification
        actions = [action.to_data(known_recipient) for action in self.actions]
        targets = {action.target for action in self.actions}
        shared = {"t": targets.pop()} if len(targets) == 1 else {}
        if shared:
            for data in actions:
                del data["t"]
        return compact(
            {
                "v": self.version,
                "f": self.flow,
                "m": self.mode.value,
                "at": self.decided_at_ms,
                "c": [said.label, said.confidence, said.decided_by.value, said.version, list(said.reason_codes)],
                "a": actions,
                **shared,
            },
        )

    @staticmethod
    def from_json(text: str, known_recipient: str = "") -> Decision:
        """Read `to_json` back. Raises `MalformedDecision`."""
        try:
            raw = json.loads(text)
            label, confidence, decided_by, version, reason_codes = raw["c"]
            shared = {"t": raw["t"]} if "t" in raw else {}
            return Decision(
                flow=str(raw["f"]),
                mode=Mode(raw["m"]),
                classification=Classification(
                    str(label), float(confidence), DecidedBy(decided_by), str(version), tuple(reason_codes)
                ),
                actions=tuple(Action.from_data({**shared, **item}, known_recipient) for item in raw["a"]),
                decided_at_ms=int(raw["at"]),
                version=int(raw["v"]),
            )
        except (KeyError, ValueError, TypeError, OverflowError, RecursionError) as exc:
            raise MalformedDecision(f"a stored decision cannot be read: {exc!r}") from exc


def names(actions: Sequence[Action]) -> tuple[str, ...]:
    """The names of the actions, in order."""
    return tuple(action.name for action in actions)
