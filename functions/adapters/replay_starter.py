"""Replay λ as its callers start it."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING

from botocore.exceptions import BotoCoreError, ClientError

from functions.adapters.aws import code_of

if TYPE_CHECKING:
    from mypy_boto3_lambda import LambdaClient

_LOG = logging.getLogger(__name__)


class LambdaReplayStarter:
    """`ports.ReplayStarter`: an asynchronous invocation, which Lambda keeps until the function has taken it."""

    def __init__(self, client: LambdaClient, function: str) -> None:
        self._client = client
        self._function = function

    def start(self, job_id: str) -> bool:
        """See the port."""
        try:
            self._client.invoke(
                FunctionName=self._function,
                InvocationType="Event",
                Payload=json.dumps({"job_id": job_id}).encode(),
            )
        except (BotoCoreError, ClientError) as exc:
            _LOG.warning(
                "a bulk replay was not started: the sweeper starts it", extra={"job_id": job_id, "reason": code_of(exc)}
            )
            return False
        return True
