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
class Proof:
    """What must end with 1 because of a mistake: tests, or schedules of the crash simulator (`tests.crash`): all with
    up to two faults of those scenarios, and so many random ones of all.
    """

    tests: tuple[str, ...] = ()
    scenarios: tuple[str, ...] = ()
    schedules: int = 0

    @property
    def command(self) -> tuple[str, ...]:
        """What the interpreter is given."""
        if self.tests:
            return ("-m", "pytest", "-x", "-q", "--no-header", "-p", "no:cacheprovider", *self.tests)
        return ("-m", "tests.crash", "--jobs", "1", "--schedules", str(self.schedules), "--only", *self.scenarios)

    def __str__(self) -> str:
        if self.tests:
            return f"{len(self.tests)} selections of tests"
        return f"crash, {', '.join(self.scenarios)}, {self.schedules:,} at random"


@dataclass(frozen=True, slots=True)
class Mutant:
    """A mistake, and what proves that it cannot go unnoticed."""

    name: str
    says: str
    edits: tuple[Edit, ...]
    proof: Proof


def tests(*selected: str) -> Proof:
    """A proof by some tests."""
    return Proof(tests=selected)


def crash(*scenarios: str, schedules: int = 0) -> Proof:
    """A proof by every two faults of some scenarios, and some random schedules of all."""
    return Proof(scenarios=scenarios, schedules=schedules)


WORKER = "functions/worker/"
CORE = "functions/core/"
BREAKS = "tests/integration/test_worker_breaks.py"
TIME = "tests/integration/test_worker_time_passes.py"
PASS = "tests/integration/test_worker.py"
PEOPLE = "tests/integration/test_worker_people.py"
HEALTH = "tests/integration/test_worker_health.py"
HOPS = "tests/integration/test_fallback.py"
HOPS_DIE = "tests/integration/test_fallback_crashes.py"
BULK = "tests/integration/test_replay.py"
BULK_BREAKS = "tests/integration/test_replay_breaks.py"

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
        tests(f"{TIME}::test_whoever_thaws_after_its_lease_does_not_settle_over_what_its_new_owner_did"),
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
        tests(
            "tests/contract/test_ledger.py::test_whoever_does_not_hold_the_event_can_neither_mark_release_nor_settle"
        ),
    ),
    Mutant(
        "row_transition_without_the_version",
        "two workers move one row on from the same version",
        (
            Edit(
                "tests/fakes.py",
                "            if version != seen:\n                raise VersionConflict",
                "            if (version is None) != (seen is None):\n                raise VersionConflict",
            ),
        ),
        tests(f"{BREAKS}::test_whoever_thaws_after_its_lease_sends_nothing_and_undoes_nothing"),
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
        tests("tests/contract/test_recovery.py::test_a_commit_against_an_old_version_changes_nothing"),
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
        tests(f"{TIME}::test_a_takeover_of_a_row_reckons_with_a_send_at_the_end_of_the_dead_workers_lease"),
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
        crash("keyed"),
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
        tests(f"{PASS}::test_a_reply_stopped_by_the_kill_switch_stays_stopped_and_the_triage_tag_goes_out_instead"),
    ),
    Mutant(
        "suppression_not_stored",
        "a reply that a dying worker suppressed is weighed again by the next",
        (
            Edit(
                "functions/worker/first_pass.py",
                """whoever takes over must not weigh it again.
            await self._store(action, ActionMark(ActionStatus.SUPPRESSED, hop=self._hop(action.name)))
        self._conclude""",
                """whoever takes over must not weigh it again.
            pass
        self._conclude""",
            ),
        ),
        tests(f"{BREAKS}::test_a_reply_that_a_dying_worker_suppressed_is_not_released_by_the_switch"),
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
    # -------------------------------------------------------------------- other channels, and what waited for an outage
    Mutant(
        "fallback_on_timeout",
        "a send that may have happened is answered by another channel",
        (
            Edit(
                f"{CORE}fallback.py",
                """    if seen.is_unsettled:
        return Stay()
    healths""",
                "    healths",
            ),
        ),
        tests(f"{HOPS}::test_an_unknown_outcome_that_nothing_can_tell_is_for_a_person_and_for_no_other_channel"),
    ),
    Mutant(
        "fallback_on_timeout_twice",
        "the same, and the hop's own check of it is forgotten too",
        (
            Edit(
                f"{CORE}fallback.py",
                """    if seen.is_unsettled:
        return Stay()
    healths""",
                "    healths",
            ),
            Edit(
                f"{CORE}recovery.py",
                "    if not row.is_open or not is_forward or is_unclear:",
                "    if not row.is_open or not is_forward:",
            ),
        ),
        tests(f"{HOPS}::test_a_row_that_died_with_an_unknown_outcome_is_for_a_person_and_for_no_other_channel"),
    ),
    Mutant(
        "hop_not_stored",
        "a worker takes a hop that whoever takes over does not know of",
        (
            Edit(
                f"{WORKER}first_pass.py",
                "                await self._store(action, ActionMark(ActionStatus.TODO, hop=taken.hop))\n",
                "",
            ),
        ),
        tests(f"{HOPS}::test_a_hop_is_stored_before_it_is_taken"),
    ),
    Mutant(
        "release_without_ramp",
        "all that waited for an integration is let go at once when it is back",
        (
            Edit(
                f"{CORE}health.py",
                "    return min(1.0, RAMP_START + (1.0 - RAMP_START) * gone)",
                "    return max(1.0, RAMP_START + (1.0 - RAMP_START) * gone)",
            ),
        ),
        tests(f"{HEALTH}::test_what_an_operator_holds_down_is_called_by_nobody_until_the_clock_says_so"),
    ),
    # ------------------------------------------------------------------------------------------------- time that passes
    Mutant(
        "gate_not_asked_again_after_a_mark",
        "a blind action is sent on the gate's word from before its mark",
        (
            Edit(
                f"{WORKER}attempts.py",
                "        if has_waited or is_blind:\n",
                "        if has_waited:\n",
            ),
        ),
        tests(f"{TIME}::test_what_is_disabled_during_the_request_before_a_send_is_not_called_any_more"),
    ),
    Mutant(
        "gate_not_asked_again_after_a_read",
        "a setting is written on the gate's word from before it was read",
        (
            Edit(
                f"{WORKER}attempts.py",
                "has_waited = not isinstance(step, SendNow) or count.was_slow or action.action_id in self._probing",
                "has_waited = isinstance(step, LookUp) or count.was_slow or action.action_id in self._probing",
            ),
        ),
        tests(f"{TIME}::test_what_is_disabled_during_the_request_before_a_send_is_not_called_any_more"),
    ),
    Mutant(
        "gate_not_asked_again_after_a_lookup",
        "what a lookup did not find is sent on the gate's word from before it",
        (
            Edit(
                f"{WORKER}attempts.py",
                "has_waited = not isinstance(step, SendNow) or count.was_slow or action.action_id in self._probing",
                "has_waited = isinstance(step, ReadFirst) or count.was_slow or action.action_id in self._probing",
            ),
        ),
        tests(f"{BREAKS}::test_a_reply_that_a_lookup_did_not_find_is_not_sent_after_the_kill_switch_was_thrown"),
    ),
    Mutant(
        "gate_not_asked_again_after_a_slow_count",
        "a reply is sent on the gate's word from before it was counted",
        (
            Edit(
                f"{WORKER}attempts.py",
                "has_waited = not isinstance(step, SendNow) or count.was_slow or action.action_id in self._probing",
                "has_waited = not isinstance(step, SendNow) or action.action_id in self._probing",
            ),
        ),
        tests(f"{PEOPLE}::test_a_switch_that_goes_off_while_a_message_is_counted_stops_it_and_nothing_stays_counted"),
    ),
    Mutant(
        "gate_not_asked_again_after_a_probe_was_taken",
        "a probe is sent on the gate's word from before it was taken",
        (
            Edit(
                f"{WORKER}attempts.py",
                "has_waited = not isinstance(step, SendNow) or count.was_slow or action.action_id in self._probing",
                "has_waited = not isinstance(step, SendNow) or count.was_slow",
            ),
        ),
        tests(f"{HEALTH}::test_a_kill_switch_that_is_thrown_while_the_probe_is_taken_holds_for_the_probe"),
    ),
    Mutant(
        "frozen_worker_sends",
        "whoever thaws asks neither the gate nor the time that is left",
        (
            Edit(
                f"{WORKER}attempts.py",
                "        if has_waited or is_blind:\n",
                "        if has_waited and is_blind and was_absent:\n",
            ),
            Edit(
                f"{WORKER}attempts.py",
                "        if seconds <= 0:\n",
                """        seconds = self._integration(action).deadline_seconds
        if seconds <= 0:
""",
            ),
        ),
        tests(
            f"{TIME}::test_whoever_thaws_after_a_blind_mark_does_not_send_what_a_person_has_by_now",
            f"{TIME}::test_whoever_thaws_after_it_counted_a_reply_does_not_send_it_a_second_time",
            f"{TIME}::test_whoever_thaws_after_a_lookup_found_nothing_does_not_send_it_a_second_time",
            f"{TIME}::test_whoever_thaws_after_reading_a_setting_does_not_overwrite_what_a_person_set_since",
        ),
    ),
    Mutant(
        "new_credential_without_the_gate",
        "the second try after a refused credential is not asked about",
        (
            Edit(
                f"{WORKER}attempts.py",
                """        held = await self._held(action, whose, lease_until_ms)
        if held is not None:
            return held
        result = await self._call(action, whose, provider.send, is_last=True)""",
                "        result = await self._call(action, whose, provider.send, is_last=True)",
            ),
        ),
        tests(f"{BREAKS}::test_a_reply_is_not_sent_with_a_new_credential_after_the_kill_switch_was_thrown"),
    ),
    Mutant(
        "last_send_of_a_row_taken_as_its_claim",
        "a dead worker's row is looked up a settle delay after its claim, not after its lease",
        (
            Edit(
                f"{CORE}recovery.py",
                "max(row.last_possible_send_ms, row.lease_until_ms)",
                "max(row.last_possible_send_ms, row.updated_at_ms)",
            ),
        ),
        tests(f"{TIME}::test_a_takeover_of_a_row_reckons_with_a_send_at_the_end_of_the_dead_workers_lease"),
    ),
    Mutant(
        "last_send_of_an_event_taken_as_its_claim",
        "the same, of an event's first pass",
        (
            Edit(
                f"{WORKER}first_pass.py",
                "            last_possible_send_ms=self._old_lease_ms,",
                "            last_possible_send_ms=self._decision.decided_at_ms,",
            ),
        ),
        tests(f"{TIME}::test_a_takeover_of_an_event_reckons_with_a_send_at_the_end_of_the_dead_workers_lease"),
    ),
    Mutant(
        "last_send_forgotten_when_given_back",
        "who gives a taken-over event back forgets that its first owner may have sent",
        (
            Edit(
                f"{WORKER}first_pass.py",
                "release, ended_ms = self._ports.ledger.release, old_lease_ms or 0",
                "release, ended_ms = self._ports.ledger.release, 0",
            ),
        ),
        tests(f"{BREAKS}::test_a_takeover_without_time_left_hands_on_until_when_the_dead_worker_may_have_sent"),
    ),
    Mutant(
        "owner_between_read_and_claim_forgotten",
        "somebody had the event between our read and our claim, and may have sent",
        (
            Edit(
                f"{WORKER}first_pass.py",
                "            old_lease_ms = now_ms\n",
                "            old_lease_ms = None\n",
            ),
        ),
        tests(f"{BREAKS}::test_a_claim_reckons_with_an_owner_that_came_and_died_after_the_ledger_was_read"),
    ),
    Mutant(
        "call_that_outlasts_the_lease",
        "a send begins that can end after somebody else has the row",
        (
            Edit(
                f"{CORE}gate.py",
                "lambda _, seen: seen.call_ends_at_ms > seen.lease_until_ms,",
                "lambda _, seen: seen.now_ms > seen.lease_until_ms,",
            ),
        ),
        tests("tests/unit/test_core_gate.py"),
    ),
    # -------------------------------------------------------------------------------------------------- an effect twice
    Mutant(
        "takeover_with_nothing_in_doubt",
        "a dead worker's row counts as never sent",
        (
            Edit(
                f"{CORE}recovery.py",
                "        effect=Effect.UNKNOWN if row.tracks_effect else row.effect,\n",
                "        effect=row.effect,\n",
            ),
        ),
        crash("lookup"),
    ),
    Mutant(
        "parked_with_nothing_in_doubt",
        "a dead worker's row that is parked before anybody claims it counts as never sent",
        (
            Edit(
                f"{CORE}recovery.py",
                """        known = _abandoned(row) if _was_abandoned(row, now_ms) else row
    attempts""",
                """        known = row
    attempts""",
            ),
        ),
        tests("tests/unit/test_core_recovery.py"),
    ),
    Mutant(
        "blind_without_a_mark",
        "whoever takes over cannot know that a blind action was about to be sent",
        (
            Edit(
                f"{WORKER}attempts.py",
                """        if is_blind and before_blind is not None:
            await before_blind()
""",
                "",
            ),
        ),
        crash("blind"),
    ),
    Mutant(
        "blind_tried_again",
        "a blind action without an answer is sent again",
        (
            Edit(
                f"{CORE}attempt.py",
                """            detail=f"{failure.code}: {failure.detail}",
            is_retryable=False,
""",
                '            detail=f"{failure.code}: {failure.detail}",\n',
            ),
            Edit(
                f"{CORE}attempt.py",
                """        case Repeat.BLIND:
            return AskPerson(""",
                """        case Repeat.BLIND if rules.can_look_up:
            return AskPerson(""",
            ),
            Edit(
                f"{CORE}attempt.py",
                """    if not rules.can_look_up:
        return AskPerson("the provider's""",
                """    if rules.repeat is Repeat.BLIND:
        return SendNow()
    if not rules.can_look_up:
        return AskPerson("the provider's""",
            ),
        ),
        crash("blind"),
    ),
    Mutant(
        "failed_lookup_read_as_absent",
        "a lookup that failed counts as one that found nothing",
        (
            Edit(
                f"{WORKER}attempts.py",
                "                if not isinstance(looked, Absent):",
                "                if isinstance(looked, Done):",
            ),
        ),
        crash("lookup"),
    ),
    Mutant(
        "setting_not_read_again",
        "a late redo writes over what a person has set since",
        (
            Edit(
                f"{CORE}attempt.py",
                "return ReadFirst() if history.had_lease else SendNow()",
                "return SendNow()",
            ),
        ),
        tests(f"{PASS}::test_a_setting_that_a_person_changed_meanwhile_is_left_alone"),
    ),
    Mutant(
        "unknown_outcome_replayed",
        "a replay sends again what may have been sent",
        (
            Edit(
                f"{CORE}recovery.py",
                """    if row.effect is Effect.UNKNOWN and not is_verified:
        return "effect_unknown"
""",
                "",
            ),
        ),
        tests("tests/unit/test_core_recovery.py"),
    ),
    Mutant(
        "other_key_for_a_later_copy",
        "a copy of an event that was received later has other keys than the first",
        (
            Edit(
                f"{CORE}ledger.py",
                "event.event_id, item.epoch_ms)",
                "event.event_id, event.received_at_ms)",
            ),
        ),
        tests("tests/unit/test_core_ledger.py"),
    ),
    Mutant(
        "other_channel_while_degraded_in_doubt",
        "a degraded channel is left although the message may have gone out",
        (
            Edit(
                f"{CORE}fallback.py",
                "    if not seen.is_new or seen.is_unsettled:",
                "    if not seen.is_new:",
            ),
        ),
        tests(f"{HOPS}::test_a_takeover_that_may_meet_a_sent_email_does_not_turn_to_the_other_channel"),
    ),
    Mutant(
        "other_channel_while_down_in_doubt",
        "a channel that is down is left although the message may have gone out",
        (
            Edit(
                f"{WORKER}recovery_pass.py",
                "            is_unsettled=row.effect is Effect.UNKNOWN or row.verify_only or row.lease_until_ms > 0,",
                "            is_unsettled=False,",
            ),
        ),
        tests(f"{HOPS}::test_a_hint_that_meets_a_channel_gone_down_finds_what_may_have_been_sent_waiting"),
    ),
    Mutant(
        "stand_in_twice",
        "a reply that is suppressed again calls its stand-in again",
        (
            Edit(
                f"{WORKER}first_pass.py",
                "self._row(action, suppressed_first(replace(blank, stand_in=None), reason), ActionStatus.SUPPRESSED)",
                "self._row(action, suppressed_first(blank, reason), ActionStatus.SUPPRESSED)",
            ),
        ),
        tests(f"{BREAKS}::test_a_replayed_reply_that_is_suppressed_again_does_not_repeat_its_stand_in"),
    ),
    Mutant(
        "sent_again_after_the_last_attempt",
        "the look after the last attempt sends what it does not find",
        (
            Edit(
                f"{WORKER}attempts.py",
                "        step = LookUp(only=True) if verify_only else next_step(rules,",
                "        step = next_step(rules,",
            ),
        ),
        tests(f"{PASS}::test_replies_that_exhausted_their_attempts_are_looked_up_once_more_so_that_a_replay_is_safe"),
    ),
    Mutant(
        "live_lease_ignored",
        "a row is claimed from under its owner",
        (
            Edit(
                f"{CORE}recovery.py",
                "not row.waits_for and row.lease_until_ms <= now_ms and row.not_before_ms <= now_ms",
                "not row.waits_for and row.not_before_ms <= now_ms",
            ),
        ),
        tests("tests/unit/test_core_recovery.py"),
    ),
    # --------------------------------------------------------------------------------------------------- something lost
    Mutant(
        "fenced_settlement_acknowledged",
        "who lost its lease acknowledges the message of whoever has it now",
        (
            Edit(
                f"{WORKER}first_pass.py",
                """            return Later(1, "the lease was lost")
        for change in changes:""",
                """            return Settled("settled")
        for change in changes:""",
            ),
        ),
        tests(f"{TIME}::test_whoever_thaws_after_its_lease_leaves_the_message_to_its_new_owner"),
    ),
    Mutant(
        "busy_event_acknowledged",
        "a copy of an event that somebody works on is acknowledged",
        (
            Edit(
                f"{WORKER}first_pass.py",
                """            case Busy(until_ms):
                return Later(_seconds_until(until_ms, now_ms), "another worker has it")
            case Mismatch():""",
                """            case Busy(until_ms):
                return self._duplicate(event, admitted.item, in_window=False)
            case Mismatch():""",
            ),
        ),
        crash("lookup"),
    ),
    Mutant(
        "failed_message_acknowledged",
        "a message that could not be processed is acknowledged",
        (
            Edit(
                f"{WORKER}handler.py",
                """        if result is None:
            await self._return(record)
        elif""",
                "        if",
            ),
        ),
        crash("idempotent"),
    ),
    Mutant(
        "other_payload_taken_for_a_copy",
        "another event under a known id is acknowledged as a duplicate",
        (
            Edit(
                f"{CORE}ledger.py",
                """    if item.payload_hash != event.payload_hash:
        return Mismatch()
""",
                "",
            ),
        ),
        tests(f"{PASS}::test_another_payload_under_the_same_id_is_kept_for_a_person"),
    ),
    Mutant(
        "second_thanks_taken_for_a_copy",
        "an equal message beyond the repeat window is acknowledged as a duplicate",
        (
            Edit(
                f"{CORE}ledger.py",
                "    return window_ms > 0 and epoch_ms < event.received_at_ms - window_ms",
                "    return window_ms < 0 and epoch_ms < event.received_at_ms - window_ms",
            ),
        ),
        tests(f"{PASS}::test_an_equal_message_is_a_new_event_once_its_repeat_window_is_over"),
    ),
    Mutant(
        "overtaken_event_acknowledged",
        "an older equal message that came late is acknowledged as a duplicate",
        (
            Edit(
                f"{CORE}ledger.py",
                "    return window_ms > 0 and item.epoch_ms > event.received_at_ms + window_ms",
                "    return window_ms < 0 and item.epoch_ms > event.received_at_ms + window_ms",
            ),
        ),
        tests(f"{BREAKS}::test_an_equal_message_that_a_newer_one_overtook_is_kept_for_a_person_and_not_sent_twice"),
    ),
    Mutant(
        "one_child_released",
        "of what waited for an action one is sent, and the rest waits for ever",
        (
            Edit(
                f"{WORKER}recovery_pass.py",
                "        for child_id in parent.children:",
                "        for child_id in parent.children[:1]:",
            ),
        ),
        tests(f"{TIME}::test_everything_that_waited_for_one_action_is_sent_once_that_is_done"),
    ),
    Mutant(
        "claimed_row_never_due",
        "a row whose worker dies is not looked at again",
        (
            Edit(
                f"{CORE}recovery.py",
                """        due_at_ms=lease_until_ms,
        waiting_for""",
                """        due_at_ms=0,
        waiting_for""",
            ),
        ),
        crash("idempotent"),
    ),
    Mutant(
        "hinted_row_never_due",
        "a row whose hint is lost is not looked at again",
        (
            Edit(
                f"{CORE}recovery.py",
                "    return Change(replace(row, version=row.version + 1, due_at_ms=later), row)",
                "    return Change(replace(row, version=row.version + 1, due_at_ms=later * 0), row)",
            ),
        ),
        crash("idempotent"),
    ),
    Mutant(
        "shadow_uses_an_event_up",
        "an event that is only looked at counts as done",
        (
            Edit(
                f"{WORKER}first_pass.py",
                """        key = ledger_key(event, is_shadow=is_shadow)
        return""",
                """        key = ledger_key(event, is_shadow=is_shadow and not event.tenant)
        return""",
            ),
        ),
        tests(f"{PASS}::test_shadow_sends_nothing_and_leaves_the_real_event_unclaimed"),
    ),
    Mutant(
        "handler_returns_too_soon",
        "one message's failure lets the handler return while its neighbours are at work",
        (
            Edit(
                f"{WORKER}handler.py",
                """    outcomes = await asyncio.gather(*work, return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome""",
                "    await asyncio.gather(*work)",
            ),
        ),
        tests(f"{BREAKS}::test_the_handler_returns_only_when_every_event_s_work_has_ended"),
    ),
    # ----------------------------------------------------------------------------- a customer contacted who must not be
    Mutant(
        "unreadable_switches_ignored",
        "a reply is sent although nobody knows what the switches are",
        (
            Edit(
                f"{CORE}gate.py",
                "(age_ms := seen.switches.age_ms) is None or age_ms > USABLE_FOR_MS,",
                "seen.switches.age_ms is None,",
            ),
        ),
        tests("tests/unit/test_core_gate.py"),
    ),
    Mutant(
        "freer_switch_wins",
        "a switch that is off for one tenant does not count while the general one is on",
        (
            Edit(
                f"{CORE}switches.py",
                "bool(values_stated) and all(value.strip() == on",
                "bool(values_stated) and any(value.strip() == on",
            ),
        ),
        tests("tests/unit/test_core_switches.py"),
    ),
    Mutant(
        "row_goes_by_its_decisions_mode",
        "a reply that waited is sent though the mode has changed since",
        (
            Edit(
                f"{CORE}gate.py",
                "(mode := seen.switches.mode) is not _HOLD and (mode is not _LIVE or",
                "(mode := seen.decision_mode) is not _HOLD and (mode is not _LIVE or",
            ),
        ),
        tests("tests/unit/test_core_gate.py"),
    ),
    Mutant(
        "expired_reply_sent",
        "a reply goes out hours after it made sense",
        (
            Edit(
                f"{CORE}gate.py",
                "        lambda _, seen: seen.now_ms >= seen.expires_at_ms,",
                "        lambda action, seen: seen.now_ms >= seen.expires_at_ms and not action.customer_visible,",
            ),
        ),
        tests("tests/unit/test_core_gate.py"),
    ),
    Mutant(
        "stop_told_elsewhere_ignored",
        "who told the provider to stop is written to on another channel",
        (
            Edit(
                f"{WORKER}attempts.py",
                """\
        if await self._opt_outs.store(action, whose.tenant, whose.request_id, whose.traceparent):
            return sent
""",
                "        return sent\n",
            ),
        ),
        tests(f"{PEOPLE}::test_a_provider_that_was_told_to_stop_has_told_us_for_every_channel"),
    ),
    Mutant(
        "unstored_stop_let_go",
        "a stop that could not be stored is forgotten",
        (
            Edit(
                f"{WORKER}attempts.py",
                "        return replace(sent, result=replace(sent.result, is_retryable=True))",
                "        return sent",
            ),
        ),
        tests(f"{PEOPLE}::test_a_stop_that_cannot_be_stored_is_asked_for_again_before_anything_else_is_tried"),
    ),
    Mutant(
        "automatic_messages_uncounted",
        "two machines answer each other all night",
        (
            Edit(
                f"{WORKER}automatic.py",
                "        if not action.customer_visible or is_replay:",
                "        if not action.customer_visible or flow:",
            ),
        ),
        tests(f"{PEOPLE}::test_a_conversation_gets_five_automatic_messages_an_hour_and_then_a_person"),
    ),
    Mutant(
        "stopped_reply_takes_another_channel",
        "what a switch stops is sent by another channel",
        (
            Edit(
                f"{WORKER}hops.py",
                """        if not isinstance(verdict, Send) and not is_health:
            return Stay()
""",
                "",
            ),
        ),
        tests(f"{HOPS}::test_what_a_switch_stops_is_not_sent_by_another_channel"),
    ),
    Mutant(
        "pause_of_one_worker_only",
        "a provider's 429 holds nobody but whoever met it",
        (
            Edit(
                f"{WORKER}attempts.py",
                "            await ports.io(ports.ledger.pause, integration, until_ms, tat_ms)",
                "            pass",
            ),
        ),
        tests(f"{BREAKS}::test_a_429_met_by_a_lookup_holds_the_whole_fleet"),
    ),
    # ----------------------------------------------------------------------------------- a failure that nobody hears of
    Mutant(
        "failure_not_in_the_audit",
        "what a waiting row meets for the first time is neither detected nor contained",
        (
            Edit(
                f"{CORE}recovery.py",
                """    if row.failure_class or not after.failure_class:
        return ()""",
                """    if row.failure_class or after.failure_class:
        return ()""",
            ),
        ),
        crash("lookup"),
    ),
    Mutant(
        "suppressed_row_without_its_stand_in",
        "a waiting reply is stopped, and nobody is asked to answer instead",
        (
            Edit(
                f"{WORKER}recovery_pass.py",
                'return await self._commit(row, change, "suppressed", self._stand_in(row, now_ms))',
                'return await self._commit(row, change, "suppressed")',
            ),
        ),
        tests(f"{PASS}::test_the_switch_also_stops_a_reply_that_waits_for_a_retry"),
    ),
    Mutant(
        "expired_without_a_last_look",
        "what may have been sent ends as too late, and nobody looks whether it was",
        (
            Edit(
                f"{WORKER}recovery_pass.py",
                "        if is_expired and (row.waits_for or not _may_have_been_sent(row)):",
                "        if is_expired:",
            ),
        ),
        tests(f"{PASS}::test_a_reply_that_expired_after_it_may_have_been_sent_is_looked_up_and_found"),
    ),
    Mutant(
        "hostile_retry_after_believed",
        "a provider that asks for a thousand years is given them",
        (
            Edit(
                f"{CORE}retry.py",
                "    return int(min(max(wait, SHORTEST_STATED_WAIT_MS), LONGEST_STATED_WAIT_MS))",
                "    return int(max(wait, SHORTEST_STATED_WAIT_MS))",
            ),
        ),
        tests("tests/unit/test_core_retry.py"),
    ),
    Mutant(
        "replay_while_replay_is_off",
        "a replay under way goes on after an operator has switched replays off",
        (
            Edit(
                f"{WORKER}recovery_pass.py",
                "        is_replay=row.status is Status.REPLAYED,",
                "        is_replay=False,",
            ),
        ),
        tests(f"{TIME}::test_a_replay_whose_hint_is_under_way_waits_when_replays_are_switched_off"),
    ),
    Mutant(
        "stopped_by_hold_but_sent",
        "mode hold stops no retry",
        (
            Edit(
                f"{CORE}gate.py",
                "(mode := seen.switches.mode) is _HOLD or mode is _SHADOW,",
                "seen.switches.mode is _SHADOW,",
            ),
        ),
        tests("tests/unit/test_core_gate.py"),
    ),
    Mutant(
        "bulk_goes_by_any_plan",
        "a bulk replay sends what somebody has put in the place of the plan that was approved",
        (Edit(f"{CORE}replay.py", "        if made.plan_hash != plan_hash:", "        if not made.plan_hash:"),),
        tests("tests/unit/test_replay_rules.py"),
    ),
    Mutant(
        "bulk_goes_on_after_its_end",
        "a bulk replay's λ that thaws after the job was cancelled goes on replaying",
        (
            Edit(
                "tests/control_fakes.py",
                "            if found is None or found.version != job.version:",
                "            if found is None:",
            ),
        ),
        tests(f"{BULK}::test_a_lambda_that_thaws_after_its_job_was_cancelled_replays_nothing_more"),
    ),
    Mutant(
        "bulk_takes_back_what_was_sent",
        "a job that ends takes back an item whose send may have come about",
        (
            Edit(
                f"{CORE}recovery.py",
                "    return is_its_own and row.lease_until_ms == 0 and not may_have_sent",
                "    return is_its_own and row.lease_until_ms == 0",
            ),
        ),
        tests("tests/unit/test_replay_rules.py"),
    ),
    Mutant(
        "bulk_waits_for_a_job_that_is_no_more",
        "an integration stays taken by a bulk replay whose record is gone",
        (
            Edit(
                "functions/job_board.py",
                "            if tried == TRIES or (holder is not None and holder.state in HOLDING):",
                "            if tried <= TRIES or holder is not None:",
            ),
        ),
        tests(f"{BULK_BREAKS}::test_a_job_whose_record_is_gone_keeps_nobody_out"),
    ),
    Mutant(
        "sent_on_a_lookups_word_and_never_counted",
        "what was sent because a lookup had found nothing is not counted later",
        (
            Edit(
                "functions/worker/recovery_pass.py",
                "self._counted(row, action) if must_count else ())",
                "())",
            ),
        ),
        tests("tests/integration/test_doubles.py"),
    ),
    Mutant(
        "quoted_is_doubled",
        "a customer's answer that quotes a reply counts as the reply once more, and replies stop",
        (
            Edit(
                "functions/adapters/richpanel.py",
                "if comment.text == found[0].text]",
                "]",
            ),
        ),
        tests("tests/contract/test_provider_richpanel.py"),
    ),
    Mutant(
        "an_unknown_id_is_another_one",
        "two workers that did the same count as two effects where one was not told the provider's id",
        (
            Edit(
                "functions/worker/doubles.py",
                "        if sent.provider_id and other and sent.provider_id != other:",
                "        if sent.provider_id != other:",
            ),
        ),
        tests("tests/integration/test_doubles.py"),
    ),
)
