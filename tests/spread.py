"""How tests are spread over several processes: which of them stay together, and which begin first.

The tests of a file run in one process, so that what a file makes once is made once; so do those of all stages'
templates, each of which takes seconds to synthesize. Files whose tests take longest each are taken apart.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

import pytest
from xdist.scheduler.loadscope import LoadScopeScheduling  # type: ignore[import-untyped]  # it has no types

TOGETHER: Final = ("tests/infra/",)
"""Folders."""
APART: Final = (
    "tests/contract/test_agreement.py",
    "tests/crash/",
    "tests/integration/test_fallback_crashes.py",
    "tests/integration/test_pager.py",
    "tests/integration/test_replay.py",
    "tests/integration/test_worker_crashes.py",
)
"""Files and folders. Their tests share nothing that takes long to make."""


def unit_of(nodeid: str) -> str:
    """The tests with which that one runs, by a name that they have in common."""
    for folder in TOGETHER:
        if nodeid.startswith(folder):
            return folder
    return nodeid if nodeid.startswith(APART) else nodeid.partition("::")[0]


def longest_first(items: Sequence[pytest.Item]) -> list[pytest.Item]:
    """In the order in which processes take them: what takes long begins early, or the others wait for it in the end."""
    units = [unit_of(item.nodeid) for item in items]
    size = Counter(units)
    taken = sorted(zip(units, items, strict=True), key=lambda pair: (not pair[0].startswith(APART), -size[pair[0]]))
    return [item for _, item in taken]


class Spread(LoadScopeScheduling):  # type: ignore[misc]  # see its import
    """Hands out units as they come, to whichever process is about to have nothing to do."""

    def __init__(self, config: pytest.Config, log: Any = None) -> None:
        config.option.loadscopereorder = False
        super().__init__(config, log)

    def _split_scope(self, nodeid: str) -> str:
        return unit_of(nodeid)
