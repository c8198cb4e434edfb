"""What was taken from moto to make it quicker is missed by nobody: it answers and keeps what it did (`quick_moto`)."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests import aws_tables
from tests.aws_tables import AUDIT, LEDGER

OLD: dict[str, Any] = {"pk": {"S": "old"}, "n": {"N": "1"}, "m": {"M": {"deep": {"L": [{"S": "x"}]}}}}
LINES = [{"pk": {"S": "r"}, "sk": {"S": sk}, "n": {"N": "1"}} for sk in ("1", "2", "3")]
ADD_ONE = {"UpdateExpression": "SET n = n + :one", "ExpressionAttributeValues": {":one": {"N": "1"}}}
SET_DEEP = {
    "UpdateExpression": "SET m.deep[0] = :new REMOVE n",
    "ExpressionAttributeValues": {":new": {"S": "y"}},
}


def tables() -> AbstractContextManager[Any]:
    return aws_tables.moto_tables()


def stored(client: Any) -> dict[str, list[Any]]:
    return {
        table: sorted(client.scan(TableName=table)["Items"], key=lambda item: (item["pk"]["S"], str(item.get("sk"))))
        for table in aws_tables.KEYS
    }


def of_every_kind() -> list[dict[str, Any]]:
    """Writes to items that are there and to others, two of them in one partition."""
    return [
        {"Update": {"TableName": LEDGER, "Key": {"pk": {"S": "old"}}, **SET_DEEP}},
        {
            "Update": {
                "TableName": LEDGER,
                "Key": {"pk": {"S": "new"}},
                "UpdateExpression": "SET a = :a",
                "ExpressionAttributeValues": {":a": {"S": "b"}},
            }
        },
        {"Put": {"TableName": LEDGER, "Item": {"pk": {"S": "put"}}}},
        {"Update": {"TableName": AUDIT, "Key": {"pk": {"S": "r"}, "sk": {"S": "1"}}, **ADD_ONE}},
        {"Put": {"TableName": AUDIT, "Item": {"pk": {"S": "r"}, "sk": {"S": "2"}, "n": {"N": "7"}}}},
        {"Delete": {"TableName": AUDIT, "Key": {"pk": {"S": "r"}, "sk": {"S": "3"}}}},
        {"Put": {"TableName": AUDIT, "Item": {"pk": {"S": "r"}, "sk": {"S": "4"}}}},
    ]


def refused(last: bool) -> list[dict[str, Any]]:
    """The same, with something among them that does not hold."""
    key = {"pk": {"S": "nobody"}}
    check = {"ConditionCheck": {"TableName": LEDGER, "Key": key, "ConditionExpression": "attribute_exists(pk)"}}
    return [*of_every_kind(), check] if last else [check, *of_every_kind()]


@pytest.mark.parametrize("last", [False, True])
def test_of_a_transaction_that_is_refused_nothing_stays(last: bool) -> None:
    with tables() as client:
        client.put_item(TableName=LEDGER, Item=OLD)
        for line in LINES:
            client.put_item(TableName=AUDIT, Item=line)
        before = stored(client)
        for _ in range(2):
            with pytest.raises(ClientError, match="TransactionCanceled"):
                client.transact_write_items(TransactItems=refused(last))
            assert stored(client) == before


def test_of_a_transaction_that_holds_all_is_there() -> None:
    with tables() as client:
        client.put_item(TableName=LEDGER, Item=OLD)
        for line in LINES:
            client.put_item(TableName=AUDIT, Item=line)
        client.transact_write_items(TransactItems=of_every_kind())
        found = stored(client)
    assert found[LEDGER] == [
        {"pk": {"S": "new"}, "a": {"S": "b"}},
        {"pk": {"S": "old"}, "m": {"M": {"deep": {"L": [{"S": "y"}]}}}},
        {"pk": {"S": "put"}},
    ]
    assert [(line["sk"]["S"], line.get("n", {}).get("N")) for line in found[AUDIT]] == [
        ("1", "2"),
        ("2", "7"),
        ("4", None),
    ]


def test_the_same_expression_says_what_its_values_say_each_time() -> None:
    with tables() as client:
        for number in range(3):
            for value in ({"N": str(number)}, {"S": "text"}, {"L": [{"BOOL": True}]}):
                key = {"pk": {"S": f"{number}"}}
                client.update_item(
                    TableName=LEDGER,
                    Key=key,
                    UpdateExpression="SET #a = :a, b = if_not_exists(b, :a)",
                    ExpressionAttributeNames={"#a": "a"},
                    ExpressionAttributeValues={":a": value},
                )
                item = client.get_item(TableName=LEDGER, Key=key)["Item"]
                assert item == {**key, "a": value, "b": {"N": str(number)}}


def test_the_tables_of_each_test_are_empty_ones() -> None:
    for _ in range(2):
        with tables() as client:
            assert set(client.list_tables()["TableNames"]) == set(aws_tables.KEYS)
            assert all(items == [] for items in stored(client).values())
            client.put_item(TableName=LEDGER, Item=OLD)
            assert client.describe_table(TableName=AUDIT)["Table"]["GlobalSecondaryIndexes"][0]["IndexName"]
