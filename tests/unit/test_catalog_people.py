"""What the catalog says of messages to people: their integrations, how many go out by themselves, their subjects."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from functions.catalog.loader import HERE, MalformedCatalog, load, load_from
from functions.catalog.released import release_digest
from functions.core.cap import DEFAULT_PER_HOUR
from functions.core.catalog import Message
from functions.core.decision import MessageRef, Repeat
from functions.core.event import digest


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    directory = tmp_path / "catalog"
    shutil.copytree(HERE, directory, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    return directory


def edited(directory: Path, name: str, old: str, new: str) -> Path:
    path = directory / name
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    return directory


@pytest.mark.parametrize("channel", ["sms", "email"])
def test_a_message_is_tried_three_times_with_five_and_ten_minutes_between(channel: str) -> None:
    """000.7"""
    integration, profile = load().integrations[channel], load().profiles[channel]
    assert (integration.policy.max_attempts, integration.policy.waits_seconds) == (3, (300, 600))
    assert (profile.success_threshold, profile.recovery_threshold, profile.feature) == (0.90, 0.95, "notifications")
    assert integration.channel == channel
    assert integration.rate is not None


def test_a_text_can_be_looked_up_and_an_email_cannot() -> None:
    sms, email = (load().integrations[name].kinds[f"{name}.send"] for name in ("sms", "email"))
    assert (sms.repeat, sms.can_look_up, sms.settle_seconds) == (Repeat.LOOKUP, True, 180)
    assert (email.repeat, email.can_look_up) == (Repeat.BLIND, False)
    assert all(rules.established.startswith("https://") for rules in (sms, email))


def test_messages_go_to_the_providers_own_hosts_only() -> None:
    assert load().integrations["sms"].hosts == {"api.twilio.com"}
    hosts = load().integrations["email"].hosts
    assert hosts
    assert all(host.startswith("email.") and host.endswith(".amazonaws.com") for host in hosts)


def test_five_messages_an_hour_go_to_one_conversation_by_themselves(copy: Path) -> None:
    """002.17"""
    assert load().flows["support"].max_automatic_per_hour == DEFAULT_PER_HOUR == 5
    other = edited(copy, "flows.toml", "max_automatic_per_hour = 5", "max_automatic_per_hour = 2")
    assert load_from(other).flows["support"].max_automatic_per_hour == 2


@pytest.mark.parametrize("value", ["0", "-1", "101", "true", '"5"', "2.5"])
def test_a_cap_that_caps_nothing_or_everything_is_refused(copy: Path, value: str) -> None:
    with pytest.raises(MalformedCatalog, match="max_automatic_per_hour"):
        load_from(edited(copy, "flows.toml", "max_automatic_per_hour = 5", f"max_automatic_per_hour = {value}"))


def test_a_message_may_have_a_subject_which_counts_for_its_release(copy: Path) -> None:
    line = 'id = "billing"\nversion = 1\n'
    catalog = load_from(edited(copy, "messages/support.toml", line, f'{line}subject = "Your payment – für Sie"\n'))
    assert catalog.subject_of(MessageRef("billing", 1)) == "Your payment – für Sie"
    assert catalog.subject_of(MessageRef("returns", 1)) == ""
    with pytest.raises(KeyError):
        catalog.subject_of(MessageRef("billing", 9))
    plain = Message("a", 1, "text")
    assert release_digest(plain) == digest("a", "1", "text")
    assert release_digest(replace(plain, subject="s")) != release_digest(plain)


@pytest.mark.parametrize("subject", ["two\\nlines", "a {name}", " ", "x" * 121, "ends with a space "])
def test_a_subject_that_is_no_line_is_refused(copy: Path, subject: str) -> None:
    line = 'id = "billing"\nversion = 1\n'
    with pytest.raises(MalformedCatalog, match="subject"):
        load_from(edited(copy, "messages/support.toml", line, f'{line}subject = "{subject}"\n'))
