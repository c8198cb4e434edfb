"""What breaks is told of: alarm, one incident, one page at a local receiver, contained, over. `make drill-oncall` plays
more of these, and longer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from ops.drills.on_call import Ground, Scene, ground, play, verdicts
from ops.drills.receiver import Receiver
from ops.drills.scenes import DOUBLED, HELPDESK_5XX, REPLY_STORM, SOURCE_SILENT
from tests.e2e.conftest import World

MINUTE_SECONDS = 2.0


@pytest.fixture
def on(world: World, receiver: Receiver) -> Iterator[Ground]:
    with ground(world, receiver, minute_seconds=MINUTE_SECONDS) as made:
        yield made


@pytest.mark.parametrize("scene", [REPLY_STORM, DOUBLED, HELPDESK_5XX, SOURCE_SILENT], ids=lambda scene: scene.name)
def test_what_breaks_is_one_incident_and_one_page_contained_and_over(
    on: Ground, scene: Scene, proved: Callable[[str], None]
) -> None:
    """002.2, 002.12, 002.36, 003.25: by the very alarm that the table names."""
    claims = verdicts(play(on, scene), is_alone=False)
    assert [(claim.text, claim.details) for claim in claims if not claim.holds] == []
    proved(f"{scene.name}: " + "; ".join(claim.text for claim in claims))
