"""How a delivery proves where it comes from: keyed digests, shared secrets, Basic credentials.

A scheme is data; `Scheme.verifier(secrets)` turns it and a source's secrets into something that checks deliveries.
Every comparison takes the same time whatever differs. Sources of the recipes are named beside each row of `providers`.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Protocol
from urllib.parse import parse_qs, unquote_to_bytes, urlsplit

TOLERANCE_SECONDS = 300
MAX_SIGNATURES = 32  # in one header; each costs a comparison per secret
MAX_FORM_FIELDS = 2000
NO_CRYPTOGRAPHY = "public keys need the package cryptography, which is not installed here"


class Reason(StrEnum):
    """Why a delivery is refused."""

    MISSING_HEADER = "missing_header"
    MALFORMED = "malformed"
    UNKNOWN_VERSION = "unknown_version"
    EMPTY_SECRET = "empty_secret"  # noqa: S105  # a reason, no password
    MISMATCH = "mismatch"
    BODY_HASH_MISMATCH = "body_hash_mismatch"
    TIMESTAMP = "timestamp"


class UnusableSecret(Exception):
    """A secret cannot be used with the scheme. The text says why and quotes nothing of it."""


class UnusableScheme(Exception):
    """The options of a configurable scheme make no scheme, or an unsafe one."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """What the sender signed. Header names are lower-case, `url` is the public one with its query, `body` raw bytes."""

    headers: Mapping[str, str]
    body: bytes
    method: str = "POST"
    url: str = ""

    @property
    def is_form(self) -> bool:
        """Whether the body says it is `application/x-www-form-urlencoded`."""
        return media_type(self.headers.get("content-type", "")) == "application/x-www-form-urlencoded"


def media_type(content_type: str) -> str:
    """The type and subtype of a Content-Type, lower-case, without parameters."""
    return content_type.partition(";")[0].strip().lower()


@dataclass(frozen=True, slots=True)
class Findings:
    """What a delivery's headers were found to be, for people. Names and a moment, never a value.

    `missing`: names that the scheme looked for and did not find. `malformed`: those it could not read.
    `signed_at_ms`: when the sender says it signed; None where it does not say.
    """

    missing: tuple[str, ...] = ()
    malformed: tuple[str, ...] = ()
    signed_at_ms: int | None = None


class Verifier(Protocol):
    """Checks deliveries against the secrets of one source."""

    def check(self, delivery: Delivery, now_ms: int) -> Reason | None:
        """None for a delivery that one of the secrets made, within the tolerance; else why not."""
        ...

    def covers_header(self, name: str) -> bool:
        """Whether nobody but the holder of the secret can have chosen this header."""
        ...

    def findings(self, delivery: Delivery) -> Findings:
        """What there is to say of the headers. Asked after the verdict, never on the way to it."""
        ...


class Scheme(Protocol):
    """A way to sign, still without secrets."""

    def verifier(self, secrets: Sequence[str], tolerance_seconds: int = TOLERANCE_SECONDS) -> Verifier:
        """Raises `UnusableSecret` for a secret that does not fit the scheme."""
        ...


class Encoding(StrEnum):
    """How a digest is written."""

    HEX = "hex"
    BASE64 = "base64"

    def write(self, digest: bytes) -> bytes:
        """The digest as ASCII."""
        return digest.hex().encode() if self is Encoding.HEX else base64.b64encode(digest)

    def is_shape_of(self, text: str, digest_size: int) -> bool:
        """Whether the text is a digest of that many bytes in this writing."""
        if self is Encoding.HEX:
            return len(text) == 2 * digest_size and _HEX.match(text) is not None
        return len(text) == (digest_size + 2) // 3 * 4 and _BASE64.match(text) is not None


# In one case throughout: where a single letter has another, somebody has touched it.
_HEX = re.compile(r"(?:[0-9a-f]+|[0-9A-F]+)\Z")
_BASE64 = re.compile(r"[A-Za-z0-9+/]+={0,2}\Z")


class SecretForm(StrEnum):
    """How the text an operator pastes becomes a key."""

    TEXT = "text"  # its UTF-8 bytes
    BASE64 = "base64"  # decoded, after `whsec_` if it is there
    HEX = "hex"

    def key(self, secret: str) -> bytes:
        """The key. Raises `UnusableSecret`."""
        if self is SecretForm.TEXT:
            return secret.encode()
        try:
            if self is SecretForm.HEX:
                return bytes.fromhex(secret)
            text = secret.removeprefix("whsec_")
            return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
        except (binascii.Error, ValueError) as exc:
            raise UnusableSecret(f"it is not {self.value}") from exc


class Moment(StrEnum):
    """How a sender writes when it signed."""

    SECONDS = "s"
    MILLISECONDS = "ms"
    RFC3339 = "rfc3339"

    def read_ms(self, text: str) -> int | None:
        """Milliseconds since the epoch, or None for text that is no such moment."""
        if self is Moment.RFC3339:
            try:
                moment = datetime.fromisoformat(text)
                return int(moment.timestamp() * 1000) if moment.tzinfo else None
            except (ValueError, OverflowError):
                return None
        if not _WHOLE.match(text):
            return None
        return int(text) * (1000 if self is Moment.SECONDS else 1)


_WHOLE = re.compile(r"[0-9]{1,15}\Z")


@dataclass(frozen=True, slots=True)
class Headers:
    """One set of lower-case header names that a scheme goes by. Empty: the scheme has no such header."""

    signature: str
    timestamp: str = ""
    id: str = ""

    def are_complete_in(self, headers: Mapping[str, str]) -> bool:
        """Whether all of them are there, and moment and id say something."""
        return self.signature in headers and all(headers.get(name) for name in (self.timestamp, self.id) if name)

    def missing_in(self, headers: Mapping[str, str]) -> tuple[str, ...]:
        """Those that are not there, or say nothing where they must."""
        missing = () if self.signature in headers else (self.signature,)
        return missing + tuple(name for name in (self.timestamp, self.id) if name and not headers.get(name))


@dataclass(frozen=True, slots=True)
class Ed25519:
    """The public-key sister of a keyed digest: secrets that start with `key_prefix` are public keys, base64."""

    version: str
    key_prefix: str


@dataclass(frozen=True, slots=True)
class KeyedDigest:
    """HMAC over a template of the delivery.

    `headers`: alternatives; the first set that is complete counts.
    `content`: literals and `{body} {timestamp} {id} {url} {method} {form}`, in the order they are signed.
    The signature header is one item, or several between `separator`s; an item is `{version}{joiner}{digest}`, or
    just the digest where the scheme has no version.
    With `timestamp_key` the moment is an item of that header instead of a header of its own.
    `form` stands for the sorted form fields (Twilio); where the body is no form, the query member `body_hash_query`
    must hold its SHA-256 instead. `tries_ports`: the sender may have signed the address with or without its port;
    `tries_decoded`: or with its punctuation decoded (HubSpot).
    `is_plain_hash`: no HMAC but the hash of secret and content (HubSpot's older versions).
    `is_spaced`: the sender puts white space beside its separators (WorkOS). Elsewhere an item is taken as it stands.
    `takes_capitals`: the digits of a hexadecimal digest may be capitals; senders with an SDK write small ones.
    `id_borders`: what stands beside `{id}` in the content, and so in no id: else a copy could move the border.
    """

    headers: tuple[Headers, ...]
    encoding: Encoding
    content: str = "{body}"
    algorithm: str = "sha256"
    version: str = ""
    joiner: str = "="
    separator: str = ""
    timestamp_key: str = ""
    moment: Moment = Moment.SECONDS
    secret_form: SecretForm = SecretForm.TEXT
    public_key: Ed25519 | None = None
    body_hash_query: str = ""
    tries_ports: bool = False
    tries_decoded: bool = False
    is_plain_hash: bool = False
    is_spaced: bool = False
    takes_capitals: bool = False
    id_borders: tuple[str, ...] = ()

    def verifier(self, secrets: Sequence[str], tolerance_seconds: int = TOLERANCE_SECONDS) -> Verifier:
        """Raises `UnusableSecret` naming the secret's place in the list."""
        keys: list[bytes] = []
        public_keys: list[Callable[[bytes, bytes], bool]] = []
        for number, secret in enumerate(secrets, start=1):
            try:
                if self.public_key and secret.startswith(self.public_key.key_prefix):
                    public_keys.append(ed25519(secret.removeprefix(self.public_key.key_prefix), Encoding.BASE64))
                else:
                    keys.append(self.secret_form.key(secret))
            except UnusableSecret as exc:
                raise UnusableSecret(f"secret {number}: {exc}") from exc
        return DigestVerifier(self, tuple(keys), tuple(public_keys), tolerance_seconds * 1000)


_PART = re.compile(r"\{(body|timestamp|id|url|method|form)\}")


@dataclass(frozen=True, slots=True)
class _Presented:
    """What a signature header holds."""

    digests: tuple[str, ...]
    public_signatures: tuple[str, ...]
    timestamp: str
    other_versions: bool
    is_malformed: bool


class _Hash(Protocol):
    def update(self, data: bytes, /) -> None: ...

    def digest(self) -> bytes: ...


# : / ? @ ! $ ' ( ) * , ;  and nothing else, as HubSpot's list has it.
_ENCODED_PUNCTUATION = re.compile(r"%(3A|2F|3F|40|21|24|27|28|29|2A|2C|3B)", re.IGNORECASE)


class _Unsigned(Exception):
    """The signature cannot cover this delivery's body."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason.value)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class DigestVerifier:
    """A `KeyedDigest` with the secrets of one source."""

    scheme: KeyedDigest
    keys: tuple[bytes, ...] = field(repr=False)
    public_keys: tuple[Callable[[bytes, bytes], bool], ...] = field(repr=False)
    tolerance_ms: int

    def covers_header(self, name: str) -> bool:
        """Whether the header is part of the signed content."""
        signed = set()
        for names in self.scheme.headers:
            signed |= {names.id} if "{id}" in self.scheme.content else set()
            signed |= {names.timestamp} if "{timestamp}" in self.scheme.content else set()
        return name in signed - {""}

    def check(self, delivery: Delivery, now_ms: int) -> Reason | None:
        """Signature first, then the moment: `timestamp` means authentic but old, or replayed."""
        scheme = self.scheme
        if not all(self.keys):
            return Reason.EMPTY_SECRET
        names = next((names for names in scheme.headers if names.are_complete_in(delivery.headers)), None)
        if names is None:
            return Reason.MISSING_HEADER
        if self._is_ambiguous(delivery.headers, names):
            return Reason.MALFORMED
        presented = self._presented(delivery.headers[names.signature])
        timestamp = presented.timestamp if scheme.timestamp_key else delivery.headers.get(names.timestamp, "").strip()
        if presented.is_malformed:
            return Reason.MALFORMED
        if not presented.digests and not presented.public_signatures:
            return Reason.UNKNOWN_VERSION if presented.other_versions else Reason.MALFORMED
        signed_at_ms = None
        if scheme.timestamp_key or names.timestamp:
            signed_at_ms = scheme.moment.read_ms(timestamp)
            if signed_at_ms is None:
                return Reason.MALFORMED
        try:
            is_authentic = self._is_authentic(delivery, presented, timestamp, delivery.headers.get(names.id, ""))
        except _Unsigned as exc:
            return exc.reason
        except ValueError:
            return Reason.MALFORMED  # an address that is none: urllib's word for it
        if not is_authentic:
            return Reason.MISMATCH
        if signed_at_ms is not None and abs(now_ms - signed_at_ms) > self.tolerance_ms:
            return Reason.TIMESTAMP
        return None

    def findings(self, delivery: Delivery) -> Findings:
        """Of alternative sets of headers the one of which most is there."""
        scheme, headers = self.scheme, delivery.headers
        names = min(scheme.headers, key=lambda names: len(names.missing_in(headers)))
        missing = names.missing_in(headers)
        if missing:
            return Findings(missing)
        presented = self._presented(headers[names.signature])
        moment_header = names.signature if scheme.timestamp_key else names.timestamp
        timestamp = presented.timestamp if scheme.timestamp_key else headers.get(names.timestamp, "").strip()
        signed_at_ms = scheme.moment.read_ms(timestamp) if moment_header else None
        malformed = []
        if presented.is_malformed or not (presented.digests or presented.public_signatures):
            malformed.append(names.signature)
        if moment_header and signed_at_ms is None:
            malformed.append(moment_header)
        if self._is_ambiguous(headers, names):
            malformed.append(names.id)
        return Findings(malformed=tuple(dict.fromkeys(malformed)), signed_at_ms=signed_at_ms)

    def _is_ambiguous(self, headers: Mapping[str, str], names: Headers) -> bool:
        """Whether the delivery's id could be read in two ways, of which one signature would cover only one."""
        id_ = headers.get(names.id, "")
        others = (other.id for other in self.scheme.headers if other.id and other is not names)
        return any(headers.get(other, id_) != id_ for other in others) or any(
            border in id_ for border in self.scheme.id_borders
        )

    def _presented(self, text: str) -> _Presented:
        scheme = self.scheme
        text = text.strip()  # HTTP does not count it to the value: RFC 9110, 5.5
        items = text.split(scheme.separator) if scheme.separator else [text]
        if scheme.is_spaced:
            items = [item.strip() for item in items]
        digest_size = hashlib.new(scheme.algorithm).digest_size
        digests: list[str] = []
        public_signatures: list[str] = []
        timestamps: list[str] = []
        other_versions = is_broken = False
        for item in items[: MAX_SIGNATURES + 1]:
            if not scheme.version:
                version, value = "", item
            else:
                version, joiner, value = item.partition(scheme.joiner)
                if not joiner:
                    is_broken = True  # a header is read whole or not at all
                    continue
            if scheme.timestamp_key and version == scheme.timestamp_key:
                timestamps.append(value)
            elif version == scheme.version:
                if scheme.encoding.is_shape_of(value, digest_size):
                    digests.append(value.lower() if scheme.takes_capitals else value)
            elif scheme.public_key and version == scheme.public_key.version:
                public_signatures.append(value)
            else:
                other_versions = True
        is_malformed = (
            is_broken
            or len(items) > MAX_SIGNATURES
            or len(timestamps) > 1
            or (bool(scheme.timestamp_key) and not timestamps)
        )
        return _Presented(
            tuple(digests), tuple(public_signatures), timestamps[0] if timestamps else "", other_versions, is_malformed
        )

    def _is_authentic(self, delivery: Delivery, presented: _Presented, timestamp: str, id_: str) -> bool:
        is_authentic = False
        for url in self._urls(delivery.url):
            parts = list(self._content(delivery, timestamp, id_, url))
            for key in self.keys if presented.digests else ():
                state = self._started(key)
                for part in parts:
                    state.update(part)
                expected = self.scheme.encoding.write(state.digest())
                for digest in presented.digests:
                    is_authentic |= hmac.compare_digest(expected, digest.encode())
            for is_signature in self.public_keys if presented.public_signatures else ():
                content = b"".join(parts)
                is_authentic |= any(
                    is_signature(bytes_of_base64(text), content) for text in presented.public_signatures
                )
        return is_authentic

    def _urls(self, url: str) -> tuple[str, ...]:
        if self.scheme.tries_ports:
            return _with_and_without_port(url)
        if self.scheme.tries_decoded:
            decoded = _ENCODED_PUNCTUATION.sub(lambda found: chr(int(found.group(1), 16)), url)
            return (url,) if decoded == url else (url, decoded)
        return (url,)

    def _started(self, key: bytes) -> _Hash:
        if self.scheme.is_plain_hash:
            return hashlib.new(self.scheme.algorithm, key)
        return hmac.new(key, digestmod=self.scheme.algorithm)

    def _content(self, delivery: Delivery, timestamp: str, id_: str, url: str) -> Iterator[bytes]:
        texts = {"timestamp": timestamp, "id": id_, "url": url, "method": delivery.method}
        at = 0
        for found in _PART.finditer(self.scheme.content):
            yield self.scheme.content[at : found.start()].encode()
            at = found.end()
            name = found.group(1)
            if name == "body":
                yield delivery.body
            elif name == "form":
                yield _form_content(delivery, self.scheme.body_hash_query)
            else:
                yield texts[name].encode("utf-8", "surrogatepass")
        yield self.scheme.content[at:].encode()


def bytes_of_base64(text: str) -> bytes:
    """What is written in base64, in its one canonical form (RFC 4648, 3.5); nothing for any other text.

    No key signs with nothing: it is refused like any other wrong signature.
    """
    try:
        found = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return b""
    return found if base64.b64encode(found).decode() == text else b""


def ed25519(public_key: str, written: Encoding) -> Callable[[bytes, bytes], bool]:
    """A verifier of Ed25519 signatures; the key is 32 bytes in that writing. Raises `UnusableSecret`."""
    try:
        from cryptography.exceptions import InvalidSignature  # noqa: PLC0415  # only public keys need it
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey  # noqa: PLC0415  # as above
    except ImportError as exc:
        raise UnusableSecret(NO_CRYPTOGRAPHY) from exc
    is_hex = written is Encoding.HEX
    try:
        raw = bytes.fromhex(public_key) if is_hex else base64.b64decode(public_key, validate=True)
        key = Ed25519PublicKey.from_public_bytes(raw)
    except (binascii.Error, ValueError) as exc:
        name = "hexadecimal" if is_hex else "base64"
        raise UnusableSecret(f"it is not an Ed25519 public key in {name}") from exc

    def is_signature(signature: bytes, content: bytes) -> bool:
        try:
            key.verify(signature, content)
        except InvalidSignature:
            return False
        return True

    return is_signature


def form_pairs(body: bytes) -> list[tuple[bytes, bytes]]:
    """The names and values of a form, percent-decoded, in order. Raises `ValueError` for anything that is neither."""
    if not body:
        return []
    items = body.split(b"&", MAX_FORM_FIELDS + 1)
    if len(items) > MAX_FORM_FIELDS:
        raise ValueError(f"a form of more than {MAX_FORM_FIELDS} fields")
    pairs = []
    for item in items:
        name, equals, value = item.partition(b"=")
        if not equals:
            raise ValueError("a form field without '='")
        pairs.append((unquote_to_bytes(name.replace(b"+", b" ")), unquote_to_bytes(value.replace(b"+", b" "))))
    return pairs


def _form_content(delivery: Delivery, body_hash_query: str) -> bytes:
    """What of the body is signed beside the address: nothing that could be swapped without the signature noticing."""
    query = parse_qs(urlsplit(delivery.url).query, max_num_fields=200) if body_hash_query else {}
    hashes = query.get(body_hash_query, [])
    if hashes:
        actual = hashlib.sha256(delivery.body).hexdigest().encode()
        if len(hashes) > 1 or not hmac.compare_digest(actual, hashes[0].lower().encode("utf-8", "surrogatepass")):
            raise _Unsigned(Reason.BODY_HASH_MISMATCH)
    if delivery.is_form:
        try:
            pairs = form_pairs(delivery.body)
        except ValueError as exc:
            raise _Unsigned(Reason.MALFORMED) from exc
        return b"".join(name + value for name, value in sorted(set(pairs)))
    if delivery.body and not hashes:
        raise _Unsigned(Reason.MALFORMED)
    return b""


def _with_and_without_port(url: str) -> tuple[str, ...]:
    parts = urlsplit(url)
    host, colon, port = parts.netloc.rpartition(":")
    other = host if colon and port.isdigit() else f"{parts.netloc}:{443 if parts.scheme == 'https' else 80}"
    # Nothing else may change, as urllib would have it: the rest of the address is signed letter by letter.
    return (url, url.replace(parts.netloc, other, 1))


@dataclass(frozen=True, slots=True)
class SharedSecret:
    """A header that holds the secret itself, after `prefix`. Covers nothing; only the holder can send it at all."""

    header: str
    prefix: str = ""

    def verifier(self, secrets: Sequence[str], tolerance_seconds: int = 0) -> Verifier:  # noqa: ARG002  # no moment
        """Any text is a secret; the tolerance has no bearing."""
        return BearerVerifier(self.header, self.prefix, tuple(secret.encode() for secret in secrets))


@dataclass(frozen=True, slots=True)
class BearerVerifier:
    """Compares what stands in a header with every secret."""

    header: str
    prefix: str
    expected: tuple[bytes, ...] = field(repr=False)

    def covers_header(self, name: str) -> bool:  # noqa: ARG002  # all are alike
        """True: whoever can send the secret may choose every header, and nobody else gets any in."""
        return True

    def check(self, delivery: Delivery, now_ms: int) -> Reason | None:  # noqa: ARG002  # no moment
        """Hashes both sides, so that not even the length of a secret shows in the time it takes."""
        if not all(self.expected):
            return Reason.EMPTY_SECRET
        presented = delivery.headers.get(self.header)
        if presented is None:
            return Reason.MISSING_HEADER
        if not presented.startswith(self.prefix):
            return Reason.MALFORMED
        return _match(presented[len(self.prefix) :].strip().encode("utf-8", "surrogatepass"), self.expected)

    def findings(self, delivery: Delivery) -> Findings:
        """Whether the header is there, and begins as it should."""
        presented = delivery.headers.get(self.header)
        if presented is None:
            return Findings((self.header,))
        return Findings() if presented.startswith(self.prefix) else Findings(malformed=(self.header,))


def _match(presented: bytes, expected: tuple[bytes, ...]) -> Reason | None:
    mine = hashlib.sha256(presented).digest()
    is_match = False
    for secret in expected:
        is_match |= hmac.compare_digest(mine, hashlib.sha256(secret).digest())
    return None if is_match else Reason.MISMATCH


@dataclass(frozen=True, slots=True)
class Basic:
    """HTTP Basic (RFC 7617). A secret is `user:password`."""

    def verifier(self, secrets: Sequence[str], tolerance_seconds: int = 0) -> Verifier:  # noqa: ARG002  # no moment
        """Raises `UnusableSecret` for one without a user, colon and password; the tolerance has no bearing."""
        for number, secret in enumerate(secrets, start=1):
            if not all(secret.partition(":")):
                raise UnusableSecret(f"secret {number}: it is not user:password")
        return BasicVerifier(tuple(secret.encode() for secret in secrets))


@dataclass(frozen=True, slots=True)
class BasicVerifier:
    """Compares the credentials of an Authorization header with every secret."""

    expected: tuple[bytes, ...] = field(repr=False)

    def covers_header(self, name: str) -> bool:  # noqa: ARG002  # all are alike
        """True, as for every shared secret."""
        return True

    def check(self, delivery: Delivery, now_ms: int) -> Reason | None:  # noqa: ARG002  # no moment
        """The scheme's name in any case, then base64."""
        header = delivery.headers.get("authorization")
        if header is None:
            return Reason.MISSING_HEADER
        presented = _credentials(header)
        if presented is None:
            return Reason.MALFORMED
        return _match(presented, self.expected)

    def findings(self, delivery: Delivery) -> Findings:
        """Whether there are credentials at all."""
        header = delivery.headers.get("authorization")
        if header is None:
            return Findings(("authorization",))
        return Findings() if _credentials(header) is not None else Findings(malformed=("authorization",))


def _credentials(header: str) -> bytes | None:
    name, _, credentials = header.strip().partition(" ")
    presented = bytes_of_base64(credentials.strip())
    return presented if name.lower() == "basic" and b":" in presented else None
