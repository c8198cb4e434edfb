"""The frame of the machines that play the doubles and the tables side by side."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import fields, replace
from typing import Any, TypeVar

import pytest
from botocore.exceptions import ClientError
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from functions.adapters import operator_changes, recovery
from functions.core.cursor import BadCursor
from functions.core.failure import Done, Fenced, HoldfastError, VersionConflict
from functions.core.gate import WaitingFor
from functions.core.recovery import Change, Row, claim, defer, end, hinted, may_claim, succeeded
from tests import aws_tables
from tests.contract.storage import LEASE_MS, World, dynamo_world, in_memory
from tests.fakes import NOON_MS

_Made = TypeVar("_Made")

PORTS = {
    field.name: str(field.type).removeprefix("ports.")
    for field in fields(World)
    if str(field.type).startswith("ports.")
}
"""The names of a world's ports, and of their kinds."""
ASKED: dict[str, set[str]] = defaultdict(set)
"""By operation (`ledger.claim`), which kinds of answers it has given."""


class Listening:
    """A port that takes down which of its operations are called, and what comes of them."""

    def __init__(self, name: str, port: Any) -> None:
        self._name = name
        self._port = port

    def __getattr__(self, operation: str) -> Any:
        method = getattr(self._port, operation)

        def call(*args: Any, **named: Any) -> Any:
            answers = ASKED[f"{self._name}.{operation}"]
            try:
                answer = method(*args, **named)
            except Exception as exc:
                answers.add(type(exc).__name__)
                raise
            answers.add(str(answer) if isinstance(answer, bool) else type(answer).__name__)
            return answer

        return call


WRITES = frozenset({"put_item", "update_item", "delete_item", "transact_write_items"})


class Forgetful:
    """A client that, while `is_armed`, loses the answer of the next write and sends it again, as the SDK does."""

    def __init__(self, client: Any) -> None:
        self.is_armed = False
        self._client = client

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)

        def call(**request: Any) -> Any:
            if self.is_armed and name in WRITES:
                self.is_armed = False
                with suppress(ClientError):
                    method(**request)
            return method(**request)

        return call


class Agreement(RuleBasedStateMachine):
    """Each rule does the same in both worlds and compares what came of it."""

    def __init__(self) -> None:
        super().__init__()
        self.stack = ExitStack()
        self.now_ms = NOON_MS
        self.numbers = 0

    @initialize()
    def begin(self) -> None:
        quiet = self.stack.enter_context(in_memory())
        listening: dict[str, Any] = {name: Listening(name, getattr(quiet, name)) for name in PORTS}
        self.memory: World = replace(quiet, **listening)
        patch = self.stack.enter_context(pytest.MonkeyPatch.context())
        for module in (recovery, operator_changes):  # whoever writes rows, and whoever reads them of every shard
            patch.setattr(module, "SHARDS", 3)
        client = self.stack.enter_context(aws_tables.moto_tables())
        self.stack.enter_context(aws_tables.one_request_at_a_time())
        self.client = Forgetful(client)
        self.dynamo: World = dynamo_world(self.client)  # type: ignore[arg-type]  # it answers like a client

    def teardown(self) -> None:
        """The tables are the same in the end."""
        with self.stack:
            self.both(lambda world: world.audit_items())
            self.compare()

    def compare(self) -> None:
        """Read everything that may have been written."""
        raise NotImplementedError

    def whole_story(self) -> None:
        """What chance may leave out: each operation that the machine answers for, until it has given each answer."""
        raise NotImplementedError

    def both(self, call: Callable[[World], Any]) -> Any:
        answers = []
        for world in (self.memory, self.dynamo):
            try:
                answers.append(call(world))
            except (Fenced, VersionConflict, BadCursor) as exc:
                answers.append(type(exc))
        assert answers[0] == answers[1], f"the double: {answers[0]}\nthe table:  {answers[1]}"
        return answers[0]

    def ask(self, operation: str, *args: Any, **named: Any) -> Any:
        """The same operation of both."""
        port, _, name = operation.partition(".")
        return self.both(lambda world: getattr(getattr(world, port), name)(*args, **named))

    def number(self) -> int:
        """Another one each time."""
        self.numbers += 1
        return self.numbers

    @rule(milliseconds=st.sampled_from([1, 1_000, LEASE_MS]))
    def wait(self, milliseconds: int) -> None:
        self.now_ms += milliseconds


class Lossy(Agreement):
    """Of ports whose writes, all of them, promise to know their own earlier success."""

    @rule()
    def an_answer_gets_lost(self) -> None:
        """That of the next write."""
        self.client.is_armed = True


def possible(calls: Iterable[Callable[[], _Made]]) -> list[_Made]:
    """What comes of those that are allowed now."""
    made = []
    for call in calls:
        with suppress(HoldfastError):
            made.append(call())
    return made


def steps_of(row: Row, now_ms: int) -> list[Change]:
    """Transitions of the machine, the sweeper and people that the row has now."""
    steps = [Change(replace(row, version=row.version + 1, incident_id="inc-1"), row)]
    is_leased = row.lease_until_ms > now_ms
    if row.is_open and not is_leased:
        steps.append(hinted(row, now_ms, 1.0))
    if not row.is_final and not is_leased:
        steps.append(end(row, "DISMISSED", "not wanted", now_ms))
    if may_claim(row, now_ms):
        steps.append(claim(row, now_ms, now_ms + LEASE_MS, "req-2"))
    if row.is_open and row.lease_until_ms:
        steps.append(succeeded(row, Done("p-1"), now_ms))
        steps.append(defer(row, WaitingFor.SWITCH, "hold", now_ms + 5_000, now_ms, uncount=True))
    return steps


def drawn(data: st.DataObject, entries: Sequence[_Made]) -> _Made:
    """One of them, of which a failing story says the number: as a whole, one of them fills a page."""
    return entries[data.draw(st.integers(0, len(entries) - 1))]


def some_of(entries: Sequence[_Made], most: int = 3) -> st.SearchStrategy[list[_Made]]:
    """Up to so many different ones; of none, none."""
    if not entries:
        return st.just([])
    return st.lists(st.sampled_from(entries), max_size=most, unique_by=entries.index)
