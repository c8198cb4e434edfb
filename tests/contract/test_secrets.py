"""The integrations' secrets in the parameter store (architecture §7, `auth_error`)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from moto import mock_aws

from functions.adapters.hosts import AllowedHosts
from functions.adapters.ssm import CACHED_MS, KNOWN_MS, IntegrationSecret, IntegrationSettings, UnusableSecret
from functions.core.failure import StorageUnavailable
from tests.aws_tables import sdk_client
from tests.contract.storage import Flaky, client_error
from tests.fakes import FakeClock

NAME = "/holdfast/test/integrations/helpdesk"


class Store:
    """The parameter, and the port over it."""

    def __init__(self) -> None:
        self.client = sdk_client("ssm")
        self.flaky = Flaky(self.client)
        self.clock = FakeClock()
        hosts = AllowedHosts({"helpdesk": frozenset({"desk.example"})})
        self.secrets = IntegrationSettings(self.flaky, "/holdfast/test/integrations/", self.clock, hosts)  # type: ignore[arg-type]

    def write(self, value: Any) -> None:
        text = value if isinstance(value, str) else json.dumps(value)
        self.client.put_parameter(Name=NAME, Value=text, Type="SecureString", Overwrite=True)

    def break_down(self) -> None:
        self.flaky.planned["get_parameter"] = [client_error("InternalServerError")] * 100


@pytest.fixture
def store() -> Iterator[Store]:
    with mock_aws():
        made = Store()
        made.write({"base_url": "https://desk.example/api/", "api_key": "k-1", "model": "m"})
        yield made


def test_a_secret_has_its_url_credential_version_and_what_else_is_said(store: Store) -> None:
    secret = store.secrets.get("helpdesk")
    assert secret == IntegrationSecret("https://desk.example/api", "k-1", {"model": "m"}, "1")
    assert "k-1" not in repr(secret)


def test_a_secret_is_kept_for_five_minutes_and_then_read_again(store: Store) -> None:
    store.secrets.get("helpdesk")
    store.write({"base_url": "https://desk.example", "api_key": "k-2"})
    store.clock.advance(CACHED_MS)
    assert store.secrets.get("helpdesk").credential == "k-1"
    store.clock.advance(1)
    assert store.secrets.get("helpdesk").credential == "k-2"


def test_a_refresh_reads_past_the_cache_and_tells_the_new_version(store: Store) -> None:
    store.secrets.get("helpdesk")
    store.write({"base_url": "https://desk.example", "api_key": "k-2"})
    assert store.secrets.refresh("helpdesk").version == "2"
    assert store.secrets.get("helpdesk").credential == "k-2"


def test_a_store_that_is_down_leaves_the_last_good_secret_for_a_day(store: Store) -> None:
    store.secrets.get("helpdesk")
    store.break_down()
    store.clock.advance(KNOWN_MS - 1)
    assert store.secrets.get("helpdesk").credential == "k-1"
    with pytest.raises(StorageUnavailable):
        store.secrets.refresh("helpdesk")
    store.clock.advance(1)
    with pytest.raises(StorageUnavailable, match="InternalServerError"):
        store.secrets.get("helpdesk")


def test_an_integration_without_a_parameter_is_unusable_until_somebody_stores_one(store: Store) -> None:
    """As with a malformed one, what is for it waits for a credential: its attempts would be used up in vain."""
    with pytest.raises(UnusableSecret, match=r"there is no parameter /.*/sms$"):
        store.secrets.get("sms")


def test_a_secret_that_became_unusable_does_not_replace_the_good_one(store: Store) -> None:
    store.secrets.get("helpdesk")
    store.write("not json")
    store.clock.advance(CACHED_MS + 1)
    assert store.secrets.get("helpdesk").credential == "k-1"
    with pytest.raises(UnusableSecret):
        store.secrets.refresh("helpdesk")


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[]", "not a JSON object"),
        ({"api_key": "k-secret"}, "base_url"),
        ({"base_url": 5, "api_key": "k-secret"}, "base_url"),
        ({"base_url": "desk.example", "api_key": "k-secret"}, "base_url"),
        ({"base_url": "ftp://desk.example", "api_key": "k-secret"}, "base_url"),
        ({"base_url": "file:///etc/hosts", "api_key": "k-secret"}, "base_url"),
        ({"base_url": "https://", "api_key": "k-secret"}, "base_url"),
        ({"base_url": "https://desk.example:port", "api_key": "k-secret"}, "base_url"),
        ({"base_url": "https://user:pw@desk.example", "api_key": "k-secret"}, "base_url"),
        ({"base_url": "https://desk.example/?x=1", "api_key": "k-secret"}, "base_url"),
        ({"base_url": "https://desk.example/#x", "api_key": "k-secret"}, "base_url"),
        ({"base_url": "https://desk.example/\n", "api_key": "k-secret"}, "base_url"),
        ({"base_url": "https://[", "api_key": "k-secret"}, "base_url"),
        ({"base_url": "https://desk.example"}, "api_key"),
        ({"base_url": "https://desk.example", "api_key": ""}, "api_key"),
        ({"base_url": "https://desk.example", "api_key": ["k-secret"]}, "api_key"),
    ],
)
def test_an_unusable_secret_is_refused_with_a_reason_that_quotes_nothing(value: Any, says: str) -> None:
    text = value if isinstance(value, str) else json.dumps(value)
    with pytest.raises(UnusableSecret, match=says) as caught:
        IntegrationSecret.parse("helpdesk", text, "1")
    assert "k-secret" not in str(caught.value)
    assert "pw" not in str(caught.value)


@pytest.mark.parametrize("base_url", ["https://desk.example.evil.test", "http://desk.example", "http://127.0.0.1:9"])
def test_a_secret_that_leads_elsewhere_is_unusable_and_says_what_to_add_where(store: Store, base_url: str) -> None:
    """A parameter alone cannot send credentials and customers' data to another host; the last good one serves on."""
    store.secrets.get("helpdesk")
    store.write({"base_url": base_url, "api_key": "k-secret"})
    with pytest.raises(UnusableSecret) as caught:
        store.secrets.refresh("helpdesk")
    assert "evil" not in str(caught.value)
    assert "k-secret" not in str(caught.value)
    store.clock.advance(CACHED_MS + 1)
    assert store.secrets.get("helpdesk").base_url == "https://desk.example/api"
    store.clock.advance(KNOWN_MS)
    with pytest.raises(UnusableSecret):
        store.secrets.get("helpdesk")


def test_a_host_that_the_catalog_gains_makes_the_same_parameter_usable(store: Store) -> None:
    """What waits for the credential goes on after the deploy: its version was never taken for one that was tried."""
    store.write({"base_url": "https://other.example", "api_key": "k-2"})
    with pytest.raises(UnusableSecret, match=r"add the host to hosts of \[integrations\.helpdesk\]"):
        store.secrets.refresh("helpdesk")
    hosts = AllowedHosts({"helpdesk": frozenset({"desk.example", "other.example"})})
    deployed = IntegrationSettings(store.client, "/holdfast/test/integrations/", store.clock, hosts)
    assert deployed.refresh("helpdesk").version == "2"
