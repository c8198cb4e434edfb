"""What the teams write down in `functions/catalog`, as core and flows read it.

`functions.catalog.loader` checks the files and builds these.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from functions.core.cap import DEFAULT_PER_HOUR
from functions.core.decision import DEFAULT_EXPIRES_SECONDS, MessageRef
from functions.core.fallback import Matrix
from functions.core.features import Feature
from functions.core.integration import Integration


@dataclass(frozen=True, slots=True)
class IntegrationProfile:
    """What people and monitoring need to know about an integration, beside how it is called.

    The thresholds are success ratios, `minimum_calls` how many calls a ratio needs before it says anything.
    `own_identities` are author ids under which the integration's webhooks show what we did ourselves.
    """

    provider: str
    feature: str
    success_threshold: float
    recovery_threshold: float
    minimum_calls: int
    own_identities: frozenset[str] = frozenset()
    status_url: str = ""
    support_contact: str = ""


@dataclass(frozen=True, slots=True)
class Team:
    """A team of people at the helpdesk. `helpdesk_ids` are by tenant, for tenants where it is not `helpdesk_id`."""

    id: str
    name: str
    helpdesk_id: str
    helpdesk_ids: Mapping[str, str] = field(default_factory=dict)

    def helpdesk_id_for(self, tenant: str) -> str:
        """The team's id at that tenant's helpdesk."""
        return self.helpdesk_ids.get(tenant, self.helpdesk_id)


@dataclass(frozen=True, slots=True)
class Label:
    """One thing a message can be about.

    The LLM reads `description`. `reply` is a message id, or empty where only people answer. A label
    that `needs_person` gets the tag for it however sure the classification is.
    """

    id: str
    description: str
    team: str
    tag: str
    reply: str = ""
    needs_person: bool = False


@dataclass(frozen=True, slots=True)
class KeywordRule:
    """Words that tell the label.

    `team` and `tag` are the label's unless the rule has its own; `reply` is never the label's. `wanted` and
    `unwanted` search text as `functions.core.text.plain` leaves it: lower case, single spaces.
    """

    label: str
    is_high_signal: bool
    wanted: re.Pattern[str]
    unwanted: re.Pattern[str] | None
    team: str
    tag: str
    reply: str = ""


@dataclass(frozen=True, slots=True)
class SkipRule:
    """Events that are no customer's new message. `provider` and `events` are globs; `except_events` are exempt.

    With a pointer the rule holds only if that leads to one of `values` (lower case), or, without values, to anything.
    """

    provider: str
    reason: str
    events: tuple[str, ...] = ("*",)
    except_events: tuple[str, ...] = ()
    pointer: str = ""
    values: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class VersionRule:
    """In which versions events are read. `sources` (ids) and `events` (names) are globs."""

    known: frozenset[str]
    events: tuple[str, ...] = ("*",)
    sources: tuple[str, ...] = ("*",)


@dataclass(frozen=True, slots=True)
class ActionTiming:
    """How long one kind of action is worth doing, and how urgent it is (lower goes first)."""

    expires_seconds: int = DEFAULT_EXPIRES_SECONDS
    priority: int = 5


@dataclass(frozen=True, slots=True)
class SupportRules:
    """How the flow `support` reads and decides.

    `pointers` are tried in order for what a source does not say itself. `rules_version` changes with
    whatever may change what the rules say. `helpdesk_sources` are providers whose events may tell of our own doings;
    `optional_text` those whose events may carry no message at all. `newest_messages` gives the current version of
    each message.
    """

    integration: Integration
    bar: float
    text_limit: int
    processed_tag: str
    triage_tag: str
    labels: Mapping[str, Label]
    keywords: tuple[KeywordRule, ...]
    rules_version: str
    reason_codes: frozenset[str]
    default_team: Team
    human_team: Team
    teams: Mapping[str, Team]
    pointers: Mapping[str, tuple[str, ...]]
    skip: tuple[SkipRule, ...]
    helpdesk_sources: frozenset[str]
    optional_text: frozenset[str]
    own_identities: frozenset[str]
    newest_messages: Mapping[str, int]
    routing: ActionTiming = ActionTiming()
    reply: ActionTiming = ActionTiming()
    max_automatic_per_hour: int = DEFAULT_PER_HOUR
    versions: tuple[VersionRule, ...] = ()


@dataclass(frozen=True, slots=True)
class Message:
    """One released version of a text for customers. `params` are the names in braces.

    `subject` is for the channels that have one, as it stands, without parameters.
    """

    id: str
    version: int
    text: str
    params: frozenset[str] = frozenset()
    subject: str = ""

    def render(self, params: Mapping[str, str]) -> str:
        """The text as the customer reads it. Raises `KeyError` naming a parameter that is missing."""
        return _PARAM.sub(lambda found: params[found[1]], self.text)


_PARAM = re.compile(r"\{([a-z][a-z0-9_]*)\}")


def params_of(text: str) -> frozenset[str]:
    """The names in braces."""
    return frozenset(_PARAM.findall(text))


@dataclass(frozen=True, slots=True)
class Prompt:
    """What the LLM is told before it is told the labels. `reason_codes` are all that it may give as reasons."""

    version: str
    text: str
    reason_codes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Catalog:
    """Everything the catalog says. `messages` is keyed by id and version."""

    integrations: Mapping[str, Integration]
    profiles: Mapping[str, IntegrationProfile]
    teams: Mapping[str, Team]
    default_team: str
    rules: tuple[KeywordRule, ...]
    rules_version: str
    labels: Mapping[str, Label]
    messages: Mapping[tuple[str, int], Message]
    prompts: Mapping[str, Prompt]
    flows: Mapping[str, SupportRules] = field(default_factory=dict)
    fallbacks: Matrix = field(default_factory=Matrix)
    features: Mapping[str, Feature] = field(default_factory=dict)

    def text_of(self, message: MessageRef) -> str:
        """The text a stored decision refers to, with its parameters in. Raises `KeyError` for what is not there."""
        return self.messages[message.id, message.version].render(message.params)

    def subject_of(self, message: MessageRef) -> str:
        """Its subject; empty if it has none. Raises `KeyError` for a message that is not there."""
        return self.messages[message.id, message.version].subject
