"""`python -m ops.drills`: plays the outage of the intake on a stack of its own; with `replay` a bulk replay, with
`oncall` what whoever is on call is told of. Exit code 1 if a promise is broken.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from ops.demo import scenes
from ops.demo.stage import Stage
from ops.demo.story import Story
from ops.drills import alarm_storm, bulk, kill_switch, on_call
from ops.drills.outage import Outage, play
from ops.drills.receiver import listening, on_call_by
from ops.drills.scenes import SCENES
from ops.local import LocalStack, LocalStackFailed

KILL_SWITCH, ALARM_STORM = "kill switch", "alarm storm"
ON_CALL = (*(scene.name for scene in SCENES), KILL_SWITCH, ALARM_STORM)
"""The scenes of whoever is on call. The storm comes last: what it opens is not closed."""
MINUTE_SECONDS = 3.0


def main(argv: list[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m ops.drills", description="What is hard to see every day.")
    parser.add_argument(
        "drill",
        nargs="?",
        choices=("intake", "replay", "oncall"),
        default="intake",
        help="intake: AWS itself fails under it; replay: a bulk replay beside live events, and λ is killed; "
        "oncall: ten things break, an alarm storm, the kill switch",
    )
    parser.add_argument("--items", type=int, default=500, help="dead items that are replayed, about")
    parser.add_argument("--deaths", type=int, default=12, help="of the λ that replays them")
    parser.add_argument("--live", type=int, default=60, help="new events, without a bulk replay and beside one")
    parser.add_argument("--events", type=int, default=500, help="webhooks while the queue fails")
    parser.add_argument("--refused", type=int, default=500, help="webhooks while queue and bucket fail")
    parser.add_argument("--replies", type=int, default=240, help="of the burst in which the kill switch is thrown")
    parser.add_argument(
        "--minute-seconds", type=float, default=MINUTE_SECONDS, help="how long a minute of alarms lasts"
    )
    parser.add_argument(
        "--scenes", default="", help="of oncall: only these, with commas between, such as 'reply storm'"
    )
    options = parser.parse_args(argv)
    wanted = [name.strip() for name in options.scenes.split(",") if name.strip()] or list(ON_CALL)
    if unknown := set(wanted) - set(ON_CALL):
        parser.error(f"{', '.join(sorted(unknown))}: scenes are {', '.join(ON_CALL)}")
    console = Console(highlight=False)
    story = Story(console)
    with tempfile.TemporaryDirectory(prefix="holdfast-drill-") as directory:
        try:
            running = LocalStack.start(Path(directory), announce=story.tell)
        except LocalStackFailed as exc:
            console.print(str(exc), markup=False)
            return 1
        with running:
            stage = Stage(running, story, seed=1)
            scenes.warm_up(stage)
            match options.drill:
                case "intake":
                    _intake(stage, options.events, options.refused)
                case "replay":
                    _replay(stage, options.items, options.deaths, options.live)
                case _:
                    _on_call(stage, wanted, options.minute_seconds, options.replies)
    return 0 if story.verdict() else 1


def _intake(stage: Stage, events: int, refused: int) -> None:
    story = stage.story
    scene = story.open(
        "outage",
        "the events queue fails, then the bucket too",
        f"{events} webhooks while every call of the queue fails (throttled, 500, silence, refused), "
        f"then {refused} more while every call of the bucket does as well. Then both come back.",
    )
    seen = play(stage, events=events, refused=refused)
    for text, holds in verdicts(seen, events, refused):
        story.check(scene, text, holds=holds, details=seen.problems)
    story.close(scene)


def _replay(stage: Stage, items: int, deaths: int, live: int) -> None:
    story = stage.story
    scene = story.open(
        "replay",
        "a bulk replay beside live events, and one whose λ dies again and again",
        f"About {items} dead items: some were refused, half have come about though every answer was an error, some "
        f"have not. A first job takes up the refused beside {live} new events, a second one the others while λ's "
        f"process is killed {deaths} times.",
    )
    seen = bulk.play(stage, items=items, deaths=deaths, live=live)
    for text, holds, details in bulk.verdicts(seen, deaths):
        story.check(scene, text, holds=holds, details=details)
    story.close(scene)


def _on_call(stage: Stage, wanted: Sequence[str], minute_seconds: float, replies: int) -> None:
    """The scenes in their order; then, alarms no longer judged, the storm of them; the kill switch."""
    story = stage.story
    with listening() as receiver, on_call_by(stage.stack, receiver):
        if any(scene.name in wanted for scene in SCENES):
            with on_call.ground(stage, receiver, minute_seconds=minute_seconds) as on:
                for scene in SCENES:
                    if scene.name in wanted:
                        on_call.clear(on)
                        on_call.perform(on, scene)
                on_call.clear(on)
        if KILL_SWITCH in wanted:
            told = story.open(
                KILL_SWITCH,
                "aws ssm put-parameter in the middle of a burst",
                f"At least {replies} messages, each to be replied to, twelve a second. auto_reply goes off by plain "
                "put-parameter under a role that may do nothing else, and on again once all are settled.",
            )
            stopped = kill_switch.play(stage, replies=replies)
            on_call.conclude(story, told, kill_switch.verdicts(stopped, replies))
        if ALARM_STORM in wanted:
            told = story.open(
                ALARM_STORM,
                "everything fires at once",
                f"{alarm_storm.MESSAGES} messages of all alarms come within a minute, some of them late.",
            )
            stormed = alarm_storm.play(stage, receiver)
            on_call.conclude(story, told, alarm_storm.verdicts(stormed))


def verdicts(seen: Outage, events: int, refused: int) -> list[tuple[str, bool]]:
    """Every promise with its figure, and whether it held."""
    slowest = max(seen.slowest_ms.values())
    return [
        (f"{_accepted(seen)} of {events} were acknowledged while the queue failed", _accepted(seen) == events),
        (f"{seen.spilled} of them waited in the spill", seen.spilled == events),
        (
            f"{seen.answers_without_bucket[503]} of {refused} were answered 503 while the bucket failed too",
            dict(seen.answers_without_bucket) == ({503: refused} if refused else {}),
        ),
        (f"{seen.spilled_without_bucket} of those were stored", seen.spilled_without_bucket == 0),
        (f"afterwards all were settled, {seen.effects} effects, each once", seen.settled and not seen.problems),
        (f"{seen.left_in_spill} are left in the spill", seen.left_in_spill == 0),
        (f"ingress took at most {slowest} ms over a request ({_listed(seen)})", 0 <= slowest <= 1500),
    ]


def _accepted(seen: Outage) -> int:
    return sum(count for status, count in seen.answers.items() if 200 <= status < 300)


def _listed(seen: Outage) -> str:
    return ", ".join(f"{trouble}: {milliseconds}" for trouble, milliseconds in seen.slowest_ms.items())


if __name__ == "__main__":
    sys.exit(main())
