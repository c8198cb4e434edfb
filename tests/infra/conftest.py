"""Templates for the tests of this folder, which run in one process: each stage is synthesized once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from infra.config import STAGES
from tests.template import Template, template_of


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker(pytest.mark.xdist_group("infra"))


@pytest.fixture(params=list(STAGES))
def template(request: pytest.FixtureRequest) -> Template:
    """The template of each stage in turn."""
    return template_of(request.param)


@pytest.fixture
def stage() -> Callable[[str], Template]:
    """The template of one stage, by name."""
    return template_of
