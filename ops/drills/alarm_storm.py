"""Everything fires at once: two hundred messages of alarms within a minute, and what whoever is on call hears of it.

What must hold: one incident and one page for each group of alarms, and each switch that is thrown by itself is thrown
once.
"""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from functions.core.alarms import ALARMS, Alarm, name_at
from functions.core.incident import PageKind
from ops import records
from ops.cli.switches import write
from ops.demo.stage import Stage
from ops.drills.on_call import INCIDENTS, Claim, Document
from ops.drills.receiver import Receiver
from ops.operator_api import connect

MESSAGES: Final = 200
WITHIN_SECONDS: Final = 20.0
_BATCH: Final = 10
_PATIENCE: Final = 120.0


@dataclass(slots=True)
class Stormed:
    """What was seen. `alerts` are what the pager shows, by group: it knows one by its key, whatever else comes under
    that. `letters` are those in the chat, by group and by why they came.
    """

    sent: int = 0
    seconds: float = 0.0
    groups: set[str] = field(default_factory=set)
    incidents: list[Document] = field(default_factory=list)
    alerts: dict[str, int] = field(default_factory=dict)
    letters: dict[str, Counter[str]] = field(default_factory=dict)
    heard_seconds: float = 0.0
    left: int = 0
    turns: dict[str, list[str]] = field(default_factory=dict)
    returned: bool = False


def messages(stage: str, count: int, began_ms: int, seconds: float, chance: random.Random) -> list[Document]:
    """What SNS hands on: every alarm of the table fires, again and again. Some of it comes late: that an alarm was
    quiet, before all this began.
    """
    moments = sorted(chance.uniform(0, seconds * 1000) for _ in range(count))
    order: list[Alarm] = []
    while len(order) < count:
        order += chance.sample(ALARMS, len(ALARMS))
    late = set(chance.sample(range(len(ALARMS), count), count // 10))
    return [
        {
            "AlarmName": name_at(stage, alarm.name),
            "NewStateValue": "OK" if number in late else "ALARM",
            "StateChangeTime": _text(began_ms - 1000 if number in late else began_ms + round(moment)),
        }
        for number, (alarm, moment) in enumerate(zip(order, moments, strict=False))
    ]


def _text(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds")


def play(stage: Stage, receiver: Receiver, *, count: int = MESSAGES, seed: int = 1) -> Stormed:
    """The storm, straight into the queue that the topics lead to. Nobody acknowledges anything."""
    seen, api = Stormed(groups={alarm.group for alarm in ALARMS}), connect(stage.stack)
    sqs, url = stage.stack.client("sqs"), stage.stack.output("PagesQueueUrl")
    known = {one["incident_id"] for one in _incidents(api)}
    before = {name: len(_turns(stage, name)) for name in _SWITCHES}
    began_ms, began = time.time_ns() // 1_000_000, time.monotonic()
    chance = random.Random(seed)  # noqa: S311  # a storm that can be repeated, no secret
    waiting = messages(stage.stack.stage, count, began_ms, WITHIN_SECONDS, chance)
    for start in range(0, len(waiting), _BATCH):
        batch = waiting[start : start + _BATCH]
        due = began + WITHIN_SECONDS * start / len(waiting)
        time.sleep(max(0.0, due - time.monotonic()))
        sqs.send_message_batch(
            QueueUrl=url,
            Entries=[{"Id": str(number), "MessageBody": json.dumps(one)} for number, one in enumerate(batch)],
        )
        seen.sent += len(batch)
    seen.seconds = time.monotonic() - began

    def unheard() -> str:
        seen.left = records.queue_depths(stage.stack)["Pages"]
        return f"{seen.left} wait" if seen.left else ""

    stage.story.wait("every message is heard", unheard, seconds=_PATIENCE)
    seen.heard_seconds = time.monotonic() - began

    def unpaged() -> str:
        seen.incidents = [one for one in _incidents(api) if one["incident_id"] not in known]
        waits = sum(page.get("delivered_at_ms") is None for one in seen.incidents for page in one["pages"])
        return f"{waits} pages wait" if waits else ""

    stage.story.wait("every page is delivered", unpaged, seconds=_PATIENCE)
    for one in seen.incidents:
        group = str(one.get("group"))
        if receiver.calls_of(one["incident_id"]):
            seen.alerts[group] = seen.alerts.get(group, 0) + 1
        seen.letters.setdefault(group, Counter()).update(
            letter.kind for letter in receiver.letters_of(one["incident_id"])
        )

    def unaudited() -> str:
        seen.turns = {name: _turns(stage, name)[before[name] :] for name in _SWITCHES}
        return "" if all(seen.turns.values()) else str(seen.turns)

    stage.story.wait("what was thrown by itself is in the audit", unaudited, seconds=60)

    def held() -> str:
        name = f"{stage.stack.output('SwitchesPath')}/{FLOW}"
        value = str(stage.stack.client("ssm").get_parameter(Name=name)["Parameter"]["Value"])
        return "" if value == "live" else value

    seen.returned = stage.story.wait("the flow goes on by itself", held, seconds=_PATIENCE)
    write(stage.stack, "auto_reply", "on", "the drill is over")
    return seen


FLOW: Final = "flow/support/mode"
_SWITCHES: Final = ("auto_reply", FLOW)
"""What the alarms of the table throw by themselves."""


def _turns(stage: Stage, name: str) -> list[str]:
    """What the switch was set to, by its audit."""
    events = records.audit_of(stage.stack, f"switch#{name}")  # that it was asked for is one, and says no state
    return [str(json.loads(str(one["after_state"]))["value"]) for one in events if "after_state" in one]


def _incidents(api: Any) -> list[Document]:
    found: list[Document] = api.call("GET", INCIDENTS, query={"state": "all", "limit": "200"})["incidents"]
    return found


def verdicts(seen: Stormed) -> list[Claim]:
    """Every promise with its figures, and whether it held."""
    paging = {alarm.group for alarm in ALARMS if alarm.is_page}
    by_group = Counter(str(one.get("group")) for one in seen.incidents)
    worst = {group: min(alarm.sev for alarm in ALARMS if alarm.group == group) for group in seen.groups}
    wrong = [
        f"{one.get('group')}: {one['severity']}"
        for one in seen.incidents
        if one["severity"] != worst.get(str(one.get("group")))
    ]
    # What becomes graver is said, to the same alert: there can be as many of these as there are graver severities.
    steps = {group: len({alarm.sev for alarm in ALARMS if alarm.group == group}) - 1 for group in seen.groups}
    graver = {group: kinds[PageKind.RAISED.value] for group, kinds in seen.letters.items()}
    opening = {group: kinds[PageKind.OPENED.value] for group, kinds in seen.letters.items()}
    again = {group: kinds[PageKind.RECURRED.value] for group, kinds in seen.letters.items() if kinds["recurred"]}
    letters = str({group: dict(kinds) for group, kinds in seen.letters.items()})
    return [
        Claim(
            f"{seen.sent} messages of {len(ALARMS)} alarms in {seen.seconds:.0f} s, all heard after "
            f"{seen.heard_seconds:.0f} s; {seen.left} left in the queue",
            seen.seconds <= 60 and seen.left == 0,
        ),
        Claim(
            f"{len(seen.incidents)} incidents, one for each of {len(seen.groups)} groups, each as grave as its gravest",
            dict(by_group) == dict.fromkeys(seen.groups, 1) and not wrong,
            [*wrong, str(dict(by_group))],
        ),
        Claim(
            f"{sum(seen.alerts.values())} alerts at the pager, one for each of {len(paging)} groups that page",
            seen.alerts == dict.fromkeys(paging, 1),
            [str(seen.alerts)],
        ),
        Claim(
            f"{sum(opening.values())} letters in the chat that open one, one for each group; {sum(graver.values())} "
            "say that it is graver",
            opening == dict.fromkeys(seen.groups, 1)
            and all(count <= steps[group] for group, count in graver.items())
            and not again,
            [letters],
        ),
        Claim(
            "thrown by itself: " + ", ".join(f"{name} {' → '.join(values)}" for name, values in seen.turns.items()),
            seen.turns["auto_reply"] == ["off"] and seen.turns[FLOW][:1] == ["hold"] and seen.returned,
        ),
    ]
