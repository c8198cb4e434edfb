"""The list of mistakes fits the code as it is now, and red is what it says. `make mutants` makes them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.crash.world import SCENARIOS
from tests.mutants.__main__ import ROOT, Ran, caught_by, everything, main, make
from tests.mutants.catalog import MUTANTS, Edit, Mutant, Proof, crash

# Every trap that the engine was designed around: some of them are there once for the doubles and once for the tables.
TRAPS = (
    "settle_without_the_generation",
    "settle_without_the_generation_in_dynamodb",
    "row_transition_without_the_version",
    "row_transition_without_the_version_in_dynamodb",
    "settle_and_rows_in_two_writes",
    "child_of_a_failed_action_forgotten",
    "timeout_read_as_nothing_happened",
    "503_read_as_nothing_happened",
    "decided_again_on_takeover",
    "fallback_on_timeout",
    "hop_not_stored",
    "lookup_without_the_settle_delay",
    "key_resent_after_its_window",
    "switch_on_releases_suppressed_replies",
    "release_without_ramp",
    "thread_left_behind_at_the_deadline",
)
PROOF = Proof(tests=("tests/unit/test_x.py",))


def test_every_trap_that_was_known_is_on_the_list_once() -> None:
    names = [mutant.name for mutant in MUTANTS]
    assert set(TRAPS) <= set(names)
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_what_a_mistake_changes_is_there_once(mutant: Mutant) -> None:
    for edit in mutant.edits:
        assert (ROOT / edit.file).read_text(encoding="utf-8").count(edit.old) == 1, f"{edit.file}: {edit.old}"
        assert edit.new != edit.old


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_what_should_see_a_mistake_is_there(mutant: Mutant) -> None:
    assert bool(mutant.proof.tests) is not bool(mutant.proof.scenarios)
    assert set(mutant.proof.scenarios) <= set(SCENARIOS)
    for selected in mutant.proof.tests:
        file, _, name = selected.partition("::")
        assert re.search(rf"^def {name or 'test_'}", (ROOT / file).read_text(encoding="utf-8"), re.MULTILINE), selected


def test_red_names_the_test_that_failed() -> None:
    said = "F\nFAILED tests/unit/test_x.py::test_y[a case - of two] - AssertionError: assert 2 == 1\n1 failed in 0.1s\n"
    assert caught_by(PROOF, Ran(1, 0.1, said))[1] == ""
    assert caught_by(PROOF, Ran(1, 0.1, said))[0].startswith("tests/unit/test_x.py::test_y[a case")


def test_red_names_the_promise_that_was_broken() -> None:
    said = "after 12 schedules:\nBROKEN\n  note happened 2 times\nby this run:\n"
    assert caught_by(crash("lookup"), Ran(1, 0.1, said)) == ("crash: note happened 2 times", "")


@pytest.mark.parametrize(
    "ran",
    [
        Ran(1, 0.1, "Traceback (most recent call last):\nKeyError: 'x'\n"),
        Ran(2, 0.1, "ERROR tests/unit/test_x.py - ImportError: x\n1 error in 0.1s\n"),
        Ran(4, 0.1, "ERROR: not found: tests/unit/test_x.py\n"),
        Ran(124, 600.0, "it did not end within 600 s"),
        Ran(1, 0.1, "FAILED tests/unit/test_x.py::test_y - NameError: name 'x' is not defined\n"),
    ],
    ids=["fell over", "not collected", "not there", "endless", "no program"],
)
def test_what_fell_over_something_else_is_an_error_and_not_red(ran: Ran) -> None:
    assert caught_by(PROOF, ran)[1]


def test_green_has_caught_nothing() -> None:
    assert caught_by(PROOF, Ran(0, 0.1, "1 passed")) == ("", "")


def test_a_mistake_that_cannot_be_made_says_why(tmp_path: Path) -> None:
    (tmp_path / "code.py").write_text("a = 1\nb = 1\n", encoding="utf-8")

    def problem(old: str, new: str) -> str:
        return make(tmp_path, Mutant("m", "says", (Edit("code.py", old, new),), PROOF))

    assert problem("c = 1", "c = 2") == "its text is there 0 times in code.py"
    assert problem(" = 1", " = 2") == "its text is there 2 times in code.py"
    assert problem("a = 1", "a = nobody").startswith("what it makes is no program")
    assert problem("b = 1", "b = 2").startswith("what it makes is no program")  # the one before is still there
    (tmp_path / "code.py").write_text("a = 1\n", encoding="utf-8")
    assert problem("a = 1", "a = 2") == ""
    assert (tmp_path / "code.py").read_text(encoding="utf-8") == "a = 2\n"


def test_what_is_proved_together_is_proved_once() -> None:
    together = everything([PROOF, crash("lookup", "blind"), PROOF, crash("lookup", schedules=7)])
    assert [(one.tests, one.scenarios, one.schedules) for one in together] == [
        ((), ("lookup", "blind"), 7),
        (PROOF.tests, (), 0),
    ]
    assert everything([PROOF, PROOF]) == [PROOF]


def test_an_unknown_name_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["no_such_mistake"]) == 2
    assert "there is no mutant no_such_mistake" in capsys.readouterr().out
