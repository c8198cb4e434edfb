"""The logic behind `holdfast verify`: does a signed request hold, and if not, why?  A sender's debugging tool.

A record is a JSON object: `provider`, `secret` (or `secrets`), `headers`, `body`; and as far as the scheme needs them
`method`, `url`, `secret_type`, `now` (seconds; the machine's clock without it), `tolerance_seconds` (300 without it),
`scheme_options` (those of a source's `scheme`), `id`. The checks are those of ingress itself.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from functions.core.clock import Clock, SystemClock
from functions.signatures.providers import PROVIDERS, Provider, scheme_of
from functions.signatures.scheme import (
    TOLERANCE_SECONDS,
    Delivery,
    Reason,
    Scheme,
    UnusableScheme,
    UnusableSecret,
)
from ops.findings import Finding

VALID = "valid"
INVALID = "invalid"
UNSUPPORTED_PROVIDER = "unsupported_provider"
MALFORMED_RECORD = "malformed_record"
UNUSABLE_SECRET = "unusable_secret"  # noqa: S105  # a reason, no password
UNUSABLE_SCHEME = "unusable_scheme"
MAX_SECONDS = 1e12


@dataclass(frozen=True, slots=True)
class Verdict:
    """On one record. `reason` is empty for a valid one."""

    id: str
    verdict: str
    reason: str = ""

    def to_json(self) -> dict[str, str | None]:
        """`{"id", "verdict", "reason"}`, the reason null for a valid one."""
        return {"id": self.id, "verdict": self.verdict, "reason": self.reason or None}


class MalformedRecord(Exception):
    """A record lacks something or holds something of the wrong type. The text quotes nothing of it."""


class UnsupportedProvider(Exception):
    """A record names a provider that has no row."""


@dataclass(frozen=True, slots=True)
class Request:
    """A record that could be read: what was sent, and what the source would check it against."""

    provider: Provider
    scheme: Scheme
    secrets: tuple[str, ...] = field(repr=False)
    delivery: Delivery = field(repr=False)
    now_ms: int
    tolerance_seconds: int

    def check(self) -> Reason | None:
        """What ingress makes of it. Raises `UnusableSecret`."""
        return self.scheme.verifier(self.secrets, self.tolerance_seconds).check(self.delivery, self.now_ms)


class _NotJson:
    """Stands for a line that is no JSON."""


Explain = Callable[[object, Clock], Sequence[Finding]]
_NOT_JSON = _NotJson()
_SYSTEM = SystemClock()


@dataclass(frozen=True, slots=True)
class _Stopped:
    """One moment, so that two looks at a record see it equally old."""

    ms: int

    def now_ms(self) -> int:
        return self.ms


def verify(record: object, clock: Clock = _SYSTEM) -> Verdict:
    """Check one record. Never raises for what is in it: the reason says `malformed_record: ...`."""
    record_id = str(record.get("id", ""))[:200] if isinstance(record, Mapping) else ""
    try:
        reason = read(record, clock).check()
    except MalformedRecord as exc:
        return Verdict(record_id, INVALID, f"{MALFORMED_RECORD}: {exc}")
    except UnsupportedProvider:
        return Verdict(record_id, INVALID, UNSUPPORTED_PROVIDER)
    except UnusableSecret as exc:
        return Verdict(record_id, INVALID, f"{UNUSABLE_SECRET}: {exc}")
    except UnusableScheme as exc:
        return Verdict(record_id, INVALID, f"{UNUSABLE_SCHEME}: {exc}")
    return Verdict(record_id, VALID) if reason is None else Verdict(record_id, INVALID, reason.value)


def verify_lines(
    lines: Iterable[str], clock: Clock = _SYSTEM, explain: Explain | None = None
) -> Iterator[dict[str, object]]:
    """One verdict per line of NDJSON, in order. Empty lines are passed over; a bad one is a verdict like any other.

    With `explain` each has its `findings` too: `{"code", "detail", "fix"}`, none for a valid one.
    """
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            record: object = json.loads(line)
        except (ValueError, RecursionError):
            record = _NOT_JSON  # judged below, like any other bad record
        then = _Stopped(clock.now_ms())
        verdict = verify(record, then)
        document: dict[str, object] = {**verdict.to_json(), "id": verdict.id or f"line {number}"}
        if explain is not None:
            is_valid = verdict.verdict == VALID
            document["findings"] = [] if is_valid else [finding.to_json() for finding in explain(record, then)]
        yield document


def read(record: object, clock: Clock = _SYSTEM) -> Request:
    """What a record says. Raises `MalformedRecord`, `UnsupportedProvider`, `UnusableScheme`."""
    if record is _NOT_JSON:
        raise MalformedRecord("not JSON")
    if not isinstance(record, Mapping):
        raise MalformedRecord("not a JSON object")
    provider = PROVIDERS.get(_text(record, "provider"))
    if provider is None:
        raise UnsupportedProvider
    headers = _headers(record)
    scheme = scheme_of(provider, _options(record, headers))
    tolerance_seconds = _seconds(record, "tolerance_seconds", TOLERANCE_SECONDS)
    secrets = tuple(_secrets(record))
    body = _text(record, "body", "").encode("utf-8", "surrogatepass")
    delivery = Delivery(headers, body, _text(record, "method", "POST"), _text(record, "url", ""))
    now_ms = _seconds(record, "now", clock.now_ms() // 1000) * 1000
    return Request(provider, scheme, secrets, delivery, now_ms, tolerance_seconds)


def _text(record: Mapping[str, object], key: str, default: str | None = None) -> str:
    value = record.get(key)
    if value is None and default is not None:
        return default
    if not isinstance(value, str):
        raise MalformedRecord(f"{key} is missing or not a text")
    return value


def _seconds(record: Mapping[str, object], key: str, default: int) -> int:
    value = record.get(key)
    if value is None:
        return default
    if not isinstance(value, int | float) or isinstance(value, bool) or not abs(value) < MAX_SECONDS:
        raise MalformedRecord(f"{key} is not a number of seconds")
    return int(value)


def _headers(record: Mapping[str, object]) -> dict[str, str]:
    headers = record.get("headers")
    if not isinstance(headers, Mapping):
        raise MalformedRecord("headers is missing or not an object")
    if not all(isinstance(value, str) for value in headers.values()):
        raise MalformedRecord("headers holds something that is not a text")
    return {str(name).lower(): str(value) for name, value in headers.items()}


def _secrets(record: Mapping[str, object]) -> list[str]:
    several = record.get("secrets")
    given = several if isinstance(several, list) else [record.get("secret")]
    secrets = [secret for secret in given if isinstance(secret, str)]
    if not secrets or len(secrets) < len(given):
        raise MalformedRecord("secret is missing or not a text")
    try:
        "".join(secrets).encode()
    except UnicodeEncodeError as exc:
        raise MalformedRecord("secret is not Unicode text") from exc
    if record.get("secret_type") == "ed25519_public_key_base64":
        return [secret if secret.startswith("whpk_") else f"whpk_{secret}" for secret in secrets]
    return secrets


# What a request carries whoever sends it: never where a signature or a key is.
_ORDINARY_HEADERS = frozenset(
    {"accept", "accept-encoding", "connection", "content-length", "content-type", "date", "host", "user-agent"}
)
_SIGNATURE_NAME = re.compile(r"signature|hmac|digest|hash")
_DIGEST_BYTES = {20: "sha1", 32: "sha256", 48: "sha384", 64: "sha512"}
_HEX = re.compile(r"[0-9A-Fa-f]+\Z")


def _options(record: Mapping[str, object], headers: Mapping[str, str]) -> dict[str, str]:
    """The options of a configurable scheme: as given, or read off the request where it leaves no doubt."""
    given = record.get("scheme_options")
    if given is not None:
        if not isinstance(given, Mapping) or not all(isinstance(value, str) for value in given.values()):
            raise MalformedRecord("scheme_options is not a map of texts")
        return {str(name): str(value) for name, value in given.items()}
    provider = record.get("provider")
    unusual = sorted(name for name in headers if name not in _ORDINARY_HEADERS)
    if provider in ("generic-apikey", "static-header") and len(unusual) == 1:
        return {"header": unusual[0]}
    if provider == "generic-hmac":
        named = [name for name in unusual if _SIGNATURE_NAME.search(name)]
        if len(named) != 1:
            raise UnusableScheme("say in scheme_options which header holds the signature")
        return {"header": named[0], **_written_as(headers[named[0]])} | _key_encoding(record)
    return {}


def _written_as(signature: str) -> dict[str, str]:
    """Algorithm and encoding, from the length and the letters of a digest."""
    if _HEX.match(signature) and len(signature) // 2 in _DIGEST_BYTES:
        return {"encoding": "hex", "algorithm": _DIGEST_BYTES[len(signature) // 2]}
    size = len(signature) // 4 * 3 - (len(signature) - len(signature.rstrip("=")))
    if len(signature) % 4 == 0 and size in _DIGEST_BYTES:
        return {"encoding": "base64", "algorithm": _DIGEST_BYTES[size]}
    return {}


def _key_encoding(record: Mapping[str, object]) -> dict[str, str]:
    secret_type = record.get("secret_type")
    return {"secret_encoding": str(secret_type)} if secret_type in ("hex", "base64") else {}
