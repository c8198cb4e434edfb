"""What holds for every test: the unit tier opens no socket, and property tests give the same verdict each time."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings

from tests.spread import Spread, longest_first

_UNIT = Path(__file__).parent / "unit"

# `HYPOTHESIS_PROFILE=explore` draws new examples on every run; the gate does not, so red means a change in the code.
settings.register_profile(
    "gate", deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("explore", deadline=None, max_examples=2000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "gate"))

# Nothing here may find real credentials or talk to a real account.
os.environ.update(
    AWS_ACCESS_KEY_ID="testing",
    AWS_SECRET_ACCESS_KEY="testing",
    AWS_DEFAULT_REGION="us-east-1",
    AWS_EC2_METADATA_DISABLED="true",
    AWS_CONFIG_FILE=os.devnull,
    AWS_SHARED_CREDENTIALS_FILE=os.devnull,
)
os.environ.pop("AWS_PROFILE", None)

# The set-up's own Node, for CDK; the machine's may be too old for it.
os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])


_Result = TypeVar("_Result")


def _with_room(call: Callable[[], _Result]) -> _Result:
    """What the call gives; see below."""
    return call()


# CPython asks the system for the memory of its frames 16 KiB at a time, and gives it back with the last frame that is
# in it: what calls again and again at such a border, which is chance, asks with each call, and half a million times in
# one test. A frame that says that it needs more than half a MiB gets a whole one, with room for thousands beyond it.
_with_room.__code__ = _with_room.__code__.replace(co_stacksize=70_000)


@pytest.fixture
def proved(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """Say a figure that the test has measured, for the end of the run."""
    return lambda figure: record_property("proved", figure)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    figures = [
        value
        for report in terminalreporter.stats.get("passed", [])
        for name, value in report.user_properties
        if name == "proved"
    ]
    if figures:
        terminalreporter.section("what was proved")
        for figure in sorted(map(str, figures)):
            terminalreporter.write_line(figure)


def pytest_collection_finish() -> None:
    """What was imported by now is there to the end: nothing looks through it for garbage again and again."""
    gc.collect()
    gc.freeze()


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Spread | None:
    """`--dist loadfile` is our own: see there."""
    return Spread(config, log) if config.getoption("dist") == "loadfile" else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if hasattr(config, "workerinput"):  # one of several processes
        items[:] = longest_first(items)
    for item in items:
        item.setup = partial(_with_room, item.setup)  # type: ignore[method-assign]  # fixtures are made in it
        if isinstance(item, pytest.Function):
            item.runtest = partial(_with_room, item.runtest)  # type: ignore[method-assign]  # and the test runs in this
        if item.path.is_relative_to(_UNIT):
            item.add_marker(pytest.mark.disable_socket)
