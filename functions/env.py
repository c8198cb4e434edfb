"""How a function is configured: a frozen dataclass written to, and read back from, environment variables.

`infra` calls `to_env()` and the function calls `from_env()` on the same class, so no variable name is spelled twice.
Values that infra passes are CDK tokens, which are strings; fields are therefore `str`, `int` or `float` and nothing
else. Stdlib only: this module is in the import closure of ingress.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import fields
from typing import Self


class MissingSetting(Exception):
    """A variable that the function cannot work without is not set."""


class InvalidSetting(Exception):
    """A variable is set to something its field cannot hold."""


_READERS = {"str": str, "int": int, "float": float}


class EnvSettings:
    """Base of every function's settings. Subclass as `@dataclass(frozen=True)` with `str`, `int` and `float` fields."""

    __slots__ = ()

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> Self:
        """Read every field from the variable of its upper-cased name.

        Raises `MissingSetting` or `InvalidSetting`, each naming the variable and the function's settings class.
        """
        source = os.environ if environ is None else environ
        values: dict[str, str | int | float] = {}
        for field in fields(cls):  # type: ignore[arg-type]  # subclasses are dataclasses, the base cannot be
            name = field.name.upper()
            raw = source.get(name)
            if raw is None or raw == "":
                raise MissingSetting(f"{cls.__name__} needs the environment variable {name}")
            reader = _READERS[str(field.type)]
            try:
                values[field.name] = reader(raw)
            except ValueError as exc:
                raise InvalidSetting(f"{cls.__name__}: {name} must be {field.type}, got {raw!r}") from exc
        return cls(**values)

    def to_env(self) -> dict[str, str]:
        """The variables that `from_env()` reads back to an equal value."""
        return {field.name.upper(): str(getattr(self, field.name)) for field in fields(self)}  # type: ignore[arg-type]  # as above
