"""Templates for the tests of this folder. All run in one process (`tests/spread.py`): a stage is synthesized once."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from infra.config import STAGES
from tests.template import Template, template_of


@pytest.fixture(params=list(STAGES))
def template(request: pytest.FixtureRequest) -> Template:
    """The template of each stage in turn."""
    return template_of(request.param)


@pytest.fixture
def stage() -> Callable[[str], Template]:
    """The template of one stage, by name."""
    return template_of
