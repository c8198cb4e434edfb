"""The logic behind `holdfast verify`: does a signed request hold, and if not, why?  A sender's debugging tool.

A record is a JSON object: `provider`, `secret` (or `secrets`), `headers`, `body`; and as far as the scheme needs them
`method`, `url`, `secret_type`, `now` (seconds; the machine's clock without it), `tolerance_seconds` (300 without it),
`scheme_options` (those of a source's `scheme`), `id`. The checks are those of ingress itself.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from functions.core.clock import Clock, SystemClock
from functions.signatures.providers import PROVIDERS, scheme_of
from functions.signatures.scheme import TOLERANCE_SECONDS, Delivery, UnusableScheme, UnusableSecret

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


class _MalformedRecord(Exception):
    """A record lacks something or holds something of the wrong type."""


_SYSTEM = SystemClock()


def verify(record: object, clock: Clock = _SYSTEM) -> Verdict:
    """Check one record. Never raises for what is in it: the reason says `malformed_record: ...`."""
    record_id = ""
    try:
        if not isinstance(record, Mapping):
            raise _MalformedRecord("not a JSON object")
        record_id = str(record.get("id", ""))[:200]
        reason = _reason(record, clock)
    except _MalformedRecord as exc:
        return Verdict(record_id, INVALID, f"{MALFORMED_RECORD}: {exc}")
    except UnusableSecret as exc:
        return Verdict(record_id, INVALID, f"{UNUSABLE_SECRET}: {exc}")
    except UnusableScheme as exc:
        return Verdict(record_id, INVALID, f"{UNUSABLE_SCHEME}: {exc}")
    return Verdict(record_id, INVALID, reason) if reason else Verdict(record_id, VALID)


def verify_lines(lines: Iterable[str], clock: Clock = _SYSTEM) -> Iterator[dict[str, str | None]]:
    """One verdict per line of NDJSON, in order. Empty lines are passed over; a bad one is a verdict like any other."""
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            yield Verdict(f"line {number}", INVALID, f"{MALFORMED_RECORD}: not JSON").to_json()
            continue
        verdict = verify(record, clock)
        yield (verdict if verdict.id else Verdict(f"line {number}", verdict.verdict, verdict.reason)).to_json()


def _reason(record: Mapping[str, object], clock: Clock) -> str:
    provider = PROVIDERS.get(_text(record, "provider"))
    if provider is None:
        return UNSUPPORTED_PROVIDER
    headers = _headers(record)
    options = _options(record, headers)
    scheme = scheme_of(provider, options)
    tolerance_seconds = _seconds(record, "tolerance_seconds", TOLERANCE_SECONDS)
    verifier = scheme.verifier(_secrets(record), tolerance_seconds)
    body = _text(record, "body", "").encode("utf-8", "surrogatepass")
    delivery = Delivery(headers, body, _text(record, "method", "POST"), _text(record, "url", ""))
    reason = verifier.check(delivery, _seconds(record, "now", clock.now_ms() // 1000) * 1000)
    return "" if reason is None else reason.value


def _text(record: Mapping[str, object], key: str, default: str | None = None) -> str:
    value = record.get(key)
    if value is None and default is not None:
        return default
    if not isinstance(value, str):
        raise _MalformedRecord(f"{key} is missing or not a text")
    return value


def _seconds(record: Mapping[str, object], key: str, default: int) -> int:
    value = record.get(key)
    if value is None:
        return default
    if not isinstance(value, int | float) or isinstance(value, bool) or not abs(value) < MAX_SECONDS:
        raise _MalformedRecord(f"{key} is not a number of seconds")
    return int(value)


def _headers(record: Mapping[str, object]) -> dict[str, str]:
    headers = record.get("headers")
    if not isinstance(headers, Mapping):
        raise _MalformedRecord("headers is missing or not an object")
    if not all(isinstance(value, str) for value in headers.values()):
        raise _MalformedRecord("headers holds something that is not a text")
    return {str(name).lower(): str(value) for name, value in headers.items()}


def _secrets(record: Mapping[str, object]) -> list[str]:
    several = record.get("secrets")
    given = several if isinstance(several, list) else [record.get("secret")]
    secrets = [secret for secret in given if isinstance(secret, str)]
    if not secrets or len(secrets) < len(given):
        raise _MalformedRecord("secret is missing or not a text")
    try:
        "".join(secrets).encode()
    except UnicodeEncodeError as exc:
        raise _MalformedRecord("secret is not Unicode text") from exc
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
            raise _MalformedRecord("scheme_options is not a map of texts")
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
