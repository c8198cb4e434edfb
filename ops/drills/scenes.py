"""What breaks, which alarm tells of it, what bounds the harm, and how it is mended, for `ops.drills.on_call`."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import threading
import time
import uuid
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Any, Final

from functions.core.alarms import Sev
from functions.core.event import Event
from functions.core.incident import State
from functions.core.recovery import Status
from ops import records
from ops.chaos.killing import processes_of
from ops.cli.switches import write
from ops.demo.stage import Stage, conversation_of, repeated
from ops.drills.failing import Trouble, failing, pointed_at
from ops.drills.on_call import Claim, Ground, Played, Scene, Traffic, listed, several
from ops.drills.outage import spill
from ops.expectation import BANK, FOR_THE_LLM, QUOTE, REFUND, WHERE, Topic
from ops.local.parameters import TENANT
from ops.records import Item
from ops.simulator import Fault, FaultMode
from ops.traffic import Delivery, post_all

NO_REPLY: Final = (REFUND, BANK, QUOTE)
"""Topics that call for no reply: one that waits too long is not sent any more, which is another story."""
KNOWN_WITHIN_SECONDS: Final = 15.0
"""How soon a switch holds for whatever reaches a customer (architecture §9)."""
STORM_PER_SECOND: Final = 6.0
AGAIN_SECONDS: Final = 8.0
"""After a switch is thrown back: until every worker knows, and has done what it would do then."""
GAP_SECONDS: Final = 900  # 15 s on the local stage
DEAD_LETTERS: Final = ("EventsDlq", "RetriesDlq", "ReplaysDlq")


@contextlib.contextmanager
def _faults(on: Ground, *faults: Fault) -> Iterator[None]:
    """Faults of the providers, for as long as the block lasts."""
    ids = on.stage.simulator.add_faults(*faults)
    try:
        yield
    finally:
        for one in ids:
            on.stage.simulator.clear_faults(one)


@contextlib.contextmanager
def _sending(
    on: Ground, played: Played, what: str, topics: Sequence[Topic], per_second: float, *, source: str = ""
) -> Iterator[None]:
    """Messages that ought to come about. They are noted under `what`."""
    with Traffic(on.stage, f"{played.name}-{what}", topics, per_second, source=source) as traffic:
        played.notes[what] = traffic
        yield
    played.letters += traffic.letters


def _goes_on(topics: Sequence[Topic], per_second: float) -> Any:
    """What senders send while it mends: of silence no machine concludes that a provider is well."""

    def mending(on: Ground, played: Played) -> AbstractContextManager[None]:
        return _sending(on, played, "after", topics, per_second)

    return mending


@contextlib.contextmanager
def _by_itself(_on: Ground, _played: Played) -> Iterator[None]:
    """Nothing is done."""
    yield


def _rows(on: Ground, since_ms: int) -> list[Item]:
    return [row for row in records.all_rows(on.stage.stack) if int(row["created_at_ms"]) >= since_ms]


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


# ----------------------------------------------------------------------------------------------------------- providers


def _llm_out(on: Ground, played: Played) -> AbstractContextManager[None]:
    return several(
        _faults(on, Fault("llm", FaultMode.STATUS, status=503)),
        _sending(on, played, "while", FOR_THE_LLM, 5.0),
    )


def _rules_decide(on: Ground, played: Played) -> list[Claim]:
    """No decision replies while the LLM is away, and nothing waits for it."""
    before = on.stage.simulator.request_counts()
    time.sleep(3)
    asked = sum(
        count - before.get(key, 0) for key, count in on.stage.simulator.request_counts().items() if key[0] == "llm"
    )
    own = played.notes["while"].conversations
    effects = [one for one in on.stage.simulator.effects("helpdesk") if one.target in own]
    replies = sum(one.kind == "reply" for one in effects)
    sorted_out = len({one.target for one in effects if one.kind == "assign"})
    deciders = Counter(str(item["decision"]["c"][2]) for one, item in on.stage.ledger().items() if one in own)
    return [
        Claim(
            f"contained: rules and the default team decided ({dict(deciders)}), {sorted_out} conversations have their "
            f"team, {replies} replies; it was asked {asked} times in 3 s",
            replies == 0 and sorted_out > 0 and set(deciders) <= {"rules", "default", "high_signal"},
        )
    ]


def _helpdesk_5xx(on: Ground, played: Played) -> AbstractContextManager[None]:
    played.notes["since"] = _now_ms()
    return several(
        _faults(on, Fault("helpdesk", FaultMode.STATUS, status=503)),
        _sending(on, played, "while", NO_REPLY, 5.0),
    )


def _it_waits(on: Ground, played: Played) -> list[Claim]:
    """It is no longer called but to find out whether it is back, and nothing dies of it."""
    before = on.stage.simulator.request_counts()
    time.sleep(4)
    asked = sum(
        count - before.get(key, 0) for key, count in on.stage.simulator.request_counts().items() if key[0] == "helpdesk"
    )
    rows = _rows(on, played.notes["since"])
    attempts = max((int(row.get("attempt_count", 0)) for row in rows), default=0)
    statuses = Counter(str(row["status"]) for row in rows)
    # Half a second on this stage from one that failed to the next, each a look and a send.
    return [
        Claim(
            f"contained: it was called {asked} times in 4 s beside 5 messages a second, {len(rows)} items wait "
            f"({dict(statuses)}), at most {attempts} attempts were spent on one, none is dead",
            asked <= 20 and bool(rows) and not set(statuses) & {Status.DLQ.value, Status.FAILED.value},
        )
    ]


def _helpdesk_429(on: Ground, played: Played) -> AbstractContextManager[None]:
    played.notes["since"] = _now_ms()
    return several(
        _faults(on, Fault("helpdesk", FaultMode.STATUS, status=429, retry_after="1", probability=0.4, seed=3)),
        _sending(on, played, "while", NO_REPLY, 2.0),
    )


def _it_is_spared(on: Ground, played: Played) -> list[Claim]:
    """Each 429 holds the whole fleet for as long as it says, and costs no attempt's life."""
    refused = [one.at for one in on.stage.simulator.requests("helpdesk") if one.status == 429 and one.fault == "status"]
    rows = _rows(on, played.notes["since"])
    statuses = Counter(str(row["status"]) for row in rows)
    return [
        Claim(
            f"contained: {len(refused)} calls were refused with 429, {len(rows)} items waited ({dict(statuses)}), "
            "none is dead",
            bool(refused) and not set(statuses) & {Status.DLQ.value, Status.FAILED.value},
        )
    ]


# -------------------------------------------------------------------------------------------------------------- events

_POISON: Final = 3


@contextlib.contextmanager
def _poison(on: Ground, played: Played) -> Iterator[None]:
    """Messages that are no envelope, and signed webhooks that say nothing that their flow could read."""
    stage = on.stage
    played.notes["before"] = {str(row["pk"]) for row in records.all_rows(stage.stack)}
    for number in range(_POISON):  # no two the same: what is there already is no other item
        stage.stack.client("sqs").send_message(
            QueueUrl=stage.stack.output("EventsQueueUrl"),
            MessageBody=json.dumps({"v": 1, "tenant": TENANT, "body": "&&&", "number": f"{played.name}-{number}"}),
        )
    ids = [f"{played.name}-{number}" for number in range(_POISON)]
    stage.post(
        [
            stage.sender.raw("internal", json.dumps({"event": "ticket.created", "id": one}).encode(), message_id=one)
            for one in ids
        ]
    )
    with _sending(on, played, "while", (WHERE, *NO_REPLY), 2.0):
        yield


def _dead_with_a_cause(on: Ground, played: Played) -> list[Claim]:
    """Each is an item with its cause and its envelope; its neighbours are worked."""

    def found() -> list[Item]:
        return [
            row
            for row in records.all_rows(on.stage.stack)
            if str(row["pk"]) not in played.notes["before"] and row["integration_id"] == "intake"
        ]

    def missing() -> str:
        depths = records.queue_depths(on.stage.stack)
        left = sum(depths[queue] for queue in DEAD_LETTERS)
        return "" if len(found()) >= 2 * _POISON and not left else f"{len(found())} items, {left} in dead-letter queues"

    on.wait("each is an item", missing, seconds=90)
    rows = found()
    causes = Counter(f"{row.get('failure_code')} ({row.get('root_cause')})" for row in rows)
    return [
        Claim(
            f"contained: {len(rows)} of {2 * _POISON} are items with their cause ({listed(causes)}), the dead-letter "
            "queues are empty",
            len(rows) == 2 * _POISON
            and not missing()
            and all(row["status"] == Status.DLQ and row.get("root_cause") and row.get("envelope_ref") for row in rows),
            [str(row["pk"]) for row in rows],
        )
    ]


@contextlib.contextmanager
def _ingress_fails(on: Ground, played: Played) -> Iterator[None]:
    """Neither queue nor bucket takes anything from ingress. Its senders send, are refused, and keep what they have."""
    stop, statuses = threading.Event(), Counter[int]()
    letters = on.stage.letters(f"{played.name}-while", (WHERE, *NO_REPLY), 24)
    deliveries = [delivery for delivery, _ in letters]

    def send() -> None:
        while not stop.is_set():
            statuses.update(answer.status for answer in post_all(deliveries[:8], concurrency=4))
            stop.wait(0.5)

    with (
        failing(Trouble.REFUSED) as nowhere,
        pointed_at(on.stage.stack, "IngressFunction", {"SQS": nowhere, "S3": nowhere}),
    ):
        played.began = time.monotonic()
        thread = threading.Thread(target=send, name="senders", daemon=True)
        thread.start()
        played.notes.update(statuses=statuses, deliveries=deliveries)
        try:
            yield
        finally:
            stop.set()
            thread.join()
    played.letters += letters


def _senders_know(on: Ground, played: Played) -> list[Claim]:
    """Nobody is told that an event is stored when it is not."""
    statuses: Counter[int] = played.notes["statuses"]
    stored = {conversation_of(delivery) for delivery in played.notes["deliveries"]} & set(on.stage.ledger())
    spilled = len(spill(on.stage))
    return [
        Claim(
            f"contained: {statuses.total()} requests were answered {dict(statuses)}, {len(stored)} of them stored, "
            f"{spilled} spilled",
            set(statuses) == {503} and not stored and not spilled,
            sorted(stored),
        )
    ]


@contextlib.contextmanager
def _sent_again(on: Ground, played: Played) -> Iterator[None]:
    """As senders do after a 503: everything once more. Then the day goes on."""
    played.notes["answers"] = on.stage.post(played.notes["deliveries"])
    with _sending(on, played, "after", NO_REPLY, 1.0):
        yield


@contextlib.contextmanager
def _duplicates(on: Ground, played: Played) -> Iterator[None]:
    """A sender delivers everything again and again."""
    letters = on.stage.letters(f"{played.name}-while", (WHERE, *NO_REPLY), 24)
    deliveries = [delivery for delivery, _ in letters]
    on.stage.post(deliveries)
    played.letters += letters
    stop, sent = threading.Event(), Counter[str]()
    played.notes["sent"] = sent

    def send() -> None:
        while not stop.is_set():
            sent["again"] += len(on.stage.post(repeated(deliveries)))

    thread = threading.Thread(target=send, name="sender", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _nothing_twice(on: Ground, played: Played) -> list[Claim]:
    own = {conversation_of(delivery) for delivery, _ in played.letters}
    kinds = Counter(
        (one.target, one.kind, str(one.detail))
        for one in on.stage.simulator.effects("helpdesk")
        if one.changed and one.target in own
    )
    twice = [str(what) for what, count in kinds.items() if count > 1]
    return [
        Claim(
            f"contained: {played.notes['sent']['again']} deliveries came again, {len(twice)} effects took place twice",
            played.notes["sent"]["again"] >= 50 and not twice,
            twice,
        )
    ]


# ------------------------------------------------------------------------------------------------------------- replies


def made_by_ourselves(delivery: Delivery, fields: Mapping[str, str]) -> Event:
    """The event of a delivery that nobody made: as a defect of ours would put it on the queue, past the door."""
    sample = delivery.sample
    if sample is None:
        raise ValueError("a delivery without a message is no event of a customer")
    return Event(
        tenant=TENANT,
        source=delivery.source,
        provider=delivery.provider,
        flow="support",
        identity=f"own-{delivery.message_id}",
        event_name=sample.event_name,
        event_version="",
        received_at_ms=_now_ms(),
        request_id=uuid.uuid4().hex,
        traceparent=f"00-{uuid.uuid4().hex}-{uuid.uuid4().hex[:16]}-01",
        payload_hash=hashlib.sha256(sample.body).hexdigest(),
        content_type="application/json",
        body=sample.body,
        fields=dict(fields),
    )


@contextlib.contextmanager
def _reply_storm(on: Ground, played: Played) -> Iterator[None]:
    """Something of ours makes events that no sender sent, each a reply."""
    stage = on.stage
    stored = stage.stack.client("ssm").get_parameter(
        Name=f"{stage.stack.output('SourcesPath')}/internal", WithDecryption=True
    )["Parameter"]["Value"]
    fields, sqs = json.loads(stored)["fields"], stage.stack.client("sqs")
    stop = threading.Event()
    made: list[tuple[Delivery, Topic]] = []

    def storm() -> None:
        began = time.monotonic()
        while not stop.wait(max(0.0, began + len(made) / STORM_PER_SECOND - time.monotonic())):
            number = len(made)
            delivery = stage.sender.message(
                "internal",
                ticket=f"demo-{played.name}-storm-{number}",
                text=WHERE.text,
                author=f"customer{number}@example.com",
                message_id=f"msg_{played.name}_{number}",
            )
            event = made_by_ourselves(delivery, fields)
            sqs.send_message(QueueUrl=stage.stack.output("EventsQueueUrl"), MessageBody=event.to_message())
            made.append((delivery, WHERE))

    thread = threading.Thread(target=storm, name="storm", daemon=True)
    thread.start()
    played.notes["made"] = made
    played.notes["turns"] = len(_turns(stage))
    try:
        yield
    finally:
        stop.set()
        thread.join()
        played.letters += made


@contextlib.contextmanager
def _doubled(on: Ground, played: Played) -> Iterator[None]:
    """One reply is carried out twice by one request, which is not answered; others are to be sent meanwhile."""
    victim = on.stage.sender.message(
        "internal",
        ticket=f"demo-{played.name}-twice",
        text=WHERE.text,
        author="customer@example.com",
        message_id=f"msg_{played.name}_twice",
    )
    played.notes["turns"] = len(_turns(on.stage))
    fault = Fault("helpdesk", FaultMode.TWICE, operation="reply", target=f"demo-{played.name}-twice", times=1)
    with _faults(on, fault), _sending(on, played, "while", (WHERE, *NO_REPLY), 2.0):
        played.notes["made"] = played.notes["while"].letters
        on.stage.post([victim])
        yield


def _turns(stage: Stage) -> list[Item]:
    """The audit of the kill switch."""
    return records.audit_of(stage.stack, "switch#auto_reply")


def replies_after(stage: Stage, at_ms: int, conversations: Collection[str]) -> list[float]:
    """How many seconds after that moment each reply in these conversations was sent."""
    return sorted(
        (moment_ms(one.at) - at_ms) / 1000
        for one in stage.simulator.effects("helpdesk")
        if one.kind == "reply" and one.target in conversations and moment_ms(one.at) > at_ms
    )


def moment_ms(text: str) -> int:
    """Epoch milliseconds of the simulator's time."""
    return round(datetime.fromisoformat(text).timestamp() * 1000)


def switched_at_ms(stage: Stage, name: str) -> int:
    """When the switch was last written, by the parameter store's own clock, which is this machine's."""
    stored = stage.stack.client("ssm").get_parameter(Name=f"{stage.stack.output('SwitchesPath')}/{name}")["Parameter"]
    written: datetime = stored["LastModifiedDate"]
    return round(written.timestamp() * 1000)


def _replies_are_off(on: Ground, played: Played) -> list[Claim]:
    """The switch is thrown before anybody has read the page, by the machine, with its audit; the storm goes on and
    reaches nobody.
    """
    stage, ssm = on.stage, on.stage.stack.client("ssm")
    name = f"{stage.stack.output('SwitchesPath')}/auto_reply"
    value = ssm.get_parameter(Name=name)["Parameter"]["Value"]
    off_ms = switched_at_ms(stage, "auto_reply")
    time.sleep(KNOWN_WITHIN_SECONDS + 5)

    def unaudited() -> str:
        return "" if len(_turns(stage)) > played.notes["turns"] else "not yet"

    on.wait("the turn is in the audit", unaudited, seconds=60)
    turn: Item = next(iter(_turns(stage)[::-1]), {})
    late = replies_after(stage, off_ms, {conversation_of(delivery) for delivery, _ in played.notes["made"]})
    last = max(late, default=0.0)
    return [
        Claim(
            f"contained: auto_reply was off by itself, {len(late)} replies left after it, the last {last:.1f} s later, "
            "while what calls for one went on",
            value == "off" and last <= KNOWN_WITHIN_SECONDS,
            [f"{seconds:.1f} s" for seconds in late if seconds > KNOWN_WITHIN_SECONDS],
        ),
        Claim(
            f"audited: {turn.get('actor')}, {turn.get('reason')}",
            bool(turn) and json.loads(str(turn["after_state"]))["value"] == "off",
            [str(turn)],
        ),
    ]


@contextlib.contextmanager
def _on_again(on: Ground, played: Played) -> Iterator[None]:
    """The person turns replies on once the cause is gone. What was stopped does not go out by itself."""
    own = {conversation_of(delivery) for delivery, _ in played.letters}
    before = len(replies_after(on.stage, 0, own))
    try:
        yield
    finally:
        write(on.stage.stack, "auto_reply", "on", "the drill is over")
    time.sleep(AGAIN_SECONDS)
    stale = len(replies_after(on.stage, 0, own)) - before
    played.later.append(Claim(f"{stale} stopped replies went out after it was on again", stale == 0))


# -------------------------------------------------------------------------------------------------------------- duties


@contextlib.contextmanager
def _sweeper_stuck(on: Ground, played: Played) -> Iterator[None]:
    """Each process of the sweeper is stopped on sight: it neither works nor ends."""
    emulator, function = on.stage.running.process("emulator").pid, on.stage.stack.output("SweeperFunction")
    stop, stopped = threading.Event(), set[int]()

    def hold() -> None:
        while not stop.wait(0.1):
            for pid in set(processes_of(emulator, function)) - stopped:
                with contextlib.suppress(ProcessLookupError):  # it ended while we looked
                    os.kill(pid, signal.SIGSTOP)
                    stopped.add(pid)

    thread = threading.Thread(target=hold, name="hold", daemon=True)
    thread.start()
    played.notes["stopped"] = stopped
    try:
        with _sending(on, played, "while", (WHERE, *NO_REPLY), 1.0):
            yield
    finally:
        stop.set()
        thread.join()
        for pid in stopped:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


def _events_go_on(on: Ground, played: Played) -> list[Claim]:
    time.sleep(3)
    own = played.notes["while"].conversations
    settled = sum(one in own and item["status"] == "settled" for one, item in on.stage.ledger().items())
    return [
        Claim(
            f"contained: {settled} new events were settled meanwhile, {len(played.notes['stopped'])} processes of the "
            "sweeper were stopped",
            settled > 0 and bool(played.notes["stopped"]),
        )
    ]


# ------------------------------------------------------------------------------------------------------------- sources


@contextlib.contextmanager
def _source_silent(on: Ground, played: Played, *, source: str = "apikey") -> Iterator[None]:
    """One source that should speak every so often says nothing, while the others do."""
    stage = on.stage
    name, ssm = f"{stage.stack.output('SourcesPath')}/{source}", stage.stack.client("ssm")
    stored = ssm.get_parameter(Name=name, WithDecryption=True)["Parameter"]["Value"]
    entry = {**json.loads(stored), "expected_gap_seconds": GAP_SECONDS}
    ssm.put_parameter(Name=name, Value=json.dumps(entry), Type="SecureString", Overwrite=True)
    played.notes["entry"] = (name, stored)
    with _sending(on, played, "while", NO_REPLY, 1.0):
        yield


def _others_speak(on: Ground, played: Played) -> list[Claim]:
    worked = len(played.notes["while"].conversations & set(on.stage.ledger()))
    return [Claim(f"contained: {worked} events of the other sources were worked meanwhile", worked > 0)]


@contextlib.contextmanager
def _it_speaks(on: Ground, played: Played, *, source: str = "apikey") -> Iterator[None]:
    with _sending(on, played, "after", NO_REPLY, 0.5, source=source):
        yield
    name, stored = played.notes["entry"]
    on.stage.stack.client("ssm").put_parameter(Name=name, Value=stored, Type="SecureString", Overwrite=True)


# --------------------------------------------------------------------------------------------------------------- table

LLM_OUTAGE = Scene(
    name="LLM outage",
    does="Every call of the LLM is answered 503, five messages a second that no rule knows beforehand.",
    alarm="classifier-out",
    severity=Sev.SEV2,
    group="providers",
    breaks=_llm_out,
    contained=_rules_decide,
    mending=_goes_on(FOR_THE_LLM, 2.0),
    may_be_held_back=True,
)
HELPDESK_5XX = Scene(
    name="helpdesk 5xx",
    does="Every call of the helpdesk is answered 503, five messages a second.",
    alarm="integration-down",
    severity=Sev.SEV2,
    group="providers",
    breaks=_helpdesk_5xx,
    contained=_it_waits,
    mending=_goes_on(NO_REPLY, 2.0),
)
HELPDESK_429 = Scene(
    name="helpdesk 429",
    does="Two in five calls of the helpdesk are answered 429 with Retry-After, two messages a second.",
    alarm="rate-limited",
    severity=Sev.SEV3,
    group="providers",
    calls=0,
    breaks=_helpdesk_429,
    contained=_it_is_spared,
    mending=_goes_on(NO_REPLY, 1.0),
    ends=State.RESOLVED,
)
POISON = Scene(
    name="poison messages",
    does="Three messages on the events queue that are no envelope, and three signed webhooks that nobody can read.",
    alarm="message-for-a-person",
    severity=Sev.SEV2,
    group="people",
    breaks=_poison,
    contained=_dead_with_a_cause,
    mending=_by_itself,
)
INGRESS_FAILING = Scene(
    name="ingress failing",
    does="Neither queue nor bucket takes anything from ingress: every sender is answered 503.",
    alarm="ingress-failing",
    severity=Sev.SEV1,
    group="intake",
    breaks=_ingress_fails,
    contained=_senders_know,
    mending=_sent_again,
)
DUPLICATE_STORM = Scene(
    name="duplicate storm",
    does="A sender delivers the same 24 events again and again.",
    alarm="duplicate-storm",
    severity=Sev.SEV2,
    group="replies",
    breaks=_duplicates,
    contained=_nothing_twice,
    mending=_goes_on(NO_REPLY, 1.0),
)
REPLY_STORM = Scene(
    name="reply storm",
    does="Something of ours makes six events a second that no sender sent, each of which is replied to.",
    alarm="reply-storm",
    severity=Sev.SEV0,
    group="replies",
    breaks=_reply_storm,
    contained=_replies_are_off,
    mending=_on_again,
    may_be_held_back=True,
)
DOUBLED = Scene(
    name="doubled reply",
    does="The helpdesk carries one reply out twice, and does not answer.",
    alarm="effects-doubled",
    severity=Sev.SEV0,
    group="replies",
    breaks=_doubled,
    contained=_replies_are_off,
    mending=_on_again,
    may_be_held_back=True,
)
SWEEPER_STUCK = Scene(
    name="stuck sweeper",
    does="Every process of the sweeper is stopped on sight: it neither works nor ends.",
    alarm="sweeper-missing",
    severity=Sev.SEV1,
    group="heartbeats",
    breaks=_sweeper_stuck,
    contained=_events_go_on,
    mending=_by_itself,
)
SOURCE_SILENT = Scene(
    name="silent source",
    does="One source says nothing for longer than its expected gap, while the others speak.",
    alarm="source-silent",
    severity=Sev.SEV2,
    group="sources",
    breaks=_source_silent,
    contained=_others_speak,
    mending=_it_speaks,
)

SCENES: Final = (
    HELPDESK_5XX,
    LLM_OUTAGE,
    HELPDESK_429,
    POISON,
    INGRESS_FAILING,
    DUPLICATE_STORM,
    REPLY_STORM,
    DOUBLED,
    SWEEPER_STUCK,
    SOURCE_SILENT,
)
