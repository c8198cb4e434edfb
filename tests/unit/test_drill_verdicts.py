"""When a drill of whoever is on call has failed: each promise that is broken is said, and none hides behind another."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest

from functions.core.alarms import ALARMS, Sev, by_name
from functions.core.incident import State
from ops.drills import alarm_storm, kill_switch
from ops.drills.__main__ import ON_CALL
from ops.drills.alarm_storm import Stormed
from ops.drills.kill_switch import Stopped
from ops.drills.on_call import Claim, Played, Scene, Seen, verdicts
from ops.drills.receiver import Call
from ops.drills.scenes import SCENES

SCENE = Scene(
    name="a scene",
    does="It breaks.",
    alarm="integration-down",
    severity=Sev.SEV2,
    group="providers",
    breaks=lambda *_: nullcontext(),
    contained=lambda *_: [],
    mending=lambda *_: nullcontext(),
)


def incident(**fields: Any) -> dict[str, Any]:
    return {
        "incident_id": "INC-1",
        "state": "resolved",
        "severity": "SEV2",
        "group": "providers",
        "runbook": "docs/runbooks/alarms.md#integration-down",
        "alarms": [
            {"name": "integration-down", "severity": "SEV2"},
            {"name": "integration-degraded", "severity": "SEV3"},
        ],
        **fields,
    }


def call(kind: str = "opened", runbook: str = "docs/runbooks/alarms.md#integration-down") -> Call:
    return Call("INC-1", kind, "SEV2", runbook, "[SEV2 local] A provider is down", 3.0)


def seen() -> Seen:
    played = Played("a-scene", began=1.0, alarmed=2.0, paged=3.0, mended=4.0, over=5.0)
    return Seen(
        SCENE,
        played,
        fired=True,
        incidents=[incident()],
        calls=[call()],
        openings=1,
        contained=[Claim("contained", holds=True)],
        was_over=True,
        is_closed=True,
        settled=True,
    )


def holds(found: Seen) -> bool:
    return all(claim.holds for claim in verdicts(found))


def test_what_went_as_it_should_holds() -> None:
    assert holds(seen())


def test_on_a_busy_machine_another_incident_may_call_and_the_scenes_own_only_once() -> None:
    found = seen()
    found.incidents.append(incident(incident_id="INC-2", group="heartbeats"))
    other = Call("INC-2", "opened", "SEV1", "docs/runbooks/alarms.md#pager-missing", "[SEV1 local] x", 4.0)
    found.calls.append(other)
    assert not holds(found)
    assert all(claim.holds for claim in verdicts(found, is_alone=False))
    found.calls.append(call())
    assert not all(claim.holds for claim in verdicts(found, is_alone=False))


def _set(**fields: Any) -> Callable[[Seen], None]:
    def change(found: Seen) -> None:
        for name, value in fields.items():
            setattr(found, name, value)

    return change


def _unpaged(found: Seen) -> None:
    found.played.paged = 0.0


def _later(found: Seen) -> None:
    found.played.later.append(Claim("a stale reply went out", holds=False))


SHORTFALLS: dict[str, Callable[[Seen], None]] = {
    "the alarm does not fire": _set(fired=False),
    "nobody is told": _unpaged,
    "no incident": _set(incidents=[]),
    "two incidents": _set(incidents=[incident(), incident(incident_id="INC-2")]),
    "another severity": _set(incidents=[incident(severity="SEV1")]),
    "another incident calls": _set(incidents=[incident(), incident(group="pipeline")], calls=[call(), call()]),
    "without the alarm": _set(incidents=[incident(alarms=[{"name": "classifier-out", "severity": "SEV2"}])]),
    "the page names a lesser alarm's runbook": _set(
        calls=[call(runbook="docs/runbooks/alarms.md#integration-degraded")]
    ),
    "the page names no runbook": _set(calls=[call(runbook="")]),
    "nobody is called": _set(calls=[]),
    "two calls": _set(calls=[call(), call("raised")]),
    "opened twice": _set(openings=2),
    "not contained": _set(contained=[Claim("contained", holds=False)]),
    "never over": _set(was_over=False),
    "never closed": _set(is_closed=False),
    "something is not settled": _set(settled=False),
    "an effect is missing": _set(problems=["the reply is missing"]),
    "a stale reply": _later,
}


@pytest.mark.parametrize("shortfall", SHORTFALLS)
def test_each_promise_that_is_broken_is_said(shortfall: str) -> None:
    found = seen()
    SHORTFALLS[shortfall](found)
    assert sum(not claim.holds for claim in verdicts(found)) >= 1


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.name)
def test_a_scene_says_of_its_alarm_what_the_table_says(scene: Scene) -> None:
    """001.8, 003.25."""
    alarm = by_name(scene.alarm)
    assert alarm is not None
    assert (scene.severity, scene.group, scene.calls) == (alarm.sev, alarm.group, int(alarm.is_page))
    assert scene.ends is (State.RESOLVED if alarm.sev is Sev.SEV3 else State.MITIGATED)


def test_there_are_the_scenes_that_are_asked_for() -> None:
    assert len(SCENES) == len({scene.name for scene in SCENES}) == 10
    assert set(ON_CALL) == {scene.name for scene in SCENES} | {"kill switch", "alarm storm"}


# ---------------------------------------------------------------------------------------------------------- alarm storm


@pytest.mark.parametrize("seed", range(5))
def test_a_storm_has_every_alarm_firing_in_the_end(seed: int) -> None:
    made = alarm_storm.messages("local", 200, 10_000_000, 20.0, random.Random(seed))
    assert len(made) == 200
    assert len({one["AlarmName"] for one in made if one["NewStateValue"] == "ALARM"}) == len(ALARMS)
    firing = min(one["StateChangeTime"] for one in made if one["NewStateValue"] == "ALARM")
    late = [one["StateChangeTime"] for one in made if one["NewStateValue"] == "OK"]
    assert len(late) == 20
    assert max(late) < firing


def stormed() -> Stormed:
    groups = {alarm.group for alarm in ALARMS}
    paging = {alarm.group for alarm in ALARMS if alarm.is_page}
    return Stormed(
        sent=200,
        seconds=20.0,
        groups=groups,
        incidents=[
            {"group": group, "severity": min(alarm.sev for alarm in ALARMS if alarm.group == group)} for group in groups
        ],
        alerts=dict.fromkeys(paging, 1),
        letters={group: Counter({"opened": 1}) for group in groups},
        turns={"auto_reply": ["off"], "flow/support/mode": ["hold", "live"]},
        returned=True,
    )


def _twice(found: Stormed) -> None:
    found.incidents.append({"group": "providers", "severity": "SEV2"})


def _alerted_twice(found: Stormed) -> None:
    found.alerts["providers"] = 2


def _lesser(found: Stormed) -> None:
    found.incidents[0]["severity"] = "SEV4"


def _opened_twice(found: Stormed) -> None:
    found.letters["providers"]["opened"] = 2


def _raised_often(found: Stormed) -> None:
    found.letters["triage"]["raised"] = 1


def _recurred(found: Stormed) -> None:
    found.letters["providers"]["recurred"] = 1


def _left(found: Stormed) -> None:
    found.left = 1


def _thrown_twice(found: Stormed) -> None:
    found.turns["auto_reply"] = ["off", "off"]


def _held(found: Stormed) -> None:
    found.returned = False


@pytest.mark.parametrize(
    "shortfall", [_twice, _alerted_twice, _lesser, _opened_twice, _raised_often, _recurred, _left, _thrown_twice, _held]
)
def test_a_storm_that_is_told_twice_or_not_at_all_falls_short(shortfall: Callable[[Stormed], None]) -> None:
    found = stormed()
    assert all(claim.holds for claim in alarm_storm.verdicts(found))
    shortfall(found)
    assert [claim.holds for claim in alarm_storm.verdicts(found)].count(False) == 1


# ---------------------------------------------------------------------------------------------------------- kill switch


def turn(before: str, after: str, actor: str = "arn:aws:sts::1:assumed-role/drill-operator-1/drill-operator") -> Any:
    return {"before_state": f'{{"value":"{before}"}}', "after_state": f'{{"value":"{after}"}}', "actor": actor}


def stopped() -> Stopped:
    return Stopped(
        sent=240,
        before=60,
        after=[0.2, 5.5],
        suppressed=178,
        answered_again=8,
        asked_again=8,
        settled=True,
        audit=[turn("on", "off"), turn("off", "on")],
        refused="AccessDeniedException",
    )


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("sent", 199),
        ("before", 3),
        ("after", [0.2, 15.1]),
        ("suppressed", 177),
        ("unfinished", 1),
        ("stale", 1),
        ("answered_again", 7),
        ("settled", False),
        ("audit", [turn("on", "off")]),
        ("audit", [turn("on", "off"), turn("off", "on", "")]),
        ("refused", ""),
        ("problems", ["a tag is missing"]),
    ],
)
def test_a_kill_switch_that_does_not_hold_falls_short(field: str, value: Any) -> None:
    """002.14."""
    found = stopped()
    assert all(claim.holds for claim in kill_switch.verdicts(found, 200))
    setattr(found, field, value)
    assert not all(claim.holds for claim in kill_switch.verdicts(found, 200))
