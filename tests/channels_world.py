"""The worker's small world with several integrations, the shipped matrix over them, and people who consent."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from functions.core.attempt import Effect
from functions.core.decision import Action, Decision, MessageRef, Mode, Repeat
from functions.core.event import Event
from functions.core.failure import Done, Failure, StorageUnavailable
from functions.core.fallback import action_at
from functions.core.gate import Health
from functions.core.ledger import ActionMark, ActionStatus, LedgerStatus
from functions.core.ports import Absent, Call, SettingState
from functions.core.recipient import Person
from functions.core.recovery import Row
from functions.flows.flow import Finding, Prepared, Verdict
from functions.worker.ports import Ports
from tests.fakes import FakeClock, FakeRecipients, Faults
from tests.fallback_matrix import INTEGRATIONS, MATRIX
from tests.worker_world import FLOW, SAID, World

Answer = Callable[[Action], Failure | None]
CONSENTS = {"email": True, "sms": True}
CONTACTS = {"email": "ann@example.com", "sms": "+15550001"}


def action(name: str, kind: str, **fields: object) -> Action:
    """One that the flow decides on; a message where people get one."""
    integration = kind.partition(".")[0]
    said: dict[str, object] = {}
    if INTEGRATIONS[integration].channel:
        said = {"message": MessageRef("billing", 1), "customer_visible": True, "recipient": "r1"}
    repeat = INTEGRATIONS[integration].kinds[kind].repeat
    return Action(name, kind, integration, repeat, "t1", **(said | fields))  # type: ignore[arg-type]  # its fields


EMAIL = action("tell", "email.send", expires_seconds=7 * 86_400)
BY_HAND = action("by_hand", "helpdesk.add_tags", params={"tags": ["call_them"]}, instead_of="tell")


class Elsewhere:
    """Another integration: it acts once for each send that does not fail for sure, and knows what it did.

    `effects` counts by action id; `sent` keeps what it was asked for, `answers` may say otherwise than `Done`.
    `acts_on_failure`: whether an answer that leaves it open comes after the effect.
    """

    def __init__(self, name: str, faults: Faults, clock: FakeClock) -> None:
        self.name = name
        self.faults = faults
        self.clock = clock
        self.effects: dict[str, int] = {}
        self.sent: list[Action] = []
        self.asked = 0
        self.answers: list[Answer] = []
        self.acts_on_failure = True

    async def send(self, action: Action, call: Call) -> Done | Failure:
        self.faults.before(f"{self.name}.send")
        self.asked += 1
        failure = next((found for found in (answer(action) for answer in self.answers) if found is not None), None)
        if failure is None or (failure.may_have_happened and self.acts_on_failure):
            self.sent.append(action)
            is_once = action.repeat in (Repeat.IDEMPOTENT, Repeat.KEYED, Repeat.SETTING)
            self.effects[action.action_id] = 1 if is_once else self.effects.get(action.action_id, 0) + 1
        self.faults.after(f"{self.name}.send")
        return Done(f"id-{action.name}") if failure is None else failure

    async def look_up(self, action: Action, call: Call) -> Done | Absent | Failure:
        self.faults.before(f"{self.name}.look_up")
        self.faults.after(f"{self.name}.look_up")
        return Done(f"id-{action.name}") if self.effects.get(action.action_id) else Absent()

    async def read_setting(self, action: Action, call: Call) -> SettingState | Failure:
        return SettingState("", None, changed_by_us=None)

    def wanted(self, action: Action) -> str:
        return "published"

    def refresh_credential(self) -> str:
        return "1"


class Decides:
    """A flow whose every event calls for these actions."""

    name = FLOW

    def __init__(self, actions: Sequence[Action], needs_llm: bool, verdicts: list[Verdict]) -> None:
        self.actions = tuple(actions)
        self.needs_llm = needs_llm
        self.verdicts = verdicts

    def prepare(self, event: Event) -> Prepared:
        return Prepared("t1", "", {}, needs_llm=self.needs_llm, finding=Finding(SAID))

    def decide(self, event: Event, prepared: Prepared, verdict: Verdict, mode: Mode, now_ms: int) -> Decision:
        self.verdicts.append(verdict)
        return Decision(FLOW, mode, SAID, self.actions, now_ms)


class _Only(FakeRecipients):
    """Everybody is that one person."""

    def __init__(self, world: ChannelsWorld) -> None:
        super().__init__(world.tables)
        self._world = world

    def person(self, tenant: str, recipient: str) -> Person:
        if self._world.unreadable:
            raise StorageUnavailable("the person could not be read")
        return self._world.person


class ChannelsWorld(World):
    """See the module. Nobody of the degraded stays on a channel to show its recovery: who goes is certain here."""

    def __init__(self, *actions: Action, event_name: str = "message.created") -> None:
        super().__init__()
        self.actions = actions or (EMAIL,)
        self.event_name = event_name
        rows = {name: replace(row, stays_percent=0) for name, row in MATRIX.rows.items()}
        self.fallbacks = replace(MATRIX, rows=rows)
        self.integrations = dict(INTEGRATIONS)
        self.others = {name: Elsewhere(name, self.faults, self.clock) for name in INTEGRATIONS}
        self.person = Person(consent=dict(CONSENTS), contacts=dict(CONTACTS))
        self.unreadable = False
        self.verdicts: list[Verdict] = []
        self.with_ports = self._with
        self.on_any_after: Callable[[str], None] = lambda _op: None  # a scenario's own part in what happens

    def _with(self, ports: Ports) -> Ports:
        return replace(
            ports,
            integrations=self.integrations,
            providers=self.others,
            flows={FLOW: Decides(self.actions, self.needs_llm, self.verdicts)},
            recipients=_Only(self),
        )

    def consents_to(self, *channels: str) -> None:
        """To these and to no other."""
        self.person = replace(self.person, consent=dict.fromkeys(channels, True))

    def health(self, **states: Health) -> None:
        """What the control items say from now on."""
        for name, health in states.items():
            self.tables.set_health(name, health)

    def begin(self) -> Event:
        """One event, accepted."""
        event = self.event(event_name=self.event_name)
        self.accept(event)
        return event

    def mark(self, event: Event, name: str = "tell") -> ActionMark:
        """What the ledger says of the action."""
        return self.tables.ledger[f"E#{event.tenant}#{event.event_id}"].actions[name]

    def row(self, event: Event, name: str = "tell") -> Row | None:
        """The action's row."""
        return self.row_of(self.decision_of(event).action(name))

    def told(self, event: Event, name: str = "tell") -> dict[str, int]:
        """How many the person got, by channel."""
        action = self.decision_of(event).action(name)
        ids = [action.action_id, *(action_at(action, hop, self.fallbacks).action_id for hop in self._hops(action))]
        found = {channel: sum(self.others[channel].effects.get(one, 0) for one in ids) for channel in ("email", "sms")}
        return {channel: count for channel, count in found.items() if count}

    def _hops(self, action: Action) -> list[int]:
        return sorted({row.hop for row in self.fallbacks.rows.values() if action.kind in row.to})

    def check_told_once(self, event: Event, name: str = "tell") -> None:
        """At most one message on all channels together; one, unless it is a person's to find out or to do."""
        item = self.tables.ledger[f"E#{event.tenant}#{event.event_id}"]
        assert item.status is LedgerStatus.SETTLED
        row, messages = self.row(event, name), self.told(event, name)
        state = row and (row.status, row.failure_code, row.effect, row.hop, row.hops)
        about = f"{messages}, ledger {item.actions[name]}, row {state}"
        assert sum(messages.values()) <= 1, about
        assert item.actions[name].status not in (ActionStatus.TODO, ActionStatus.TRYING), about
        is_for_people = row is not None and row.status.value in ("failed", "dlq")
        assert sum(messages.values()) == 1 or is_for_people, about
        if row is not None and is_for_people and messages:
            assert row.effect is Effect.UNKNOWN, about
        assert not (messages and self.others["helpdesk"].sent), about  # a person was asked for what was sent


def always(failure: Failure, times: int = 1_000_000) -> Answer:
    """So often, whatever is asked for."""
    left = [times]

    def answer(_action: Action) -> Failure | None:
        left[0] -= 1
        return failure if left[0] >= 0 else None

    return answer


def severities(world: World) -> Mapping[str, str]:
    """Of the audit, by containment."""
    return {event.containment_action: event.severity.value for event in world.tables.events}
