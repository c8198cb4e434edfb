"""The mistakes. Each was, or could have been, made by somebody who knows the code well.

An edit names a text that stands once in its file and what takes its place. Where the proof runs over doubles of the
storage, the double is changed as the adapter would be: it is the same mistake.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Edit:
    """One change of one file."""

    file: str
    old: str
    new: str


@dataclass(frozen=True, slots=True)
class Mutant:
    """A mistake, and the command (after the interpreter) that must end with 1 because of it."""

    name: str
    says: str
    edits: tuple[Edit, ...]
    proof: tuple[str, ...]


def tests(*selected: str) -> tuple[str, ...]:
    """A proof by some tests."""
    return ("-m", "pytest", "-x", "-q", "--no-header", "-p", "no:cacheprovider", *selected)


MUTANTS: tuple[Mutant, ...] = ()
