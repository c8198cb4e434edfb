"""The storage contracts run over both worlds: the doubles of the unit tests, and the adapters on moto."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.contract import storage


@pytest.fixture(params=["memory", "dynamodb"])
def world(request: pytest.FixtureRequest) -> Iterator[storage.World]:
    """Empty tables."""
    with storage.in_memory() if request.param == "memory" else storage.in_dynamodb() as world:
        yield world
