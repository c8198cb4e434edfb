"""What every outcome of a provider call means (architecture §7; runbooks 003 and 004)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from functions.core import failure
from functions.core.failure import (
    PROPOSED_ROOT_CAUSE,
    ClassifierUnavailable,
    Failure,
    FailureClass,
    NetworkCause,
    RootCause,
    failure_of_network,
    failure_of_status,
)
from tests.unit.builders import ROLE_REFUSED

BEFORE_FIRST_BYTE = {
    NetworkCause.DNS,
    NetworkCause.CONNECT_REFUSED,
    NetworkCause.CONNECT_TIMEOUT,
    NetworkCause.TLS,
    NetworkCause.POOL_TIMEOUT,
    NetworkCause.NOT_STARTED,
}


@pytest.mark.parametrize("status", [408, 425, 429, 500, 501, 502, 503, 504, 507, 599])
def test_408_425_429_and_every_5xx_are_retryable_004_5_003_8(status: int) -> None:
    assert failure_of_status(status).is_retryable


@pytest.mark.parametrize("status", [408, 409, 500, 502, 503, 504])
def test_after_408_409_and_every_5xx_the_effect_may_exist_004_5(status: int) -> None:
    assert failure_of_status(status).may_have_happened


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 413, 415, 422, 425, 429, 451])
def test_every_other_4xx_is_definite(status: int) -> None:
    assert not failure_of_status(status).may_have_happened


@pytest.mark.parametrize("status", [100, 200, 302, 303, 307, 399, 600, 999])
def test_a_status_that_promises_nothing_leaves_open_whether_it_happened(status: int) -> None:
    assert failure_of_status(status).may_have_happened


@pytest.mark.parametrize("status", [400, 404, 410, 422])
def test_a_refused_payload_is_a_data_error_and_not_tried_again(status: int) -> None:
    found = failure_of_status(status)
    assert (found.failure_class, found.is_retryable) == (FailureClass.DATA_ERROR, False)


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_credential_is_an_auth_error(status: int) -> None:
    found = failure_of_status(status)
    assert (found.failure_class, found.is_retryable, found.may_have_happened) == (FailureClass.AUTH_ERROR, False, False)


@pytest.mark.parametrize("body_code", ["RATE_LIMIT_EXCEEDED", "rate_limited", "Too_Many_Requests"])
@pytest.mark.parametrize("status", [200, 400, 403, 429, 503])
def test_a_rate_limit_in_the_body_counts_as_429_whatever_the_status_003_16(status: int, body_code: str) -> None:
    found = failure_of_status(status, body_code=body_code, retry_after_ms=7_000)
    assert (found.failure_class, found.code, found.status) == (FailureClass.RATE_LIMITED, "HTTP_429", status)
    assert found.is_retryable
    assert not found.may_have_happened
    assert found.retry_after_ms == 7_000


def test_a_catalog_row_may_promise_that_a_status_means_nothing_happened() -> None:
    promised = failure_of_status(503, definite_statuses=frozenset({503}))
    assert (promised.is_retryable, promised.may_have_happened) == (True, False)
    assert failure_of_status(502, definite_statuses=frozenset({503})).may_have_happened


@pytest.mark.parametrize("cause", NetworkCause)
def test_nothing_happened_ends_with_the_first_byte_of_the_request_004_6(cause: NetworkCause) -> None:
    found = failure_of_network(cause)
    assert (found.code, found.is_retryable) == (cause.value, True)
    assert found.may_have_happened is (cause not in BEFORE_FIRST_BYTE)
    assert found.detail
    assert failure_of_network(cause, "to ticket api").detail == "to ticket api"


def test_the_detail_says_what_was_answered() -> None:
    assert failure_of_status(422).detail == "the provider answered 422"
    assert failure_of_status(422, body_code="NO_SUCH_TAG").detail == "the provider answered 422 (NO_SUCH_TAG)"
    assert failure_of_status(422, detail="no such tag").detail == "no such tag"


@given(st.integers(0, 999), st.text(max_size=20))
def test_what_is_known_not_to_have_happened_is_a_4xx_or_a_rate_limit(status: int, body_code: str) -> None:
    found = failure_of_status(status, body_code=body_code)
    if not found.may_have_happened:
        assert 400 <= status < 500 or found.failure_class is FailureClass.RATE_LIMITED
    if found.failure_class in (FailureClass.DATA_ERROR, FailureClass.AUTH_ERROR):
        assert not found.is_retryable


def test_every_class_of_failure_proposes_a_root_cause_001_43() -> None:
    assert set(PROPOSED_ROOT_CAUSE) == set(FailureClass)
    for transient in (FailureClass.TRANSIENT, FailureClass.RATE_LIMITED, FailureClass.UNKNOWN_OUTCOME):
        assert PROPOSED_ROOT_CAUSE[transient] is RootCause.TRANSIENT_INFRA
    assert PROPOSED_ROOT_CAUSE[FailureClass.DATA_ERROR] is RootCause.BAD_SOURCE_DATA
    assert failure_of_status(401).root_cause is RootCause.BAD_SOURCE_DATA
    assert ROLE_REFUSED.root_cause is RootCause.CODE_DEFECT  # the deploy's: nobody else's credential is wrong
    assert Failure(FailureClass.TRANSIENT, "ADAPTER_DEFECT", "", True, True).root_cause is RootCause.CODE_DEFECT


def test_another_credential_helps_where_one_was_refused_and_not_where_our_own_role_was() -> None:
    assert failure_of_status(401).wants_credential
    assert not ROLE_REFUSED.wants_credential
    assert not failure_of_status(422).wants_credential


def test_a_classifier_that_is_unavailable_keeps_its_stable_code() -> None:
    assert str(ClassifierUnavailable("TIMEOUT")) == "TIMEOUT"
    late = ClassifierUnavailable("TIMEOUT", "2.5 s")
    assert (late.code, str(late)) == ("TIMEOUT", "TIMEOUT: 2.5 s")


def test_every_error_raised_on_purpose_has_one_base_and_both_conflicts_have_another() -> None:
    errors = [value for value in vars(failure).values() if isinstance(value, type) and issubclass(value, Exception)]
    assert len(errors) >= 9
    assert all(issubclass(error, failure.HoldfastError) for error in errors)
    assert issubclass(failure.Fenced, failure.Conflict)
    assert issubclass(failure.VersionConflict, failure.Conflict)
