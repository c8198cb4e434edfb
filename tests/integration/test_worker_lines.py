"""A worker's line about trouble says whose action it was, in words that the vocabulary has (003.1)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from functions.core.decision import Action
from functions.core.failure import Failure, StorageUnavailable, failure_of_status
from functions.core.ports import Call
from functions.core.recipient import Person
from functions.observability import FIELDS
from tests.worker_world import DESK, TENANT, Provider, Quiet, World


class Telling(Quiet):
    """Keeps the fields of each line beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[tuple[str, Mapping[str, Any]]] = []

    def info(self, msg: str, *, extra: Mapping[str, Any] | None = None) -> None:
        super().info(msg)
        self.told.append((msg, extra or {}))

    warning = info
    error = info
    exception = info

    def about(self, words: str) -> Mapping[str, Any]:
        """The fields of the first line that says so."""
        return next(fields for line, fields in self.told if words in line)


class Raising(Provider):
    """Its adapter has a defect."""

    async def send(self, action: Action, call: Call) -> Failure:
        raise ZeroDivisionError("not foreseen")


class LockedOut(Provider):
    """Its credential is refused, and no other can be read."""

    async def send(self, action: Action, call: Call) -> Failure:
        return failure_of_status(401)

    def refresh_credential(self) -> str:
        raise StorageUnavailable("get a parameter: ThrottlingException")


def reads_no_recipient(world: World) -> None:
    world.faults.fail("recipients.person")


def counts_nothing(world: World) -> None:
    world.faults.fail("caps.count")


def raises(world: World) -> None:
    world.provider = Raising(world.faults, world.clock)


def refuses_the_credential(world: World) -> None:
    world.provider = LockedOut(world.faults, world.clock)


@pytest.mark.parametrize(
    ("trouble", "words"),
    [
        (reads_no_recipient, "the recipient's standing could not be read"),
        (counts_nothing, "could not be counted"),
        (raises, "the adapter raised"),
        (refuses_the_credential, "the credential was refused and could not be read again"),
    ],
)
def test_a_line_about_an_action_says_whose_it_is(trouble: Callable[[World], None], words: str) -> None:
    world = World(("tag", "reply"))
    world.quiet = telling = Telling()
    world.tables.people[TENANT, "r1"] = Person()
    trouble(world)
    world.accept(world.event())
    world.deliver()
    fields = telling.about(words)
    assert (fields["tenant"], fields["integration"]) == (TENANT, DESK)
    assert fields["action_id"]
    for line, told in telling.told:
        assert not set(told) - FIELDS, line


def test_a_pause_that_could_not_be_stored_says_how_long_it_is() -> None:
    world = World(("tag",))
    world.quiet = telling = Telling()
    world.provider.answers = [lambda _: failure_of_status(429, retry_after_ms=90_000)]
    world.faults.fail("ledger.pause")
    world.accept(world.event())
    world.deliver()
    assert telling.about("holds this batch only") == {"integration": DESK, "duration_ms": 90_000}
