"""What the sender of synthetic events needs to know."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from functions.core.synthetic import SOURCE
from functions.env import EnvSettings

__all__ = ["EVERY_MINUTES", "SOURCE", "SyntheticSettings"]

EVERY_MINUTES: Final = 2


@dataclass(frozen=True, slots=True)
class SyntheticSettings(EnvSettings):
    """`webhook_url` is the public address of its source, unless the source's entry names another (`public_url`)."""

    stage: str
    sources_path: str
    webhook_url: str
