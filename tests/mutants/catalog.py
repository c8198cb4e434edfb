"""The mistakes. Each was, or could have been, made by somebody who knows the code well.

An edit names a text that stands once in its file and what takes its place. Where the proof runs over doubles of the
storage, the double is changed as the adapter would be: it is the same mistake.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Edit:
    """One change of one file."""

    file: str
    old: str
    new: str


@dataclass(frozen=True, slots=True)
class Mutant:
    """A mistake, and the command (after the interpreter) that must end with 1 because of it."""

    name: str
    says: str
    edits: tuple[Edit, ...]
    proof: tuple[str, ...]


def tests(*selected: str) -> tuple[str, ...]:
    """A proof by some tests."""
    return ("-m", "pytest", "-x", "-q", "--no-header", "-p", "no:cacheprovider", *selected)


def crash(*scenarios: str, schedules: int = 4_000) -> tuple[str, ...]:
    """A proof by every two faults of some scenarios, and some random schedules of all."""
    return ("-m", "tests.crash", "--jobs", "1", "--schedules", str(schedules), "--only", *scenarios)


MUTANTS: tuple[Mutant, ...] = (
    Mutant(
        "settle_without_the_generation",
        "whoever lost its lease settles all the same",
        (
            Edit(
                "tests/fakes.py",
                """            or (item.owner, item.generation) != (owner, generation)
        ):
            raise Fenced""",
                """        ):
            raise Fenced""",
            ),
        ),
        crash("blind", "lookup", schedules=20_000),
    ),
    Mutant(
        "settle_without_the_generation_in_dynamodb",
        "the same, in the condition of the table",
        (
            Edit(
                "functions/adapters/ledger.py",
                '_OWN = "#owner = :owner AND #generation = :generation AND #status = :processing"',
                '_OWN = "(#owner = :owner OR #owner <> :owner) AND (#generation = :generation OR '
                '#generation <> :generation) AND #status = :processing"',
            ),
        ),
        tests("tests/contract/test_ledger.py", "tests/contract/test_agreement.py"),
    ),
    Mutant(
        "row_transition_without_the_version",
        "two workers move one row on from the same version",
        (
            Edit(
                "tests/fakes.py",
                "        if version != seen:\n            raise VersionConflict",
                "        if (version is None) != (seen is None):\n            raise VersionConflict",
            ),
        ),
        crash("lookup", "blind", schedules=20_000),
    ),
    Mutant(
        "row_transition_without_the_version_in_dynamodb",
        "the same, in the condition of the table",
        (
            Edit(
                "functions/adapters/recovery.py",
                'put["ConditionExpression"] = "#version = :seen"',
                'put["ConditionExpression"] = "#version = :seen OR #version <> :seen"',
            ),
        ),
        tests("tests/contract/test_recovery.py", "tests/contract/test_agreement.py"),
    ),
    Mutant(
        "settle_and_rows_in_two_writes",
        "the event is settled first, and its rows are put afterwards",
        (
            Edit(
                "functions/worker/first_pass.py",
                "            await ports.io(ports.ledger.settle, settlement)\n",
                "            await ports.io(ports.ledger.settle, replace(settlement, changes=()))\n"
                "            for change in changes:\n"
                "                await ports.io(ports.recovery.put_if_absent, change)\n",
            ),
        ),
        crash("lookup"),
    ),
    Mutant(
        "child_of_a_failed_action_forgotten",
        "what a failed action holds up gets no row",
        (
            Edit(
                "functions/worker/first_pass.py",
                """            self._row(
                action, parked_first(blocked, WaitingFor.PARENT, "a required action is not done", blank.expires_at_ms)
            )
            return""",
                """            self._mark(action, ActionStatus.RECOVERY)
            return""",
            ),
        ),
        crash("parent and child"),
    ),
    Mutant(
        "timeout_read_as_nothing_happened",
        "no answer counts as no effect",
        (
            Edit(
                "functions/core/failure.py",
                "        may_have_happened=cause not in _BEFORE_FIRST_BYTE,",
                "        may_have_happened=False,",
            ),
        ),
        crash("lookup", "blind"),
    ),
    Mutant(
        "503_read_as_nothing_happened",
        "a 5xx counts as no effect",
        (
            Edit(
                "functions/core/failure.py",
                "        may_have_happened=not is_definite,",
                "        may_have_happened=not is_definite and status < 500,",
            ),
        ),
        crash("lookup", "blind"),
    ),
    Mutant(
        "decided_again_on_takeover",
        "whoever takes an event over asks the flow again",
        (
            Edit("tests/fakes.py", "            if claim.seen_epoch_ms is None:\n", "            if found is None:\n"),
            Edit(
                "functions/worker/first_pass.py",
                "return await self._claim(admitted, item.decision, None, old_lease_ms=item.lease_until_ms or None)",
                "return await self._first(admitted, seen_epoch_ms=None, is_released=True)",
            ),
        ),
        crash("keyed"),
    ),
    Mutant(
        "lookup_without_the_settle_delay",
        "what the provider's index does not show yet counts as absent",
        (
            Edit(
                "functions/core/attempt.py",
                "    return last_possible_send_ms + int(rules.settle_seconds * 1000 * scale)",
                "    return last_possible_send_ms",
            ),
        ),
        crash("lookup"),
    ),
    Mutant(
        "key_resent_after_its_window",
        "the provider has long forgotten the key",
        (
            Edit(
                "functions/core/attempt.py",
                "    return now_ms - history.first_sent_at_ms < window_ms and history.stored",
                "    return now_ms - window_ms <= now_ms and history.stored",
            ),
        ),
        crash("keyed", schedules=20_000),
    ),
    Mutant(
        "switch_on_releases_suppressed_replies",
        "a reply that the switch stopped waits, and goes out when it is on again",
        (
            Edit(
                "functions/worker/first_pass.py",
                "self._row(action, suppressed_first(replace(blank, stand_in=None), reason), ActionStatus.SUPPRESSED)",
                "self._row(action, parked_first(blank, WaitingFor.SWITCH, reason, blank.created_at_ms))",
            ),
        ),
        crash("reply", schedules=20_000),
    ),
    Mutant(
        "suppression_not_stored",
        "a reply that a dying worker suppressed is weighed again by the next",
        (
            Edit(
                "functions/worker/first_pass.py",
                "            await self._store(action, ActionStatus.SUPPRESSED)  # before anything stands in for it\n",
                "            pass\n",
            ),
        ),
        tests("tests/integration/test_worker_breaks.py"),
    ),
    Mutant(
        "thread_left_behind_at_the_deadline",
        "a call that is late goes on after its handler has returned",
        (
            Edit(
                "functions/worker/attempts.py",
                """            async with asyncio.timeout(seconds):
                return await call(action, about)""",
                """            return await asyncio.wait_for(
                asyncio.shield(asyncio.ensure_future(call(action, about))), seconds
            )""",
            ),
        ),
        crash("keyed"),
    ),
)
