"""The five tables in moto, as the stack makes them (`tests/infra/test_tables.py` compares), and a client."""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, overload

import boto3
from botocore.client import BaseClient
from botocore.config import Config
from moto import mock_aws

from tests.quick_moto import put_tables

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_ssm import SSMClient

LEDGER = "ledger"
RECOVERY = "recovery"
AUDIT = "audit"
CONTROL = "control"
RECIPIENTS = "recipients"
REGION = "us-east-1"

# Table to its keys, and to its indexes with theirs. All keys but one are texts.
KEYS: dict[str, tuple[str, ...]] = {
    LEDGER: ("pk",),
    RECOVERY: ("pk",),
    AUDIT: ("pk", "sk"),
    CONTROL: ("pk",),
    RECIPIENTS: ("pk",),
}
INDEXES: dict[str, dict[str, tuple[str, ...]]] = {
    LEDGER: {
        "by_request": ("rq", "received_at"),
        "by_ticket": ("tk", "received_at"),
        "by_recipient": ("rc", "received_at"),
    },
    RECOVERY: {"work": ("gpk", "gsk")},
    AUDIT: {"by_request": ("request_id", "sk")},
}


QUICK = Config(user_agent="tests")
"""The usual one is put together anew for each request."""

NUMBERS = frozenset({"received_at"})
KEYS_ONLY = frozenset({LEDGER})  # tables whose indexes hold keys; all other indexes hold all attributes


def type_of(key: str) -> str:
    """The type of a key's attribute."""
    return "N" if key in NUMBERS else "S"


def projection_of(table: str) -> dict[str, str]:
    """What the indexes of a table hold."""
    return {"ProjectionType": "KEYS_ONLY" if table in KEYS_ONLY else "ALL"}


def key_schema(keys: tuple[str, ...]) -> list[dict[str, str]]:
    """The first is the partition key."""
    return [{"AttributeName": key, "KeyType": "RANGE" if place else "HASH"} for place, key in enumerate(keys)]


def create_tables(client: DynamoDBClient) -> None:
    """Make all five, empty."""
    for table, keys in KEYS.items():
        indexes = INDEXES.get(table, {})
        used = sorted({*keys, *(key for index in indexes.values() for key in index)})
        request: dict[str, Any] = {
            "TableName": table,
            "KeySchema": key_schema(keys),
            "AttributeDefinitions": [{"AttributeName": key, "AttributeType": type_of(key)} for key in used],
            "BillingMode": "PAY_PER_REQUEST",
        }
        if indexes:
            request["GlobalSecondaryIndexes"] = [
                {"IndexName": name, "KeySchema": key_schema(index), "Projection": projection_of(table)}
                for name, index in indexes.items()
            ]
        client.create_table(**request)


@overload
def sdk_client(service: Literal["dynamodb"]) -> DynamoDBClient: ...
@overload
def sdk_client(service: Literal["s3"]) -> S3Client: ...
@overload
def sdk_client(service: Literal["sqs"]) -> SQSClient: ...
@overload
def sdk_client(service: Literal["ssm"]) -> SSMClient: ...
@functools.lru_cache
def sdk_client(service: Any) -> Any:
    """Made once each: that takes longer than most tests. Importing moto has put its stub into every client."""
    return boto3.client(service, region_name=REGION, config=QUICK)


@contextmanager
def moto_tables() -> Iterator[DynamoDBClient]:
    """A client to fresh tables."""
    with mock_aws():
        put_tables(create_tables, sdk_client("dynamodb"), REGION)
        yield sdk_client("dynamodb")


@contextmanager
def one_request_at_a_time() -> Iterator[None]:
    """Moto is not atomic under threads, as DynamoDB is: let one request in at a time."""
    lock = threading.Lock()
    original = BaseClient._make_api_call  # type: ignore[attr-defined]  # not in the stubs

    def locked(self: BaseClient, operation_name: str, api_params: Any) -> Any:
        with lock:
            return original(self, operation_name, api_params)

    BaseClient._make_api_call = locked  # type: ignore[attr-defined]  # as above
    try:
        yield
    finally:
        BaseClient._make_api_call = original  # type: ignore[attr-defined]  # as above
