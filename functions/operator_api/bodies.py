"""What the bodies of all calls have in common, those that come in and those that go out."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from functions.core.audit import MOST_REASON

Reason = Annotated[
    str, Field(min_length=1, max_length=MOST_REASON, pattern=r"\S", description="Why; it is in the audit.")
]


class Body(BaseModel):
    """Takes no member that it does not name: whoever misspells one is told, and not half obeyed."""

    model_config = ConfigDict(extra="forbid")
