"""How long each source may be silent, from the entries in the parameter store."""

from __future__ import annotations

from typing import TYPE_CHECKING

from functions.adapters import aws
from functions.core.silence import Entries, Expectation
from functions.core.source import MalformedSource, Source, SourceState
from functions.core.synthetic import is_synthetic

if TYPE_CHECKING:
    from mypy_boto3_ssm import SSMClient


class SsmExpectations:
    """`ports.Expectations` over the parameters below `path` (no trailing slash). Of an entry, which holds secrets, the
    gap alone is kept, and whether it can be read.
    """

    def __init__(self, client: SSMClient, path: str) -> None:
        self._client = client
        self._path = path

    def read(self) -> Entries:
        """See the port. GetParametersByPath, to the last page."""
        expected, unreadable = [], {}
        with aws.border("read how long sources may be silent"):
            pages = self._client.get_paginator("get_parameters_by_path").paginate(Path=self._path, WithDecryption=True)
            for page in pages:
                for parameter in page["Parameters"]:
                    name = parameter["Name"].removeprefix(f"{self._path}/")
                    changed_ms = int(parameter["LastModifiedDate"].timestamp() * 1000)
                    try:
                        gap = _gap_of(Source.parse(name, parameter["Value"]))
                    except MalformedSource:
                        unreadable[name] = changed_ms
                        continue
                    if gap:
                        expected.append(Expectation(name, gap, changed_ms))
        return Entries(sorted(expected, key=lambda one: one.source), unreadable)


def _gap_of(source: Source) -> int:
    """0 for one that may be silent: it is not active, or says nothing."""
    if source.state is not SourceState.ACTIVE or is_synthetic(source.flow):
        return 0  # whether ours goes through is noticed at its end
    return source.expected_gap_seconds or 0
