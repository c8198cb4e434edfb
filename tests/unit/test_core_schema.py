"""What is stored and could still be carried out, and why not where it could not (001.42, 001.43)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from functions.catalog.loader import load
from functions.core.catalog import VersionRule
from functions.core.decision import MessageRef, Repeat
from functions.core.fallback import Matrix
from functions.core.integration import Integration, KindRules
from functions.core.recovery import Row
from functions.core.rows import unreadable_row
from functions.core.schema import Known, knows_version
from tests.fakes import NOON_MS
from tests.recovery_rows import action, dead, event_row

DESK = Integration("helpdesk", {"add_tag": KindRules("add_tag", Repeat.IDEMPOTENT)})
RULES = (
    VersionRule(frozenset({"2", "3"}), events=("ticket.*",), sources=("helpdesk-*",)),
    VersionRule(frozenset({""}), events=("order.*", "refund.*")),
)


def known(*rules: VersionRule, **fields: Any) -> Known:
    return replace(Known({"support": rules}, {"helpdesk": DESK}, {("hello", 1)}, Matrix()), **fields)


@pytest.mark.parametrize(
    ("source", "name", "version", "is_known"),
    [
        ("helpdesk-acme", "ticket.created", "2", True),
        ("helpdesk-acme", "ticket.created", "1", False),
        ("helpdesk-acme", "ticket.created", "", False),
        ("shop", "ticket.created", "1", True),
        ("shop", "refund.asked", "", True),
        ("shop", "refund.asked", "1", False),
        ("helpdesk-acme", "note.created", "9", True),
    ],
)
def test_the_first_rule_that_means_an_event_says_in_which_versions_it_is_read(
    source: str, name: str, version: str, is_known: bool
) -> None:
    assert knows_version(RULES, source, name, version) is is_known


@pytest.mark.parametrize(
    ("row", "why"),
    [
        (event_row(), "version '1' of ticket.created is not known"),
        (event_row(event_version="3"), ""),
        (event_row(flow="hiring"), "there is no flow 'hiring'"),
        (unreadable_row("x" * 40, "envelopes/1", NOON_MS, "r"), ""),
        (dead(), ""),
        (dead(event_version="1"), ""),  # it was decided; its event is not read again
        (dead(action=action(kind="gone")), "the catalog has no gone on helpdesk"),
        (dead(integration_id="sms"), "the catalog has no add_tag on sms"),
        (dead(action=action(message=MessageRef("hello", 1))), ""),
        (dead(action=action(message=MessageRef("hello", 2))), "the catalog has no message hello of version 2"),
        (dead(hop=1), "the fallback matrix has no hop 1 for add_tag: put it back, then go on"),
    ],
)
def test_what_nothing_could_be_made_of_is_told_with_what_is_missing(row: Row, why: str) -> None:
    assert known(*RULES).why_not(row) == why


def test_the_shipped_catalog_knows_its_flow_its_kinds_and_its_texts_and_reads_every_version() -> None:
    found, catalog = Known.of(load()), load()
    assert found.flows == {"support": ()}
    assert (found.integrations, found.fallbacks) == (catalog.integrations, catalog.fallbacks)
    assert set(found.messages) == set(catalog.messages)  # type: ignore[call-overload]  # a mapping here
    assert found.why_not(event_row(event_version="from the year 3000")) == ""
