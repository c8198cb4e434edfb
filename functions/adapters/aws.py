"""How every adapter but those of ingress talks to AWS: short timeouts, two tries, one border for errors."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, Protocol

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from functions.core.failure import StorageUnavailable

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_lambda import LambdaClient
    from mypy_boto3_logs import CloudWatchLogsClient
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_sns import SNSClient
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_ssm import SSMClient

TRIES: Final = 2
POOL_SIZE: Final = 25  # the worker's threads and the sweeper's parallel queries share one client

Pause = Callable[[float], None]
"""Waits that many seconds. Injected, so that tests wait for nothing."""

Count = Callable[[str], None]
"""Adds one to the metric of that name."""


class Measure(Protocol):
    """Records how many milliseconds something took, under the metric of that name."""

    def __call__(self, name: str, value: float, **dimensions: str) -> None:
        """One value."""
        ...


def pause(seconds: float) -> None:
    """Wait within one call, for a request that the service asked us to repeat."""
    time.sleep(seconds)  # noqa: TID251  # milliseconds inside one storage call, not a wait of the state machine


def uncounted(metric: str) -> None:
    """For shells that publish no metrics."""


def unmeasured(name: str, value: float, **dimensions: str) -> None:
    """For shells of which nobody asks how long something took."""


def _config(connect_seconds: float, read_seconds: float) -> Config:
    return Config(
        connect_timeout=connect_seconds,
        read_timeout=read_seconds,
        retries={"total_max_attempts": TRIES, "mode": "standard"},
        max_pool_connections=POOL_SIZE,
        tcp_keepalive=True,
    )


def dynamodb_client(connect_seconds: float = 0.5, read_seconds: float = 2.0) -> DynamoDBClient:
    """For the tables. Requests are idempotent by condition or token, so that the second try does no harm."""
    return boto3.client("dynamodb", config=_config(connect_seconds, read_seconds))


def s3_client(connect_seconds: float = 0.5, read_seconds: float = 4.0) -> S3Client:
    """For envelopes of up to some megabytes."""
    return boto3.client("s3", config=_config(connect_seconds, read_seconds))


def sqs_client(connect_seconds: float = 0.5, read_seconds: float = 2.0) -> SQSClient:
    """For hints and visibility."""
    return boto3.client("sqs", config=_config(connect_seconds, read_seconds))


def ssm_client(connect_seconds: float = 0.5, read_seconds: float = 0.5) -> SSMClient:
    """For parameters: a customer-visible send waits for them, so it is the shortest."""
    return boto3.client("ssm", config=_config(connect_seconds, read_seconds))


def lambda_client(connect_seconds: float = 0.5, read_seconds: float = 3.0) -> LambdaClient:
    """For starting bulk replays, which does not wait for them."""
    return boto3.client("lambda", config=_config(connect_seconds, read_seconds))


def sns_client(connect_seconds: float = 0.5, read_seconds: float = 4.0) -> SNSClient:
    """For pages. A second try may page twice, which is better than not at all."""
    return boto3.client("sns", config=_config(connect_seconds, read_seconds))


def logs_client(connect_seconds: float = 0.5, read_seconds: float = 4.0) -> CloudWatchLogsClient:
    """For the log of ingress, a page of which takes its time."""
    return boto3.client("logs", config=_config(connect_seconds, read_seconds))


@contextmanager
def border(what: str) -> Iterator[None]:
    """Translate the SDK's errors to `StorageUnavailable`. `what` names the operation; nothing personal."""
    try:
        yield
    except (BotoCoreError, ClientError) as exc:
        raise StorageUnavailable(f"{what}: {code_of(exc)}") from exc


def code_of(exc: BotoCoreError | ClientError) -> str:
    """The error's own stable name."""
    if isinstance(exc, ClientError):
        return exc.response.get("Error", {}).get("Code", "") or type(exc).__name__
    return type(exc).__name__


def is_refused(exc: ClientError) -> bool:
    """Whether a conditional write was refused by its condition: a verdict, not trouble."""
    return code_of(exc) == "ConditionalCheckFailedException"
