"""`python -m ops.chaos`: plays the run on a stack of its own. Exit code 1 if a promise is broken."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from ops.chaos.books import Evidence, Fate, Violation
from ops.chaos.calls import ONLY_FOR, TIMEOUTS, Way
from ops.chaos.killing import EVERY_SECONDS, can_kill
from ops.chaos.run import Plan, Seen, aws_shares, play
from ops.demo.stage import Stage
from ops.demo.story import Story
from ops.local import LocalStack, LocalStackFailed

SHOWN = 10  # violations that are shown with all that is known of them
COUNTS = ("takeovers", "idempotency_duplicates_detected", "settlements_fenced", "hints_stale", "transitions_conflicted")
WIDTH = 160  # of the tables where nobody's terminal says how wide it is
SURE_OF = 12  # a way that was to be met so often, and was not met at all, was not tried

A_DEATH_EVERY_SECONDS = 2 * max(EVERY_SECONDS)  # at least; in some turns nobody of the chosen function is at work

Verdict = tuple[str, bool, Sequence[str]]


def main(argv: list[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m ops.chaos", description="Everything fails at once.")
    usual = Plan()
    parser.add_argument("--events", type=int, default=usual.events, help="different webhooks; a tenth comes twice")
    parser.add_argument("--seed", type=int, default=usual.seed, help="of every draw")
    parser.add_argument("--aws-share", type=float, default=usual.aws_share, help="of AWS calls, in each way")
    parser.add_argument("--provider-share", type=float, default=usual.provider_share, help="of calls, in each way")
    parser.add_argument("--patience", type=float, default=usual.patience_seconds, help="seconds to wait for quiet")
    options = parser.parse_args(argv)
    plan = Plan(options.events, options.seed, options.aws_share, options.provider_share, options.patience)
    console = Console(highlight=False, width=None if sys.stdout.isatty() else WIDTH)
    if not can_kill():
        console.print("there is no /proc here: the processes to be killed cannot be found")
        return 1
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("told to end"))  # by way of every clean-up
    story = Story(console)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="holdfast-chaos-") as directory:
        try:
            running = LocalStack.start(Path(directory), announce=story.tell)
        except LocalStackFailed as exc:
            console.print(str(exc), markup=False)
            return 1
        with running:
            stage = Stage(running, story, seed=plan.seed)
            scene = story.open(
                "chaos",
                "everything fails at once",
                about(plan),
            )
            seen = play(stage, plan)
            console.print(figures(seen, stage, plan, time.monotonic() - began))
            console.print(ways(seen))
            for text, holds, details in verdicts(seen, plan):
                story.check(scene, text, holds=holds, details=details)
            story.close(scene)
            _show(console, seen, stage)
            console.print(conclusion(seen, plan, [text for holds, text in scene.checks if not holds]), markup=False)
    return 0 if scene.holds else 1


def about(plan: Plan) -> str:
    """What is about to happen."""
    ways_of_aws = len(Way) - len(TIMEOUTS) + 1
    return (
        f"{plan.events} webhooks, a tenth of them twice. {plan.aws_share:.1%} of the functions' AWS calls fail in each "
        f"of {ways_of_aws} ways, {plan.provider_share:.1%} of the providers' calls in each of theirs, and a process is "
        f"killed every few seconds. Then nothing fails any more, and what has died is replayed. Seed {plan.seed}."
    )


def conclusion(seen: Seen, plan: Plan, broken: Sequence[str]) -> str:
    """What to take away, last and in a few lines; and how to see it again."""
    books, after = seen.books, seen.after_replay
    lost, doubled = books.of("lost") + after.of("lost"), books.of("doubled") + after.of("doubled")
    told = (
        f"{sum(books.fates.values())} events accepted, {len(lost)} lost, {len(doubled)} effects doubled, "
        f"{books.fates[Fate.FOR_PEOPLE]} left for people before the replay and {after.fates[Fate.FOR_PEOPLE]} after it."
    )
    again = f"python -m ops.chaos --events {plan.events} --seed {plan.seed}"
    if not broken:
        return f"Every promise held: {told}"
    return "\n".join([f"{len(broken)} of the promises above did not hold: {told}", *broken, f"Again: {again}"])


def verdicts(seen: Seen, plan: Plan) -> list[Verdict]:
    """Every promise with its figure, and whether it held."""
    books, after = seen.books, seen.after_replay
    never = _never_met(seen, plan)
    denied = [
        f"{operation}: {code} {count} times" for operation, code, count in seen.proxy["errors"] if "Denied" in code
    ]
    left = {name: depth for name, depth in seen.depths.items() if depth}
    accepted = (
        f"accepted {sum(books.fates.values())} = {books.fates[Fate.DONE]} done "
        f"+ {books.fates[Fate.FOR_PEOPLE]} ended for people; lost {books.fates[Fate.LOST]}"
    )
    replayed = (
        f"{seen.dead} rows had died; {seen.replayed} replayed with nothing failing: "
        f"{after.fates[Fate.DONE]} events done, {after.fates[Fate.FOR_PEOPLE]} for people"
    )
    accepted_events, deaths = sum(books.fates.values()), sum(seen.killed.values())
    under_fire = seen.seconds["sending"] + seen.seconds["until quiet"]
    return [
        (f"{accepted_events} events accepted, of {plan.events} at least", accepted_events >= plan.events, []),
        ("it came to rest", seen.was_quiet, []),
        (
            accepted,
            not (books.fates[Fate.LOST] or books.fates[Fate.WAITING] or books.of("lost", "waiting")),
            _told(books.of("lost", "waiting")),
        ),
        (f"{len(books.of('doubled'))} effects doubled", not books.of("doubled"), _told(books.of("doubled"))),
        (
            f"{len(books.of('missing'))} effects missing, {len(books.of('unasked'))} that nobody asked for",
            not books.of("missing", "unasked"),
            _told(books.of("missing", "unasked")),
        ),
        (
            f"{len(books.of('silent'))} rows without their audit, {len(books.of('overdone'))} tried too often",
            not books.of("silent", "overdone"),
            _told(books.of("silent", "overdone")),
        ),
        (
            replayed,
            after.is_even and seen.was_quiet_after_replay and seen.replayed >= seen.dead,
            _told(after.violations),
        ),
        ("every queue and the spill are empty", not left, [str(left)]),
        ("no function was denied anything", not denied, denied),
        (
            f"{len(seen.said.defects)} exceptions that no function reckons with",
            not seen.said.defects,
            seen.said.defects,
        ),
        ("every way of failing was met", not never, never),
        (
            f"{deaths} processes were killed in {under_fire} s, {seen.killed['WorkerFunction']} of them workers",
            deaths * A_DEATH_EVERY_SECONDS >= under_fire and seen.killed["WorkerFunction"] * 2 > deaths,
            [f"the killer could not ask the proxy who is at work: {seen.unasked} times"],
        ),
    ]


def _never_met(seen: Seen, plan: Plan) -> list[str]:
    """Ways that ought to have been met many times over and were not: then nothing is proved about them."""
    met = Counter[str]()
    for _, way, count in seen.proxy["fired"]:
        met[way] += count
    shares = aws_shares(plan.aws_share)
    missed = [way for way in Way if not met[way] and _calls_that_may_meet(way, seen) * shares[way] >= SURE_OF]
    return missed + [
        way
        for way, fired in seen.provider_faults.items()
        if not fired and seen.provider_calls[way.partition(":")[0]] * plan.provider_share >= SURE_OF
    ]


def _calls_that_may_meet(way: Way, seen: Seen) -> int:
    only = ONLY_FOR.get(way)
    return sum(count for label, count in seen.proxy["calls"].items() if only in (None, label.partition(".")[2]))


def figures(seen: Seen, stage: Stage, plan: Plan, seconds: float) -> Table:
    """The balance in figures."""
    table = Table(title=f"Chaos, seed {plan.seed}", title_justify="left", box=None, pad_edge=False, show_header=False)
    sent, books, after = stage.sent, seen.books, seen.after_replay
    warm = len(stage.expectations) - plan.events
    fired = sum(count for _, _, count in seen.proxy["fired"])
    calls = sum(seen.proxy["calls"].values())
    failed, asked = sum(seen.provider_faults.values()), sum(seen.provider_calls.values())
    for name, text in (
        ("events accepted", f"{len(sent.accepted)} of {len(stage.expectations)}, {warm} of them to warm up"),
        ("sent twice", f"{sent.repeats}, and {sent.answered_again} sent again after no answer or a 5xx"),
        ("never acknowledged", str(len(sent.lost_at_the_door))),
        ("became of them", _listed({fate.value: books.fates[fate] for fate in Fate})),
        ("after the replay", _listed({fate.value: after.fates[fate] for fate in Fate})),
        ("rows", _listed(books.rows)),
        ("rows after the replay", _listed(after.rows)),
        ("effects", f"{after.effects}"),
        ("doubled effects", str(len(books.of("doubled")) + len(after.of("doubled")))),
        ("lost events", str(books.fates[Fate.LOST] + after.fates[Fate.LOST])),
        ("AWS calls", f"{calls}, of which {fired} failed ({fired / max(1, calls):.1%})"),
        ("refusals by AWS", _listed(_codes(seen.proxy["errors"]))),
        ("connections broken", _listed(seen.proxy["broken"])),
        ("provider calls", f"{asked}, of which {failed} failed ({failed / max(1, asked):.1%})"),
        ("the functions' counts", _listed({name: seen.said.counts[name] for name in COUNTS})),
        ("exceptions logged", _listed(seen.said.exceptions)),
        ("processes killed", f"{sum(seen.killed.values())}: {_listed(seen.killed)}"),
        ("took", f"{seconds:.0f} s: {_listed(seen.seconds)}"),
    ):
        table.add_row(name, text)
    return table


def ways(seen: Seen) -> Table:
    """Every way of failing, and how often it was met."""
    table = Table(title="Ways of failing", title_justify="left", box=None, pad_edge=False)
    for column in ("way", "times", "most often"):
        table.add_column(column)
    for way in Way:
        of_way = {operation: count for operation, met, count in seen.proxy["fired"] if met == way}
        most = sorted(of_way, key=lambda operation: -of_way[operation])[:4]
        table.add_row(f"AWS: {way}", str(sum(of_way.values())), _listed({one: of_way[one] for one in most}))
    for name, count in seen.provider_faults.items():
        if seen.provider_calls[name.partition(":")[0]]:
            table.add_row(name, str(count), "")
    return table


def _codes(errors: Sequence[Sequence[Any]]) -> Counter[str]:
    counts: Counter[str] = Counter()
    for _, code, count in errors:
        counts[code] += count
    return counts


def _listed(counts: Mapping[Any, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items()) or "none"


def _told(violations: Sequence[Violation]) -> list[str]:
    return [f"{one.event_id or '?'} {one.conversation} {one.kind}: {one.text}" for one in violations]


def _show(console: Console, seen: Seen, stage: Stage) -> None:
    """All that is known of the events whose promise was broken."""
    broken: list[Violation] = []
    for books in (seen.books, seen.after_replay):
        broken += [one for one in books.violations if one not in broken]
    if seen.evidence is None or not broken:
        return
    told: set[str] = set()
    for one in broken:
        about = one.event_id or one.conversation
        if about not in told and len(told) < SHOWN:
            told.add(about)
            console.rule(f"{one.kind}: {about}")
            for line in dossier(seen.evidence, one, stage):
                console.print(line, markup=False, soft_wrap=True)


def dossier(evidence: Evidence, about: Violation, stage: Stage) -> list[str]:
    """The ledger's item, rows, audit trail, and what the provider saw, in order."""
    conversation = about.conversation or next(
        (promise.conversation for promise in evidence.promises if promise.event_id == about.event_id), ""
    )
    rows = [row for row in evidence.rows if row["event_id"] == about.event_id]
    lines = [f"{about.kind}: {about.text}", f"ledger: {_json(evidence.ledger.get(about.event_id))}"]
    for row in rows:
        lines.append(f"row: {_json(row)}")
        for event in evidence.audit.get(f"recovery_item#{row['pk']}", ()):
            shown = ("at_ms", "event_type", "before_state", "after_state", "error", "reason")
            lines.append(f"  audit: {_json({name: event.get(name) for name in shown})}")
    lines += [f"effect: {_json(_plain(one))}" for one in evidence.effects if one.target == conversation]
    lines += [f"request: {_json(_plain(one))}" for one in stage.simulator.requests() if one.target == conversation]
    return lines


def _plain(record: Any) -> dict[str, Any]:
    return {name: getattr(record, name) for name in record.__slots__}


def _json(value: Any) -> str:
    return json.dumps(value, default=str, sort_keys=True)


if __name__ == "__main__":
    sys.exit(main())
