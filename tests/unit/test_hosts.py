"""Only hosts of the catalog are called, however a parameter's URL is written."""

from __future__ import annotations

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from functions.adapters.hosts import AllowedHosts
from functions.adapters.http import is_base_url
from functions.catalog.loader import load
from functions.worker.settings import LOCAL as LOCAL_STAGE
from infra.config import STAGES
from infra.operations import SWITCHES
from ops.local.parameters import INTEGRATIONS
from ops.simulator import RunningSimulator, SimulatorControl

CATALOG = {
    "payments": frozenset({"api.stripe.com"}),
    "mail": frozenset({"*.mail.example", "smtp.example"}),
    "desk": frozenset({"api.kiosk.example"}),
    "parser": frozenset[str](),
}
DEPLOYED = AllowedHosts(CATALOG)
LOCAL = AllowedHosts(CATALOG, is_loopback_allowed=True)


@pytest.mark.parametrize(
    ("integration", "base_url"),
    [
        ("payments", "https://api.stripe.com"),
        ("payments", "https://api.stripe.com/v1/"),
        ("payments", "https://api.stripe.com:443/v1"),
        ("payments", "https://API.Stripe.COM/v1"),
        ("payments", "HTTPS://api.stripe.com"),
        ("mail", "https://eu.mail.example"),
        ("mail", "https://a.b.mail.example"),
        ("mail", "https://smtp.example"),
    ],
)
def test_a_host_of_the_catalog_may_be_called(integration: str, base_url: str) -> None:
    assert DEPLOYED.why_not(integration, base_url) is None
    assert LOCAL.why_not(integration, base_url) is None
    assert is_base_url(base_url)


@pytest.mark.parametrize(
    ("integration", "base_url"),
    [
        ("payments", "https://api.stripe.com.evil.test"),
        ("payments", "https://evil.test/api.stripe.com"),
        ("payments", "https://evil.test/?api.stripe.com"),
        ("payments", "https://evil.test/#api.stripe.com"),
        ("payments", "https://evilapi.stripe.com"),
        ("payments", "https://x.api.stripe.com"),
        ("payments", "https://stripe.com"),
        ("payments", "https://api.stripe.com@evil.test"),
        ("payments", "https://api.stripe.com:443@evil.test"),
        ("payments", "https://evil.test@api.stripe.com"),
        ("payments", "https://@api.stripe.com"),
        ("payments", "https://:@api.stripe.com"),
        ("payments", "https://evil.test\\@api.stripe.com"),
        ("payments", "https://evil.test\\.api.stripe.com"),
        ("payments", "https://api.stripe.com."),
        ("payments", "https://api.stripe.com:8443"),
        ("payments", "https://api.stripe.com:80"),
        ("payments", "https://api.stripe.com:99999"),
        ("payments", "https://api.stripe.com:443:80"),
        ("payments", "http://api.stripe.com"),
        ("payments", "ftp://api.stripe.com"),
        ("payments", "//api.stripe.com"),
        ("payments", "api.stripe.com"),
        ("payments", ""),
        ("payments", "https://"),
        ("payments", "https://api%2estripe.com"),
        ("payments", "https://api.strıpe.com"),
        ("payments", "https://api.ſtripe.com"),
        ("payments", "https://аpi.stripe.com"),
        ("payments", "https://api。stripe.com"),
        ("desk", "https://api.\u212aiosk.example"),  # the Kelvin sign, which is lowered to our k
        ("payments", "https://xn--pi-7kc.stripe.com"),
        ("payments", "https://api.str\nipe.com"),
        ("payments", "https://api.stripe.com\t"),
        ("payments", " https://api.stripe.com"),
        ("payments", "https://54.187.174.169"),
        ("payments", "https://[2600::1]"),
        ("payments", "https://[::ffff:127.0.0.1]"),
        ("payments", "https://[::1"),
        ("mail", "https://mail.example"),
        ("mail", "https://.mail.example"),
        ("mail", "https://a..mail.example"),
        ("mail", "https://evilmail.example"),
        ("mail", "https://eu.mail.example.evil.test"),
        ("mail", "https://x.smtp.example"),
        ("mail", "https://api.stripe.com"),
        ("parser", "https://api.stripe.com"),
        ("unknown", "https://api.stripe.com"),
    ],
)
def test_any_other_host_is_refused_however_it_is_written_and_nothing_of_it_is_quoted(
    integration: str, base_url: str
) -> None:
    for hosts in (DEPLOYED, LOCAL):
        refused = hosts.why_not(integration, base_url)
        assert refused is not None
        assert "evil" not in refused


@pytest.mark.parametrize("host", ["127.0.0.1:8080", "localhost", "[::1]:9", "LOCALHOST:1"])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_the_loopback_is_called_on_the_local_stage_only(scheme: str, host: str) -> None:
    base_url = f"{scheme}://{host}/v1"
    assert LOCAL.why_not("payments", base_url) is None
    assert DEPLOYED.why_not("payments", base_url) is not None


@pytest.mark.parametrize(
    "base_url",
    ["http://127.0.0.1.evil.test", "http://localhost.evil.test", "http://127.0.0.2", "http://2130706433", "http://0"],
)
def test_what_only_looks_like_the_loopback_is_refused_there_too(base_url: str) -> None:
    assert LOCAL.why_not("payments", base_url) is not None


def test_the_one_emulated_stage_is_the_one_that_may_call_the_loopback() -> None:
    assert [stage.name for stage in STAGES.values() if stage.emulated] == [LOCAL_STAGE]


def test_a_refusal_says_what_is_allowed_and_where_to_add_to_it() -> None:
    refused = DEPLOYED.why_not("payments", "https://sandbox.example") or ""
    assert "it lists: api.stripe.com" in refused
    assert "hosts of [integrations.payments] in functions/catalog/integrations.toml" in refused


def test_every_integration_of_the_catalog_that_is_called_over_http_lists_its_hosts() -> None:
    """One without could not be called at all but on the local stage. The parser calls nobody."""
    assert {name for name, each in load().integrations.items() if not each.hosts} <= {"parser"}


def test_the_local_stage_has_a_parameter_for_each_of_them_that_leads_to_the_simulator() -> None:
    called = {name for name, each in load().integrations.items() if each.hosts}
    assert {name for name, _, _ in INTEGRATIONS} == called
    simulator = RunningSimulator("", SimulatorControl("http://127.0.0.1:9"))
    for name, path, _ in INTEGRATIONS:
        assert getattr(simulator, f"{name}_url") == path


def test_every_integration_has_its_factor_among_the_switches() -> None:
    factors = {switch.name.partition("/")[2] for switch in SWITCHES if switch.name.startswith("limits/")}
    assert factors == set(load().integrations)


@given(
    prefix=st.sampled_from(["https://", "http://", "https:/", "https:", "HTTPS://", "https:\\\\", ""]),
    middle=st.text(alphabet="api.stripecom@:/\\?#%[]0127 \t\nſKа。-", max_size=30),
    suffix=st.sampled_from(["", "api.stripe.com", "@api.stripe.com", ".api.stripe.com", "/api.stripe.com", ":443"]),
)
def test_what_is_allowed_is_the_host_that_the_client_would_call(prefix: str, middle: str, suffix: str) -> None:
    """Two readers of one URL that disagree on its host are how such checks are passed by."""
    base_url = prefix + middle + suffix
    if DEPLOYED.why_not("payments", base_url) is None and is_base_url(base_url):
        assert httpx.URL(base_url).host == "api.stripe.com"
        assert httpx.URL(base_url).scheme == "https"
        assert httpx.URL(base_url).port in (None, 443)
