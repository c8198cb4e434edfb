"""Runbook 004 and architecture §11 over HTTP, on the deployed stack with its roles, its authorizer and real tokens:
every call, code, transition, permission and audit event, by name.

Items come into their states by real events whose calls the simulated helpdesk fails. The tests are told in the order
of the file: what dies takes a while, and meanwhile all is asked that needs nothing dead.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import quote

import pytest
from rich.console import Console

from functions.adapters.recovery import DynamoRecovery
from functions.core.attempt import Effect
from functions.core.audit import AuditType
from functions.core.clock import SystemIds
from functions.core.decision import Repeat
from functions.core.postmortem import PLACEHOLDER
from functions.core.recovery import Change, Status
from ops import records
from ops.demo.stage import conversation_of
from ops.demo.story import Story
from ops.expectation import BANK, PROCESSED, WHERE, Topic
from ops.local import LocalStack
from ops.simulator import Fault, FaultMode
from ops.tokens import Scope, TokenCache, Tokens
from ops.traffic import Answer, Delivery
from tests.e2e.conftest import World
from tests.e2e.operator_desk import ROUTES, Desk, Told, ended_token, is_of_the_gateway, token_of_nobody
from tests.e2e.test_least_privilege import without

INTEGRATION = "/platform/integrations/helpdesk"
QUEUE = f"{INTEGRATION}/recovery/queue"
JOBS = "/platform/replays"
INCIDENTS = "/platform/incidents"
QUARANTINE = "/platform/quarantine"
SWITCHES = "/platform/switches"
TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
DYING = 8
SOURCES = ("helpdesk", "github", "standard", "internal")  # that tell the sender an event's id
QUARANTINED_SOURCE = "svix"
NOWHERE = {
    "integration_id": "helpdesk",
    "recovery_id": "0" * 24,
    "replay_id": "nothing-0123456789",
    "event_id": "github:nothing",
    "quarantine_id": "0" * 32,
    "incident_id": "INC-0-nobody",
    "name+": "limits/sms",
}
"""What a path is filled with where what it names does not matter."""

AT_FIRST = {AuditType.FAILURE_DETECTED, AuditType.FAILURE_CONTAINED, AuditType.RETRY_SCHEDULED}
"""What is on record of an item's first failure, all of one moment."""

Document = dict[str, Any]


@dataclass
class Failing:
    """Events of this suite whose calls fail. Keys of `of` are their scenes."""

    of: dict[str, list[Answer]] = field(default_factory=dict)
    faults: dict[str, list[str]] = field(default_factory=dict)
    health: Told | None = None

    def events(self, scene: str) -> list[str]:
        return [answer.event_id for answer in self.of[scene]]


class Suite:
    """The stack, who asks it, and the events that fail."""

    def __init__(self, world: World, desk: Desk) -> None:
        self.world = world
        self.desk = desk
        self.failing = Failing()
        self.run = f"{time.time_ns():x}"  # in keys and ids: the stack may have seen another run

    # ---------------------------------------------------------------------------------------------------------- sending

    def send(self, scene: str, count: int, *faults: Fault, topic: Topic = WHERE) -> list[Answer]:
        """Customers' messages whose calls fail as told: each fault is put in force for each of their conversations."""
        letters = [
            (self.letter(SOURCES[number % len(SOURCES)], f"{scene}-{number}", topic), topic) for number in range(count)
        ]
        conversations = self.world.expect(letters)
        ids = self.failing.faults.setdefault(scene, [])
        for conversation in conversations:
            ids += self.world.simulator.add_faults(*(replace(fault, target=conversation) for fault in faults))
        answers = self.world.post([delivery for delivery, _ in letters])
        assert {answer.status for answer in answers} == {202}, [answer.document for answer in answers]
        self.failing.of[scene] = answers
        return answers

    def letter(self, source: str, name: str, topic: Topic) -> Delivery:
        """A customer's message in a conversation of its own."""
        return self.world.sender.message(
            source,
            ticket=f"e2e-004-{name}-{self.run}",
            text=topic.text,
            author=f"customer-{self.run}@example.com",
            message_id=f"msg_e2e-004-{name}-{self.run}",
        )

    def is_back(self, scene: str) -> None:
        """The helpdesk takes the calls of those events again."""
        for fault in self.failing.faults.pop(scene, []):
            self.world.simulator.clear_faults(fault)

    # ---------------------------------------------------------------------------------------------------------- looking

    def rows(self, scene: str, *statuses: str, integration: str = "helpdesk") -> list[Document]:
        """The items of these events in these statuses, by the pages of the list."""
        events = set(self.failing.events(scene))
        pages = self.desk.pages(
            f"/platform/integrations/{integration}/recovery/queue", status=",".join(statuses), limit="200"
        )
        return [one for page in pages for one in page["items"] if one["event_id"] in events]

    def await_rows(self, scene: str, count: int, *statuses: str, seconds: float = 60, **more: Any) -> list[Document]:
        """At least so many, waited for."""
        found: list[Document] = []

        def missing() -> str:
            found[:] = self.rows(scene, *statuses, **more)
            return "" if len(found) >= count else f"{len(found)} of {count} items are {' or '.join(statuses)}"

        self.world.eventually(missing, seconds)
        return found

    def item(self, one: Document) -> Document:
        document: Document = self.desk.get(path_of(one))
        return document

    def await_item(self, one: Document, holds: Callable[[Document], bool], seconds: float = 30) -> Document:
        """The item once that holds of it."""
        found: list[Document] = []

        def missing() -> str:
            found[:] = [self.item(one)]
            now = found[0]
            return "" if holds(now) else f"the item is {now['status']} {now['result']} {now['failure_code']}"

        self.world.eventually(missing, seconds)
        return found[0]

    def audit(self, entity: str) -> list[Document]:
        return list(self.desk.get("/platform/audit", entity=entity, limit="200")["events"])

    def audit_of(self, one: Document) -> list[Document]:
        return self.audit(f"recovery_item#{one['recovery_id']}")

    def replay(self, one: Document, key: str, **body: Any) -> Told:
        return self.desk.ask("POST", path_of(one, "/replay"), {"reason": "it is back", **body}, key=f"{key}-{self.run}")


def path_of(one: Document, then: str = "") -> str:
    return f"/platform/integrations/{one['integration_id']}/recovery/queue/{one['recovery_id']}{then}"


def is_problem(told: Told, code: str) -> bool:
    """One of ours: that it is whole, the desk has seen to."""
    return told.headers["content-type"] == "application/problem+json" and told.code == code


def filled(template: str) -> str:
    path = template
    for name, value in NOWHERE.items():
        path = path.replace(f"{{{name}}}", value)
    return path


@pytest.fixture(scope="module")
def suite(local_stack: LocalStack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Suite]:
    """The stack with events under way that will die, fail at once, or wait. The machine would spare them in an outage,
    so an operator says that the helpdesk is to be called all the same.
    """
    local_stack.simulator.clear_faults()
    tokens = Tokens(local_stack.stack, TokenCache(tmp_path_factory.mktemp("tokens")))
    with closing(Desk(local_stack.stack, tokens)) as desk:
        yield from begun(Suite(World(local_stack, Story(Console(quiet=True)), seed=4), desk))


def begun(made: Suite) -> Iterator[Suite]:
    """The events on their way, and in the end nothing left in force."""
    stated = {"state": "healthy", "for": "15m", "reason": "let them die"}
    made.failing.health = made.desk.ask("PUT", f"{INTEGRATION}/health", stated)
    assert made.failing.health.status == 200, made.failing.health
    made.send("dying", DYING, Fault("helpdesk", FaultMode.STATUS, status=503))
    made.send("refused", 2, Fault("helpdesk", FaultMode.STATUS, status=422), topic=BANK)
    yield made
    made.world.simulator.clear_faults()
    made.desk.ask("PUT", f"{INTEGRATION}/health", {"state": None, "reason": "the suite is over"})


# -------------------------------------------------------------------------------------------------------------- who may


def test_without_a_token_or_with_one_that_has_ended_no_call_is_answered_401(suite: Suite) -> None:
    """004.3; the gateway says so in its own words."""
    ended = ended_token(suite.desk.stack, suite.desk.tokens)
    for method, template in ROUTES:
        for token in ("", ended):
            told = suite.desk.ask(method, filled(template), token=token)
            assert (told.status, is_of_the_gateway(told)) == (401, True), (method, template)


def test_who_has_no_permission_is_answered_403_by_every_call_and_who_may_look_by_every_change(suite: Suite) -> None:
    """004.3"""
    nobody = token_of_nobody(suite.desk.stack, suite.desk.tokens)
    viewing = suite.desk.tokens.machine(Scope.VIEW)
    for method, template in ROUTES:
        for token in (nobody, viewing):
            if method == "GET" and token == viewing:
                continue
            told = suite.desk.ask(method, filled(template), {"reason": "x"} if method != "GET" else None, token=token)
            assert (told.status, is_problem(told, "INT-403-PERMISSION-DENIED")) == (403, True), (method, template)
            needed = "view" if method == "GET" else "operate"
            assert told.document["detail"] == f"platform.member_admin.{needed} is needed"


def test_what_is_not_there_is_404_by_every_call_that_names_something(suite: Suite) -> None:
    """004.2, 004.19: INT-404-NOT-FOUND and INT-404-RECOVERY-NOT-FOUND"""
    bodies: dict[str, Document] = {
        "health": {"state": "degraded", "for": "1m", "reason": "x"},
        "note": {"note": "x"},
        "root-cause": {"root_cause": "code_defect", "reason": "x"},
        "approve": {"plan_hash": "0" * 64},
        "ack": {},
        "severity": {"severity": "SEV2", "reason": "x"},
        "mitigate": {"mitigation": "x"},
        "resolve": {"resolution": "x"},
        "message": {"template": "internal_update"},
        "postmortem": {},
    }
    for method, template in ROUTES:
        if "{" not in template or "{name+}" in template:
            continue
        last = template.rpartition("/")[2]
        body = None if method in ("GET", "DELETE") else bodies.get(last, {"reason": "x"})
        query = {"reason": "x"} if method == "DELETE" else None
        path = filled(template)
        if "recovery_id" not in template:
            path = path.replace("helpdesk", "fax")
        told = suite.desk.ask(method, path, body, query=query, key="click-nowhere")
        code = "INT-404-RECOVERY-NOT-FOUND" if "recovery_id" in template else "INT-404-NOT-FOUND"
        assert (told.status, told.code) == (404, code), (method, template, told.document)
        if "recovery_id" in template:
            told = suite.desk.ask(method, path.replace("helpdesk", "fax"), body, key="click-nowhere")
            assert (told.status, told.code) == (404, "INT-404-NOT-FOUND"), (method, template)


def test_what_is_not_valid_is_400_in_path_query_and_body(suite: Suite) -> None:
    """004.19: INT-400-INVALID-PAYLOAD"""
    somewhere = filled(f"{QUEUE}/{{recovery_id}}")
    for method, path, body, query in (
        ("GET", QUEUE, None, {"limit": "0"}),
        ("GET", QUEUE, None, {"limit": "201"}),
        ("GET", QUEUE, None, {"status": "lost"}),
        ("GET", QUEUE, None, {"cursor": "?"}),
        ("GET", f"{QUEUE}/{'x' * 65}", None, None),
        ("POST", f"{somewhere}/dismiss", {"reason": " "}, None),
        ("POST", f"{somewhere}/dismiss", {"reason": "x", "more": 1}, None),
        ("POST", f"{somewhere}/cancel", {}, None),
        ("POST", f"{somewhere}/note", {"note": "x" * 501}, None),
        ("POST", f"{somewhere}/root-cause", {"root_cause": "gremlins", "reason": "x"}, None),
        ("POST", f"{somewhere}/replay", {"reason": "it comes without a key"}, None),
        ("PUT", f"{INTEGRATION}/health", {"state": "hard_down", "reason": "for ever"}, None),
        ("PUT", f"{INTEGRATION}/health", {"state": "unwell", "for": "1m", "reason": "x"}, None),
        ("POST", JOBS, {"filter": {}, "reason": "everything"}, None),
        ("POST", JOBS, {"filter": {"status": ["replayed"]}, "reason": "x"}, None),
        ("POST", f"{JOBS}/nothing-0123456789/approve", {"plan_hash": "short"}, None),
        ("GET", f"{JOBS}/short", None, None),
        ("GET", "/platform/trace", None, None),
        ("GET", "/platform/trace", None, {"ticket": "1", "request_id": "2"}),
        ("GET", "/platform/trace", None, {"recipient": "+15005550006"}),
        ("GET", "/platform/audit", None, {"entity": "nonsense"}),
        ("GET", "/platform/audit", None, {"request_id": "x" * 65}),
        ("GET", "/platform/rejections", None, {"since": "31d"}),
        ("POST", QUARANTINE, {"for": "1m", "reason": "nothing in particular"}, None),
        ("POST", QUARANTINE, {"source": "svix", "for": "31d", "reason": "for ever"}, None),
        ("DELETE", f"{QUARANTINE}/{'0' * 32}", None, None),
        ("PUT", f"{SWITCHES}/mode", {"value": "lively", "reason": "x"}, None),
        ("PUT", f"{SWITCHES}/limits/fax", {"value": "1", "reason": "x"}, None),
    ):
        told = suite.desk.ask(method, path, body, query=query)
        assert is_problem(told, "INT-400-INVALID-PAYLOAD"), (method, path, body, query, told)


def test_ids_that_came_encoded_are_read_and_an_encoded_slash_opens_no_other_call(suite: Suite) -> None:
    answer = suite.failing.of["dying"][0]
    suite.world.eventually(lambda: "" if story_of(suite, answer) else "the event is not known")
    plain = suite.desk.get("/platform/integrations/helpdesk")["integration_id"]
    assert suite.desk.get("/platform/integrations/%68elp%64esk")["integration_id"] == plain
    assert suite.desk.get(f"/platform/events/{quote(answer.event_id, safe='')}")["event"]["event_id"] == answer.event_id
    assert suite.desk.get(f"/platform/events/{answer.event_id}")["event"]["event_id"] == answer.event_id
    for method, path in (
        ("GET", "/platform/integrations/helpdesk%2Frecovery%2Fqueue%2F0"),
        ("POST", f"{QUEUE}/{'0' * 24}%2Fdismiss"),
        ("GET", f"{QUEUE}/..%2F..%2F..%2Fswitches"),
        ("GET", "/platform/events/github%2Fnothing"),
        ("GET", f"{QUEUE}/%00"),
        ("GET", f"{QUEUE}/%E2%80%AE"),
        ("GET", f"{QUEUE}/%FF"),
        ("GET", f"{QUEUE}/%252e%252e"),
    ):
        told = suite.desk.ask(method, path, {"reason": "x"} if method == "POST" else None)
        assert told.status in (400, 404), (path, told)
        assert told.code.startswith(("INT-400-", "INT-404-")), (path, told)


def story_of(suite: Suite, answer: Answer) -> Document | None:
    told = suite.desk.ask("GET", f"/platform/events/{quote(answer.event_id, safe='')}", scope=Scope.VIEW)
    return told.document["event"] if told.status == 200 else None


# --------------------------------------------------------------------------------------------------------- integrations


def test_integrations_are_shown_and_a_persons_word_on_the_health_of_one_is_audited(suite: Suite) -> None:
    """000.22, 000.32: `platform.integration.health.changed`"""
    stated = suite.failing.health
    assert stated is not None
    assert (stated.document["override"]["state"], stated.document["is_changed"]) == ("healthy", True)
    assert stated.document["override"]["by"] == suite.desk.stack.output("OperateClientId")
    every = {one["integration_id"]: one for one in suite.desk.get("/platform/integrations")["integrations"]}
    one = suite.desk.get(INTEGRATION)
    assert one["override"] == every["helpdesk"]["override"] == stated.document["override"]
    assert one["switches"]["is_known"]
    event = next(one for one in suite.audit("integration#helpdesk") if one["request_id"] == stated.request_id)
    assert (event["event_type"], event["reason"]) == (AuditType.HEALTH_CHANGED, "let them die")
    assert json.loads(event["after_state"])["override"] == "healthy"
    untouched = suite.desk.ask("PUT", "/platform/integrations/ocr/health", {"state": None, "reason": "nothing was set"})
    assert (untouched.status, untouched.document["is_changed"]) == (200, False)
    assert not suite.audit("integration#ocr")


# -------------------------------------------------------------------------------------------- items that failed at once


def refused(suite: Suite) -> list[Document]:
    """The items of a definite refusal that nobody has ended."""
    return [one for one in suite.await_rows("refused", 4, "failed") if one["failure_code"] == "HTTP_422"]


def test_004_12_an_item_that_failed_at_once_is_listed_and_tells_why(suite: Suite) -> None:
    """000.8: a definite refusal is not tried again."""
    failed = suite.await_rows("refused", 4, "failed")
    one = suite.item(failed[0])
    assert (one["status"], one["attempt_count"], one["failure_code"]) == ("failed", 1, "HTTP_422")
    assert (one["failure_class"], one["root_cause"], one["replay_refused"]) == ("data_error", "bad_source_data", "")
    assert one["failure_detail"]
    assert one["integration"]["health"] == "healthy"
    first, *_ = events = suite.audit_of(one)
    assert {event["event_type"] for event in events} == {
        AuditType.FAILURE_DETECTED,
        AuditType.FAILURE_CONTAINED,
        AuditType.REPROCESS_FAILED,
    }
    assert first["failure_type"] == "data_error"


def test_004_11_the_list_takes_status_and_limit_and_its_cursors_come_through_the_gateway(suite: Suite) -> None:
    failed = [one["recovery_id"] for one in suite.await_rows("refused", 4, "failed")]
    pages = list(suite.desk.pages(QUEUE, status="failed", limit="1"))
    assert max(len(page["items"]) for page in pages) == 1
    assert {one["status"] for page in pages for one in page["items"]} == {"failed"}
    listed = [one["recovery_id"] for page in pages for one in page["items"]]
    assert [one for one in listed if one in failed] == failed, "one stable order, each once"


def test_a_person_notes_overrules_and_ends_an_item_and_each_is_audited(suite: Suite) -> None:
    """004.17, 004.18: `platform.integration.recovery.noted` and `.dismissed`, with request id, person and states."""
    first, second, third, *_ = refused(suite)
    request_id = f"e2e-004-note-{time.time_ns()}"
    headers = {"x-request-id": request_id, "traceparent": TRACEPARENT}
    noted = suite.desk.ask("POST", path_of(first, "/note"), {"note": "deploy 42 mends it"}, headers=headers)
    assert (noted.status, noted.request_id, noted.headers["traceparent"]) == (200, request_id, TRACEPARENT)
    judged = suite.desk.ask(
        "POST", path_of(first, "/root-cause"), {"root_cause": "code_defect", "reason": "our parser"}
    )
    assert (judged.status, judged.document["root_cause"]) == (200, "code_defect")
    dismissed = suite.desk.ask("POST", path_of(first, "/dismiss"), {"reason": "not wanted"})
    assert (dismissed.document["status"], dismissed.document["failure_code"]) == ("failed", "DISMISSED")
    by_hand = suite.desk.ask("POST", path_of(second, "/dismiss"), {"reason": "tagged it", "done_by_hand": True})
    assert (by_hand.document["failure_code"], by_hand.document["effect"]) == ("DONE_BY_HAND", "done")

    by_request = {event["request_id"]: event for event in suite.audit_of(first)}
    machine = suite.desk.stack.output("OperateClientId")
    for told, kind, reason in (
        (noted, AuditType.NOTED, "deploy 42 mends it"),
        (judged, AuditType.NOTED, "our parser"),
        (dismissed, AuditType.DISMISSED, "not wanted"),
    ):
        event = by_request[told.request_id]
        assert (event["event_type"], event["actor"]) == (kind, machine)
        assert reason in event["reason"]
        assert "failed" in event["before_state"]
        assert "failed" in event["after_state"]
    assert by_request[request_id]["traceparent"] == TRACEPARENT
    (of_request,) = suite.desk.get("/platform/audit", request_id=request_id)["events"]
    assert of_request["id"] == by_request[request_id]["id"]

    for told in (
        suite.replay(first, "click-ended"),
        suite.desk.ask("POST", path_of(second, "/dismiss"), {"reason": "again"}),
        suite.desk.ask("POST", path_of(third, "/cancel"), {"reason": "it does not wait"}),
    ):
        assert is_problem(told, "INT-409-RECOVERY-REPLAY-CONFLICT"), told
        assert (told.status, told.document["current_status"]) == (409, "failed")


def test_004_20_the_switch_replay_stops_replays_and_lets_them_go_on(suite: Suite) -> None:
    """Rollback, step 1. An operator's switch is known within the five seconds that a snapshot is believed."""
    one = refused(suite)[0]
    off = suite.desk.ask("PUT", f"{SWITCHES}/replay", {"value": "off", "reason": "stop replays", "for": "5m"})
    assert (off.status, off.document["before"], off.document["back_to"]) == (200, "on", "on")
    try:
        suite.await_item(one, lambda now: bool(now["replay_refused"] == "replay_off"))
        told = suite.replay(one, "click-while-off")
        assert is_problem(told, "INT-409-RECOVERY-REPLAY-CONFLICT")
        assert (told.document["reason"], told.document["current_status"]) == ("replay_off", "failed")
    finally:
        on = suite.desk.ask("PUT", f"{SWITCHES}/replay", {"value": "on", "reason": "go on"})
    assert on.document["before"] == "off"
    suite.await_item(one, lambda now: now["replay_refused"] == "")
    asked = [event for event in suite.audit("switch#replay") if event["request_id"] in (off.request_id, on.request_id)]
    assert [event["event_type"] for event in asked] == [AuditType.SWITCH_CHANGED] * 2
    assert [json.loads(event["after_state"])["value"] for event in asked] == ["off", "on"]


def test_a_switch_whose_name_has_a_slash_is_set_however_the_slash_is_written(suite: Suite) -> None:
    for path in (f"{SWITCHES}/limits/helpdesk", f"{SWITCHES}/limits%2Fhelpdesk"):
        told = suite.desk.ask("PUT", path, {"value": "1", "reason": "as every day"})
        assert (told.status, told.document["name"], told.document["value"]) == (200, "limits/helpdesk", "1")
    told = suite.desk.ask("PUT", f"{SWITCHES}/flow/support/limits/sms", {"value": "1", "reason": "as every day"})
    assert (told.status, told.document["name"]) == (200, "flow/support/limits/sms")
    said = {one["name"]: one for one in suite.desk.get(SWITCHES)["switches"]}
    assert (said["limits/helpdesk"]["value"], said["flow/support/limits/sms"]["value"]) == ("1", "1")
    assert suite.audit("switch#limits/helpdesk")[-1]["event_type"] == AuditType.SWITCH_CHANGED


# ------------------------------------------------------------------------------------------------ items that still wait


def test_004_15_what_still_waits_is_not_replayed_and_is_cancelled_while_nobody_is_at_it(suite: Suite) -> None:
    """`retrying`, and `pending`: what has not been tried, because it waits for what died."""
    suite.send("waiting", 1, Fault("helpdesk", FaultMode.STATUS, status=503))
    retrying, *_ = suite.await_rows("waiting", 1, "retrying")
    told = suite.replay(retrying, "click-retrying")
    assert is_problem(told, "INT-409-RECOVERY-REPLAY-CONFLICT")
    assert told.document["current_status"] == "retrying"
    pending, *_ = suite.await_rows("waiting", 1, "pending")
    assert suite.item(pending)["waits_for"]
    told = suite.replay(pending, "click-pending")
    assert (told.status, told.document["current_status"]) == (409, "pending")

    cancelled: list[Told] = []

    def not_cancelled() -> str:
        cancelled[:] = [suite.desk.ask("POST", path_of(retrying, "/cancel"), {"reason": "the customer called"})]
        if cancelled[0].status == 409:
            assert cancelled[0].document["current_status"] == "retrying"
        return "" if cancelled[0].status == 200 else f"{cancelled[0].document}"

    suite.world.eventually(not_cancelled, 30)
    now = cancelled[0].document
    assert (now["status"], now["failure_code"]) == ("failed", "CANCELLED")
    last = suite.audit_of(retrying)[-1]
    assert (last["event_type"], last["reason"]) == (AuditType.DISMISSED, "the customer called")
    again = suite.desk.ask("POST", path_of(retrying, "/cancel"), {"reason": "again"})
    assert (again.status, again.document["current_status"]) == (409, "failed")
    suite.is_back("waiting")


def test_what_succeeds_by_itself_is_audited_and_not_replayed(suite: Suite) -> None:
    """004.16: `platform.integration.recovery.retry_scheduled` and `.reprocess_succeeded`"""
    suite.send("blip", 1, Fault("helpdesk", FaultMode.STATUS, status=503, times=2), topic=BANK)
    succeeded, *_ = suite.await_rows("blip", 1, "succeeded")
    suite.is_back("blip")
    types = [event["event_type"] for event in suite.audit_of(succeeded)]
    assert set(types[:3]) == AT_FIRST
    assert types[-1] == AuditType.REPROCESS_SUCCEEDED
    told = suite.replay(succeeded, "click-succeeded")
    assert (told.status, told.document["current_status"]) == (409, "succeeded")


# ----------------------------------------------------------------------------------------------------------- quarantine


def test_001_44_a_rule_keeps_real_events_aside_until_somebody_replays_them(suite: Suite) -> None:
    """`platform.quarantine.changed`"""
    stated = {"source": QUARANTINED_SOURCE, "for": "5m", "reason": "its payloads are wrong"}
    rule = suite.desk.ask("POST", QUARANTINE, stated)
    assert (rule.status, rule.document["author"]) == (201, suite.desk.stack.output("OperateClientId"))
    path = f"{QUARANTINE}/{rule.document['id']}"
    try:
        assert rule.document in suite.desk.get(QUARANTINE)["rules"]
        letter = suite.letter(QUARANTINED_SOURCE, "kept", BANK)
        suite.world.expect([(letter, BANK)])
        suite.failing.of["kept"] = suite.world.post([letter])
        kept, *_ = suite.await_rows("kept", 1, "failed", integration="intake")
    finally:
        removed = suite.desk.ask("DELETE", path, query={"reason": "they are mended"})
    assert (removed.status, rule.document in removed.document["rules"]) == (200, False)
    assert suite.desk.ask("DELETE", path, query={"reason": "again"}).code == "INT-404-NOT-FOUND"
    assert (kept["failure_code"], kept["kind"]) == ("QUARANTINED", "")
    assert suite.replay(kept, "click-kept").status == 202
    suite.await_item(kept, lambda now: bool(now["result"] == "succeeded"))
    suite.world.await_settled([conversation_of(letter)], 30)
    changes = suite.audit(f"quarantine#{rule.document['id']}")
    assert [event["request_id"] for event in changes] == [rule.request_id, removed.request_id]
    assert {event["event_type"] for event in changes} == {AuditType.QUARANTINE_CHANGED}


# -------------------------------------------------------------------------------------------------------- what happened


def test_what_happened_is_told_by_event_ticket_request_and_recipient(suite: Suite) -> None:
    first = suite.failing.of["dying"][0]
    by_event = suite.desk.get(f"/platform/events/{quote(first.event_id, safe='')}")["event"]
    assert by_event["event_id"] == first.event_id
    ticket = conversation_of(first.delivery)
    found = suite.desk.get("/platform/trace", ticket=ticket)
    assert [one["event_id"] for one in found["events"]] == [first.event_id]
    assert found["events"][0]["received"]["request_id"] == first.request_id
    (by_request,) = suite.desk.get("/platform/trace", request_id=first.request_id)["events"]
    assert by_request["event_id"] == first.event_id
    recipient = next(action["recipient"] for action in by_event["actions"] if action["recipient"])
    pages = suite.desk.pages("/platform/trace", recipient=recipient, limit="1")
    seen = [one["event_id"] for page in pages for one in page["events"]]
    assert first.event_id in seen
    assert len(seen) == len(set(seen))


def test_what_the_door_refused_is_told_with_its_reason(suite: Suite) -> None:
    letter = suite.letter("github", "forged", WHERE)
    (refused,) = suite.world.post([suite.world.sender.forged(letter, suite.world.chance)])
    assert refused.status == 401
    found: list[Document] = []

    def missing() -> str:
        found[:] = suite.desk.get("/platform/rejections", request_id=refused.request_id, since="5m")["rejections"]
        return "" if found else "the log of the door does not have it yet"

    suite.world.eventually(missing, 30)
    assert (found[0]["status"], found[0]["request_id"]) == (401, refused.request_id)


# -------------------------------------------------------------------------------------------------------- what has died


@pytest.fixture(scope="module")
def dead(suite: Suite) -> list[Document]:
    """All that was to die has died."""
    return suite.await_rows("dying", 2 * DYING, "dlq", seconds=120)


def test_004_9_on_exhaustion_an_item_is_dlq_and_every_step_is_audited(suite: Suite, dead: Sequence[Document]) -> None:
    """`…failure.detected`, `.contained`, `…recovery.retry_scheduled` and `.retry_exhausted`, found by request id."""
    one = suite.item(dead[0])
    assert (one["status"], one["attempt_count"], one["failure_code"]) == ("dlq", 5, "HTTP_503")
    assert (one["replay_refused"], one["root_cause"]) == ("", "transient_infra")
    events = suite.audit_of(one)
    types = [event["event_type"] for event in events]
    assert set(types[:3]) == AT_FIRST
    assert types.count(AuditType.RETRY_SCHEDULED) == 4
    assert types[-1] == AuditType.RETRY_EXHAUSTED
    assert ("retrying" in events[-1]["before_state"], "dlq" in events[-1]["after_state"]) == (True, True)
    by_request = suite.desk.get("/platform/audit", request_id=one["origin_request_id"], limit="200")["events"]
    assert {event["id"] for event in events} <= {event["id"] for event in by_request}
    pages = suite.desk.pages("/platform/audit", entity=f"recovery_item#{one['recovery_id']}", limit="2")
    paged = [event["id"] for page in pages for event in page["events"]]
    assert paged == [event["id"] for event in events]


def test_004_14_a_click_is_carried_out_once_and_another_one_works_when_the_first_has_failed_again(
    suite: Suite, dead: Sequence[Document]
) -> None:
    """`dlq → replayed → dlq → replayed`; 004.16: `…recovery.replayed`, `.reprocess_failed`, `.reprocess_succeeded`"""
    one, other = next(one for one in dead if one["kind"] == "helpdesk.add_tags"), dead[-1]
    first = suite.replay(one, "click-004-first")
    assert first.status == 202
    assert {name: first.document[name] for name in ("recovery_id", "status", "request_id")} == {
        "recovery_id": one["recovery_id"],
        "status": "replayed",
        "request_id": first.request_id,
    }
    assert suite.replay(one, "click-004-first").document == first.document
    for told in (suite.replay(one, "click-004-first", reason="another"), suite.replay(other, "click-004-first")):
        assert (told.status, told.code) == (422, "INT-422-IDEMPOTENCY-KEY-REUSED")
    again = suite.await_item(one, lambda now: bool(now["status"] == "dlq"))
    assert (again["replay_no"], again["result"], again["attempt_count"]) == (1, "failed", 6)
    assert suite.replay(one, "click-004-first").document == first.document, "the first answer, although it is dlq again"
    assert suite.item(one)["replay_no"] == 1

    conversation = next(
        conversation_of(answer.delivery) for answer in suite.failing.of["dying"] if answer.event_id == one["event_id"]
    )
    suite.is_back("dying")
    second = suite.replay(one, "click-004-second")
    assert (second.status, second.request_id == first.request_id) == (202, False)
    done = suite.await_item(one, lambda now: bool(now["result"] == "succeeded"))
    assert (done["status"], done["replay_no"], done["effect"]) == ("replayed", 2, "done")
    third = suite.replay(one, "click-004-third")
    assert (third.status, third.code) == (409, "INT-409-RECOVERY-REPLAY-CONFLICT")
    assert third.document["current_status"] == "replayed"
    effects = [effect for effect in suite.world.simulator.effects("helpdesk") if effect.target == conversation]
    tags = [effect.detail["tag"] for effect in effects if effect.kind == "add_tag"]
    assert sorted(tags) == sorted({PROCESSED, WHERE.label}), "each once"

    events = suite.audit_of(one)
    clicks = (first.request_id, second.request_id)
    types = [event["event_type"] for event in events if event["request_id"] in clicks]
    assert types == [
        AuditType.REPLAYED,
        AuditType.REPROCESS_FAILED,
        AuditType.REPLAYED,
        AuditType.REPROCESS_SUCCEEDED,
    ]
    by_request = suite.desk.get("/platform/audit", request_id=second.request_id)["events"]
    assert [event["event_type"] for event in by_request] == types[2:]
    assert ("dlq" in by_request[0]["before_state"], "replayed" in by_request[0]["after_state"]) == (True, True)
    (outcome,) = [
        action
        for action in suite.desk.get("/platform/trace", request_id=second.request_id)["events"][0]["actions"]
        if action["recovery_id"] == one["recovery_id"]
    ]
    assert outcome["state"] == "done"


def test_004_15_what_may_have_happened_is_replayed_only_with_what_was_checked(
    suite: Suite, dead: Sequence[Document]
) -> None:
    """No provider of the local stack leaves an unknown outcome that cannot be looked up, so a real dead item is written
    beside itself as one of such a kind.
    """
    stack = suite.desk.stack
    known = records.row_as_decided_on(stack, dead[-1]["recovery_id"])
    assert known is not None
    assert known.action is not None
    blind = replace(
        known,
        recovery_id=f"{time.time_ns():024d}",
        integration_id="email",
        status=Status.FAILED,
        effect=Effect.UNKNOWN,
        failure_code="OUTCOME_UNKNOWN",
        action=replace(known.action, kind="email.send", integration="email", repeat=Repeat.BLIND),
    )
    recovery = DynamoRecovery(
        stack.client("dynamodb"),
        SystemIds(),
        recovery_table=stack.output("RecoveryTable"),
        audit_table=stack.output("AuditTable"),
    )
    assert recovery.put_if_absent(Change(blind, None))
    one = {"integration_id": "email", "recovery_id": blind.recovery_id}
    told = suite.replay(one, "click-unknown")
    assert is_problem(told, "INT-409-RECOVERY-REPLAY-CONFLICT")
    assert (told.document["reason"], told.document["current_status"]) == ("effect_unknown", "failed")
    word = {"checked": "nothing in the outbox", "effect": "none"}
    assert suite.replay(one, "click-unknown-2", confirmation={**word, "effect": "done"}).status == 400
    assert suite.replay(one, "click-unknown-3", confirmation=word).status == 202
    replayed = next(event for event in suite.audit_of(one) if event["event_type"] == AuditType.REPLAYED)
    assert "nothing in the outbox" in replayed["reason"]


def test_004_19_without_the_audit_the_answer_is_503_and_nothing_has_happened(
    suite: Suite, dead: Sequence[Document]
) -> None:
    """Fail closed, in earnest: the function may write into no table for a while."""
    one = suite.item(dead[-1])
    forced = {"state": "degraded", "for": "1m", "reason": "is not so"}
    wanted = {"filter": {"recovery_id": [one["recovery_id"]]}, "reason": "is not planned"}
    with without(suite.world, "OperatorApiFunction", "dynamodb:PutItem"):
        for told in (
            suite.desk.ask("POST", path_of(one, "/note"), {"note": "is not written"}),
            suite.desk.ask("POST", path_of(one, "/dismiss"), {"reason": "is not done"}),
            suite.replay(one, "click-fail-closed"),
            suite.desk.ask("PUT", f"{SWITCHES}/limits/sms", {"value": "0.5", "reason": "is not set"}),
            suite.desk.ask("POST", QUARANTINE, {"source": "nobody", "for": "1m", "reason": "is not made"}),
            suite.desk.ask("PUT", "/platform/integrations/ocr/health", forced),
            suite.desk.ask("POST", JOBS, wanted),
        ):
            assert is_problem(told, "INT-503-DEPENDENCY-UNAVAILABLE"), told
    assert suite.item(one) == one
    assert suite.audit_of(one)[-1]["event_type"] == AuditType.RETRY_EXHAUSTED
    said = {switch["name"]: switch["value"] for switch in suite.desk.get(SWITCHES)["switches"]}
    assert said.get("limits/sms", "1") != "0.5"
    assert all(rule["source"] != "nobody" for rule in suite.desk.get(QUARANTINE)["rules"] if "source" in rule)
    assert suite.desk.get("/platform/integrations/ocr")["override"]["state"] == ""
    assert suite.replay(one, "click-fail-closed").status == 202, "the same click, when the audit is there again"
    suite.await_item(one, lambda now: bool(now["result"] == "succeeded"))


# ---------------------------------------------------------------------------------------------------------- bulk replay


def test_a_bulk_replay_is_planned_approved_paused_resumed_cancelled_and_another_brings_the_rest_to_its_end(
    suite: Suite, dead: Sequence[Document]
) -> None:
    """001.34: `platform.replay_job.changed`; INT-409-PLAN-STALE, INT-409-IN-PROGRESS"""
    ids = [one["recovery_id"] for one in suite.rows("dying", "dlq")]
    assert len(ids) >= 12
    wanted = {"filter": {"recovery_id": ids}, "reason": "it is back", "incident_id": "INC-004"}
    asked = suite.desk.ask("POST", JOBS, wanted, key=f"plan-{suite.run}")
    assert asked.status == 202
    replay_id = asked.document["replay_id"]
    assert replay_id.startswith("INC-004-")
    assert suite.desk.ask("POST", JOBS, wanted, key=f"plan-{suite.run}").document["replay_id"] == replay_id
    reused = suite.desk.ask("POST", JOBS, {**wanted, "reason": "another"}, key=f"plan-{suite.run}")
    assert (reused.status, reused.code) == (422, "INT-422-IDEMPOTENCY-KEY-REUSED")
    other = refused(suite)[0]
    its_filter = {"recovery_id": [other["recovery_id"]]}
    rival_id = suite.desk.ask("POST", JOBS, {"filter": its_filter, "reason": "a rival"}).document["replay_id"]
    planned, rival = await_job(suite, replay_id, "planned"), await_job(suite, rival_id, "planned")
    assert planned["plan"]["counts"] == {"would_send": len(ids)}
    assert suite.item(dead[-1])["job_id"] == ""
    pages = suite.desk.pages(f"{JOBS}/{replay_id}", of="page", cursor="next_cursor", items="true", limit="5")
    paged = [item["recovery_id"] for page in pages for item in page["items"]]
    assert sorted(paged) == sorted(ids)

    stale = suite.desk.ask("POST", f"{JOBS}/{replay_id}/approve", {"plan_hash": "0" * 64})
    assert (stale.status, stale.code) == (409, "INT-409-PLAN-STALE")
    slow = suite.world.simulator.add_faults(Fault("helpdesk", FaultMode.LATENCY, seconds=1.5))
    approval = {"plan_hash": planned["plan"]["hash"]}
    approved = suite.desk.ask("POST", f"{JOBS}/{replay_id}/approve", approval)
    assert approved.status == 202
    assert suite.desk.ask("POST", f"{JOBS}/{replay_id}/approve", approval).status == 202, "the second click"
    taken = suite.desk.ask("POST", f"{JOBS}/{rival_id}/approve", {"plan_hash": rival["plan"]["hash"]})
    assert (taken.status, taken.code, taken.document["replay_id"]) == (409, "INT-409-IN-PROGRESS", replay_id)
    listed = suite.desk.get(JOBS, active="true")
    assert replay_id in [one["replay_id"] for one in listed["replays"]]
    assert listed["holders"] == {"helpdesk": replay_id}

    steps = [
        suite.desk.ask("POST", f"{JOBS}/{replay_id}/{what}", {"reason": f"{what} it"})
        for what in ("pause", "resume", "cancel")
    ]
    assert [told.status for told in steps] == [200, 200, 200]
    assert steps[0].document["state"] == "paused"
    assert steps[1].document["state"] in ("approved", "running")
    cancelled = await_job(suite, replay_id, "cancelled")
    for fault in slow:
        suite.world.simulator.clear_faults(fault)
    assert cancelled["stop_reason"] == "cancel it"
    late = suite.desk.ask("POST", f"{JOBS}/{replay_id}/pause", {"reason": "too late"})
    assert is_problem(late, "INT-409-RECOVERY-REPLAY-CONFLICT")
    assert late.document["state"] == "cancelled"
    changes = suite.audit(f"replay_job#{replay_id}")
    assert {event["event_type"] for event in changes} == {AuditType.REPLAY_JOB_CHANGED}
    assert {told.request_id for told in (asked, approved, *steps)} <= {event["request_id"] for event in changes}
    sent = cancelled["progress"]["outcomes"].get("succeeded", 0)
    assert sent <= 5, "it began with five, and was stopped"

    left = [one["recovery_id"] for one in suite.await_rows("dying", len(ids) - sent, "dlq")]
    assert len(left) == len(ids) - sent
    rest = suite.desk.ask("POST", JOBS, {"filter": {"recovery_id": ids}, "reason": "the rest"}).document["replay_id"]
    plan = await_job(suite, rest, "planned")["plan"]
    assert plan["items"] == len(left)
    assert suite.desk.ask("POST", f"{JOBS}/{rest}/approve", {"plan_hash": plan["hash"]}).status == 202
    finished = await_job(suite, rest, "finished")
    assert finished["progress"]["outcomes"] == {"succeeded": len(left)}
    assert finished["approved_by"] == suite.desk.stack.output("OperateClientId")
    assert suite.desk.ask("POST", path_of(other, "/note"), {"note": "look at it"}).status == 200
    stale = suite.desk.ask("POST", f"{JOBS}/{rival_id}/approve", {"plan_hash": rival["plan"]["hash"]})
    assert (stale.status, stale.code) == (409, "INT-409-PLAN-STALE"), "its item has changed meanwhile"
    conversations = [conversation_of(answer.delivery) for answer in suite.failing.of["dying"]]
    suite.world.await_settled(conversations, 60)
    assert suite.world.problems_in(conversations) == []


def await_job(suite: Suite, replay_id: str, state: str) -> Document:
    found: list[Document] = []

    def missing() -> str:
        found[:] = [suite.desk.get(f"{JOBS}/{replay_id}")]
        return "" if found[0]["state"] == state else f"{replay_id} is {found[0]['state']}: {found[0]['stop_reason']}"

    suite.world.eventually(missing, 60)
    return found[0]


# ----------------------------------------------------------------------------------------------------------- incidents


def test_an_incident_goes_by_hand_from_its_opening_to_its_end(suite: Suite) -> None:
    """001.9 to 001.11: each call of an incident's life, and none of them a second time where it has had its effect."""
    wanted = {"title": "users say it is late", "severity": "SEV3", "reason": "two tickets since noon"}
    opened = suite.desk.ask("POST", INCIDENTS, wanted)
    assert (opened.status, opened.document["state"]) == (201, "open")
    here = f"{INCIDENTS}/{opened.document['incident_id']}"

    def said(step: str, body: Document, status: int = 200) -> Document:
        told = suite.desk.ask("POST", f"{here}/{step}", body)
        assert told.status == status, (step, told.document)
        document: Document = told.document
        return document

    assert said("ack", {"note": "looking"})["state"] == "acknowledged"
    assert said("ack", {}, 409)["code"] == "INT-409-INCIDENT-CONFLICT"
    assert said("note", {"note": "a deploy at noon", "impact": "late"})["impact"] == "late"
    assert said("severity", {"severity": "SEV2", "reason": "it is all of them"})["severity"] == "SEV2"
    assert said("message", {"template": "internal_update"})["text"]
    assert said("mitigate", {"mitigation": "rolled back"})["state"] == "mitigated"
    assert "postmortem" in said("resolve", {"resolution": "a bug"}, 409)["detail"]
    draft = said("postmortem", {})
    assert draft["is_draft"]
    assert not said("postmortem", {"text": draft["text"].replace(PLACEHOLDER, "a bug")})["is_draft"]
    assert said("resolve", {"resolution": "a bug, fixed"})["state"] == "resolved"
    assert suite.desk.get(here)["incident"]["state"] == "resolved"
    listed = suite.desk.get(INCIDENTS, state="all")
    assert opened.document["incident_id"] in json.dumps(listed)
    assert suite.desk.ask("POST", "/platform/pages/test", {"reason": "does it reach anybody"}).status == 201


# ------------------------------------------------------------------------------------------------------------ all of it


def test_every_call_there_is_has_been_made_has_succeeded_and_has_been_refused(
    suite: Suite, request: pytest.FixtureRequest
) -> None:
    """A route that no test here touches is refused: whoever adds a call says here what it does on a deployed stage."""
    mine = [item for item in request.session.items if item.path == request.path]
    told = {name for name in vars(request.module) if name.startswith("test_")}
    if {item.name.partition("[")[0] for item in mine} != told:
        pytest.skip("only with all tests of this file")
    for call in ROUTES:
        made = suite.desk.made.get(call, set())
        assert {401, 403} <= made, f"{call} was never refused"
        assert any(200 <= status < 300 for status in made), f"no test has seen {call} succeed: {sorted(made)}"
