"""DynamoDB's typed values, to and from plain ones: texts, bytes, whole numbers, truth values, lists and maps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Item = dict[str, Any]
"""An item on the wire: attribute name to typed value."""


def sound(text: str) -> str:
    """The text with half surrogate pairs spelled out: JSON can smuggle them in, and no request can carry them."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode("utf-8")


def value(plain: Any) -> Any:
    """A plain value in DynamoDB's form. Raises TypeError for anything but those of the module's first line."""
    if isinstance(plain, str):
        return {"S": sound(plain)}
    if isinstance(plain, bool):
        return {"BOOL": plain}
    if isinstance(plain, int):
        return {"N": str(plain)}
    if isinstance(plain, bytes):
        return {"B": plain}
    if isinstance(plain, Mapping):
        return {"M": {sound(name): value(inner) for name, inner in plain.items()}}
    if isinstance(plain, list | tuple):
        return {"L": [value(inner) for inner in plain]}
    raise TypeError(f"{type(plain).__name__} has no form in a table")


def plain(typed: Mapping[str, Any]) -> Any:
    """What `value` was given. Numbers come back whole; raises ValueError for a type that is not written here."""
    for kind, content in typed.items():
        if kind in ("S", "B", "BOOL"):
            return content
        if kind == "N":
            return int(content)
        if kind == "M":
            return {name: plain(inner) for name, inner in content.items()}
        if kind == "L":
            return [plain(inner) for inner in content]
    raise ValueError(f"an attribute of type {', '.join(typed) or 'none'} is not one of ours")


def item(attributes: Mapping[str, Any]) -> Item:
    """A whole item in DynamoDB's form."""
    return {name: value(content) for name, content in attributes.items()}


def names(words: Iterable[str]) -> dict[str, str]:
    """Placeholders for attribute names, `#word`: a good part of the plain words is reserved."""
    return {f"#{word}": word for word in words}


def values(plain_values: Mapping[str, Any]) -> Item:
    """Placeholders for values, `:word`."""
    return {f":{word}": value(content) for word, content in plain_values.items()}


def chunks(entries: Sequence[Any], size: int) -> list[Sequence[Any]]:
    """The entries in lists of at most `size`."""
    return [entries[start : start + size] for start in range(0, len(entries), size)]
