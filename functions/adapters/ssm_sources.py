"""The sources' entries in Parameter Store, one SecureString each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from functions.core.failure import StorageUnavailable

if TYPE_CHECKING:
    from mypy_boto3_ssm import SSMClient

# A refresh has a copy to fall back on and a sender waiting: 300 ms in all. A first read has nothing: about 1 s.
BRIEF_SECONDS: Final = 0.15  # to connect, and again to read
PATIENT_CONNECT_SECONDS: Final = 0.3
PATIENT_READ_SECONDS: Final = 0.9


class SsmSourceParameters:
    """What the cache of sources reads from: the entry of source `x` is the parameter `{path}/x`."""

    def __init__(self, patient: SSMClient, brief: SSMClient, path: str) -> None:
        self._patient = patient
        self._brief = brief
        self._path = path.rstrip("/")

    @staticmethod
    def connect(path: str) -> SsmSourceParameters:
        """With clients of its own that try once: the cache decides when to ask again."""
        return SsmSourceParameters(
            _client(PATIENT_CONNECT_SECONDS, PATIENT_READ_SECONDS), _client(BRIEF_SECONDS, BRIEF_SECONDS), path
        )

    def read(self, source_id: str, *, briefly: bool) -> str | None:
        """The entry's text, or None for ParameterNotFound and nothing else. Raises `StorageUnavailable`."""
        client = self._brief if briefly else self._patient
        try:
            answer = client.get_parameter(Name=f"{self._path}/{source_id}", WithDecryption=True)
        except client.exceptions.ParameterNotFound:
            return None
        except ClientError as exc:
            code = exc.response.get("Error", {}).get("Code", "ClientError")
            raise StorageUnavailable(f"GetParameter failed: {code}") from exc
        except BotoCoreError as exc:
            raise StorageUnavailable(f"GetParameter failed: {type(exc).__name__}") from exc
        value = answer.get("Parameter", {}).get("Value")
        if value is None:
            raise StorageUnavailable("GetParameter answered without a value")
        return value


def _client(connect_seconds: float, read_seconds: float) -> SSMClient:
    config = Config(
        connect_timeout=connect_seconds,
        read_timeout=read_seconds,
        retries={"total_max_attempts": 1, "mode": "standard"},
        tcp_keepalive=True,
    )
    return boto3.client("ssm", config=config)
