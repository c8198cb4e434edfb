"""The provider simulator keeps its own promises: it is a double, and a double that drifts proves nothing."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ops.simulator import (
    Fault,
    FaultMode,
    RunningSimulator,
    SimulatorControl,
    SimulatorOverflow,
    SimulatorRefused,
    serve,
)
from ops.simulator import record as record_module

ROOT = Path(__file__).resolve().parents[2]
HELPDESK_KEY = {"x-richpanel-key": "key-1"}
LLM_KEY = {"authorization": "Bearer key-1"}


@pytest.fixture(scope="module")
def shared() -> Iterator[RunningSimulator]:
    with serve() as simulator:
        yield simulator


@pytest.fixture
def simulator(shared: RunningSimulator) -> RunningSimulator:
    shared.control.reset()
    return shared


class Answer:
    """Status, headers and body of one answer."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.headers = {name.lower(): value for name, value in response.getheaders()}
        self.body = response.read()

    def json(self) -> Any:
        return json.loads(self.body)


def connect(simulator: RunningSimulator, timeout: float = 30) -> http.client.HTTPConnection:
    host, _, port = simulator.base_url.removeprefix("http://").partition(":")
    return http.client.HTTPConnection(host, int(port), timeout=timeout)


def call(
    simulator: RunningSimulator,
    method: str,
    path: str,
    body: Any = None,
    headers: dict[str, str] | None = None,
    timeout: float = 30,
) -> Answer:
    with contextlib.closing(connect(simulator, timeout)) as connection:
        payload = body if isinstance(body, bytes) or body is None else json.dumps(body)
        connection.request(method, path, payload, headers or {})
        return Answer(connection.getresponse())


def tag(simulator: RunningSimulator, ticket: str = "t1", name: str = "vip", timeout: float = 30) -> Answer:
    path = f"/richpanel/v1/tickets/{ticket}/add-tags"
    return call(simulator, "PUT", path, {"tags": [name]}, HELPDESK_KEY, timeout)


def update(simulator: RunningSimulator, change: dict[str, Any], ticket: str = "t1") -> Answer:
    return call(simulator, "PUT", f"/richpanel/v1/tickets/{ticket}", {"ticket": change}, HELPDESK_KEY)


def classify(simulator: RunningSimulator, text: str, **extra: Any) -> Answer:
    schema = {
        "type": "object",
        "properties": {
            "label": {"type": "string", "enum": ["billing", "shipping", "other"]},
            "confidence": {"type": "number"},
            "reason_codes": {"type": "array", "items": {"type": "string"}},
        },
        "required": ["label", "confidence", "reason_codes"],
        "additionalProperties": False,
    }
    body = {
        "model": "small-1",
        "messages": [{"role": "system", "content": "Sort the ticket."}, {"role": "user", "content": text}],
        "response_format": {"type": "json_schema", "json_schema": {"name": "ticket", "strict": True, "schema": schema}},
        **extra,
    }
    return call(simulator, "POST", "/v1/chat/completions", body, LLM_KEY)


def test_a_ticket_comes_into_being_when_it_is_first_touched_and_keeps_what_was_done_to_it(
    simulator: RunningSimulator,
) -> None:
    assert update(simulator, {"team_id": "team-billing"}).status == 200
    assert tag(simulator).status == 200
    assert update(simulator, {"status": "CLOSED"}).status == 200
    ticket = call(simulator, "GET", "/richpanel/v1/tickets/t1", headers=HELPDESK_KEY).json()["ticket"]
    assert (ticket["team_id"], ticket["assigned_by"], ticket["tags"], ticket["status"]) == (
        "team-billing",
        "api",
        ["vip"],
        "CLOSED",
    )
    assert ticket["assigned_at"].endswith("Z")


def test_adding_a_tag_twice_leaves_one_tag_and_the_record_says_that_nothing_changed(
    simulator: RunningSimulator,
) -> None:
    tag(simulator)
    tag(simulator)
    assert simulator.control.ticket("t1")["tags"] == ["vip"]
    assert [(effect.kind, effect.changed) for effect in simulator.control.effects()] == [
        ("add_tag", True),
        ("add_tag", False),
    ]


def test_a_reply_sent_twice_is_there_twice_and_its_marker_is_on_record(simulator: RunningSimulator) -> None:
    comment = {"body": "We are on it.\n\n[hf:0123456789abcdef]", "sender_type": "operator"}
    update(simulator, {"comment": comment})
    update(simulator, {"comment": comment})
    assert len(simulator.control.ticket("t1")["comments"]) == 2
    effects = simulator.control.effects("helpdesk")
    assert [(effect.kind, effect.key) for effect in effects] == [("reply", "[hf:0123456789abcdef]")] * 2
    assert effects[0].params_sha256 == effects[1].params_sha256


def test_a_marker_in_the_comments_metadata_is_found_too(simulator: RunningSimulator) -> None:
    update(simulator, {"comment": {"body": "Hello", "metadata": {"holdfast": "[hf:aaaaaaaaaaaaaaaa]"}}})
    assert simulator.control.effects()[0].key == "[hf:aaaaaaaaaaaaaaaa]"
    assert simulator.control.ticket("t1")["comments"][0]["metadata"] == {"holdfast": "[hf:aaaaaaaaaaaaaaaa]"}


def test_a_persons_change_shows_who_made_it_and_is_no_effect_of_ours(simulator: RunningSimulator) -> None:
    simulator.control.person_changes("t1", {"team_id": "team-vip", "by": "ana", "at": "2030-01-01T00:00:00.000Z"})
    ticket = call(simulator, "GET", "/richpanel/v1/tickets/t1", headers=HELPDESK_KEY).json()["ticket"]
    assert (ticket["team_id"], ticket["assigned_by"], ticket["assigned_at"]) == (
        "team-vip",
        "ana",
        "2030-01-01T00:00:00.000Z",
    )
    assert simulator.control.effects() == []


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/richpanel/v1/tickets/missing-1", None, 404),
        ("GET", "/richpanel/v1/nothing", None, 404),
        ("DELETE", "/richpanel/v1/tickets/t1", None, 405),
        ("PUT", "/richpanel/v1/tickets/t1", {"team_id": "x"}, 400),
        ("PUT", "/richpanel/v1/tickets/t1", b"{", 400),
        ("PUT", "/richpanel/v1/tickets/t1", {"ticket": {"status": "gone"}}, 422),
        ("PUT", "/richpanel/v1/tickets/t1", {"ticket": {"comment": {"body": " "}}}, 422),
        ("PUT", "/richpanel/v1/tickets/t1/add-tags", {"tags": []}, 422),
        ("GET", "/elsewhere", None, 404),
    ],
)
def test_a_request_that_makes_no_sense_is_refused_and_has_no_effect(
    simulator: RunningSimulator, method: str, path: str, body: Any, status: int
) -> None:
    answer = call(simulator, method, path, body, HELPDESK_KEY)
    assert answer.status == status
    assert "message" in answer.json()["error"]
    assert simulator.control.effects() == []


def test_a_key_that_is_not_accepted_is_refused_until_it_is(simulator: RunningSimulator) -> None:
    simulator.control.accept_keys(helpdesk=["key-2"], llm=["key-2"])
    assert tag(simulator).status == 401
    assert classify(simulator, "invoice").status == 401
    simulator.control.accept_keys(helpdesk=["key-1"], llm=None)
    assert tag(simulator).status == 200
    assert classify(simulator, "invoice").status == 200
    assert call(simulator, "GET", "/richpanel/v1/tickets/t1").status == 401


@pytest.mark.parametrize(
    ("text", "label", "confidence"),
    [
        ("My invoice is wrong", "billing", 0.82),
        ("I was charged twice, see the invoice and the payment", "billing", 0.96),
        ("Where is my parcel? I have no tracking", "shipping", 0.9),
        ("Good morning", "other", 0.35),
        ("I am unsure about my invoice", "billing", 0.4),
    ],
)
def test_the_llm_gives_the_same_text_the_same_label_in_the_schema_that_was_asked_for(
    simulator: RunningSimulator, text: str, label: str, confidence: float
) -> None:
    first, second = classify(simulator, text).json(), classify(simulator, text).json()
    content = json.loads(first["choices"][0]["message"]["content"])
    assert (content["label"], content["confidence"]) == (label, confidence)
    assert content["reason_codes"]
    assert first["choices"] == second["choices"]
    assert first["choices"][0]["finish_reason"] == "stop"
    assert first["usage"]["total_tokens"] == first["usage"]["prompt_tokens"] + first["usage"]["completion_tokens"]


def test_the_llm_cuts_its_answer_at_max_tokens_and_says_so(simulator: RunningSimulator) -> None:
    choice = classify(simulator, "My invoice is wrong", max_tokens=5).json()["choices"][0]
    assert choice["finish_reason"] == "length"
    with pytest.raises(ValueError, match=r"Unterminated|Expecting"):
        json.loads(choice["message"]["content"])


def test_the_llm_follows_hints_in_the_system_message(simulator: RunningSimulator) -> None:
    hints = {"role": "system", "content": "Labels:\n- shipping: the giraffe, a zebra\n- billing: the lion"}
    messages = [hints, {"role": "user", "content": "A zebra and the giraffe"}]
    content = json.loads(classify(simulator, "", messages=messages).json()["choices"][0]["message"]["content"])
    assert content["label"] == "shipping"


def test_the_llm_refuses_a_schema_without_labels(simulator: RunningSimulator) -> None:
    response_format = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}}
    answer = classify(simulator, "invoice", response_format=response_format)
    assert (answer.status, answer.json()["error"]["type"]) == (400, "invalid_request_error")


def create(simulator: RunningSimulator, key: str | None, body: Any = None, kind: str = "keyed") -> Answer:
    headers = {"Idempotency-Key": key} if key else {}
    return call(simulator, "POST", f"/{kind}/payments", body or {"amount": 1}, headers)


def test_the_same_key_gives_the_stored_answer_and_one_effect(simulator: RunningSimulator) -> None:
    first, second = create(simulator, "k1"), create(simulator, "k1")
    assert (first.status, second.status, first.body) == (201, 201, second.body)
    assert second.headers["idempotent-replayed"] == "true"
    assert [(effect.key, effect.target) for effect in simulator.control.effects("keyed")] == [("k1", "payments")]
    assert len(call(simulator, "GET", "/keyed/payments?key=k1").json()["data"]) == 1


def test_a_key_is_required_and_may_not_carry_another_body(simulator: RunningSimulator) -> None:
    create(simulator, "k1")
    assert create(simulator, "k1", {"amount": 2}).status == 422
    assert create(simulator, None).status == 400
    assert len(simulator.control.effects()) == 1


def test_a_key_that_was_pruned_has_its_effect_again(simulator: RunningSimulator) -> None:
    create(simulator, "k1")
    assert simulator.control.prune_keys() == 1
    create(simulator, "k1")
    assert len(simulator.control.effects()) == 2


def test_a_key_in_use_answers_409_until_the_first_call_ends(simulator: RunningSimulator) -> None:
    # Long enough for a second call to be made meanwhile on a machine that is busy with something else.
    simulator.control.add_faults(Fault("keyed", FaultMode.LATENCY, seconds=3.0, times=1))
    answers: list[int] = []
    first = threading.Thread(target=lambda: answers.append(create(simulator, "k1").status))
    first.start()
    while not simulator.control.faults()[0]["fired"]:
        time.sleep(0.02)
    assert create(simulator, "k1").status == 409
    first.join()
    assert answers == [201]
    assert create(simulator, "k1").status == 201
    assert len(simulator.control.effects()) == 1


def test_a_stored_error_is_given_again_for_its_key_and_has_no_effect(simulator: RunningSimulator) -> None:
    simulator.control.add_faults(Fault("keyed", FaultMode.STORE_STATUS, status=500, times=1))
    assert [create(simulator, "k1").status, create(simulator, "k1").status] == [500, 500]
    assert create(simulator, "k2").status == 201
    assert [effect.key for effect in simulator.control.effects()] == ["k2"]


def test_a_keyed_call_that_failed_without_effect_leaves_its_key_free(simulator: RunningSimulator) -> None:
    simulator.control.add_faults(Fault("keyed", FaultMode.STATUS, status=503, times=1))
    assert [create(simulator, "k1").status, create(simulator, "k1").status] == [503, 201]


def test_the_blind_endpoint_makes_one_more_each_time(simulator: RunningSimulator) -> None:
    create(simulator, "k1", kind="blind")
    create(simulator, "k1", kind="blind")
    assert len(simulator.control.effects("blind")) == 2


def test_a_status_fault_carries_its_headers_word_for_word_and_stops_after_its_times(
    simulator: RunningSimulator,
) -> None:
    fault = Fault(
        "helpdesk",
        FaultMode.STATUS,
        operation="add_*",
        status=429,
        retry_after="Wed, 21 Oct 2026 07:28:00 GMT",
        headers={"x-ratelimit-reset": "12"},
        times=1,
        body_code="RATE_LIMIT_EXCEEDED",
    )
    simulator.control.add_faults(fault)
    assert update(simulator, {"status": "OPEN"}).status == 200
    answer = tag(simulator)
    assert (answer.status, answer.headers["retry-after"]) == (429, "Wed, 21 Oct 2026 07:28:00 GMT")
    assert answer.headers["x-ratelimit-reset"] == "12"
    assert answer.json()["error"]["code"] == "RATE_LIMIT_EXCEEDED"
    assert simulator.control.ticket("t1")["tags"] == []
    assert tag(simulator).status == 200
    assert simulator.control.faults()[0]["fired"] == 1


@pytest.mark.parametrize(
    ("mode", "error", "has_effect"),
    [
        (FaultMode.RESET, ConnectionError, False),
        (FaultMode.HANG, TimeoutError, False),
        (FaultMode.DROP_RESPONSE, ConnectionError, True),
        (FaultMode.TWICE, ConnectionError, True),
        (FaultMode.TRUNCATE, http.client.IncompleteRead, True),
    ],
)
def test_a_fault_on_the_wire_breaks_the_answer_and_its_effect_is_as_promised(
    simulator: RunningSimulator, mode: FaultMode, error: type[Exception], has_effect: bool
) -> None:
    simulator.control.add_faults(Fault("helpdesk", mode, times=1))
    with pytest.raises(error):
        tag(simulator, timeout=1.0 if mode is FaultMode.HANG else 30)
    assert (simulator.control.ticket("t1")["tags"] == ["vip"]) is has_effect
    assert tag(simulator).status == 200


def test_an_answer_after_the_effect_may_still_be_an_error(simulator: RunningSimulator) -> None:
    simulator.control.add_faults(Fault("helpdesk", FaultMode.STATUS_AFTER_EFFECT, status=502, times=1))
    assert tag(simulator).status == 502
    assert simulator.control.ticket("t1")["tags"] == ["vip"]


@pytest.mark.parametrize(
    ("mode", "content_type"),
    [(FaultMode.MALFORMED, "application/json"), (FaultMode.WRONG_CONTENT_TYPE, "text/html; charset=utf-8")],
)
def test_a_garbled_answer_is_not_json_though_the_effect_took_place(
    simulator: RunningSimulator, mode: FaultMode, content_type: str
) -> None:
    simulator.control.add_faults(Fault("helpdesk", mode, times=1))
    answer = tag(simulator)
    assert (answer.status, answer.headers["content-type"]) == (200, content_type)
    with pytest.raises(ValueError, match="Expecting"):
        answer.json()
    assert len(simulator.control.effects()) == 1


def test_a_slow_body_arrives_whole_and_latency_only_delays(simulator: RunningSimulator) -> None:
    simulator.control.add_faults(
        Fault("helpdesk", FaultMode.SLOW_BODY, seconds=0.2, times=1),
        Fault("helpdesk", FaultMode.LATENCY, seconds=0.1, times=1),
    )
    assert tag(simulator).json()["ticket"]["tags"] == ["vip"]
    assert tag(simulator).status == 200
    assert [fault["fired"] for fault in simulator.control.faults()] == [1, 1]


def test_a_fault_can_be_aimed_at_one_ticket_and_taken_out_of_force(simulator: RunningSimulator) -> None:
    [fault_id] = simulator.control.add_faults(Fault("helpdesk", FaultMode.STATUS, target="t2"))
    assert [tag(simulator, "t1").status, tag(simulator, "t2").status] == [200, 503]
    assert simulator.control.clear_faults(fault_id) == 1
    assert tag(simulator, "t2").status == 200
    assert simulator.control.clear_faults() == 0


def test_a_probability_with_the_same_seed_fires_on_the_same_calls(simulator: RunningSimulator) -> None:
    runs = []
    for _ in range(2):
        simulator.control.reset()
        simulator.control.add_faults(Fault("helpdesk", FaultMode.STATUS, probability=0.5, seed=7))
        runs.append([tag(simulator).status for _ in range(30)])
    assert runs[0] == runs[1]
    assert set(runs[0]) == {200, 503}


def test_faults_never_touch_the_control_plane(simulator: RunningSimulator) -> None:
    simulator.control.add_faults(Fault("*", FaultMode.RESET))
    assert simulator.control.health()["status"] == "ok"
    assert simulator.control.effects() == []


@pytest.mark.parametrize(
    "fault",
    [
        [],
        {"provider": "helpdesk"},
        {"provider": "helpdesk", "mode": "explode"},
        {"provider": "helpdesk", "mode": "status", "colour": "red"},
        {"provider": "helpdesk", "mode": "status", "status": 99},
        {"provider": "helpdesk", "mode": "latency", "seconds": "soon"},
        {"provider": "helpdesk", "mode": "status", "retry_after": 3},
    ],
)
def test_a_fault_that_makes_no_sense_is_refused_and_none_comes_into_force(
    simulator: RunningSimulator, fault: Any
) -> None:
    good = {"provider": "helpdesk", "mode": "status"}
    assert call(simulator, "POST", "/_sim/faults", [good, fault]).status == 400
    assert simulator.control.faults() == []


def test_every_request_is_counted_with_its_status_and_its_ids(simulator: RunningSimulator) -> None:
    simulator.control.add_faults(Fault("helpdesk", FaultMode.RESET, times=1))
    with pytest.raises(ConnectionError):
        tag(simulator)
    call(simulator, "GET", "/richpanel/v1/tickets/t1", headers={**HELPDESK_KEY, "X-Request-Id": "r-1"})
    assert simulator.control.request_counts() == {
        ("helpdesk", "add_tags", 0): 1,
        ("helpdesk", "get_ticket", 200): 1,
    }
    [reading] = simulator.control.requests("helpdesk", "get_ticket")
    assert reading.headers == {"x-request-id": "r-1"}


def test_a_record_that_lost_entries_refuses_to_prove_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record_module, "MAX_EFFECTS", 2)
    with serve() as simulator:
        for number in range(3):
            tag(simulator, name=f"tag-{number}")
        with pytest.raises(SimulatorOverflow, match="1 of 3"):
            simulator.control.effects()


def test_a_connection_is_kept_alive_and_hostile_framing_is_refused(simulator: RunningSimulator) -> None:
    with contextlib.closing(connect(simulator)) as connection:
        for _ in range(3):
            connection.request("GET", "/richpanel/v1/tickets/t1", headers=HELPDESK_KEY)
            assert Answer(connection.getresponse()).status == 200
            kept = connection.sock
            assert kept is not None
        connection.putrequest("POST", "/blind/x")
        connection.putheader("Transfer-Encoding", "chunked")
        connection.endheaders()
        assert Answer(connection.getresponse()).status == 411
    with contextlib.closing(connect(simulator)) as connection:
        connection.putrequest("POST", "/blind/x")
        connection.putheader("Content-Length", str(64 * 1024 * 1024))
        connection.endheaders()
        assert Answer(connection.getresponse()).status == 413
    assert simulator.control.effects() == []


def test_callers_at_the_same_time_lose_nothing(simulator: RunningSimulator) -> None:
    def work(number: int) -> None:
        with contextlib.closing(connect(simulator)) as connection:
            for index in range(50):
                body = json.dumps({"tags": [f"{number}-{index}"]})
                connection.request("PUT", "/richpanel/v1/tickets/busy/add-tags", body, HELPDESK_KEY)
                assert Answer(connection.getresponse()).status == 200

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(simulator.control.ticket("busy")["tags"]) == 400
    assert [effect.seq for effect in simulator.control.effects()] == list(range(1, 401))


def test_stopping_ends_calls_that_hang(shared: RunningSimulator) -> None:
    failures: list[Exception] = []

    def hang(simulator: RunningSimulator) -> None:
        try:
            tag(simulator, timeout=30)
        except (OSError, http.client.HTTPException) as exc:
            failures.append(exc)

    with serve() as simulator:
        simulator.control.add_faults(Fault("helpdesk", FaultMode.HANG))
        caller = threading.Thread(target=hang, args=(simulator,))
        caller.start()
        while not simulator.control.faults()[0]["fired"]:
            pass
    caller.join(timeout=10)
    assert not caller.is_alive()
    assert len(failures) == 1
    assert shared.control.health()["status"] == "ok"


def test_the_process_says_its_port_and_ends_cleanly_when_told_to() -> None:
    command = [sys.executable, "-m", "ops.simulator", "--port", "0"]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ)
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stderr is not None
            line = json.loads(process.stdout.readline())
            control = SimulatorControl(line["base_url"])
            assert control.health()["status"] == "ok"
            with pytest.raises(SimulatorRefused, match="404"):
                control._call("GET", "/_sim/nothing")
            taken = subprocess.run([*command[:-1], str(line["port"])], cwd=ROOT, capture_output=True, check=False)
            assert taken.returncode == 1
        finally:
            process.send_signal(signal.SIGTERM)
            code = process.wait(timeout=10)
        assert (code, process.stderr.read()) == (0, "")
