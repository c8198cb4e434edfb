"""How long each source may be silent, from the entries in the parameter store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from functions.adapters import aws
from functions.core.silence import Expectation
from functions.core.source import MalformedSource, Source, SourceState
from functions.core.synthetic import is_synthetic

if TYPE_CHECKING:
    from mypy_boto3_ssm import SSMClient


class SsmExpectations:
    """`ports.Expectations` over the parameters below `path` (no trailing slash). Of an entry, which holds secrets, the
    gap alone is kept.
    """

    def __init__(self, client: SSMClient, path: str) -> None:
        self._client = client
        self._path = path

    def read(self) -> Sequence[Expectation]:
        """See the port. GetParametersByPath, to the last page."""
        found = []
        with aws.border("read how long sources may be silent"):
            pages = self._client.get_paginator("get_parameters_by_path").paginate(Path=self._path, WithDecryption=True)
            for page in pages:
                for parameter in page["Parameters"]:
                    name = parameter["Name"].removeprefix(f"{self._path}/")
                    changed_ms = int(parameter["LastModifiedDate"].timestamp() * 1000)
                    gap = _gap_of(name, parameter["Value"])
                    if gap:
                        found.append(Expectation(name, gap, changed_ms))
        return sorted(found, key=lambda one: one.source)


def _gap_of(name: str, text: str) -> int:
    """0 for one that may be silent: it is not active, says nothing, or cannot be read, of which ingress tells."""
    try:
        source = Source.parse(name, text)
    except MalformedSource:
        return 0
    if source.state is not SourceState.ACTIVE or is_synthetic(source.flow):
        return 0  # whether ours goes through is noticed at its end
    return source.expected_gap_seconds or 0
