"""One source's entry in the parameter store, for whoever sends through that source."""

from __future__ import annotations

from typing import TYPE_CHECKING

from botocore.exceptions import ClientError

from functions.adapters import aws

if TYPE_CHECKING:
    from mypy_boto3_ssm import SSMClient


class SsmSourceEntries:
    """`ports.SourceEntries` over the parameters below `path` (no trailing slash)."""

    def __init__(self, client: SSMClient, path: str) -> None:
        self._client = client
        self._path = path

    def read(self, source: str) -> str | None:
        """See the port. GetParameter."""
        with aws.border(f"read the entry of the source {source}"):
            try:
                return self._client.get_parameter(Name=f"{self._path}/{source}", WithDecryption=True)["Parameter"][
                    "Value"
                ]
            except ClientError as exc:
                if aws.code_of(exc) == "ParameterNotFound":
                    return None
                raise
