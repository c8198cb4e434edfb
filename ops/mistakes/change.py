"""One thing that a sender may have done otherwise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ops.findings import Finding
from ops.verify import Request


@dataclass(frozen=True, slots=True)
class Change:
    """One thing to be otherwise, and what it means if that makes the request valid.

    `apply` gives None where it makes no difference. Two changes of one `group` exclude each other. `is_likely`: worth
    trying together with another one.
    """

    group: str
    finding: Finding
    apply: Callable[[Request], Request | None]
    is_likely: bool = False
