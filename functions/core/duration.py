"""How long something holds, as people write it: `90s`, `30m`, `4h`, `2d`. Pure."""

from __future__ import annotations

import re
from typing import Final

PATTERN: Final = r"^[1-9][0-9]{0,5}[smhd]$"
"""What is a duration, for whoever describes an API."""

_DURATION = re.compile(r"([1-9][0-9]{0,5})([smhd])\Z")
_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


class NoDuration(ValueError):
    """The text is no duration."""


def duration_ms(text: str) -> int:
    """Milliseconds. Raises `NoDuration`, saying what one looks like."""
    found = _DURATION.match(text)
    if found is None:
        raise NoDuration(f"{text[:40]!r} is no duration: write 90s, 30m, 4h or 2d")
    return int(found[1]) * _SECONDS[found[2]] * 1000
