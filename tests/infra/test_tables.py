"""The tables that the storage contracts are tried on are those that the stack makes."""

from __future__ import annotations

from typing import Any

import pytest

from functions.adapters.recovery import WORK_INDEX
from tests import aws_tables
from tests.template import Template

OUTPUTS = {
    aws_tables.LEDGER: "LedgerTable",
    aws_tables.RECOVERY: "RecoveryTable",
    aws_tables.AUDIT: "AuditTable",
    aws_tables.CONTROL: "ControlTable",
    aws_tables.RECIPIENTS: "RecipientsTable",
}


def tables_of(template: Template) -> dict[str, dict[str, Any]]:
    return dict(template.tables())


def test_no_table_of_the_stack_is_left_out(template: Template) -> None:
    assert sorted(tables_of(template)) == sorted(OUTPUTS.values())


@pytest.mark.parametrize("table", list(OUTPUTS))
def test_a_table_has_the_keys_and_indexes_that_the_contracts_use(template: Template, table: str) -> None:
    properties = tables_of(template)[OUTPUTS[table]]
    assert properties["KeySchema"] == aws_tables.key_schema(aws_tables.KEYS[table])
    types = {entry["AttributeName"]: entry["AttributeType"] for entry in properties["AttributeDefinitions"]}
    assert types == {name: aws_tables.type_of(name) for name in types}
    indexes = {index["IndexName"]: index for index in properties.get("GlobalSecondaryIndexes", [])}
    wanted = aws_tables.INDEXES.get(table, {})
    assert {name: index["KeySchema"] for name, index in indexes.items()} == {
        name: aws_tables.key_schema(keys) for name, keys in wanted.items()
    }
    assert all(index["Projection"] == aws_tables.projection_of(table) for index in indexes.values())
    assert properties["TimeToLiveSpecification"] == {"AttributeName": "ttl", "Enabled": True}


def test_the_sweeper_queries_the_index_that_there_is() -> None:
    assert list(aws_tables.INDEXES[aws_tables.RECOVERY]) == [WORK_INDEX]
