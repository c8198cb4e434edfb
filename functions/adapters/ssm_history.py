"""The parameter store's memory of the switches: every version of each, and who wrote it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from functions.adapters import aws
from functions.core.ports import SwitchVersion
from functions.core.switch_history import REASON_LENGTH

if TYPE_CHECKING:
    from datetime import datetime

    from mypy_boto3_ssm import SSMClient


class SsmSwitchHistory:
    """`ports.SwitchHistory` over the parameters below `path` (no trailing slash)."""

    def __init__(self, client: SSMClient, path: str) -> None:
        self._client = client
        self._path = path

    def latest(self) -> Mapping[str, SwitchVersion]:
        """See the port. GetParametersByPath, recursive, to the last page."""
        found: dict[str, SwitchVersion] = {}
        with aws.border("list the switches"):
            for page in self._client.get_paginator("get_parameters_by_path").paginate(Path=self._path, Recursive=True):
                for parameter in page["Parameters"]:
                    name = parameter["Name"].removeprefix(f"{self._path}/")
                    found[name] = SwitchVersion(
                        name, parameter["Version"], parameter["Value"], _ms(parameter["LastModifiedDate"])
                    )
        return found

    def versions(self, name: str) -> list[SwitchVersion]:
        """See the port. GetParameterHistory, which keeps the last 100."""
        found = []
        full = f"{self._path}/{name}"
        with aws.border(f"read the history of the switch {name}"):
            try:
                for page in self._client.get_paginator("get_parameter_history").paginate(Name=full):
                    found += [
                        SwitchVersion(
                            name,
                            parameter["Version"],
                            parameter["Value"],
                            _ms(parameter["LastModifiedDate"]),
                            parameter.get("LastModifiedUser", ""),
                            parameter.get("Description", "")[:REASON_LENGTH],
                        )
                        for parameter in page["Parameters"]
                    ]
            except self._client.exceptions.ParameterNotFound:
                return []
        return sorted(found, key=lambda one: one.version)


def _ms(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)
