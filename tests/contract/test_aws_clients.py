"""Clients give up early, and values survive the way to a table and back."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import ConnectTimeoutError
from hypothesis import given
from hypothesis import strategies as st

from functions.adapters import aws, items
from functions.core.failure import StorageUnavailable
from tests.contract.storage import client_error


@pytest.mark.parametrize("make", [aws.dynamodb_client, aws.s3_client, aws.sqs_client, aws.ssm_client])
def test_a_client_tries_twice_and_waits_for_seconds_not_minutes(make: Any) -> None:
    config: Any = make().meta.config
    assert config.retries["total_max_attempts"] == aws.TRIES == 2
    assert config.connect_timeout <= 0.5
    assert config.read_timeout <= 4


def test_a_client_can_be_made_more_patient() -> None:
    config: Any = aws.ssm_client(connect_seconds=1.0, read_seconds=9.0).meta.config
    assert (config.connect_timeout, config.read_timeout) == (1.0, 9.0)


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (client_error("AccessDeniedException"), "look around: AccessDeniedException"),
        (client_error(""), "look around: ClientError"),
        (ConnectTimeoutError(endpoint_url="http://127.0.0.1"), "look around: ConnectTimeoutError"),
    ],
    ids=["refused", "nameless", "unreachable"],
)
def test_the_services_errors_become_unavailable_storage_at_the_border(error: Exception, says: str) -> None:
    with pytest.raises(StorageUnavailable) as caught, aws.border("look around"):
        raise error
    assert str(caught.value) == says
    assert caught.value.__cause__ is error


def test_an_error_of_our_own_passes_the_border_as_it_is() -> None:
    with pytest.raises(KeyError), aws.border("look around"):
        raise KeyError


sound_texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
plain_values = st.recursive(
    sound_texts | st.integers() | st.booleans() | st.binary(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(sound_texts, inner, max_size=4),
    max_leaves=8,
)


@given(plain_values)
def test_a_value_comes_back_as_it_was_stored(plain: Any) -> None:
    assert items.plain(items.value(plain)) == plain


@given(st.text())
def test_every_text_can_be_sent(text: str) -> None:
    items.value(text)["S"].encode("utf-8")
    assert items.sound(text) == text or any("\ud800" <= char <= "\udfff" for char in text)


@pytest.mark.parametrize("plain", [1.5, None, {1, 2}, object()])
def test_what_has_no_form_in_a_table_is_refused(plain: Any) -> None:
    with pytest.raises(TypeError, match="no form"):
        items.value(plain)


@pytest.mark.parametrize("typed", [{}, {"NULL": True}, {"NS": ["1"]}, {"N": "1.5"}])
def test_what_nobody_here_has_written_is_not_read(typed: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"not one of ours|invalid literal"):
        items.plain(typed)
