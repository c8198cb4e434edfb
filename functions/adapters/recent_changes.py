"""What was changed lately: deploys, as the functions' configuration says, and parameters, as the parameter store says.

Only what a parameter is called, when it was changed and by whom is read here; of switches, which are no secrets, also
what they said before and after.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Final

from functions.adapters import aws
from functions.core.page import Change
from functions.core.switch_history import REASON_LENGTH

if TYPE_CHECKING:
    from mypy_boto3_lambda import LambdaClient
    from mypy_boto3_ssm import SSMClient

MOST_HISTORIES: Final = 10  # of switches that were changed: each is a request
DEPLOY_MS: Final = 120_000  # CloudFormation changes one function within so long of the other
KINDS: Final = {"switches": "switch", "sources": "source", "integrations": "credential", "oncall": "channel"}


class AwsRecentChanges:
    """`ports.RecentChanges`. `path` is the stage's, under which all of its parameters lie; no trailing slash."""

    def __init__(self, ssm: SSMClient, lambda_: LambdaClient, path: str, functions: Sequence[str]) -> None:
        self._ssm = ssm
        self._lambda = lambda_
        self._path = path
        self._functions = functions

    def since(self, since_ms: int) -> Sequence[Change]:
        """See the port."""
        found = [change for change in (*self._deploys(), *self._parameters(since_ms)) if change.at_ms >= since_ms]
        return sorted(found, key=lambda change: (-change.at_ms, change.kind, change.name))

    def _deploys(self) -> Iterator[Change]:
        """One for all functions that one deploy has changed, at its end."""
        changed: list[tuple[int, str]] = []
        for function in self._functions:
            with aws.border(f"read the configuration of {function}"):
                said = self._lambda.get_function_configuration(FunctionName=function)
            changed.append((_ms(datetime.fromisoformat(said["LastModified"])), function))
        together: list[tuple[int, str]] = []
        for at_ms, function in sorted(changed):
            if together and at_ms - together[-1][0] > DEPLOY_MS:
                yield _deploy(together)
                together = []
            together.append((at_ms, function))
        if together:
            yield _deploy(together)

    def _parameters(self, since_ms: int) -> Iterator[Change]:
        histories = 0
        with aws.border("list the parameters"):
            pages = self._ssm.get_paginator("describe_parameters").paginate(
                ParameterFilters=[{"Key": "Path", "Option": "Recursive", "Values": [self._path]}],
                PaginationConfig={"PageSize": 50},
            )
            for page in pages:
                for parameter in page["Parameters"]:
                    at_ms = _ms(parameter["LastModifiedDate"])
                    if at_ms < since_ms:
                        continue
                    folder, _, name = parameter["Name"].removeprefix(f"{self._path}/").partition("/")
                    kind = KINDS.get(folder, "parameter")
                    what = parameter.get("Description", "")[:REASON_LENGTH]
                    if kind == "switch" and histories < MOST_HISTORIES:
                        histories += 1
                        what = self._moved(parameter["Name"], what)
                    by = parameter.get("LastModifiedUser", "").rpartition("/")[2]
                    yield Change(at_ms, kind, name or folder, what, by)

    def _moved(self, name: str, what: str) -> str:
        """What a switch said before and says now."""
        kept = [
            (parameter["Version"], parameter["Value"])
            for page in self._ssm.get_paginator("get_parameter_history").paginate(Name=name)
            for parameter in page["Parameters"]
        ]
        moved = " → ".join(value for _, value in sorted(kept)[-2:])
        return f"{moved}: {what}" if what else moved


def _deploy(changed: Sequence[tuple[int, str]]) -> Change:
    return Change(changed[-1][0], "deploy", ", ".join(function for _, function in changed))


def _ms(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)
