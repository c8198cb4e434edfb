"""The drill of whoever is on call: something breaks, its alarm fires, one incident, one page, contained, over.

Each scene is a row of `ops.drills.scenes`. The alarms are judged by a bridge of this process (`ops.local.bridge`), the
page comes to a receiver of this process, and whoever has the pager acts through the operator API, as on AWS.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from typing import Any, Final, Self
from urllib.parse import quote

from functions.core.alarms import Sev, by_name
from functions.core.incident import PageKind, State
from functions.core.postmortem import PLACEHOLDER
from functions.operator_api.problems import Code
from ops.demo.stage import SOURCES, Stage, conversation_of
from ops.demo.story import Scene as Told
from ops.demo.story import Story
from ops.drills.receiver import Call, Receiver
from ops.expectation import Topic, balance
from ops.local.bridge import Bridge, run
from ops.operator_api import ApiRefused, OperatorApi, connect
from ops.stack import StackUnreachable
from ops.traffic import Answer, Delivery

PATIENCE: Final = 240.0
POLL_SECONDS: Final = 0.5
INCIDENTS: Final = "/platform/incidents"
RUNBOOKS: Final = "docs/runbooks/"

Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Claim:
    """Something that must be so, with its figures; whether it is; details for where it is not."""

    text: str
    holds: bool
    details: Sequence[str] = ()


@dataclass(slots=True)
class Ground:
    """A stack whose alarms are judged, and somebody who has the pager."""

    stage: Stage
    receiver: Receiver
    bridge: Bridge
    api: OperatorApi
    minute_seconds: float

    def incidents(self, state: str = "all") -> list[Document]:
        """The newest first."""
        found: list[Document] = self.api.call("GET", INCIDENTS, query={"state": state, "limit": "200"})["incidents"]
        return found

    def incident(self, incident_id: str) -> Document:
        """One of them."""
        found: Document = self.api.call("GET", _path(incident_id))["incident"]
        return found

    def change(self, incident_id: str, what: str, body: Mapping[str, Any]) -> Document:
        """Do something with it, again where others come between. Raises `ApiRefused`."""
        for tries_left in reversed(range(5)):
            try:
                return self.api.call("POST", f"{_path(incident_id)}/{what}", body=body)
            except ApiRefused as refused:
                if refused.code != Code.IN_PROGRESS or not tries_left:
                    raise
                time.sleep(POLL_SECONDS)
        raise AssertionError("the last try returns or raises")

    def firing(self) -> set[str]:
        """The alarms of the stage that are in alarm, by their names in the table."""
        pages = self.stage.stack.client("cloudwatch").get_paginator("describe_alarms").paginate(StateValue="ALARM")
        names = {one["AlarmName"] for page in pages for one in page["MetricAlarms"]}
        return {alarm.name for name in names if (alarm := by_name(name)) is not None}

    def wait(self, what: str, missing: Callable[[], str], seconds: float = PATIENCE) -> bool:
        """Until nothing is missing."""
        return self.stage.story.wait(what, missing, seconds=seconds, every=POLL_SECONDS)


def _path(incident_id: str) -> str:
    return f"{INCIDENTS}/{quote(incident_id, safe='')}"


@contextlib.contextmanager
def ground(stage: Stage, receiver: Receiver, *, minute_seconds: float) -> Iterator[Ground]:
    """The stage with its alarms judged and somebody on call, for as long as the block lasts. A minute of the alarms'
    windows lasts so many seconds.
    """
    made = Ground(
        stage,
        receiver,
        Bridge(stage.stack, minute_ms=int(minute_seconds * 1000)),
        connect(stage.stack),
        minute_seconds,
    )
    stop = threading.Event()
    person = Person(made)
    threads = [
        threading.Thread(
            target=run, args=(made.bridge, stop, minute_seconds, stage.story.tell), name="bridge", daemon=True
        ),
        threading.Thread(target=person.run, args=(stop,), name="person", daemon=True),
    ]
    for thread in threads:
        thread.start()
    try:
        yield made
    finally:
        stop.set()
        for thread in threads:
            thread.join(timeout=60)


class Person:
    """Whoever has the pager: takes in hand what calls. Of a SEV0 they find the switch thrown, and say that it does no
    more harm.
    """

    def __init__(self, on: Ground) -> None:
        self._on = on
        self._heard = len(on.receiver.calls)

    def run(self, stop: threading.Event) -> None:
        """Answer one call after the other, until told to stop."""
        while not stop.wait(POLL_SECONDS):
            for call in self._on.receiver.calls[self._heard :]:
                try:
                    self._answer(call)
                except StackUnreachable as unreachable:
                    self._on.stage.story.tell(f"whoever is on call is not answered, and tries again: {unreachable}")
                    break
                self._heard += 1

    def _answer(self, call: Call) -> None:
        try:
            self._on.change(call.incident_id, "ack", {"note": "I look"})
            if call.severity == Sev.SEV0.value:
                self._on.change(call.incident_id, "mitigate", {"mitigation": "automatic replies are off"})
        except ApiRefused as refused:  # somebody has it, or it is over
            self._on.stage.story.tell(f"{call.incident_id} ({call.kind}): {refused}")


class Traffic:
    """Messages at a steady pace for as long as the block lasts. `letters` are what was sent, `answers` what came."""

    def __init__(
        self, stage: Stage, name: str, topics: Sequence[Topic], per_second: float, *, source: str = ""
    ) -> None:
        self._stage = stage
        self._name = name
        self._topics = topics
        self._pause = 1 / per_second
        self._source = source
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"traffic {name}", daemon=True)
        self.letters: list[tuple[Delivery, Topic]] = []
        self.answers: list[Answer] = []

    @property
    def conversations(self) -> set[str]:
        """Those that the messages so far belong to: some providers name them themselves."""
        return {conversation_of(delivery) for delivery, _ in list(self.letters)}

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        began = time.monotonic()
        while not self._stop.wait(max(0.0, began + len(self.letters) * self._pause - time.monotonic())):
            # As many as are due: on a busy machine the pace is kept, and several go at once.
            due = min(8, max(1, int((time.monotonic() - began) / self._pause) + 1 - len(self.letters)))
            made = [self._letter(len(self.letters) + number) for number in range(due)]
            self.answers += self._stage.post([delivery for delivery, _ in made], concurrency=due)
            self.letters += made

    def _letter(self, number: int) -> tuple[Delivery, Topic]:
        topic = self._topics[number % len(self._topics)]
        source = self._source or SOURCES[number % len(SOURCES)]
        delivery = self._stage.sender.message(
            source,
            ticket=f"demo-{self._name}-{number}",
            text=topic.text,
            author=f"customer{number % 40}@example.com",
            message_id=f"msg_{self._name}_{number}",
        )
        return delivery, topic


@dataclass(slots=True)
class Played:
    """What a scene has for itself. `letters` are what ought to come about, `notes` what the trouble leaves for whoever
    looks whether it is contained. `later` is what only shows after it was mended.
    """

    name: str
    letters: list[tuple[Delivery, Topic]] = field(default_factory=list)
    notes: dict[str, Any] = field(default_factory=dict)
    later: list[Claim] = field(default_factory=list)
    began: float = 0.0
    alarmed: float = 0.0
    paged: float = 0.0
    mended: float = 0.0
    over: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """One thing that breaks.

    `breaks` does it to the stack for as long as its block lasts; meanwhile `contained` says what the harm is bounded
    by. `mending` goes on after it until the incident is over: what senders do then. `ends` is the state that the
    incident comes to by itself; a SEV0 is mitigated by whoever is on call.
    """

    name: str
    does: str
    alarm: str
    severity: Sev
    group: str
    calls: int = 1
    breaks: Callable[[Ground, Played], AbstractContextManager[None]]
    contained: Callable[[Ground, Played], list[Claim]]
    mending: Callable[[Ground, Played], AbstractContextManager[None]]
    ends: State = State.MITIGATED
    may_be_held_back: bool = False


@dataclass(slots=True)
class Seen:
    """What became of a scene. `incidents` are those that were opened meanwhile, the scene's own first."""

    scene: Scene
    played: Played
    fired: bool = False
    incidents: list[Document] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    openings: int = 0
    contained: list[Claim] = field(default_factory=list)
    was_over: bool = False
    is_closed: bool = False
    still_fires: list[str] = field(default_factory=list)
    settled: bool = False
    problems: list[str] = field(default_factory=list)
    effects: int = 0

    @property
    def own(self) -> list[Document]:
        """Those of the scene's group."""
        return [one for one in self.incidents if one.get("group") == self.scene.group]

    @property
    def others(self) -> list[str]:
        """Whatever else was opened, in words."""
        return [
            f"{one['severity']} {one.get('group', '')}: {', '.join(alarm['name'] for alarm in one['alarms'])}"
            for one in self.incidents
            if one.get("group") != self.scene.group
        ]


def play(on: Ground, scene: Scene) -> Seen:
    """Break, look, mend, look, close. What is open of the scene's group is closed first."""
    story = on.stage.story
    seen = Seen(scene, Played(f"{scene.name.lower().replace(' ', '-')}-{time.monotonic_ns() % 10**8}"))
    clear(on, scene.group)
    known = {one["incident_id"] for one in on.incidents()}
    played = seen.played

    def own() -> Document | None:
        """The scene's incident, once its alarm is part of it."""
        fresh = [one for one in on.incidents() if one["incident_id"] not in known]
        return next((one for one in fresh if _has(one, scene.alarm)), None)

    played.began = time.monotonic()
    with scene.breaks(on, played):
        seen.fired = on.wait(f"{scene.alarm} fires", lambda: "" if scene.alarm in on.firing() else "it does not yet")
        played.alarmed = time.monotonic()
        on.wait("there is an incident", lambda: "" if own() else "there is none yet", seconds=60)
        incident = own()
        if incident is not None:
            one = incident["incident_id"]
            on.wait("somebody is told", lambda: "" if on.receiver.letters_of(one) else "nobody yet", seconds=90)
            told = on.receiver.calls_of(one) if scene.calls else on.receiver.letters_of(one)
            played.paged = min((each.at for each in told), default=0.0)
            seen.contained = scene.contained(on, played)
    played.mended = time.monotonic()
    story.tell("mended")
    with scene.mending(on, played):
        if incident is not None:
            seen.was_over = on.wait(
                f"the incident is {scene.ends.value}, its alarms quiet", _not_over(on, incident["incident_id"], scene)
            )
    played.over = time.monotonic()
    _settle(on, seen)
    if incident is not None:
        seen.is_closed = close(on, incident["incident_id"])
    seen.still_fires = sorted(on.firing())
    fresh = [one for one in on.incidents() if one["incident_id"] not in known]
    seen.incidents = sorted(fresh, key=lambda one: not _has(one, scene.alarm))
    seen.calls = [call for one in fresh for call in on.receiver.calls_of(one["incident_id"])]
    seen.openings = sum(
        letter.kind == PageKind.OPENED for one in seen.own for letter in on.receiver.letters_of(one["incident_id"])
    )
    return seen


def _has(incident: Document, alarm: str) -> bool:
    return any(one["name"] == alarm for one in incident["alarms"])


def _not_over(on: Ground, incident_id: str, scene: Scene) -> Callable[[], str]:
    def missing() -> str:
        now = on.incident(incident_id)
        firing = [one["name"] for one in now["alarms"] if one["is_firing"]]
        if firing:
            return f"{', '.join(firing)} fires"
        return "" if now["state"] in (scene.ends.value, State.RESOLVED.value) else f"it is {now['state']}"

    return missing


def _settle(on: Ground, seen: Seen) -> None:
    """Until everything that was sent has come about, each effect once."""
    stage, letters = on.stage, seen.played.letters
    conversations = stage.expect(letters, may_be_late=True, may_be_held_back=seen.scene.may_be_held_back)
    seen.settled = on.wait("everything is settled", stage.unsettled(conversations))
    expected = {one: stage.expectations[one] for one in conversations}

    def missing() -> str:
        wanted = set(conversations)
        found = balance(expected, [one for one in stage.simulator.effects("helpdesk") if one.target in wanted])
        seen.problems, seen.effects = found.problems, found.effects
        return f"{len(found.problems)} to go, the first: {found.problems[0]}" if found.problems else ""

    on.wait("every effect is there", missing, seconds=90)


# ------------------------------------------------------------------------------------------------------------- closing


def clear(on: Ground, group: str = "", seconds: float = PATIENCE) -> bool:
    """Close what is open of the group, or of any, once its alarms are quiet: what comes then is news."""

    def missing() -> str:
        firing = sorted(name for name in on.firing() if (known := by_name(name)) and group in ("", known.group))
        if firing:
            return f"{', '.join(firing)} still fires"
        active = [one for one in on.incidents("active") if group in ("", one.get("group"))]
        left = [one["incident_id"] for one in active if not close(on, one["incident_id"])]
        return f"{', '.join(left)} cannot be closed" if left else ""

    return on.wait(f"no incident of {group or 'any group'} is open", missing, seconds)


def close(on: Ground, incident_id: str) -> bool:
    """Write its postmortem where it needs one, and close it. False while an alarm of it fires."""
    now = on.incident(incident_id)
    if now["state"] == State.RESOLVED.value:
        return True
    if any(alarm["is_firing"] for alarm in now["alarms"]):
        return False
    if now["needs_postmortem"] and not now["has_postmortem"]:
        draft = on.change(incident_id, "postmortem", {})["text"]
        on.change(incident_id, "postmortem", {"text": draft.replace(PLACEHOLDER, "a drill")})
    try:
        return bool(on.change(incident_id, "resolve", {"resolution": "a drill"})["state"] == State.RESOLVED.value)
    except ApiRefused as refused:
        on.stage.story.tell(f"{incident_id} is not closed: {refused}")
        return False


# ------------------------------------------------------------------------------------------------------------- verdicts


def verdicts(seen: Seen) -> list[Claim]:
    """Every promise with its figures, and whether it held."""
    scene, played = seen.scene, seen.played
    now = seen.own[0] if seen.own else {}
    kinds = [f"{call.severity} {call.kind}" for call in seen.calls]
    runbook = f"{RUNBOOKS}alarms.md#"  # of any of its gravest alarms: which fires first is chance
    named = [alarm["name"] for alarm in now.get("alarms", ())]
    gravest = [one["name"] for one in now.get("alarms", ()) if one["severity"] == scene.severity.value]
    links = {call.runbook for call in seen.calls} or {str(now.get("runbook"))}
    told = "paged" if scene.calls else "told as a ticket"
    return [
        Claim(
            f"{scene.alarm} fired after {played.alarmed - played.began:.0f} s, {told} after "
            f"{played.paged - played.began:.0f} s",
            seen.fired and played.paged > 0,
        ),
        Claim(
            f"{len(seen.own)} incident, {now.get('severity')} {now.get('group')} ({', '.join(named)}), "
            f"runbook {now.get('runbook')}",
            len(seen.own) == 1
            and now["severity"] == scene.severity.value
            and scene.alarm in named
            and all(link.removeprefix(runbook) in gravest for link in links),
            [str(one) for one in seen.own],
        ),
        Claim(
            f"{len(seen.calls)} calls, {seen.openings} letter that opens it; besides: "
            f"{'; '.join(seen.others) or 'nothing'}",
            # Whatever else is told as a ticket wakes nobody; of a page there would be a call.
            len(seen.calls) == scene.calls and seen.openings == 1,
            kinds,
        ),
        *seen.contained,
        Claim(
            f"{played.over - played.mended:.0f} s after it was mended the incident was {scene.ends.value}, "
            "then closed" + ("" if scene.severity is Sev.SEV3 else " with its postmortem"),
            seen.was_over and seen.is_closed,
            [str(now.get("state")), *seen.still_fires],
        ),
        *played.later,
        Claim(
            f"{seen.effects} effects of {len(played.letters)} messages, each once",
            seen.settled and not seen.problems,
            seen.problems,
        ),
    ]


def tell(stage: Stage, seen: Seen) -> None:
    """A scene's verdict, as the story has them."""
    scene = stage.story.scenes[-1]
    conclude(stage.story, scene, verdicts(seen))


def conclude(story: Story, scene: Told, claims: Sequence[Claim]) -> None:
    """End a scene of the story with what must be so."""
    for claim in claims:
        story.check(scene, claim.text, holds=claim.holds, details=claim.details)
    story.close(scene)


def perform(on: Ground, scene: Scene) -> Seen:
    """Open it in the story, play it, tell it."""
    on.stage.story.open(scene.name, scene.alarm, scene.does)
    seen = play(on, scene)
    tell(on.stage, seen)
    return seen


@contextlib.contextmanager
def several(*blocks: AbstractContextManager[Any]) -> Iterator[None]:
    """All of them at once."""
    with ExitStack() as stack:
        for block in blocks:
            stack.enter_context(block)
        yield


def listed(names: Collection[str]) -> str:
    """In words."""
    return ", ".join(sorted(names)) or "none"
