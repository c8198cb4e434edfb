"""Who does what when something is wrong, and when people are at work: `roles.toml`.

Only those read it who deal with incidents: a time zone that a runtime does not know must not keep a webhook waiting.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, time
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import BaseModel, ConfigDict, Field

from functions.catalog.loader import HERE, MalformedCatalog, read_file
from functions.catalog.schema import Id
from functions.core.business_time import Calendar
from functions.core.incident import Rules

FILE = "roles.toml"
_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_Line = Annotated[str, Field(max_length=300, pattern=r"^[^\x00-\x1f]*$")]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _RoleModel(_Model):
    title: Annotated[_Line, Field(min_length=1)]
    person: _Line
    contact: _Line
    duties: Annotated[_Line, Field(min_length=1)]


class _OnCallModel(_Model):
    primary: Id
    secondary: Id


class _CalendarModel(_Model):
    zone: str
    begins: time
    ends: time
    workdays: Annotated[list[Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]], Field(min_length=1)]
    holidays: list[date]


class _RolesFile(_Model):
    on_call: _OnCallModel
    roles: dict[Id, _RoleModel]
    calendar: _CalendarModel


@dataclass(frozen=True, slots=True)
class Role:
    """One role, who has it, and what they do. `person` and `contact` are empty where nobody has said it."""

    id: str
    title: str
    person: str
    contact: str
    duties: str


@dataclass(frozen=True, slots=True)
class Roles:
    """All of it. `primary` leads an incident and is paged first; `secondary` speaks for us, and is paged when a clock
    has run out.
    """

    roles: Mapping[str, Role]
    primary: str
    secondary: str
    calendar: Calendar

    def rules(self, time_scale: float) -> Rules:
        """What incidents go by at a stage."""
        return Rules(self.calendar, time_scale, lead=self.primary, communications=self.secondary)


@cache
def load_roles(directory: Path = HERE) -> Roles:
    """The roles that ship with the code, read once. Raises `MalformedCatalog`."""
    file = read_file(directory, FILE, _RolesFile)
    for name in (file.on_call.primary, file.on_call.secondary):
        if name not in file.roles:
            raise MalformedCatalog(f"{FILE}: on_call: {name!r} is no role")
    if file.calendar.begins >= file.calendar.ends:
        raise MalformedCatalog(f"{FILE}: calendar: ends before it begins")
    try:
        zone = ZoneInfo(file.calendar.zone)
    except (ZoneInfoNotFoundError, ValueError) as exc:
        raise MalformedCatalog(f"{FILE}: calendar.zone: {file.calendar.zone!r} is no time zone") from exc
    return Roles(
        MappingProxyType(
            {name: Role(name, one.title, one.person, one.contact, one.duties) for name, one in file.roles.items()}
        ),
        file.on_call.primary,
        file.on_call.secondary,
        Calendar(
            zone,
            file.calendar.begins,
            file.calendar.ends,
            frozenset(_DAYS.index(day) for day in file.calendar.workdays),
            frozenset(file.calendar.holidays),
        ),
    )
