"""`ports.Recipients`, over the double and over DynamoDB (architecture §9)."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest

from functions.adapters.recipients import DynamoRecipients
from functions.core.failure import StorageUnavailable, VersionConflict
from functions.core.gate import Standing
from functions.core.person import Known, Note, PersonChange
from functions.core.recipient import Person, contact_hash, standing_on
from tests import aws_tables
from tests.contract.storage import Flaky, Lost, World, at_once, client_error
from tests.fakes import NOON_MS

NUMBER = "+491701234567"
Step = Callable[[Known], PersonChange | None]


def note(number: int = 1) -> Note:
    return Note(f"note-{number}", NOON_MS + number, "anna", "they asked", f"req-{number}")


def known(world: World, tenant: str = "acme") -> Known:
    return Known(tenant, "p-1", world.recipients.person(tenant, "p-1"))


def stored(world: World, change: PersonChange | None) -> Person:
    assert change is not None
    world.recipients.store(change)
    return world.recipients.person("acme", "p-1")


def test_of_a_person_nobody_has_written_down_nothing_is_known(world: World) -> None:
    """000.8: nobody has consented by saying nothing; a conversation that they began goes on."""
    person = world.recipients.person("acme", "p-1")
    assert person == Person()
    assert standing_on(person, "") is Standing.ALLOWED
    assert standing_on(person, "sms") is Standing.NO_CONSENT


def test_every_change_is_read_back_as_it_was_made_at_that_tenant_only(world: World) -> None:
    steps: list[Step] = [
        lambda one: one.set_contact("sms", NUMBER, note(1)),
        lambda one: one.set_consent("sms", is_given=True, note=note(2)),
        lambda one: one.set_contact("email", "ann@example.com", note(3)),
        lambda one: one.block_contact("sms", NUMBER, note(4)),
        lambda one: one.opt_out(note(5)),
        lambda one: one.opt_in(note(6)),
        lambda one: one.restore_contact("sms", NUMBER, note(7)),
        lambda one: one.set_consent("", is_given=False, note=note(8)),
        lambda one: one.set_contact("email", "", note(9)),
    ]
    for step in steps:
        change = step(known(world))
        assert change is not None
        assert stored(world, change) == change.after
    person = world.recipients.person("acme", "p-1")
    assert (person.version, person.updated_at_ms) == (9, NOON_MS + 9)
    assert person.contacts == {"sms": NUMBER}
    assert world.recipients.person("other", "p-1") == Person()
    assert world.audit_ids() == [f"note-{number}" for number in range(1, 10)]


def test_a_wrong_number_is_blocked_by_what_is_stored_and_not_by_what_was_meant(world: World) -> None:
    stored(world, known(world).set_contact("sms", NUMBER, note(1)))
    person = stored(world, known(world).block_contact("sms", NUMBER, note(2)))
    assert person.blocked == frozenset({"sms"})
    assert person.wrong == {"sms": frozenset({contact_hash("acme", "sms", NUMBER)})}
    assert stored(world, known(world).set_contact("sms", "+491707654321", note(3))).blocked == frozenset()


def test_of_two_who_saw_the_same_record_one_changes_it_and_the_other_hears_of_it(world: World) -> None:
    first, second = known(world).opt_out(note(1)), known(world).set_consent("sms", is_given=True, note=note(2))
    stored(world, first)
    assert second is not None
    with pytest.raises(VersionConflict):
        world.recipients.store(second)
    assert world.recipients.person("acme", "p-1").consent == {}
    assert world.audit_ids() == ["note-1"]
    later = known(world).opt_in(note(3))
    earlier = known(world).set_consent("sms", is_given=True, note=note(4))
    stored(world, later)
    assert earlier is not None
    with pytest.raises(VersionConflict):
        world.recipients.store(earlier)


def test_the_same_change_again_is_the_same_change(world: World) -> None:
    change = known(world).opt_out(note())
    assert change is not None
    world.recipients.store(change)
    world.recipients.store(change)
    assert world.recipients.person("acme", "p-1").version == 1
    assert world.audit_ids() == ["note-1"]


def test_of_many_at_once_one_changes_the_record(world: World) -> None:
    changes = [known(world).opt_out(note(number)) for number in range(10)]
    results = at_once([lambda one=one: world.recipients.store(one) for one in changes])  # type: ignore[misc]  # bound now
    assert [result for result in results if result is None] == [None]
    assert sum(isinstance(result, VersionConflict) for result in results) == 9
    assert len(world.audit_ids()) == 1


# --- what only the table can show ---


def put(attributes: dict[str, Any], client: Any) -> None:
    client.put_item(TableName=aws_tables.RECIPIENTS, Item={"pk": {"S": "acme#p-1"}} | attributes)


@pytest.mark.parametrize(
    ("attributes", "standing"),
    [
        ({}, Standing.ALLOWED),
        ({"suppressed": {"BOOL": True}}, Standing.SUPPRESSED),
        ({"opted_out": {"BOOL": True}}, Standing.SUPPRESSED),
        ({"consent": {"M": {"conversation": {"BOOL": False}}}}, Standing.NO_CONSENT),
        ({"consent": {"BOOL": False}}, Standing.UNKNOWN),
        ({"suppressed": {"S": "true"}}, Standing.UNKNOWN),
        ({"opted_out": {"S": "false"}}, Standing.UNKNOWN),
        ({"opted_out": {"NULL": True}}, Standing.UNKNOWN),
        ({"consent": {"M": {"sms": {"S": "yes"}}}}, Standing.UNKNOWN),
        ({"contacts": {"M": {"sms": {"L": []}}}}, Standing.UNKNOWN),
        ({"contacts": {"S": NUMBER}}, Standing.UNKNOWN),
        ({"wrong": {"M": {"sms": {"L": [{"N": "1"}]}}}}, Standing.UNKNOWN),
        ({"wrong": {"M": {"sms": {"S": "x"}}}}, Standing.UNKNOWN),
        ({"version": {"S": "1"}}, Standing.UNKNOWN),
        ({"version": {"N": "1.5"}}, Standing.UNKNOWN),
        ({"contact_since": {"M": {"sms": {"S": "now"}}}}, Standing.UNKNOWN),
    ],
)
def test_an_entry_that_cannot_be_understood_is_no_permission_and_is_logged_without_a_word_of_it(
    attributes: dict[str, Any], standing: Standing, caplog: pytest.LogCaptureFixture
) -> None:
    with aws_tables.moto_tables() as client:
        put(attributes, client)
        with caplog.at_level(logging.INFO):
            person = DynamoRecipients(client, aws_tables.RECIPIENTS).person("acme", "p-1")
    assert standing_on(person, "") is standing
    assert (standing is Standing.UNKNOWN) is ("cannot be read" in caplog.text)
    assert NUMBER not in caplog.text + str([record.__dict__ for record in caplog.records])


def test_a_record_that_somebody_wrote_by_hand_is_changed_like_any_other() -> None:
    with aws_tables.moto_tables() as client:
        recipients = DynamoRecipients(client, aws_tables.RECIPIENTS, aws_tables.AUDIT)
        put({"suppressed": {"BOOL": True}, "note": {"S": "kept"}}, client)
        person = recipients.person("acme", "p-1")
        change = Known("acme", "p-1", person).opt_in(note())
        assert change is not None
        recipients.store(change)
        assert recipients.person("acme", "p-1") == change.after
        assert standing_on(change.after, "") is Standing.ALLOWED
        (item,) = client.scan(TableName=aws_tables.RECIPIENTS)["Items"]
        assert item["note"] == {"S": "kept"}
        assert [event["id"] for event in client.scan(TableName=aws_tables.AUDIT)["Items"]] == [{"S": "note-1"}]


def test_no_audit_no_change() -> None:
    with aws_tables.moto_tables() as client:
        recipients = DynamoRecipients(client, aws_tables.RECIPIENTS, "no-such-table", pause=lambda _: None)
        change = Known("acme", "p-1", Person()).opt_out(note())
        assert change is not None
        with pytest.raises(StorageUnavailable):
            recipients.store(change)
        assert recipients.person("acme", "p-1") == Person()


def test_a_change_whose_answer_was_lost_is_met_again_as_its_own_success() -> None:
    with aws_tables.moto_tables() as client:
        flaky = Flaky(client)
        flaky.planned["transact_write_items"] = [Lost()]
        recipients = DynamoRecipients(flaky, aws_tables.RECIPIENTS, aws_tables.AUDIT, pause=lambda _: None)  # type: ignore[arg-type]  # it stands in for one
        change = Known("acme", "p-1", Person()).opt_out(note())
        assert change is not None
        recipients.store(change)
        assert recipients.person("acme", "p-1") == change.after
        assert len(flaky.requests("transact_write_items")) == 2


def test_a_contact_is_in_the_recipients_table_and_nowhere_else() -> None:
    with aws_tables.moto_tables() as client:
        recipients = DynamoRecipients(client, aws_tables.RECIPIENTS, aws_tables.AUDIT)
        steps: list[Step] = [
            lambda one: one.set_contact("sms", NUMBER, note(1)),
            lambda one: one.block_contact("sms", NUMBER, note(2)),
        ]
        for step in steps:
            change = step(Known("acme", "p-1", recipients.person("acme", "p-1")))
            assert change is not None
            recipients.store(change)
        assert NUMBER in str(client.scan(TableName=aws_tables.RECIPIENTS)["Items"])
        assert len(client.scan(TableName=aws_tables.AUDIT)["Items"]) == 2
        assert NUMBER not in str(client.scan(TableName=aws_tables.AUDIT)["Items"])


def test_a_table_that_does_not_answer_is_storage_that_is_unavailable() -> None:
    with aws_tables.moto_tables() as client:
        flaky = Flaky(client)
        flaky.planned["get_item"] = [client_error("InternalServerError")]
        with pytest.raises(StorageUnavailable, match="InternalServerError"):
            DynamoRecipients(flaky, aws_tables.RECIPIENTS).person("acme", "p-1")  # type: ignore[arg-type]  # as above
