"""A source: one sender's endpoint, as an operator declares it in the parameter store (architecture §5).

Most sources are `{"tenant", "provider", "secrets", "flow"}`; the provider's row in `functions.signatures` has the rest.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import TypeVar

from functions.core.event import NAME
from functions.core.failure import HoldfastError
from functions.core.pointer import check_pointer

DEFAULT_REPEAT_WINDOW_SECONDS = 600
MAX_REPEAT_WINDOW_SECONDS = 7 * 24 * 3600
MAX_SECRETS = 8
HEADER_NAME = re.compile(r"[a-z0-9!#$%&'*+.^_`|~-]{1,100}\Z")
_PROVIDER = re.compile(r"[a-z0-9-]{1,64}\Z")
_FIELD = re.compile(r"[a-z0-9_]{1,64}\Z")
_PUBLIC_URL = re.compile(r"https?://[^\s/?#@]+(?:/[^\s?#]*)?\Z")
_Default = TypeVar("_Default", int, None)


def _nothing() -> Mapping[str, str]:
    return MappingProxyType({})


class MalformedSource(HoldfastError):
    """A source's entry cannot be used. The text names what is wrong with it and quotes no secret."""


class SourceState(StrEnum):
    """`held` accepts events and parks them; `disabled` refuses them as if the source did not exist."""

    ACTIVE = "active"
    HELD = "held"
    DISABLED = "disabled"


@dataclass(frozen=True, slots=True)
class Secret:
    """One active secret. `created_at` is the operator's own note, for the next rotation."""

    value: str = field(repr=False)
    created_at: str = ""


@dataclass(frozen=True, slots=True)
class IdentityRule:
    """Where a delivery's id is: a lower-case header name, or pointers into the body that together are the id.

    `with_body`: the id alone does not tell two events apart (it is that of one event of several in the body, or of a
    thing that has many), so that the stable part of the body counts too.
    """

    header: str = ""
    pointers: tuple[str, ...] = ()
    with_body: bool = False

    def __post_init__(self) -> None:
        if bool(self.header) == bool(self.pointers):
            raise MalformedSource("an identity is either a header or pointers")


@dataclass(frozen=True, slots=True)
class Throttle:
    """What one sender may send to one environment of ingress: `rate` events a second, `burst` at once."""

    rate: float
    burst: int


@dataclass(frozen=True, slots=True)
class Source:
    """One sender's endpoint.

    What is None is left to the provider. `identity == ()` means that the sender gives no id at all: equal events within
    `repeat_window_seconds` are then the same event. `claims_covered` is the operator's claim that the signature covers
    the id's header, to be checked against the scheme. `scheme` holds the options of a configurable scheme.
    `fields` are pointers for the flow. `public_url` is the address the sender was given, where a proxy hides it.
    `verify_token` is the text that a provider's challenge repeats (Meta), as the operator entered it there.
    """

    id: str
    tenant: str
    provider: str
    flow: str
    secrets: tuple[Secret, ...]
    state: SourceState = SourceState.ACTIVE
    identity: tuple[IdentityRule, ...] | None = None
    claims_covered: bool | None = None
    repeat_window_seconds: int = DEFAULT_REPEAT_WINDOW_SECONDS
    throttle: Throttle | None = None
    expected_gap_seconds: int | None = None
    fields: Mapping[str, str] = field(default_factory=_nothing)
    scheme: Mapping[str, str] = field(default_factory=_nothing)
    event_name: tuple[str, ...] | None = None
    event_version: tuple[str, ...] | None = None
    content: str = ""
    public_url: str = ""
    verify_token: str = field(default="", repr=False)

    @staticmethod
    def parse(source_id: str, json_text: str) -> Source:
        """Read a source's entry. Raises `MalformedSource`; an unknown key is refused: it may be misspelt."""
        if not NAME.match(source_id):
            raise MalformedSource("the id is not 1 to 64 letters, digits, '-' or '_'")
        try:
            raw = json.loads(json_text)
        except (ValueError, RecursionError) as exc:
            raise MalformedSource("the entry is not JSON") from exc
        if not isinstance(raw, dict):
            raise MalformedSource("the entry is not a JSON object")
        unknown = sorted(set(raw) - _KEYS)
        if unknown:
            raise MalformedSource(f"unknown key {ascii(unknown[0])[:40]}")
        identity, claims_covered = _identity(raw.get("identity"))
        return Source(
            id=source_id,
            tenant=_matching(raw, "tenant", NAME, "1 to 64 letters, digits, '-' or '_'"),
            provider=_matching(raw, "provider", _PROVIDER, "1 to 64 lower-case letters, digits or '-'"),
            flow=_matching(raw, "flow", NAME, "1 to 64 letters, digits, '-' or '_'"),
            secrets=_secrets(raw.get("secrets")),
            state=_state(raw.get("state", "active")),
            identity=identity,
            claims_covered=claims_covered,
            repeat_window_seconds=_whole(
                raw, "repeat_window_seconds", 1, MAX_REPEAT_WINDOW_SECONDS, DEFAULT_REPEAT_WINDOW_SECONDS
            ),
            throttle=_throttle(raw.get("throttle")),
            expected_gap_seconds=_whole(raw, "expected_gap_seconds", 1, 366 * 24 * 3600, None),
            fields=_fields(raw.get("fields", {})),
            scheme=_options(raw.get("scheme", {})),
            event_name=_selectors(raw, "event_name"),
            event_version=_selectors(raw, "event_version"),
            content=_content(raw.get("content", "")),
            public_url=_public_url(raw.get("public_url", "")),
            verify_token=_verify_token(raw.get("verify_token", "")),
        )


_KEYS = frozenset(
    {
        "tenant",
        "provider",
        "flow",
        "secrets",
        "state",
        "identity",
        "repeat_window_seconds",
        "throttle",
        "expected_gap_seconds",
        "fields",
        "scheme",
        "event_name",
        "event_version",
        "content",
        "public_url",
        "verify_token",
    }
)


def _matching(raw: Mapping[str, object], key: str, pattern: re.Pattern[str], shape: str) -> str:
    value = raw.get(key)
    if not isinstance(value, str) or not pattern.match(value):
        raise MalformedSource(f"{key} is not {shape}")
    return value


def _whole(raw: Mapping[str, object], key: str, low: int, high: int, default: _Default) -> int | _Default:
    value = raw.get(key)
    if value is None:
        return default
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise MalformedSource(f"{key} is not a whole number from {low} to {high}")
    return value


def _state(value: object) -> SourceState:
    if not isinstance(value, str) or value not in set(SourceState):
        raise MalformedSource("state is none of active, held, disabled")
    return SourceState(value)


def _secrets(value: object) -> tuple[Secret, ...]:
    if not isinstance(value, list) or not 1 <= len(value) <= MAX_SECRETS:
        raise MalformedSource(f'secrets is not a list of 1 to {MAX_SECRETS} objects {{"secret": ...}}')
    secrets = []
    for number, entry in enumerate(value, start=1):
        text = entry.get("secret") if isinstance(entry, dict) else None
        if not isinstance(text, str) or not text or len(text) > 4096:
            raise MalformedSource(f"secret {number} is missing, empty or over 4096 characters")
        if text != text.strip():
            raise MalformedSource(f"secret {number} begins or ends with white space, which no sender signs with")
        try:
            text.encode()
        except UnicodeEncodeError as exc:
            raise MalformedSource(f"secret {number} is not Unicode text") from exc
        created_at = entry.get("created_at", "")
        if not isinstance(created_at, str):
            raise MalformedSource(f"created_at of secret {number} is not a text")
        secrets.append(Secret(text, created_at))
    return tuple(secrets)


def _identity(value: object) -> tuple[tuple[IdentityRule, ...] | None, bool | None]:
    if value is None:
        return None, None
    if value == "window":
        return (), None
    if not isinstance(value, dict) or set(value) not in ({"header"}, {"header", "covered"}, {"pointers"}):
        raise MalformedSource('identity is none of "window", {"header", "covered"}, {"pointers"}')
    if "pointers" in value:
        pointers = value["pointers"]
        if not isinstance(pointers, list) or not 1 <= len(pointers) <= 8:
            raise MalformedSource("identity.pointers is not a list of 1 to 8 JSON pointers")
        return (IdentityRule(pointers=tuple(_pointer(pointer, "identity.pointers") for pointer in pointers)),), None
    covered = value.get("covered")
    if covered is not None and not isinstance(covered, bool):
        raise MalformedSource("identity.covered is not true or false")
    return (IdentityRule(header=_header(value["header"], "identity.header")),), covered


def _pointer(value: object, where: str) -> str:
    if not isinstance(value, str) or not value:
        raise MalformedSource(f"{where} holds something that is no JSON pointer")
    try:
        return check_pointer(value)
    except ValueError as exc:
        raise MalformedSource(f"{where}: {exc}") from exc


def _header(value: object, where: str) -> str:
    if not isinstance(value, str) or not HEADER_NAME.match(value.lower()):
        raise MalformedSource(f"{where} is not a header name")
    return value.lower()


def _throttle(value: object) -> Throttle | None:
    if value is None:
        return None
    if not isinstance(value, dict) or set(value) != {"rate", "burst"}:
        raise MalformedSource('throttle is not {"rate", "burst"}')
    rate, burst = value["rate"], value["burst"]
    if not isinstance(rate, int | float) or isinstance(rate, bool) or not 0 < rate <= 1e6:
        raise MalformedSource("throttle.rate is not a number of events a second, above 0")
    if not isinstance(burst, int) or isinstance(burst, bool) or not 1 <= burst <= 1_000_000:
        raise MalformedSource("throttle.burst is not a whole number of events, at least 1")
    return Throttle(float(rate), burst)


def _fields(value: object) -> Mapping[str, str]:
    if not isinstance(value, dict) or len(value) > 64:
        raise MalformedSource("fields is not a map of at most 64 JSON pointers")
    for name in value:
        if not _FIELD.match(name):
            raise MalformedSource("fields has a name that is not lower-case letters, digits or '_'")
    return MappingProxyType({name: _pointer(pointer, "fields") for name, pointer in value.items()})


def _options(value: object) -> Mapping[str, str]:
    if not isinstance(value, dict) or not all(isinstance(option, str) for option in value.values()):
        raise MalformedSource("scheme is not a map of texts")
    return MappingProxyType(dict(value))


def _selectors(raw: Mapping[str, object], key: str) -> tuple[str, ...] | None:
    value = raw.get(key)
    if value is None:
        return None
    if not isinstance(value, list) or not 1 <= len(value) <= 8:
        raise MalformedSource(f"{key} is not a list of 1 to 8 selectors")
    return tuple(_selector(entry, key) for entry in value)


def _selector(value: object, key: str) -> str:
    if isinstance(value, str) and value.startswith("header:"):
        return "header:" + _header(value.removeprefix("header:"), key)
    return _pointer(value, key)


def _content(value: object) -> str:
    if value not in ("", "json", "form", "json_or_form", "any"):
        raise MalformedSource("content is none of json, form, json_or_form, any")
    return str(value)


def _public_url(value: object) -> str:
    if not isinstance(value, str) or (value and not _PUBLIC_URL.match(value)):
        raise MalformedSource("public_url is not http(s)://host/path without a query")
    return value


def _verify_token(value: object) -> str:
    if not isinstance(value, str) or len(value) > 256 or not value.isprintable() or value != value.strip():
        raise MalformedSource("verify_token is not a text of at most 256 printable characters without space around it")
    return value
