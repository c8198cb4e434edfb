"""What the chaos run says of itself: every promise is judged, and each can be found broken."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest

from functions.adapters.http import PHASE_TIMEOUTS
from functions.catalog.loader import load
from functions.core.decision import Repeat
from ops.chaos.__main__ import conclusion, verdicts
from ops.chaos.books import Books, Fate, Violation
from ops.chaos.calls import Way
from ops.chaos.logs import Said, add
from ops.chaos.run import Plan, Seen, provider_faults, way_of
from ops.simulator import FaultMode

PLAN = Plan(events=2000)
FAULTS = [way_of(fault.to_json()) for fault in provider_faults(0.02, 1)]


def good() -> Seen:
    """A run in which everything held."""
    even = Books(Counter({Fate.DONE: 2000}), Counter({"helpdesk: succeeded": 9}), 6000)
    return Seen(
        books=even,
        after_replay=even,
        was_quiet=True,
        was_quiet_after_replay=True,
        dead=3,
        replayed=3,
        proxy={
            "calls": {
                "dynamodb.Query": 50_000,
                "dynamodb.TransactWriteItems": 7_000,
                "dynamodb.BatchGetItem": 6_000,
                "sqs.SendMessageBatch": 400,
            },
            "fired": [["dynamodb.Query", way.value, 500] for way in Way],
            "errors": [["dynamodb.PutItem", "ConditionalCheckFailedException", 7]],
            "broken": {},
        },
        provider_calls=Counter({"helpdesk": 8000, "llm": 1400}),
        provider_faults=Counter(dict.fromkeys(FAULTS, 20)),
        killed=Counter({"WorkerFunction": 60, "SweeperFunction": 5}),
        seconds=Counter({"sending": 100, "until quiet": 250, "replay": 3000}),
        depths={"Events": 0, "spill": 0},
    )


def broken(kind: str) -> Books:
    return Books(Counter({Fate.DONE: 2000}), Counter(), 6000, [Violation(kind, "github:1", "t1", "is broken")])


def test_a_run_in_which_everything_held_holds() -> None:
    assert [text for text, holds, _ in verdicts(good(), PLAN) if not holds] == []


BREAKS: dict[str, Callable[[Seen], object]] = {
    "too few sent": lambda seen: seen.books.fates.update({Fate.DONE: -1}),
    "too few deaths": lambda seen: seen.killed.update({"WorkerFunction": -40}),
    "too few deaths of workers": lambda seen: seen.killed.update({"WorkerFunction": -57, "TriageFunction": 50}),
    "no rest": lambda seen: setattr(seen, "was_quiet", False),
    "lost": lambda seen: setattr(seen, "books", broken("lost")),
    "waiting": lambda seen: setattr(seen, "books", broken("waiting")),
    "doubled": lambda seen: setattr(seen, "books", broken("doubled")),
    "missing": lambda seen: setattr(seen, "books", broken("missing")),
    "unasked": lambda seen: setattr(seen, "books", broken("unasked")),
    "silent": lambda seen: setattr(seen, "books", broken("silent")),
    "overdone": lambda seen: setattr(seen, "books", broken("overdone")),
    "doubled by the replay": lambda seen: setattr(seen, "after_replay", broken("doubled")),
    "not replayed": lambda seen: setattr(seen, "replayed", 2),
    "no rest after the replay": lambda seen: setattr(seen, "was_quiet_after_replay", False),
    "a message left": lambda seen: setattr(seen, "depths", {"EventsDlq": 1}),
    "denied": lambda seen: seen.proxy["errors"].append(["s3.PutObject", "AccessDenied", 1]),
    "a defect": lambda seen: add(
        seen.said, {"message": "it came back", "exception_name": "KeyError", "exception": "x"}
    ),
    "a defect among failures that are reckoned with": lambda seen: add(
        seen.said,
        {
            "message": "a duty failed",
            "exception_name": "ExceptionGroup",
            "exceptions_within": ["KeyError", "StorageUnavailable"],
        },
    ),
    "a group that does not say what it holds": lambda seen: add(seen.said, {"exception_name": "ExceptionGroup"}),
    "a way of AWS that was not met": lambda seen: seen.proxy["fired"].pop(0),
    "a way of one operation that was not met": lambda seen: seen.proxy["fired"].pop(),
    "a way of a provider that was not met": lambda seen: seen.provider_faults.update({FAULTS[0]: -20}),
}


@pytest.mark.parametrize("what", BREAKS)
def test_one_broken_promise_is_one_verdict_against_it(what: str) -> None:
    seen = good()
    BREAKS[what](seen)
    against = [text for text, holds, _ in verdicts(seen, PLAN) if not holds]
    assert len(against) == 1


def test_the_last_words_say_what_was_promised_and_how_to_see_a_broken_promise_again() -> None:
    seen = good()
    assert conclusion(seen, PLAN, []).startswith("Every promise held: 2000 events accepted, 0 lost, 0 effects doubled")
    seen.books = broken("doubled")
    told = conclusion(seen, Plan(seed=7), ["1 effects doubled"])
    assert "2000 events accepted, 0 lost, 1 effects doubled" in told
    assert told.endswith("1 effects doubled\nAgain: python -m ops.chaos --events 2000 --seed 7")


def test_what_a_log_says_is_summed_up_and_failures_that_have_a_name_of_ours_are_no_defects() -> None:
    said = Said()
    metrics = [{"Metrics": [{"Name": "takeovers"}, {"Name": "hints_stale"}]}]
    add(said, {"_aws": {"CloudWatchMetrics": metrics}, "takeovers": [2.0], "hints_stale": 3})
    add(said, {"_aws": {"CloudWatchMetrics": metrics}, "takeovers": [1.0], "hints_stale": 0})
    for name in ("StorageUnavailable", "UnusableSecret", "ModuleNotFoundError"):
        add(said, {"level": "ERROR", "message": "trouble", "exception_name": name, "exception": name})
    add(said, {"exception_name": "ExceptionGroup", "exceptions_within": ["StorageUnavailable"]})
    add(said, {"level": "INFO", "message": "swept"})
    assert said.counts == {"takeovers": 3, "hints_stale": 3}
    names = ("StorageUnavailable", "UnusableSecret", "ModuleNotFoundError", "ExceptionGroup")
    assert said.exceptions == dict.fromkeys(names, 1)
    assert said.defects == []


def test_a_short_run_is_not_blamed_for_what_chance_left_out() -> None:
    seen = good()
    few = {"dynamodb.Query": 500, "dynamodb.TransactWriteItems": 100, "sqs.SendMessageBatch": 20}
    seen.proxy["calls"].update(few, **{"dynamodb.BatchGetItem": 0})
    seen.proxy["fired"].clear()
    assert all(holds for _, holds, _ in verdicts(seen, PLAN))


def test_a_way_that_one_operation_knows_is_sought_among_the_calls_of_that_operation() -> None:
    seen = good()
    seen.proxy["fired"].pop()  # of SendMessageBatch
    seen.proxy["calls"]["sqs.SendMessageBatch"] = 20
    assert all(holds for _, holds, _ in verdicts(seen, PLAN))


def test_every_integration_meets_every_way_of_failing_and_acts_late_but_not_too_late() -> None:
    faults = provider_faults(0.02, 1)
    integrations = load().integrations.values()
    assert {fault.provider for fault in faults} == {one.id for one in integrations}
    for integration in integrations:
        its = [fault for fault in faults if fault.provider == integration.id]
        has_keys = any(rules.repeat is Repeat.KEYED for rules in integration.kinds.values())
        # One that carries a request out twice doubles it, and that it must not happen is what the run proves of us.
        left_out = {FaultMode.TWICE} | (set() if has_keys else {FaultMode.STORE_STATUS})
        assert {fault.mode for fault in its} == set(FaultMode) - left_out
        waits = min(integration.deadline_seconds, PHASE_TIMEOUTS.read or 0)
        (late,) = [fault.seconds for fault in its if fault.mode is FaultMode.LATENCY]
        assert waits < late < waits + 1  # a lookup is believed 3 s after the last possible send, on the local stage
    assert len({fault.seed for fault in faults}) == len(faults)
    assert {fault.probability for fault in faults} == {0.02}
