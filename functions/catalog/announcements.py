"""What people are told of an incident: `announcements.toml`, checked."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from functions.catalog.loader import HERE, MalformedCatalog, load, read_file
from functions.catalog.roles import load_roles
from functions.catalog.schema import Id
from functions.core.announcement import INTERNAL, Template

FILE = "announcements.toml"
MOST_CHARACTERS = 900  # with what is filled in it must fit a page, and an audit event
OF_AN_INCIDENT = frozenset(
    {"incident_id", "severity", "state", "title", "impact", "mitigation", "next_update", "owner"}
)
OF_A_FEATURE = frozenset({"feature", "window"})
_PROMISE = "notify you"

_Text = Annotated[str, Field(min_length=1, max_length=MOST_CHARACTERS)]


class _TemplateModel(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    id: Id
    version: Annotated[int, Field(ge=1)]
    audience: Id
    text: _Text
    text_without_window: _Text | None = None
    promises: Id | None = None
    approved_by: Id | None = None
    approved_on: date | None = None


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    templates: Annotated[list[_TemplateModel], Field(min_length=1)]


@cache
def load_announcements(directory: Path = HERE) -> Mapping[tuple[str, int], Template]:
    """The texts that ship with the code, by id and version. Raises `MalformedCatalog`."""
    found: dict[tuple[str, int], Template] = {}
    for row in read_file(directory, FILE, _File).templates:
        template = Template(
            row.id,
            row.version,
            row.audience,
            row.text.strip(),
            (row.text_without_window or "").strip(),
            row.promises or "",
            (row.approved_by or "") if row.approved_on else "",
        )
        _check(template, row, found)
        found[row.id, row.version] = template
    known = {template.id for template in found.values()}
    for template in found.values():
        _require(not template.promises or template.promises in known, template, "promises a text that there is not")
    return MappingProxyType(found)


def _check(template: Template, row: _TemplateModel, found: Mapping[tuple[str, int], Template]) -> None:
    _require((row.id, row.version) not in found, template, "is there twice")
    _require((row.approved_by is None) is (row.approved_on is None), template, "is approved by somebody on some day")
    _require(
        row.approved_by is None or row.approved_by in load_roles().roles, template, "is approved by what is no role"
    )
    allowed = OF_AN_INCIDENT if template.is_internal else OF_A_FEATURE
    _require(template.params <= allowed, template, f"may hold {', '.join(sorted(allowed))} only")
    if template.audience == INTERNAL:
        return
    said = f"{template.text} {template.text_without_window}".lower()
    _require((_PROMISE in said) is bool(template.promises), template, "promises to notify people where a text does it")
    _require("retry" not in said, template, "asks people to retry")
    for name in {profile.provider.lower() for profile in load().profiles.values()}:
        _require(not re.search(rf"\b{re.escape(name)}\b", said), template, f"names the provider {name!r}")


def _require(holds: bool, template: Template, problem: str) -> None:
    if not holds:
        raise MalformedCatalog(f"{FILE}: {template.id} version {template.version}: {problem}")
