"""The scenes (a) to (g). Each states what ought to happen from what it sends and breaks, then looks at what did."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from functions.core.gate import Health
from functions.core.recovery import SUPPRESSED, Status
from functions.operator_api.problems import Code
from ops import integrations, records, standing
from ops.cli.switches import write
from ops.demo.stage import SOURCES, Stage, conversation_of, is_open, repeated, what_of
from ops.demo.story import Scene
from ops.expectation import BANK, CRASH, FOR_THE_LLM, NEEDS_PERSON, REFUND, TOPICS, TWICE, WHERE, balance, seen_in
from ops.operator_api import ApiRefused, connect
from ops.replays import OVER, Replays, of_stage, will_go
from ops.simulator import Fault, FaultMode
from ops.traffic import Answer

UNIQUE = 200
REPEAT_SHARE = 0.10
FORGED_SHARE = 0.05
LATE_SHARE = 0.05  # of a busy machine; then rules or the default team decide, as they should
KNOWN_WITHIN_SECONDS = 6  # how soon a switch holds for what customers see
PATIENCE = 120.0


def warm_up(stage: Stage) -> None:
    """Let every function start once, so that the story is about failures and not about cold starts."""
    letters = stage.letters("warm", (WHERE, BANK), 2 * len(SOURCES))
    stage.post([delivery for delivery, _ in letters])
    # A function that starts under load may not get to read the switches in time; then it must not reply, and does not.
    conversations = stage.expect(letters, may_be_held_back=True)
    stage.story.wait("every function has started", stage.unsettled(conversations), seconds=PATIENCE)


def burst(stage: Stage) -> None:
    """(a) Honest, repeated and forged webhooks from many providers."""
    story = stage.story
    scene = story.open(
        "a",
        "a burst from many providers",
        f"{UNIQUE} messages from {len(SOURCES)} providers, signed by the vendors' own SDKs; "
        f"{REPEAT_SHARE:.0%} of them delivered twice, and {FORGED_SHARE:.0%} forgeries among them.",
    )
    letters = stage.letters("a", TOPICS, UNIQUE)
    honest = [delivery for delivery, _ in letters]
    twice = repeated(stage.chance.sample(honest, round(UNIQUE * REPEAT_SHARE)))
    # Forgeries of messages that were never sent: an effect in one of their conversations can come from nowhere else.
    targets = stage.letters("forged", TOPICS, round(UNIQUE * FORGED_SHARE))
    forged = [stage.sender.forged(delivery, stage.chance) for delivery, _ in targets]
    early = set(stage.chance.sample(range(len(twice)), len(twice) // 2))
    mixed = [*honest, *forged, *(delivery for number, delivery in enumerate(twice) if number in early)]
    stage.chance.shuffle(mixed)
    began = time.monotonic()
    answers = stage.post(mixed)
    answers += stage.post([delivery for number, delivery in enumerate(twice) if number not in early])
    seconds = time.monotonic() - began
    story.tell(f"{len(answers)} webhooks in {seconds:.1f} s ({len(answers) / seconds:.0f} a second)")
    conversations = stage.expect(letters)
    settled = story.wait("all of them are settled", stage.unsettled(conversations), seconds=PATIENCE)

    accepted = [one for one in conversations if one in stage.sent.accepted]
    providers = {stage.sender.provider(delivery.source) for delivery in honest}
    by_way = Counter(delivery.honesty.value for delivery in forged)
    story.check(
        scene,
        f"{len(accepted)} of {UNIQUE} honest messages of {len(providers)} providers were accepted",
        holds=len(accepted) == UNIQUE and len(providers) >= 5,
        details=stage.sent.lost_at_the_door,
    )
    refused = sum(answer.status == 401 for answer in answers if answer.delivery.honesty != "honest")
    story.check(
        scene,
        f"{refused} of {len(forged)} forgeries were refused ({_listed(by_way)})",
        holds=refused == len(forged),
        details=stage.sent.forged_accepted,
    )
    again = [answer for answer in answers if answer.delivery.repeats]
    story.check(
        scene,
        f"{len(again)} repeats were acknowledged and changed nothing",
        holds=all(200 <= answer.status < 300 for answer in again),
        details=[f"{answer.delivery.source}: {answer.status} {answer.trouble}" for answer in again],
    )
    story.check(scene, "every message is settled", holds=settled)
    asked = next(conversation_of(delivery) for delivery, topic in letters if topic is WHERE)
    _check_trace(stage, scene, asked, "settled", {"done"})
    late = _effects(stage, scene_letter="a", conversations=conversations)
    story.check(
        scene,
        f"the LLM answered in time for all but {late} of {UNIQUE}",
        holds=late <= UNIQUE * LATE_SHARE,
    )
    story.close(scene)


def llm_trouble(stage: Stage) -> None:
    """(b) The LLM is down, then slower than its deadline."""
    story = stage.story
    scene = story.open(
        "b",
        "the LLM is down, then slow",
        "Half of the messages meet an LLM that answers 503, the others one that takes 4 s (its deadline is 2.5 s). "
        "Rules decide what they can, the default team gets the rest, and nothing replies.",
    )
    stage.simulator.add_faults(Fault("llm", FaultMode.STATUS, status=503))
    down = stage.letters("b-down", FOR_THE_LLM, 10)
    stage.post([delivery for delivery, _ in down])
    conversations = stage.expect(down, is_llm_up=False)
    story.wait("decided without the LLM", stage.unsettled(conversations), seconds=PATIENCE)
    stage.simulator.clear_faults()
    stage.simulator.add_faults(Fault("llm", FaultMode.LATENCY, seconds=4.0))
    slow = stage.letters("b-slow", FOR_THE_LLM, 10)
    stage.post([delivery for delivery, _ in slow])
    conversations += stage.expect(slow, is_llm_up=False)
    settled = story.wait("decided at the deadline", stage.unsettled(conversations), seconds=PATIENCE)
    stage.simulator.clear_faults()
    deciders = stage.decided_by(conversations)
    story.check(scene, "every message is settled", holds=settled)
    story.check(
        scene,
        f"rules and the default team decided ({_listed(deciders)})",
        holds=set(deciders) == {"rules", "default"} and deciders.total() == len(conversations),
    )
    replies = stage.replies_in(conversations)
    story.check(scene, f"{replies} replies went out", holds=replies == 0)
    _effects(stage, scene_letter="b", conversations=conversations)
    story.close(scene)


def helpdesk_stumbles(stage: Stage) -> None:
    """(c) The helpdesk answers 429 with Retry-After, then 503, then does it and answers 503."""
    story = stage.story
    scene = story.open(
        "c",
        "the helpdesk stumbles",
        "Its first answers are 429 with Retry-After, then 503; then it does what it was asked and answers 503 all the "
        "same, and drops connections after doing it. Nobody steps in.",
    )
    stage.simulator.add_faults(
        Fault("helpdesk", FaultMode.STATUS, status=429, retry_after="2", times=4),
        Fault("helpdesk", FaultMode.STATUS, status=503, times=6),
        Fault("helpdesk", FaultMode.STATUS_AFTER_EFFECT, operation="reply", status=503, times=3),
        Fault("helpdesk", FaultMode.DROP_RESPONSE, operation="reply", times=2),
        Fault("helpdesk", FaultMode.STATUS_AFTER_EFFECT, operation="assign", status=503, times=2),
    )
    letters = stage.letters("c", (WHERE, CRASH, TWICE, REFUND), 20)
    stage.post([delivery for delivery, _ in letters])
    conversations = stage.expect(letters)
    settled = story.wait("it heals by itself", stage.unsettled(conversations), seconds=PATIENCE)
    fired = Counter(
        f"{fault['mode']} {fault['status']}" for fault in stage.simulator.faults() for _ in range(fault["fired"])
    )
    stage.simulator.clear_faults()
    rows = stage.rows_of(conversations)
    story.check(
        scene,
        f"the helpdesk failed {fired.total()} times ({_listed(fired)})",
        holds=fired.total() >= 12,
    )
    story.check(
        scene,
        f"{len(rows)} actions needed another attempt, and all of them succeeded",
        holds=settled and bool(rows) and all(row["status"] == Status.SUCCEEDED for row in rows),
        details=[_row_line(row) for row in rows if row["status"] != Status.SUCCEEDED],
    )
    _effects(stage, scene_letter="c", conversations=conversations)
    story.close(scene)


def helpdesk_down(stage: Stage) -> None:
    """(d) The helpdesk is down, and nobody is needed; then an operator insists until items are dead, and replays."""
    story = stage.story
    scene = story.open(
        "d",
        "the helpdesk is down: first left to the machine, then called on until items die, and replayed",
        "Every call is reset or answered 503. After three minutes (seconds here) the machine closes it: what goes to "
        "it waits and spends no attempt, and once it is back it opens and lets go what waited. Then the same with an "
        "operator who says that it is to be called all the same: after five attempts each the items are dead letters, "
        "and one bulk replay, planned first and beginning with five, brings them all to their end.",
    )
    healed = _left_to_the_machine(stage, scene)
    integrations.of_stage(stage.stack).force("helpdesk", Health.HEALTHY, "15m", "let them die")
    _break_helpdesk(stage)
    letters = stage.letters("d", (WHERE, CRASH, TWICE, REFUND), 12)
    stage.post([delivery for delivery, _ in letters])
    conversations = stage.expect(letters)

    def not_dead() -> str:
        rows = stage.rows_of(conversations)
        dead = sum(row["status"] == Status.DLQ for row in rows)
        return "" if dead >= 2 * len(conversations) else f"{dead} of {2 * len(conversations)} dead"

    died = story.wait("retries are exhausted", not_dead, seconds=PATIENCE)
    rows = [row for row in stage.rows_of(conversations) if row["status"] == Status.DLQ]
    attempts = Counter(int(row["attempt_count"]) for row in rows)
    story.check(
        scene,
        f"{len(rows)} actions are dead letters after {_listed(attempts)} attempts (attempts × items), "
        f"replies wait for what they require",
        holds=died and set(attempts) == {5},
        details=[_row_line(row) for row in rows if row["attempt_count"] != 5],
    )
    asked = next(conversation_of(delivery) for delivery, topic in letters if topic is WHERE)
    _check_trace(stage, scene, asked, "waiting", {"dead", "waiting"})
    none_yet = balance({}, [one for one in stage.simulator.effects("helpdesk") if one.target in set(conversations)])
    story.check(scene, "nothing has reached the helpdesk so far", holds=none_yet.is_even, details=none_yet.problems)

    stage.simulator.clear_faults()
    story.tell("the helpdesk is back")
    replays = of_stage(stage.stack, poll_seconds=0.5)
    planned = replays.plan({"integration": ["helpdesk"], "status": ["dlq"]}, "the helpdesk is back")
    story.tell(f"holdfast replay plan: {planned['plan']['counts']}, of which {will_go(planned)} would be replayed")
    story.check(scene, "a replay of everything (an empty filter) is refused", holds=_is_refused(replays, {}))
    stale = replays.plan({"integration": ["helpdesk"]}, "another plan of the same items")
    replays.approve(planned["replay_id"], planned["plan"]["hash"])
    job = next(one for one in replays.follow(planned["replay_id"]) if one["state"] in OVER)
    outcomes = job["progress"]["outcomes"]
    story.check(
        scene,
        f"one job took up {outcomes.get('succeeded', 0)} items in {job['progress']['batches']} batches "
        f"({job['replay_id']})",
        holds=job["state"] == "finished" and outcomes.get("succeeded") == len(rows) == will_go(planned),
        details=[json.dumps(job)[:600]],
    )
    story.check(
        scene,
        "the other plan of the same items is stale now, and refused",
        holds=_is_stale(replays, stale),
    )
    settled = story.wait("everything is brought to its end", stage.unsettled(conversations), seconds=PATIENCE)
    story.check(scene, "nothing is left open", holds=settled)
    _check_trace(stage, scene, asked, "settled", {"done"}, replays=1)
    integrations.of_stage(stage.stack).lift("helpdesk", "it is back")
    _effects(stage, scene_letter="d", conversations=[*healed, *conversations])
    story.close(scene)


def _check_trace(
    stage: Stage, scene: Scene, conversation: str, state: str, states: set[str], *, replays: int = 0
) -> None:
    """What became of the conversation's event is found by ticket, by request and by recipient, and is told whole."""
    api = connect(stage.stack)

    def found(**query: str) -> list[dict[str, Any]]:
        events: list[dict[str, Any]] = api.call("GET", "/platform/trace", query={**query, "limit": "200"})["events"]
        return events

    told = next(iter(found(ticket=conversation)), None)
    if told is None:
        stage.story.check(scene, f"trace finds the conversation {conversation}", holds=False)
        return
    recipient = next((one["recipient"] for one in told["actions"] if one["recipient"]), "")
    again = [found(request_id=told["received"]["request_id"]), found(recipient=recipient) if recipient else []]
    seen = {one["state"] for one in told["actions"]}
    replayed = max(one["replays"] for one in told["actions"])
    stage.story.check(
        scene,
        f"trace finds it by ticket, request and recipient: {told['summary']}",
        holds=told["state"] == state
        and states <= seen
        and replayed == replays
        and told["decided"] is not None
        and all(any(one["event_id"] == told["event_id"] for one in events) for events in again),
        details=[json.dumps(told)[:1200]],
    )


def _is_refused(replays: Replays, wanted: Mapping[str, Any]) -> bool:
    try:
        replays.plan(wanted, "everything")
    except ApiRefused as refused:
        return refused.code == Code.INVALID_PAYLOAD
    return False


def _is_stale(replays: Replays, planned: Mapping[str, Any]) -> bool:
    try:
        replays.approve(planned["replay_id"], planned["plan"]["hash"])
    except ApiRefused as refused:
        return refused.code == Code.PLAN_STALE
    return False


def _break_helpdesk(stage: Stage) -> None:
    stage.simulator.add_faults(
        Fault("helpdesk", FaultMode.RESET, probability=0.3, seed=1),
        Fault("helpdesk", FaultMode.STATUS, status=503),
    )


def _left_to_the_machine(stage: Stage, scene: Scene) -> list[str]:
    """An outage that nobody does anything about; gives its conversations."""
    story = stage.story
    _break_helpdesk(stage)
    letters = stage.letters("d-outage", (WHERE, CRASH, TWICE, REFUND), 12)
    stage.post([delivery for delivery, _ in letters])
    conversations = stage.expect(letters)
    records_of_health = standing.health_records(stage.stack)

    def not_closed() -> str:
        now = records_of_health.read(["helpdesk"])["helpdesk"].health
        return "" if now is Health.HARD_DOWN else f"it is {now.value}"

    closed = story.wait("the machine closes it", not_closed, seconds=PATIENCE)
    stage.simulator.clear_faults()
    story.tell("the helpdesk is back, and nobody says so")
    settled = story.wait("it opens, and what waited is let go", stage.unsettled(conversations), seconds=PATIENCE)
    rows = stage.rows_of(conversations)
    attempts = max((int(row.get("attempt_count", 0)) for row in rows), default=0)
    story.check(
        scene,
        f"{len(rows)} actions waited, at most {attempts} attempts were spent on one, none died, nobody was needed",
        holds=closed and settled and all(row["status"] == Status.SUCCEEDED for row in rows),
        details=[_row_line(row) for row in rows if row["status"] != Status.SUCCEEDED],
    )
    return conversations


def poison(stage: Stage) -> None:
    """(e) Messages that nobody can process."""
    story = stage.story
    scene = story.open(
        "e",
        "poison",
        "A message that is no envelope at all is put on the events queue, and a signed webhook comes that says nothing "
        "its flow could read. Neither may be lost, nor hold up its neighbours.",
    )
    before = {str(row["pk"]) for row in records.all_rows(stage.stack)}
    stage.stack.client("sqs").send_message(
        QueueUrl=stage.stack.output("EventsQueueUrl"), MessageBody='{"v": 1, "tenant": "demo", "body": "&&&"}'
    )
    unreadable = stage.sender.raw("internal", b'{"event": "ticket.created", "id": "poison-1"}', message_id="poison-1")
    (answer,) = stage.post([unreadable])
    letters = stage.letters("e", (WHERE, REFUND), 6)
    stage.post([delivery for delivery, _ in letters])
    conversations = stage.expect(letters)

    def found() -> list[records.Item]:
        return [
            row
            for row in records.all_rows(stage.stack)
            if str(row["pk"]) not in before and row["integration_id"] == "intake"
        ]

    there = story.wait(
        "both are dead letters with a root cause",
        lambda: "" if len(found()) >= 2 and not any(records.queue_depths(stage.stack)[q] for q in _DLQS) else "not yet",
        seconds=PATIENCE,
    )
    story.wait("their neighbours are settled", stage.unsettled(conversations), seconds=PATIENCE)
    rows = found()
    story.check(
        scene,
        f"each became a row: {', '.join(sorted(_cause_of(row) for row in rows))}",
        holds=there
        and len(rows) == 2
        and all(row["status"] == Status.DLQ and row.get("root_cause") and row.get("envelope_ref") for row in rows),
        details=[_row_line(row) for row in rows],
    )
    told = connect(stage.stack).call("GET", "/platform/trace", query={"request_id": answer.request_id})["events"]
    story.check(
        scene,
        f"trace finds the webhook by its request: {told[0]['summary'] if told else 'it does not'}",
        holds=[one["state"] for one in told] == ["ended"] and bool(told[0]["whole"]),
        details=[json.dumps(told)[:1200]],
    )
    depths = records.queue_depths(stage.stack)
    story.check(
        scene,
        "the dead-letter queues are empty again",
        holds=not any(depths[name] for name in _DLQS),
        details=[str(depths)],
    )
    _effects(stage, scene_letter="e", conversations=conversations)
    story.close(scene)


def kill_switch(stage: Stage) -> None:
    """(f) `auto_reply` off in the middle of a burst, then on again."""
    story = stage.story
    scene = story.open(
        "f",
        "the kill switch in the middle of a burst",
        "Every message calls for a reply, and some replies wait for another attempt. auto_reply goes off while "
        "messages come in, and on again once they are settled. What was held back stays held back: people have it.",
    )
    first = stage.letters("f-before", (WHERE, CRASH), 12)
    during = stage.letters("f-during", (WHERE, CRASH), 24)
    # Some replies are on their second attempt when the switch goes off: those must be stopped as well.
    stage.simulator.add_faults(Fault("helpdesk", FaultMode.STATUS, operation="reply", status=503, times=4))
    stage.post([delivery for delivery, _ in first])
    _turn(stage, "off", "demo: the kill switch")
    off_at = time.monotonic()
    story.tell("auto_reply is off")
    stage.post([delivery for delivery, _ in during])
    time.sleep(max(0.0, KNOWN_WITHIN_SECONDS - (time.monotonic() - off_at)))
    late = stage.letters("f-late", (WHERE, CRASH), 12)
    stage.post([delivery for delivery, _ in late])
    racing = stage.expect([*first, *during], may_be_held_back=True)
    stopped = stage.expect(late, may_be_held_back=True)
    settled = story.wait("all of them are settled", stage.unsettled([*racing, *stopped]), seconds=PATIENCE)
    suppressed = [row for row in stage.rows_of([*racing, *stopped]) if row.get("failure_code") == SUPPRESSED]
    replies_before = stage.replies_in([*racing, *stopped])
    _turn(stage, "on", "demo: all clear")
    story.tell("auto_reply is on again")
    time.sleep(KNOWN_WITHIN_SECONDS)
    after = stage.letters("f-after", (WHERE, CRASH), 4)
    stage.post([delivery for delivery, _ in after])
    again = stage.expect(after)
    settled = story.wait("new messages are answered", stage.unsettled(again), seconds=PATIENCE) and settled
    stage.simulator.clear_faults()
    story.check(scene, "every message is settled", holds=settled)
    late_replies = stage.replies_in(stopped)
    story.check(
        scene,
        f"{late_replies} replies to the {len(stopped)} messages that came {KNOWN_WITHIN_SECONDS} s after it went off",
        holds=late_replies == 0,
    )
    seen = seen_in(stage.simulator.effects("helpdesk"))
    handed = sum(NEEDS_PERSON in seen[one].tags for one in [*racing, *stopped] if one in seen)
    story.check(
        scene,
        f"{len(suppressed)} replies are suppressed for good, and {handed} conversations are marked for people",
        holds=len(suppressed) == handed >= len(stopped) and all(row["status"] == Status.FAILED for row in suppressed),
        details=[_row_line(row) for row in suppressed if row["status"] != Status.FAILED],
    )
    stale = stage.replies_in([*racing, *stopped]) - replies_before
    story.check(scene, f"{stale} stale replies went out after it was on again", holds=stale == 0)
    answered = stage.replies_in(again)
    story.check(scene, f"{answered} of {len(again)} new messages were answered", holds=answered == len(again))
    _effects(stage, scene_letter="f", conversations=[*racing, *stopped, *again])
    story.close(scene)


def _turn(stage: Stage, value: str, reason: str) -> None:
    """Turn the kill switch, as `holdfast switch set auto_reply --direct` does."""
    write(stage.stack, "auto_reply", value, reason)
    stage.kill_switch_turns.append(value)


def books(stage: Stage) -> None:
    """(g) The balance of everything that was sent."""
    story, sent = stage.story, stage.sent
    scene = story.open(
        "g",
        "the balance",
        "Everything the senders were promised, against the ledger, the recovery queue and the helpdesk's own record.",
    )
    ledger, rows = stage.ledger(), records.all_rows(stage.stack)
    rows_by_event: dict[str, list[records.Item]] = {}
    for row in rows:
        rows_by_event.setdefault(str(row["event_id"]), []).append(row)
    state: Counter[str] = Counter()
    lost: list[str] = []
    for conversation, answer in sent.accepted.items():
        state[_state_of(conversation, answer, ledger, rows_by_event, lost)] += 1
    total = state["done"] + state["waiting"] + state["for people"]
    story.tell(
        f"{sent.posted} webhooks sent, {len(sent.accepted)} events accepted, {sent.repeats} repeats, "
        f"{sent.forged} forged, {sent.answered_again} delivered again after a 503"
    )
    story.check(
        scene,
        f"accepted {len(sent.accepted)} = {state['done']} settled and done + {state['waiting']} waiting "
        f"+ {state['for people']} ended for people; lost {len(lost)}",
        holds=total == len(sent.accepted) and not lost,
        details=lost,
    )
    strangers = sorted(
        str(item["event_id"]) for item in ledger.values() if str(item["decision"]["t"]) not in stage.expectations
    )
    story.check(
        scene,
        f"forged events accepted: {len(sent.forged_accepted) + len(strangers)} of {sent.forged}",
        holds=not sent.forged_accepted and not strangers,
        details=[*sent.forged_accepted, *strangers],
    )
    found = balance(stage.expectations, stage.simulator.effects("helpdesk"))
    story.check(
        scene,
        f"{found.effects} effects at the helpdesk in {len(stage.expectations)} conversations: "
        f"{len(found.missing)} missing, {len(found.doubled)} doubled, {len(found.wrong)} wrong, "
        f"{len(found.unasked)} that nobody asked for",
        holds=found.is_even,
        details=found.problems,
    )
    depths = records.queue_depths(stage.stack)
    story.check(scene, "every queue is empty", holds=not any(depths.values()), details=[str(depths)])
    audit = Counter(str(event["event_type"]).rpartition("platform.")[2] for event in records.all_audit(stage.stack))
    story.tell(f"audit: {_listed(audit)}")
    if stage.kill_switch_turns:
        seen = [
            json.loads(event["after_state"])["value"] for event in records.audit_of(stage.stack, "switch#auto_reply")
        ]
        story.check(
            scene,
            f"the audit has every turn of the kill switch: {' → '.join(seen)}",
            holds=seen == ["on", *stage.kill_switch_turns],
        )
    story.close(scene)


def _state_of(
    conversation: str,
    answer: Answer,
    ledger: dict[str, records.Item],
    rows_by_event: dict[str, list[records.Item]],
    lost: list[str],
) -> str:
    """Where an accepted event stands. Whatever is nowhere is lost."""
    item = ledger.get(conversation)
    event_id = str(item["event_id"]) if item else answer.event_id
    rows = rows_by_event.get(event_id, [])
    if any(is_open(row) for row in rows):
        return "waiting"
    if any(row["status"] in (Status.FAILED, Status.DLQ) for row in rows):
        return "for people"
    if item is not None and item["status"] == "settled":
        return "done"
    lost.append(f"{answer.delivery.source} {answer.delivery.message_id} ({event_id or conversation}) is nowhere")
    return "lost"


_DLQS = ("EventsDlq", "RetriesDlq", "ReplaysDlq", "OpsDlq")


def _effects(stage: Stage, *, scene_letter: str, conversations: Sequence[str]) -> int:
    """Check the effects in the scene's conversations; gives in how many of them the second best was to be."""
    scene = next(one for one in stage.story.scenes if one.letter == scene_letter)
    wanted = set(conversations)
    expectations = {one: stage.expectations[one] for one in conversations}
    found = balance(expectations, (one for one in stage.simulator.effects("helpdesk") if one.target in wanted))
    stage.story.check(
        scene,
        f"{found.effects} effects in {len(wanted)} conversations, each of them once",
        holds=found.is_even,
        details=found.problems,
    )
    return found.otherwise


def _listed(counts: Counter[str] | Counter[int]) -> str:
    return ", ".join(f"{count} × {name}" for name, count in sorted(counts.items(), key=lambda item: str(item[0])))


def _cause_of(row: records.Item) -> str:
    return f"{row.get('failure_code')} ({row.get('root_cause')})"


def _row_line(row: records.Item) -> str:
    return (
        f"{row['event_id']} {what_of(row)}: {row['status']} after {row.get('attempt_count', 0)}, "
        f"{row.get('failure_code', '')} {row.get('failure_detail', '')} {row.get('waiting_for', '')}"
    )
