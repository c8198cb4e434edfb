"""What ought to come of a message, stated by whoever sends it, and what did come of it at the simulated helpdesk.

Nothing here asks the system under test what it decided: the expectation follows from the words that were sent and from
what was broken at the time. The effects are the simulator's own record.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ops.simulator import Effect

PROCESSED = "middleware_processed"
NEEDS_PERSON = "needs_manual_triage"
DEFAULT_TEAM = "email_support"


@dataclass(frozen=True, slots=True)
class Topic:
    """A kind of message. `label` is its tag; `is_obvious` when a high-signal rule knows it without the LLM.

    `by_rules` is the label that a keyword rule at its lower bar gives while the LLM is away; empty: the default team.
    """

    text: str
    label: str
    team: str
    replies: bool
    is_obvious: bool = False
    by_rules: str = ""
    rules_team: str = ""


WHERE = Topic("Where is my order? It was to come on Monday.", "order_status", "orders", replies=True, is_obvious=True)
BANK = Topic("I have opened a chargeback with my bank.", "chargeback", "escalations", replies=False, is_obvious=True)
CRASH = Topic(
    "The app crashes with an error message when I open the checkout.",
    "technical",
    "technical",
    replies=True,
    by_rules="technical",
    rules_team="technical",
)
TWICE = Topic(
    "I was charged twice on my card for one invoice, please look at my payment.",
    "billing",
    "billing",
    replies=True,
    by_rules="billing",
    rules_team="billing",
)
REFUND = Topic(
    "I would like a full refund, please send my money back.",
    "refund",
    "returns",
    replies=False,
    by_rules="refund",
    rules_team="returns",
)
QUOTE = Topic("What is the price, is there a discount and a quote?", "sales", "sales", replies=False)
UNSURE = Topic("Hello, I am unsure whom to ask about this.", "", DEFAULT_TEAM, replies=False)

TOPICS = (WHERE, BANK, CRASH, TWICE, REFUND, QUOTE, UNSURE)
FOR_THE_LLM = (CRASH, TWICE, REFUND, QUOTE, UNSURE)
"""Topics that no rule decides beforehand."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a conversation may look in the end, every effect once."""

    tags: frozenset[str]
    team: str
    replies: int


Expected = tuple[Outcome, ...]
"""What is allowed to come of a message: what is wanted first, then what the situation may lead to instead."""


def expected(
    topic: Topic, *, is_llm_up: bool = True, may_be_late: bool = False, may_be_held_back: bool = False
) -> Expected:
    """What one message of that topic calls for in a conversation of its own.

    `may_be_late`: the LLM is up, but a busy machine may let its deadline pass; then rules or the default team decide
    and nothing replies. `may_be_held_back`: a switch may have been off when the reply was due; then a person has it.
    """
    allowed = [_outcome(topic, is_llm_up=is_llm_up)]
    if may_be_late and is_llm_up and not topic.is_obvious:
        allowed.append(_outcome(topic, is_llm_up=False))
    if may_be_held_back and allowed[0].replies:
        allowed.append(Outcome(allowed[0].tags | {NEEDS_PERSON}, allowed[0].team, 0))
    return tuple(dict.fromkeys(allowed))


def _outcome(topic: Topic, *, is_llm_up: bool) -> Outcome:
    label, team, replies = topic.label, topic.team, int(topic.replies)
    if not (is_llm_up or topic.is_obvious):
        label, team, replies = topic.by_rules, topic.rules_team or DEFAULT_TEAM, 0
    return Outcome(frozenset({PROCESSED, label or NEEDS_PERSON}), team, replies)


@dataclass(slots=True)
class Seen:
    """What the helpdesk did to one conversation. Changes that changed nothing are left out: they harm nobody."""

    tags: Counter[str] = field(default_factory=Counter)
    teams: list[str] = field(default_factory=list)
    replies: int = 0
    markers: list[str] = field(default_factory=list)


def seen_in(effects: Iterable[Effect]) -> dict[str, Seen]:
    """The helpdesk's effects by conversation."""
    found: dict[str, Seen] = defaultdict(Seen)
    for effect in effects:
        if effect.provider != "helpdesk" or not effect.changed:
            continue
        conversation = found[effect.target]
        match effect.kind:
            case "add_tag":
                conversation.tags[effect.detail["tag"]] += 1
            case "assign":
                conversation.teams.append(effect.detail["team"])
            case "reply":
                conversation.replies += 1
                conversation.markers.append(effect.key)
            case _:
                conversation.tags[f"unexpected:{effect.kind}"] += 1
    return dict(found)


@dataclass(frozen=True, slots=True)
class Balance:
    """Expectation against record, as sentences about single conversations. Empty lists are what everybody wants.

    `effects` is how many there were, `otherwise` in how many conversations it was not what was wanted first.
    """

    missing: Sequence[str]
    wrong: Sequence[str]
    doubled: Sequence[str]
    unasked: Sequence[str]
    effects: int
    otherwise: int

    @property
    def is_even(self) -> bool:
        """Every expected effect once, and no other."""
        return not (self.missing or self.wrong or self.doubled or self.unasked)

    @property
    def problems(self) -> list[str]:
        """All of them."""
        return [*self.missing, *self.wrong, *self.doubled, *self.unasked]


def balance(expectations: Mapping[str, Expected], effects: Iterable[Effect]) -> Balance:
    """Compare what was expected per conversation with what the helpdesk recorded, and nothing besides."""
    seen = seen_in(effects)
    missing: list[str] = []
    wrong: list[str] = []
    doubled: list[str] = []
    count = otherwise = 0
    for conversation, allowed in expectations.items():
        got = seen.get(conversation, Seen())
        count += got.tags.total() + len(got.teams) + got.replies
        wanted = next((outcome for outcome in allowed if _fits(outcome, got)), allowed[0])
        otherwise += wanted != allowed[0]
        missing += [f"{conversation}: tag {tag} is missing" for tag in sorted(wanted.tags - set(got.tags))]
        wrong += [f"{conversation}: tag {tag} was not asked for" for tag in sorted(set(got.tags) - wanted.tags)]
        doubled += [
            f"{conversation}: tag {tag} was added {times} times" for tag, times in got.tags.items() if times > 1
        ]
        if not got.teams:
            missing.append(f"{conversation}: nobody was assigned")
        elif set(got.teams) != {wanted.team}:
            wrong.append(f"{conversation}: assigned to {', '.join(got.teams)} instead of {wanted.team}")
        elif len(got.teams) > 1:
            doubled.append(f"{conversation}: assigned {len(got.teams)} times")
        if got.replies < wanted.replies:
            missing.append(f"{conversation}: the reply is missing")
        elif got.replies > wanted.replies:
            told = f"{conversation}: {got.replies} replies instead of {wanted.replies}"
            (doubled if wanted.replies else wrong).append(told)
        if len(set(got.markers)) < len(got.markers) or "" in got.markers:
            doubled.append(f"{conversation}: a reply's marker is repeated or missing")
    unasked = [f"{one}: has effects, and nobody asked for any" for one in sorted(seen.keys() - expectations.keys())]
    return Balance(missing, wrong, doubled, unasked, count, otherwise)


def _fits(outcome: Outcome, got: Seen) -> bool:
    """Whether this is the outcome that took place, apart from how often each effect did."""
    is_answered_alike = bool(outcome.replies) == bool(got.replies)
    return outcome.tags == set(got.tags) and {outcome.team} == set(got.teams) and is_answered_alike
