"""What a fresh local stack is told: where the simulated providers are, and demo sources with secrets of this start."""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import Iterator
from dataclasses import dataclass

from functions.core import synthetic
from ops.senders import source_entry
from ops.stack import Stack

TENANT = "demo"
OWN_TENANT = "holdfast"
"""Whose the event is that the stack sends itself."""


@dataclass(frozen=True, slots=True)
class DemoSource:
    """One source of the local stack, and the provider that posts to it."""

    source: str
    provider: str


DEMO_SOURCES = (
    DemoSource("helpdesk", "richpanel"),
    DemoSource("stripe", "stripe"),
    DemoSource("github", "github"),
    DemoSource("shopify", "shopify"),
    DemoSource("slack", "slack"),
    DemoSource("twilio", "twilio"),
    DemoSource("standard", "standard-webhooks"),
    DemoSource("svix", "svix"),
    DemoSource("internal", "generic-hmac"),
    DemoSource("apikey", "generic-apikey"),
    DemoSource("basic", "generic-basic"),
)


# The integrations that are called, with their place at the simulator and what else their parameters say.
INTEGRATIONS: tuple[tuple[str, str, dict[str, str]], ...] = (
    ("helpdesk", "/richpanel/v1", {}),
    ("llm", "/v1", {}),
    ("payments", "/stripe/v1", {}),
    ("ocr", "/mindee/v2", {"model_id": "11111111-1111-4111-8111-111111111111"}),
    ("sms", "/twilio", {"account_sid": "AC" + "1" * 32, "from": "+15005550006"}),
    ("email", "/ses", {"from": "Holdfast <hello@holdfast.example>", "subject": "A message for you"}),
)


def new_secret(provider: str) -> str:
    """A random secret of the shape that the provider issues."""
    match provider:
        case "standard-webhooks" | "svix" | "openai":
            return "whsec_" + base64.b64encode(secrets.token_bytes(24)).decode()
        case "stripe":
            return "whsec_" + secrets.token_hex(16)
        case "generic-basic":
            return "holdfast:" + secrets.token_hex(16)
        case _:
            return secrets.token_hex(20)


def store(stack: Stack) -> list[str]:
    """Write the integrations' and the demo sources' parameters. Gives the ids of the sources."""
    ssm = stack.client("ssm")
    for name, value in _parameters(stack):
        ssm.put_parameter(Name=name, Value=value, Type="SecureString", Overwrite=True)
    return [demo.source for demo in DEMO_SOURCES]


def webhook_url(stack: Stack, source: str) -> str:
    """Where the source's provider posts."""
    return f"{stack.api_url}/webhooks/{source}"


def _parameters(stack: Stack) -> Iterator[tuple[str, str]]:
    integrations = stack.output("IntegrationsPath")
    for integration, path, further in INTEGRATIONS:
        entry = {"base_url": stack.simulator_url + path, "api_key": secrets.token_hex(16), **further}
        yield f"{integrations}/{integration}", json.dumps(entry)
    for demo in DEMO_SOURCES:
        # The emulator tells a function neither the host nor the path that the sender used; Twilio signs both.
        public_url = webhook_url(stack, demo.source) if demo.provider == "twilio" else ""
        entry_of_source = source_entry(demo.provider, [new_secret(demo.provider)], tenant=TENANT, public_url=public_url)
        yield f"{stack.output('SourcesPath')}/{demo.source}", json.dumps(entry_of_source)
    # A function finds the emulator's API by its path alone, which no deploy knows.
    entry_of_source = source_entry(
        synthetic.PROVIDER,
        [new_secret(synthetic.PROVIDER)],
        tenant=OWN_TENANT,
        flow=synthetic.FLOW,
        public_url=webhook_url(stack, synthetic.SOURCE),
    )
    yield f"{stack.output('SourcesPath')}/{synthetic.SOURCE}", json.dumps({**entry_of_source, "fields": {}})
