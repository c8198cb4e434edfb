"""The simulated payments and OCR keep what their providers document: doubles that drift prove nothing."""

from __future__ import annotations

import base64
import threading
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

import pytest

from ops.simulator import Fault, FaultMode, RunningSimulator, serve
from tests.contract.test_simulator import Answer, call

BEARER = {"authorization": "Bearer key-1", "stripe-version": "2026-09-30.endive"}
REFUND = {"payment_intent": "pi_1", "amount": "100", "metadata[a]": "b"}


@pytest.fixture(scope="module")
def shared() -> Iterator[RunningSimulator]:
    with serve() as simulator:
        yield simulator


@pytest.fixture
def simulator(shared: RunningSimulator) -> RunningSimulator:
    shared.control.reset()
    return shared


def post(
    simulator: RunningSimulator, path: str, form: dict[str, str], key: str = "", headers: dict[str, str] = BEARER
) -> Answer:
    sent = {**headers, "content-type": "application/x-www-form-urlencoded"} | ({"idempotency-key": key} if key else {})
    return call(simulator, "POST", f"/stripe/v1/{path}", urlencode(form).encode(), sent)


def get(simulator: RunningSimulator, path: str) -> Answer:
    return call(simulator, "GET", f"/stripe/v1/{path}", headers=BEARER)


def test_the_first_answer_is_given_again_for_its_key_and_nothing_is_done_again(simulator: RunningSimulator) -> None:
    first, second = post(simulator, "refunds", REFUND, "k1"), post(simulator, "refunds", REFUND, "k1")
    assert (first.status, second.status, first.body) == (200, 200, second.body)
    assert "idempotent-replayed" not in first.headers
    assert second.headers["idempotent-replayed"] == "true"
    assert second.headers["request-id"] == first.headers["request-id"]
    assert [(effect.kind, effect.key) for effect in simulator.control.effects()] == [("refund", "k1")]


def test_without_a_key_or_under_another_one_it_is_done_again(simulator: RunningSimulator) -> None:
    for key in ("", "", "k1", "k2"):
        assert post(simulator, "refunds", REFUND, key).status == 200
    assert len(simulator.control.effects()) == 4


def test_a_key_is_refused_with_other_parameters_or_for_another_resource(simulator: RunningSimulator) -> None:
    post(simulator, "refunds", REFUND, "k1")
    for answer in (
        post(simulator, "refunds", {**REFUND, "amount": "200"}, "k1"),
        post(simulator, "subscriptions/sub_1", {"cancel_at_period_end": "true"}, "k1"),
    ):
        assert (answer.status, answer.json()["error"]["type"]) == (400, "idempotency_error")
    assert post(simulator, "refunds", REFUND, "k1").status == 200  # the refusals left the stored answer alone
    assert len(simulator.control.effects()) == 1


def test_a_failure_of_the_endpoint_is_stored_and_one_of_validation_is_not(simulator: RunningSimulator) -> None:
    too_much = {**REFUND, "amount": "20000"}
    first, second = post(simulator, "refunds", too_much, "k1"), post(simulator, "refunds", too_much, "k1")
    assert (first.status, first.json()["error"]["code"]) == (400, "charge_already_refunded")
    assert second.headers["idempotent-replayed"] == "true"
    invalid = post(simulator, "refunds", {**REFUND, "colour": "red"}, "k2")
    assert (invalid.status, invalid.json()["error"]["param"]) == (400, "colour")
    assert post(simulator, "refunds", REFUND, "k2").status == 200


def test_a_stored_5xx_stays_until_its_key_is_pruned(simulator: RunningSimulator) -> None:
    simulator.control.add_faults(Fault("payments", FaultMode.STORE_STATUS, status=500, times=1))
    assert [post(simulator, "refunds", REFUND, "k1").status for _ in range(3)] == [500, 500, 500]
    assert simulator.control.effects() == []
    assert simulator.control.prune_keys(older_than_seconds=3600) == 0
    assert simulator.control.prune_keys() == 1
    assert post(simulator, "refunds", REFUND, "k1").status == 200


def test_a_5xx_before_the_endpoint_began_leaves_the_key_free(simulator: RunningSimulator) -> None:
    simulator.control.add_faults(Fault("payments", FaultMode.STATUS, status=503, times=1))
    assert [post(simulator, "refunds", REFUND, "k1").status for _ in range(2)] == [503, 200]


def test_a_call_under_way_is_a_conflict_for_its_key_only(simulator: RunningSimulator) -> None:
    simulator.control.add_faults(Fault("payments", FaultMode.LATENCY, seconds=3.0, times=1))
    answers: list[int] = []
    first = threading.Thread(target=lambda: answers.append(post(simulator, "refunds", REFUND, "k1").status))
    first.start()
    while not simulator.control.faults()[0]["fired"]:
        time.sleep(0.02)
    conflict = post(simulator, "refunds", REFUND, "k1")
    assert (conflict.status, conflict.json()["error"]["code"]) == (409, "idempotency_key_in_use")
    assert post(simulator, "refunds", REFUND, "k2").status == 200
    first.join()
    assert answers == [200]
    assert len(simulator.control.effects()) == 2


def test_a_list_is_newest_first_in_pages_and_by_target(simulator: RunningSimulator) -> None:
    for number in range(5):
        post(simulator, "refunds", {**REFUND, "metadata[n]": str(number)})
    post(simulator, "refunds", {"charge": "ch_1", "amount": "1"})
    page = get(simulator, "refunds?payment_intent=pi_1&limit=2").json()
    assert ([made["metadata"]["n"] for made in page["data"]], page["has_more"]) == (["4", "3"], True)
    rest = get(simulator, f"refunds?payment_intent=pi_1&limit=10&starting_after={page['data'][-1]['id']}").json()
    assert ([made["metadata"]["n"] for made in rest["data"]], rest["has_more"]) == (["2", "1", "0"], False)
    assert len(get(simulator, "refunds?charge=ch_1").json()["data"]) == 1
    assert len(get(simulator, "refunds").json()["data"]) == 6
    assert get(simulator, "refunds?limit=101").status == 400
    assert get(simulator, "refunds?starting_after=re_none").status == 404


def test_a_session_is_listed_with_its_customer(simulator: RunningSimulator) -> None:
    form = {
        "mode": "payment",
        "customer": "cus_1",
        "line_items[0][price]": "price_1",
        "line_items[0][quantity]": "1",
        "success_url": "https://app.example",
    }
    made = post(simulator, "checkout/sessions", form, "k1").json()
    assert made["url"].endswith(made["id"])
    [listed] = get(simulator, "checkout/sessions?customer=cus_1").json()["data"]
    assert listed["id"] == made["id"]
    assert post(simulator, "checkout/sessions", {**form, "customer": "cus_missing"}).status == 404
    assert post(simulator, "checkout/sessions", {**form, "success_url": ""}).status == 400


def test_an_update_changes_what_it_names_and_its_marker_in_one(simulator: RunningSimulator) -> None:
    change = {"items[0][id]": "si_1", "items[0][price]": "price_2", "metadata[x]": "1"}
    shown = post(simulator, "subscriptions/sub_1", change).json()
    assert (shown["items"]["data"][0]["price"]["id"], shown["metadata"]) == ("price_2", {"x": "1"})
    assert post(simulator, "subscriptions/sub_1", {"cancel_at_period_end": "true"}).json()["metadata"] == {"x": "1"}
    assert get(simulator, "subscriptions/sub_1").json()["cancel_at_period_end"] is True
    assert post(simulator, "subscriptions/sub_1", {**change, "items[0][id]": "si_2"}).status == 400
    assert post(simulator, "subscriptions/sub_missing", change).status == 404
    simulator.control.person_subscribes("sub_1", {"status": "canceled"})
    assert simulator.control.subscription("sub_1")["status"] == "canceled"
    assert post(simulator, "subscriptions/sub_1", change).status == 400
    assert [effect.changed for effect in simulator.control.effects()] == [True, True]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/stripe/v1/charges", 404),
        ("GET", "/stripe/v1/subscriptions", 404),
        ("DELETE", "/stripe/v1/subscriptions/sub_1", 405),
        ("GET", "/stripe/v1/subscriptions/sub_missing", 404),
        ("POST", "/stripe/v1/refunds", 400),
    ],
)
def test_a_request_that_makes_no_sense_is_refused(
    simulator: RunningSimulator, method: str, path: str, status: int
) -> None:
    answer = call(simulator, method, path, headers=BEARER)
    assert (answer.status, answer.json()["error"]["type"]) == (status, "invalid_request_error")
    assert simulator.control.effects() == []


@pytest.mark.parametrize(
    "headers", [{}, {"authorization": "Bearer key-2", "stripe-version": "x"}, {**BEARER, "stripe-version": ""}]
)
def test_a_caller_without_key_or_version_is_refused_and_takes_no_idempotency_key(
    simulator: RunningSimulator, headers: dict[str, str]
) -> None:
    simulator.control.accept_keys(payments=["key-1"])
    assert post(simulator, "refunds", REFUND, "k1", headers).status in (400, 401)
    assert post(simulator, "refunds", REFUND, "k1").status == 200


def scan(simulator: RunningSimulator, **changes: Any) -> Answer:
    body = {"model_id": "m", "file_base64": base64.b64encode(b"%PDF").decode(), "alias": "cv#1", **changes}
    path = "/mindee/v2/products/extraction/enqueue"
    return call(simulator, "POST", path, body, {"authorization": "key-1"})


def test_a_document_is_queued_each_time_and_its_job_can_be_asked_for(simulator: RunningSimulator) -> None:
    first, second = scan(simulator), scan(simulator)
    assert (first.status, second.status) == (202, 202)
    job = first.json()["job"]
    assert (job["status"], job["alias"]) == ("Processing", "cv#1")
    assert job["id"] != second.json()["job"]["id"]
    shown = call(simulator, "GET", f"/mindee/v2/jobs/{job['id']}", headers={"authorization": "key-1"})
    assert shown.json()["job"] == job
    assert [effect.key for effect in simulator.control.effects("ocr")] == ["cv#1", "cv#1"]


@pytest.mark.parametrize("changes", [{"model_id": ""}, {"file_base64": "%%"}, {"file_base64": ""}])
def test_a_document_that_makes_no_sense_is_refused(simulator: RunningSimulator, changes: dict[str, str]) -> None:
    answer = scan(simulator, **changes)
    assert (answer.status, answer.json()["status"]) == (422, 422)
    assert simulator.control.effects() == []


def test_an_ocr_key_that_is_not_accepted_is_refused(simulator: RunningSimulator) -> None:
    simulator.control.accept_keys(ocr=["key-2"])
    assert scan(simulator).status == 401
    assert call(simulator, "GET", "/mindee/v2/jobs/x", headers={"authorization": "key-2"}).status == 404
    assert call(simulator, "GET", "/mindee/v2/elsewhere", headers={"authorization": "key-2"}).status == 404
