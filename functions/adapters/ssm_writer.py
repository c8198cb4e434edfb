"""Sets the operators' switches in the parameter store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from functions.adapters import aws
from functions.core.switches import pattern_of

if TYPE_CHECKING:
    from mypy_boto3_ssm import SSMClient

DESCRIPTION_LENGTH: Final = 1024  # the most that a version's description has


class SsmSwitchWriter:
    """`ports.SwitchWriter` over the parameters below `path` (no trailing slash)."""

    def __init__(self, client: SSMClient, path: str) -> None:
        self._client = client
        self._path = path

    def put(self, name: str, value: str, description: str) -> int:
        """See the port. PutParameter; a version without a pattern would let the next writer put anything."""
        with aws.border(f"set the switch {name}"):
            answer = self._client.put_parameter(
                Name=f"{self._path}/{name}",
                Value=value,
                Type="String",
                Description=description[:DESCRIPTION_LENGTH],
                AllowedPattern=pattern_of(name),
                Overwrite=True,
            )
        return answer["Version"]
