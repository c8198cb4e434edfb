"""What takes over when an integration fails or is not healthy: runbook 000's matrix as data, and its decisions as pure
functions (architecture §8).

A row of the matrix says when it holds (`starts`), for which kinds of action, and what it does. Rows that lead to
another kind of action give that way a number: the hop. Hop 0 is the action as it was decided, and there are two hops at
most. A hop is stored before it is taken and never taken back, so whoever takes over goes on from it. Two rows may
number the same way for different occasions.

Only what is known not to have happened may go another way: an action whose outcome is unknown stays where it is, until
a lookup or a person has found out. Else somebody would be told the same thing twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from functions.core.attempt import Effect
from functions.core.decision import Action, MessageRef, Repeat
from functions.core.event import digest
from functions.core.failure import IllegalTransition
from functions.core.gate import Health, IntegrationState, Standing
from functions.core.integration import Integration, KindRules

MAX_HOPS = 2
OTHER_EVENTS = "other"
POST_PROCESSING = "post_processing"  # a parameter: the action is done again after something else stood in for it


class Does(StrEnum):
    """What a row of the matrix does."""

    RETRY = "retry"  # call again, so many times in all
    SWITCH = "switch"  # the same message on another channel to the same person
    SUBSTITUTE = "substitute"  # another kind of action in its place
    QUEUE = "queue"  # wait for it
    HOLD = "hold"  # wait for it, and be no probe either
    TELL = "tell"  # tell users, by a feature's text and capabilities
    RULES = "rules"  # decide without it


class Start(StrEnum):
    """When a row holds: for one item after its attempts, and for all new items while the integration is like that."""

    FAILED = "failed"
    DEGRADED = "degraded"
    HARD_DOWN = "hard_down"


class Events(StrEnum):
    """For which events a row holds."""

    ALL = "all"
    CRITICAL = "critical"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class MatrixRow:
    """One row. `says` is the runbook's rule in words, for people.

    `kinds` are the actions it is about; `to` the kind that takes over from each, as hop number `hop`, with `params`
    over the action's own and the target in its parameter `target_param`. With `is_later` the action is also done again,
    as post-processing, once its integration is well.
    `stays_percent` of new items go on as before while the integration is degraded: without calls nobody would see it
    recover. `task` is what a person is asked to do where nothing is left. `asks` is whether a classifier that does not
    decide is asked all the same, which is how its recovery is seen.
    """

    id: str
    says: str
    does: Does
    starts: frozenset[Start]
    kinds: frozenset[str] = frozenset()
    to: Mapping[str, str] = field(default_factory=dict)
    hop: int = 0
    params: Mapping[str, Any] = field(default_factory=dict)
    target_param: str = ""
    is_later: bool = False
    events: Events = Events.ALL
    task: str = ""
    attempts: int = 0
    stays_percent: int = 0
    slow_p95_seconds: int = 0
    integration: str = ""
    asks: bool = False
    feature: str = ""


@dataclass(frozen=True, slots=True)
class Matrix:
    """The rows by id, in the catalog's order, with what is needed to follow them.

    `messages` gives the text of a channel where the message's own does not fit it: by message id, version and channel.
    """

    rows: Mapping[str, MatrixRow] = field(default_factory=dict)
    critical_events: frozenset[str] = frozenset()
    messages: Mapping[tuple[str, int, str], tuple[str, int]] = field(default_factory=dict)
    integrations: Mapping[str, Integration] = field(default_factory=dict)


def integration_of(kind: str) -> str:
    """The integration that a kind belongs to."""
    return kind.partition(".")[0]


def health_of(state: IntegrationState | None, now_ms: int) -> Health:
    """The health that holds for an integration now. One that nobody has written anything of is healthy."""
    return Health.HEALTHY if state is None else state.health_at(now_ms)


# ----------------------------------------------------------------------------------------------------------- decisions


@dataclass(frozen=True, slots=True)
class Stay:
    """Go on as if there were no matrix."""


@dataclass(frozen=True, slots=True)
class Hop:
    """The same message goes by another channel."""

    row: str
    hop: int
    kind: str


@dataclass(frozen=True, slots=True)
class Substitute:
    """Another action takes its place. `is_later`: it is done again once its integration is well."""

    row: str
    hop: int
    kind: str
    params: Mapping[str, Any] = field(default_factory=dict)
    is_later: bool = False


@dataclass(frozen=True, slots=True)
class Queue:
    """It waits until its integration is back."""

    row: str


@dataclass(frozen=True, slots=True)
class Refuse:
    """It waits until its integration is back, and is not tried to find out whether that is."""

    row: str


@dataclass(frozen=True, slots=True)
class Manual:
    """Nothing is left that the machine could do: a person does `task`."""

    row: str
    task: str


Fallback = Stay | Hop | Substitute | Queue | Refuse | Manual


@dataclass(frozen=True, slots=True)
class Occasion:
    """All that a decision looks at. `action` is bound, and as it was decided; `hop` is where it is now.

    `health` is by integration, an absent one is healthy; what an operator has disabled counts as down here. `standing`
    is the recipient's, by channel. `is_new`: nothing of it has been tried. `is_unsettled`: something of it may have
    happened and nobody has found out. `may_have_been_sent`: some attempt may have acted, which does no harm by the
    rules of its kind.
    """

    action: Action
    hop: int
    is_critical: bool
    health: Mapping[str, Health] = field(default_factory=dict)
    standing: Mapping[str, Standing] = field(default_factory=dict)
    is_new: bool = False
    is_unsettled: bool = False
    may_have_been_sent: bool = False


def before_send(matrix: Matrix, seen: Occasion) -> Fallback:
    """What takes over before an attempt, because the integration is not healthy."""
    kind = kind_at(matrix, seen.action, seen.hop)
    health = seen.health.get(integration_of(kind), Health.HEALTHY)
    if health is Health.HEALTHY:
        return Stay()
    if health is Health.HARD_DOWN:
        return _while_down(matrix, seen, kind)
    if not seen.is_new or seen.is_unsettled:
        return Stay()
    return _taken(_way(matrix, seen, Start.DEGRADED, [Health.HEALTHY]), seen.action) or Stay()


def _while_down(matrix: Matrix, seen: Occasion, kind: str) -> Fallback:
    held = _first(matrix, kind, Start.HARD_DOWN, seen.is_critical, Does.HOLD)
    if held is not None:
        return Refuse(held.id)
    queued = _first(matrix, kind, Start.HARD_DOWN, seen.is_critical, Does.QUEUE)
    wait: Fallback = Stay() if queued is None else Queue(queued.id)
    if seen.is_unsettled:
        return wait
    # A channel that works a little is better than none: "via available channel" (runbook 000).
    taken = _taken(_way(matrix, seen, Start.HARD_DOWN, [Health.HEALTHY, Health.DEGRADED]), seen.action)
    if taken is not None:
        return taken
    if any(seen.standing.get(channel) is Standing.UNKNOWN for channel in channels_ahead(matrix, seen.action, seen.hop)):
        return wait  # whether anything is left can be said once that is known
    return by_hand(matrix, seen.action, is_critical=seen.is_critical) or wait


def after_failure(matrix: Matrix, seen: Occasion) -> Fallback:
    """What takes over from an action that failed for good on its present way, its attempts used up or of no use.

    A recipient whose standing cannot be read may be gone on to: the gate asks again before anything is sent, and waits.
    """
    if seen.is_unsettled:
        return Stay()
    healths = [Health.HEALTHY, Health.DEGRADED]
    if not seen.is_critical:
        healths.append(Health.HARD_DOWN)  # it waits there, which is better than being dead
    way = _way(matrix, seen, Start.FAILED, healths, is_unknown_enough=True)
    return _taken(way, seen.action) or by_hand(matrix, seen.action, is_critical=seen.is_critical) or Stay()


def by_hand(matrix: Matrix, action: Action, *, is_critical: bool) -> Manual | None:
    """What a person is asked for, if the event is one that must arrive."""
    for row in matrix.rows.values():
        if action.kind in row.to and row.task and _is_for(row, is_critical):
            return Manual(row.id, row.task)
    return None


def _taken(row: MatrixRow | None, action: Action) -> Hop | Substitute | None:
    if row is None:
        return None
    if row.does is Does.SWITCH:
        return Hop(row.id, row.hop, row.to[action.kind])
    return Substitute(row.id, row.hop, row.to[action.kind], row.params, row.is_later)


def _way(
    matrix: Matrix, seen: Occasion, start: Start, healths: list[Health], *, is_unknown_enough: bool = False
) -> MatrixRow | None:
    """The next way that is open: to an integration in the first of `healths` that any has, the lowest hop first."""
    open_ways = [
        row
        for row in ways_ahead(matrix, seen.action, seen.hop)
        if start in row.starts
        and _is_for(row, seen.is_critical)
        and not _is_kept(row, seen, start)
        and _is_certain(matrix, row, seen)
        and _may_be_reached(matrix, row, seen, is_unknown_enough=is_unknown_enough)
    ]
    for health in healths:
        for row in open_ways:
            if seen.health.get(integration_of(row.to[seen.action.kind]), Health.HEALTHY) is health:
                return row
    return None


def _is_kept(row: MatrixRow, seen: Occasion, start: Start) -> bool:
    """Whether it is one of those that show whether the degraded integration recovers. The same action, the same answer;
    what must arrive is none.
    """
    if start is not Start.DEGRADED or seen.is_critical:
        return False
    return int(digest("stays", seen.action.action_id)[:8], 16) % 100 < row.stays_percent


def _is_certain(matrix: Matrix, row: MatrixRow, seen: Occasion) -> bool:
    """Whether nothing of it can have reached anybody. What may be repeated without harm may be replaced without harm,
    but no person gets a message twice.
    """
    if not seen.may_have_been_sent:
        return True
    rules = _rules(matrix, kind_at(matrix, seen.action, seen.hop))
    return row.does is Does.SUBSTITUTE and rules.repeat is Repeat.IDEMPOTENT


def _may_be_reached(matrix: Matrix, row: MatrixRow, seen: Occasion, *, is_unknown_enough: bool) -> bool:
    if row.does is not Does.SWITCH:
        return not row.target_param or bool(seen.action.params.get(row.target_param))
    channel = matrix.integrations[integration_of(row.to[seen.action.kind])].channel
    standing = seen.standing.get(channel, Standing.UNKNOWN)
    return standing is Standing.ALLOWED or (is_unknown_enough and standing is Standing.UNKNOWN)


# ------------------------------------------------------------------------------------------------------ ways and hops


def ways_ahead(matrix: Matrix, action: Action, hop: int) -> list[MatrixRow]:
    """The rows that could take over from here, the lowest hop first; never to an integration that has been tried.

    Post-processing has none: what stood in for it is there.
    """
    if action.params.get(POST_PROCESSING):
        return []
    tried = {integration_of(action.kind), integration_of(kind_at(matrix, action, hop))}
    ways = [
        row
        for row in matrix.rows.values()
        if action.kind in row.to
        and row.hop > hop
        and integration_of(row.to[action.kind]) not in tried
        and row.to[action.kind] in _kinds(matrix, row.to[action.kind])
    ]
    return sorted(ways, key=lambda row: row.hop)


def channels_ahead(matrix: Matrix, action: Action, hop: int) -> tuple[str, ...]:
    """The channels on which the recipient's standing decides whether a way is open."""
    channels = (
        matrix.integrations[integration_of(row.to[action.kind])].channel
        for row in ways_ahead(matrix, action, hop)
        if row.does is Does.SWITCH
    )
    return tuple(dict.fromkeys(channels))


def kind_at(matrix: Matrix, action: Action, hop: int) -> str:
    """The kind that the action has at that hop. Raises `IllegalTransition` for a hop that the matrix does not have."""
    return action.kind if hop == 0 else row_at(matrix, action, hop).to[action.kind]


def action_at(action: Action, hop: int, matrix: Matrix) -> Action:
    """The action as it is at that hop: the same for the same hop, whoever asks.

    Its id, and so its key, is the action's own at hop 0 and `digest(action_id, hop)` from then on: another provider is
    asked for another effect. Raises `IllegalTransition` for a hop that the matrix or the catalog does not have.
    """
    if hop == 0:
        return action
    row = row_at(matrix, action, hop)
    kind = row.to[action.kind]
    integration = integration_of(kind)
    changed = replace(
        action,
        kind=kind,
        integration=integration,
        repeat=_rules(matrix, kind).repeat,
        params={**action.params, **row.params},
        target=str(action.params.get(row.target_param, "")) if row.target_param else action.target,
        action_id=digest(action.action_id, str(hop)),
    )
    if row.does is Does.SUBSTITUTE:
        return replace(changed, message=None, customer_visible=False, recipient="")
    return replace(changed, message=_text_of(matrix, action.message, matrix.integrations[integration].channel))


def row_at(matrix: Matrix, action: Action, hop: int) -> MatrixRow:
    """The first row that gives the action's kind that hop. Raises `IllegalTransition` where none does."""
    for row in matrix.rows.values():
        if action.kind in row.to and row.hop == hop:
            return row
    raise IllegalTransition(f"the fallback matrix has no hop {hop} for {action.kind}: put it back, then go on")


def _text_of(matrix: Matrix, message: MessageRef | None, channel: str) -> MessageRef | None:
    if message is None:
        return None
    found = matrix.messages.get((message.id, message.version, channel))
    return message if found is None else MessageRef(found[0], found[1], message.params)


def _kinds(matrix: Matrix, kind: str) -> Mapping[str, KindRules]:
    integration = matrix.integrations.get(integration_of(kind))
    return {} if integration is None else integration.kinds


def _rules(matrix: Matrix, kind: str) -> KindRules:
    rules = _kinds(matrix, kind).get(kind)
    if rules is None:
        raise IllegalTransition(f"the catalog has no kind {kind}: put it back, then go on")
    return rules


def post_processing(action: Action) -> Action:
    """The same work once more, for after something stood in for it. It is not bound: its content makes it another
    action, with a key and a row of its own.
    """
    return replace(
        action, name=f"{action.name}_later", params={**action.params, POST_PROCESSING: True}, requires=(), action_id=""
    )


# ------------------------------------------------------------------------------------------------------ questions to it


def _is_for(row: MatrixRow, is_critical: bool) -> bool:
    return row.events is Events.ALL or is_critical is (row.events is Events.CRITICAL)


def _about(matrix: Matrix, kind: str) -> Iterator[MatrixRow]:
    return (row for row in matrix.rows.values() if kind in row.kinds or kind in row.to)


def _first(matrix: Matrix, kind: str, start: Start, is_critical: bool, does: Does) -> MatrixRow | None:
    for row in _about(matrix, kind):
        if row.does is does and start in row.starts and _is_for(row, is_critical):
            return row
    return None


def is_critical(matrix: Matrix, event_name: str) -> bool:
    """Whether what the event calls for must arrive."""
    return event_name in matrix.critical_events


def named(matrix: Matrix, event_name: str) -> str:
    """The event's name as metrics have it: those that must arrive by their own, all others, which senders choose
    without bound, by one.
    """
    return event_name if is_critical(matrix, event_name) else OTHER_EVENTS


def has_ways(matrix: Matrix, kind: str) -> bool:
    """Whether anything could take over from an action of that kind, or is asked of a person in its place."""
    return any(kind in row.to for row in matrix.rows.values())


def is_held_while_down(matrix: Matrix, kind: str) -> bool:
    """Whether an action of that kind never runs while its integration is down (000.15: subscriptions stay as they
    are).
    """
    return any(row.does is Does.HOLD and kind in row.kinds for row in matrix.rows.values())


def may_probe(matrix: Matrix, kind: str) -> bool:
    """Whether an action of that kind may be tried to find out whether an integration that is down is back."""
    return not is_held_while_down(matrix, kind)


def lets_leave(matrix: Matrix, integration: str) -> bool:
    """Whether anything that waits for that integration while it is down must not wait."""
    kinds = (kind for row in _leaving(matrix) for kind in [*row.to, *row.to.values()])
    return any(integration_of(kind) == integration for kind in kinds)


def may_leave(matrix: Matrix, kind: str, event_name: str, effect: Effect) -> bool:
    """Whether a row that waits for an integration that is down has another way, or is a person's, at once. `kind` is
    its action's as it was decided.
    """
    must_arrive = is_critical(matrix, event_name) and effect is not Effect.UNKNOWN
    return must_arrive and any(kind in row.to for row in _leaving(matrix))


def _leaving(matrix: Matrix) -> Iterator[MatrixRow]:
    return (row for row in matrix.rows.values() if Start.HARD_DOWN in row.starts and row.events is Events.CRITICAL)


def is_slow(matrix: Matrix, kind: str, p95_seconds: float) -> bool:
    """Whether an integration that takes so long counts as degraded for that kind of action."""
    return any(0 < row.slow_p95_seconds < p95_seconds for row in _about(matrix, kind))


@dataclass(frozen=True, slots=True)
class Asking:
    """How far a classifier counts: is it asked, and does its answer decide? `row` is empty while it does."""

    asks: bool
    decides: bool
    row: str = ""


def classifying(matrix: Matrix, integration: str, health: Health) -> Asking:
    """What to do about a classifier in that health. Without a row it is asked and decides."""
    if health is not Health.HEALTHY:
        for row in matrix.rows.values():
            if row.does is Does.RULES and row.integration == integration and Start(health.value) in row.starts:
                return Asking(row.asks, decides=False, row=row.id)
    return Asking(asks=True, decides=True)


def in_force(matrix: Matrix, health: Mapping[str, Health]) -> list[tuple[str, MatrixRow]]:
    """The rows that hold now for all new items, each with the integration that is not healthy: for operators."""
    found = []
    for integration, state in sorted(health.items()):
        if state is Health.HEALTHY:
            continue
        found += [
            (integration, row)
            for row in matrix.rows.values()
            if Start(state.value) in row.starts
            and (row.integration == integration or any(integration_of(kind) == integration for kind in _of(row)))
        ]
    return found


def _of(row: MatrixRow) -> Iterator[str]:
    yield from row.kinds
    yield from row.to
