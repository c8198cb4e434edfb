"""`ports.Recipients`, over the double and over DynamoDB (architecture §9)."""

from __future__ import annotations

from typing import Any

import pytest

from functions.adapters.recipients import DynamoRecipients
from functions.core.failure import StorageUnavailable
from functions.core.gate import Standing
from tests import aws_tables
from tests.contract.storage import Flaky, World, client_error


def test_a_person_nobody_has_written_down_may_be_contacted(world: World) -> None:
    assert world.recipients.standing("acme", "p-1") is Standing.ALLOWED


@pytest.mark.parametrize("standing", [Standing.ALLOWED, Standing.SUPPRESSED, Standing.NO_CONSENT])
def test_a_person_has_the_standing_that_was_written_down_at_that_tenant_only(world: World, standing: Standing) -> None:
    world.set_standing("acme", "p-1", standing)
    assert world.recipients.standing("acme", "p-1") is standing
    assert world.recipients.standing("other", "p-1") is Standing.ALLOWED


@pytest.mark.parametrize(
    ("attributes", "standing"),
    [
        ({}, Standing.ALLOWED),
        ({"consent": {"BOOL": False}}, Standing.NO_CONSENT),
        ({"suppressed": {"BOOL": True}}, Standing.SUPPRESSED),
        ({"suppressed": {"BOOL": True}, "consent": {"S": "?"}}, Standing.SUPPRESSED),
        ({"suppressed": {"S": "true"}}, Standing.UNKNOWN),
        ({"consent": {"N": "0"}}, Standing.UNKNOWN),
        ({"consent": {"NULL": True}}, Standing.UNKNOWN),
    ],
)
def test_an_entry_that_cannot_be_understood_is_no_permission(attributes: dict[str, Any], standing: Standing) -> None:
    with aws_tables.moto_tables() as client:
        client.put_item(TableName=aws_tables.RECIPIENTS, Item={"pk": {"S": "acme#p-1"}} | attributes)
        assert DynamoRecipients(client, aws_tables.RECIPIENTS).standing("acme", "p-1") is standing


def test_a_table_that_does_not_answer_is_storage_that_is_unavailable() -> None:
    with aws_tables.moto_tables() as client:
        flaky = Flaky(client)
        flaky.planned["get_item"] = [client_error("InternalServerError")]
        with pytest.raises(StorageUnavailable, match="InternalServerError"):
            DynamoRecipients(flaky, aws_tables.RECIPIENTS).standing("acme", "p-1")  # type: ignore[arg-type]
