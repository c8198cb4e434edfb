"""Messages are append-only, so that a stored decision can always be carried out: the text it names is what it named."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from functions.core.catalog import Message
from functions.core.event import digest


def release_key(message: Message) -> str:
    """How `released.toml` names this version: `id@version`."""
    return f"{message.id}@{message.version}"


def release_digest(message: Message) -> str:
    """SHA-256 over id, version, text and, where there is one, subject."""
    return digest(message.id, str(message.version), message.text, *([message.subject] if message.subject else []))


def broken_releases(messages: Iterable[Message], released: Mapping[str, str]) -> list[str]:
    """What is wrong, a line each: released versions that were edited or removed, and versions nobody released."""
    present = {release_key(message): release_digest(message) for message in messages}
    problems = [f"{key} was released and is gone" for key in sorted(set(released) - set(present))]
    for key, its_digest in sorted(present.items()):
        if key not in released:
            problems.append(f'{key} is not released; add to released.toml: "{key}" = "{its_digest}"')
        elif released[key] != its_digest:
            problems.append(f"{key} was released with another text; add it as a new version instead")
    return problems
