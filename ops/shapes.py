"""What a scheme expects to find in a request, and what stands there instead: header names, signatures, moments.

Reads liberally what ingress reads strictly, so that a sender hears which of the two it sent. Judges nothing: whether a
repaired request holds is for the scheme's own verifier to say.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, cast
from urllib.parse import unquote

from functions.signatures.scheme import (
    MAX_SIGNATURES,
    Basic,
    Delivery,
    Encoding,
    Headers,
    KeyedDigest,
    Moment,
    Scheme,
    SharedSecret,
)
from functions.signatures.special import HOOK0, AnyOf, BodyDigest, CoveredHeaders, FirstCase, PublicKeySignature
from ops.findings import Code, Finding

Simple = KeyedDigest | PublicKeySignature | SharedSecret | Basic | BodyDigest
DIGEST_NAMES: Mapping[int, str] = {16: "MD5", 20: "SHA-1", 28: "SHA-224", 32: "SHA-256", 48: "SHA-384", 64: "SHA-512"}
_SIZES: Mapping[str, int] = {"sha1": 20, "sha256": 32, "sha384": 48, "sha512": 64}
MAX_HEADER_CHARACTERS = 4096  # of one header; no sender's signature is longer

# ------------------------------------------------------------------------------------------------ a scheme, looked into


def simple_schemes(scheme: Scheme) -> Iterator[Simple]:
    """The schemes that a choice is made of, in the order in which they are looked at."""
    if isinstance(scheme, AnyOf):
        for one in scheme.schemes:
            yield from simple_schemes(one)
    elif isinstance(scheme, FirstCase):
        for case in scheme.cases:
            yield from simple_schemes(case.scheme)
    elif isinstance(scheme, CoveredHeaders):
        yield _COVERED_HEADERS
    elif isinstance(scheme, Simple):
        yield scheme
    elif (inner := _inside(scheme)) is not None:
        yield from simple_schemes(inner)


def _inside(scheme: Scheme) -> Scheme | None:
    """What a scheme is built around that only refuses some of the deliveries another one takes."""
    inner: Scheme | None = getattr(scheme, "scheme", None)
    return inner


def scheme_in_force(scheme: Scheme, delivery: Delivery) -> Simple | None:
    """The simple scheme that decides about this delivery; the first where none applies."""
    if isinstance(scheme, FirstCase):
        for case in scheme.cases:
            if case.applies(delivery):
                return scheme_in_force(case.scheme, delivery)
    schemes = list(simple_schemes(scheme))
    complete = [one for one in schemes if any(names.are_complete_in(delivery.headers) for names in header_sets(one))]
    return next(iter(complete or schemes), None)


def rebuilt(scheme: Scheme, change: Callable[[Simple], Scheme]) -> Scheme:
    """The same choice between schemes, each of them changed."""
    if isinstance(scheme, AnyOf):
        return replace(scheme, schemes=tuple(rebuilt(one, change) for one in scheme.schemes))
    if isinstance(scheme, FirstCase):
        cases = tuple(replace(case, scheme=rebuilt(case.scheme, change)) for case in scheme.cases)
        return replace(scheme, cases=cases)
    if isinstance(scheme, Simple):
        return change(scheme)
    inner = _inside(scheme)
    if inner is None:
        return scheme
    around: Any = scheme  # each scheme is a dataclass, though the protocol does not say so
    return cast("Scheme", replace(around, scheme=rebuilt(inner, change)))


def header_sets(scheme: Scheme) -> list[Headers]:
    """The sets of headers of which one must be complete; none for a scheme that signs inside the body."""
    sets: list[Headers] = []
    for one in simple_schemes(scheme):
        if isinstance(one, KeyedDigest):
            sets += one.headers
        elif isinstance(one, PublicKeySignature):
            sets.append(one.headers)
        elif isinstance(one, SharedSecret):
            sets.append(Headers(one.header))
        elif isinstance(one, Basic):
            sets.append(Headers("authorization"))
    return list(dict.fromkeys(sets))


def names_of(headers: Headers) -> list[str]:
    """The names of a set, without those that the scheme does not use."""
    return [name for name in (headers.id, headers.timestamp, headers.signature) if name]


def names_sent(scheme: Simple, delivery: Delivery) -> Headers:
    """The first set of the scheme's that is complete, or its first one."""
    sets = header_sets(scheme) or [Headers("")]
    return next((names for names in sets if names.are_complete_in(delivery.headers)), sets[0])


# What a description of hook0's newer scheme needs: the older one's digest under the newer one's label.
_HOOK0_DIGESTS = [case.scheme for case in HOOK0.cases if isinstance(case.scheme, KeyedDigest)]
_COVERED_HEADERS = replace(_HOOK0_DIGESTS[0], version="v1")


def shape_of(scheme: Simple) -> str:
    """What the signature's header looks like, for a sentence."""
    if isinstance(scheme, SharedSecret):
        return f"`{scheme.prefix}<the secret>`"
    if isinstance(scheme, Basic):
        return "`Basic <base64 of user:password>`"
    if isinstance(scheme, PublicKeySignature):
        return "the signature in base64" if scheme.encoding is Encoding.BASE64 else "the signature in hexadecimal"
    if isinstance(scheme, BodyDigest):
        return "a signature inside the JSON body"
    size = _SIZES[scheme.algorithm]
    digest = (
        f"<{2 * size} hexadecimal digits>"
        if scheme.encoding is Encoding.HEX
        else f"<{(size + 2) // 3 * 4} characters of base64>"
    )
    item = f"{scheme.version}{scheme.joiner}{digest}" if scheme.version else digest
    return (
        f"`{scheme.timestamp_key}=<{moment_shape(scheme.moment)}>{scheme.separator}{item}`"
        if (scheme.timestamp_key)
        else f"`{item}`"
    )


def moment_shape(moment: Moment | None) -> str:
    """What a moment looks like, for a sentence."""
    return {
        Moment.SECONDS: "seconds since 1970",
        Moment.MILLISECONDS: "milliseconds since 1970",
        Moment.RFC3339: "RFC 3339 with its offset, such as 2026-01-31T12:00:00Z",
    }.get(moment or Moment.SECONDS, "")


# --------------------------------------------------------------------------------------------------------- header names


def looks_alike(sent: str, wanted: str) -> bool:
    """Whether a name is another one but for case, underscores, hyphens, `x-` and what CGI puts before it."""
    return sent != wanted and _bare(sent) == _bare(wanted)


def difference_of_names(sent: str, wanted: str) -> str:
    """How a look-alike differs, in words that quote nothing."""
    said = []
    if re.match(r"http[_-]", sent):
        said.append("with the HTTP_ that CGI and WSGI put before header names")
    rest = re.sub(r"\Ahttp[_-]", "", sent.strip())
    if "_" in rest:
        said.append("with underscores for hyphens")
    rest = rest.replace("_", "-")
    if rest.startswith("x-") and not wanted.startswith("x-"):
        said.append("with an x- before it")
    if wanted.startswith("x-") and not rest.startswith("x-"):
        said.append("without its x-")
    return " and ".join(said) or "spelled otherwise"


def _bare(name: str) -> str:
    folded = name[:120].strip().lower().replace("_", "-").rstrip(":")
    return folded.removeprefix("http-").removeprefix("x-").replace("-", "")


# ----------------------------------------------------------------------------------------------------------- signatures


@dataclass(frozen=True, slots=True)
class Reading:
    """What stands in a signature's header: what is odd about it, and how the scheme would have it written.

    `repaired` is empty where no digest could be made out. `algorithm` is what a digest of that length is made with,
    where it is not the scheme's.
    """

    findings: tuple[Finding, ...]
    repaired: str = ""
    algorithm: str = ""


@dataclass(frozen=True, slots=True)
class _Token:
    label: str
    joiner: str
    value: str


@dataclass(frozen=True, slots=True)
class _Digest:
    token: _Token
    kind: str
    data: bytes


_TOKEN = re.compile(
    r"(?:(v\d{1,2}[a-z]?|hmac(?:[-_]?sha-?\d{1,3})?|sha-?\d{1,3}|timestamp|signature|sig|md5|h\d|ts|t|s)\s*([=:,])\s*)?"
    r"([A-Za-z0-9+/_-]+={0,2})",
    re.IGNORECASE,
)
_QUOTES = "\"'`<>[]{}\N{LEFT DOUBLE QUOTATION MARK}\N{RIGHT DOUBLE QUOTATION MARK}"
_SCHEME_WORD = re.compile(r"(?:bearer|signature|hmac|hmac-sha256|digest|basic|token)\s+(?=\S)", re.IGNORECASE)
_HEX = re.compile(r"[0-9A-Fa-f]+\Z")
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]+={0,2}\Z")
_COLON_HEX = re.compile(r"[0-9A-Fa-f]{2}(?:[:-][0-9A-Fa-f]{2}){15,63}\Z")
_TIMESTAMP_LABELS = ("t", "ts", "timestamp")
_KINDS: Mapping[str, tuple[Code, str, str]] = {
    "hex": (Code.SIGNATURE_ENCODING, "The signature is written in hexadecimal; base64 is expected.", "base64"),
    "base64": (Code.SIGNATURE_ENCODING, "The signature is written in base64; hexadecimal is expected.", "hexadecimal"),
    "url-safe": (
        Code.SIGNATURE_ALPHABET,
        "The signature is written in the URL-safe alphabet of base64, with - and _ for + and /.",
        "the standard alphabet (+ and /)",
    ),
    "unpadded": (
        Code.SIGNATURE_PADDING,
        "The signature's base64 lacks its padding, the = at the end.",
        "base64 with its padding",
    ),
    "hex in base64": (
        Code.SIGNATURE_ENCODING,
        "The signature is base64 of the hexadecimal text, not of the digest's bytes.",
        "the digest's bytes themselves",
    ),
}


def read_signature(scheme: KeyedDigest | PublicKeySignature, text: str) -> Reading:
    """A signature's header as somebody may have meant it."""
    if len(text) > MAX_HEADER_CHARACTERS:
        return Reading((_shape(scheme, "is longer than any sender's signature"),))
    found: list[Finding] = []
    plain = _unwrapped(text, found)
    if isinstance(scheme, PublicKeySignature):
        return _public_signature(scheme, plain, found)
    tokens = [_Token(label.lower(), joiner, value) for label, joiner, value in _TOKEN.findall(plain)]
    digests = [digest for token in tokens if (digest := _digest_of(token, scheme)) is not None]
    if not digests:
        return Reading((*found, _without_digest(scheme, tokens)))
    wanted = [digest for digest in digests if digest.token.label == scheme.version] or digests
    wanted = wanted[: MAX_SIGNATURES if scheme.separator else 1]
    first = wanted[0]
    for digest in wanted:
        _note_label(scheme, digest.token, found)
        _note_kind(scheme, digest, found)
    algorithm = ""
    if len(first.data) != _SIZES[scheme.algorithm]:
        algorithm = next((name for name, size in _SIZES.items() if size == len(first.data)), "")
        found.append(_other_length(scheme, len(first.data)))
    encoding = scheme.encoding
    items = [encoding.write(digest.data).decode() for digest in wanted if len(digest.data) == len(first.data)]
    written = [f"{scheme.version}{scheme.joiner}{item}" if scheme.version else item for item in items]
    if scheme.timestamp_key:
        moments = [token for token in tokens if _is_moment(token)]
        found += _note_moments(scheme, moments)
        written = [f"{scheme.timestamp_key}{scheme.joiner}{token.value}" for token in moments[:1]] + written
    repaired = scheme.separator.join(written)
    if not found and repaired != text:
        detail = "The signature's header is right but for white space within it, or for upper and lower case."
        found.append(Finding(Code.SIGNATURE_SHAPE, detail, f"Write {shape_of(scheme)}, hexadecimal in small letters."))
    return Reading(tuple(dict.fromkeys(found)), repaired, algorithm)


def broken_item(scheme: KeyedDigest, text: str) -> Finding | None:
    """What is wrong with the first of several signatures that is none; None where all of them could be one."""
    tokens = [_Token(label.lower(), joiner, value) for label, joiner, value in _TOKEN.findall(text)]
    own = [token for token in tokens[: MAX_SIGNATURES + 2] if token.label == scheme.version]
    broken = next((token for token in own if len(token.value) >= 8 and _digest_of(token, scheme) is None), None)
    return None if broken is None or not scheme.version else _without_digest(scheme, [broken])


def _unwrapped(text: str, found: list[Finding]) -> str:
    plain = text.strip().strip(_QUOTES).strip()
    if "%" in plain and (decoded := unquote(plain)) != plain:
        found.append(
            Finding(
                Code.SIGNATURE_WRAPPED,
                "The signature is percent-encoded (%2B, %3D), as if it were part of an address.",
                "Put it into the header as it is; header values are not percent-encoded.",
            )
        )
        plain = decoded
    if plain != text.strip() and not found:
        found.append(
            Finding(
                Code.SIGNATURE_WRAPPED,
                "The signature stands in quotes or brackets.",
                "Send the bare value; quotes around it are often left from a shell command or a template.",
            )
        )
    word = _SCHEME_WORD.match(plain)
    if word:
        found.append(
            Finding(
                Code.SIGNATURE_PREFIX,
                "A word of an Authorization header (such as Bearer) stands before the signature.",
                "Leave it out.",
            )
        )
        plain = plain[word.end() :]
    return plain.replace(":", "").replace("-", "") if _COLON_HEX.match(plain) else plain


def _digest_of(token: _Token, scheme: KeyedDigest) -> _Digest | None:
    value = token.value.removeprefix("0x").removeprefix("0X")
    readings = []
    if _HEX.match(value) and len(value) % 2 == 0:
        readings.append(_Digest(token, "hex", bytes.fromhex(value)))
    if _BASE64.match(value) and not _is_damaged_hex(value, scheme):
        data = lenient_base64(value)
        kind = "base64"
        if "-" in value or "_" in value:
            kind = "url-safe"
        elif len(value) % 4:
            kind = "unpadded"
        readings.append(_Digest(token, kind, data))
        if len(data) % 2 == 0 and data.isascii() and _HEX.match(data.decode()):
            readings.append(_Digest(token, "hex in base64", bytes.fromhex(data.decode())))
    readings = [reading for reading in readings if len(reading.data) in DIGEST_NAMES]
    expected = [reading for reading in readings if len(reading.data) == _SIZES[scheme.algorithm]]
    own = [reading for reading in expected if (reading.kind == "hex") == (scheme.encoding is Encoding.HEX)]
    return next(iter(own or expected or readings), None)


def _is_damaged_hex(value: str, scheme: KeyedDigest) -> bool:
    """Whether a text is most likely hexadecimal with some wrong letters in it: base64 has far fewer of hex's."""
    letters = len(re.sub(r"[^0-9A-Fa-f]", "", value))
    return scheme.encoding is Encoding.HEX and letters < len(value) <= letters * 1.25


def lenient_base64(text: str) -> bytes:
    """Base64 in either alphabet, with or without padding; nothing for what is none."""
    standard = text.replace("-", "+").replace("_", "/").rstrip("=")
    try:
        return base64.b64decode(standard + "=" * (-len(standard) % 4), validate=True)
    except (binascii.Error, ValueError):
        return b""


def _note_label(scheme: KeyedDigest, token: _Token, found: list[Finding]) -> None:
    if token.label == scheme.version.lower():
        if scheme.version and token.joiner != scheme.joiner:
            found.append(
                Finding(
                    Code.SIGNATURE_SEPARATOR,
                    f"Between the signature and what stands before it there is another sign than `{scheme.joiner}`.",
                    f"Write {shape_of(scheme)}.",
                )
            )
        return
    if not scheme.version:
        detail = "A prefix stands before the signature; this scheme has none."
        found.append(Finding(Code.SIGNATURE_PREFIX, detail, f"Send the digest alone: {shape_of(scheme)}."))
    elif not token.label:
        detail = f"The prefix `{scheme.version}{scheme.joiner}` before the signature is missing."
        found.append(Finding(Code.SIGNATURE_PREFIX, detail, f"Write {shape_of(scheme)}."))
    elif re.match(r"v\d", token.label) or re.match(r"v\d", scheme.version):
        detail = f"The header holds signatures of another version, and none of `{scheme.version}`."
        fix = f"Sign with version {scheme.version} and write {shape_of(scheme)}."
        found.append(Finding(Code.SIGNATURE_VERSION, detail, fix))
    else:
        detail = f"Another prefix than `{scheme.version}{scheme.joiner}` stands before the signature."
        found.append(Finding(Code.SIGNATURE_PREFIX, detail, f"Write {shape_of(scheme)}."))


def _note_kind(scheme: KeyedDigest, digest: _Digest, found: list[Finding]) -> None:
    if digest.kind == scheme.encoding.value:
        return
    kind = digest.kind
    if scheme.encoding is Encoding.HEX and kind in ("url-safe", "unpadded"):
        kind = "base64"
    code, detail, written = _KINDS[kind]
    found.append(Finding(code, detail, f"Write it as {written}: {shape_of(scheme)}."))


def _other_length(scheme: KeyedDigest, size: int) -> Finding:
    mine = DIGEST_NAMES[_SIZES[scheme.algorithm]]
    return Finding(
        Code.WRONG_ALGORITHM,
        f"The signature is {size} bytes long, which is the length of {DIGEST_NAMES[size]}; "
        f"{mine} makes {_SIZES[scheme.algorithm]}.",
        f"Sign with HMAC-{mine}.",
    )


def _without_digest(scheme: KeyedDigest, tokens: list[_Token]) -> Finding:
    values = [token.value for token in tokens if token.label not in _TIMESTAMP_LABELS]
    longest = max(values, key=len, default="")
    if len(longest) < 8:
        return _shape(scheme, "holds no signature")
    if scheme.encoding is Encoding.HEX:
        if not _HEX.match(longest):
            return _shape(scheme, "holds something that is not hexadecimal, or not all of it is")
        expected = 2 * _SIZES[scheme.algorithm]
        said = f"The signature has {len(longest)} hexadecimal digits; {expected} are expected."
    else:
        expected = (_SIZES[scheme.algorithm] + 2) // 3 * 4
        said = f"The signature has {len(longest)} characters; base64 of such a digest has {expected}."
    fix = f"Look for what cuts or lengthens it (a column's width, a copied part), and write {shape_of(scheme)}."
    return Finding(Code.SIGNATURE_LENGTH, said, fix)


def _shape(scheme: Simple, what: str) -> Finding:
    return Finding(Code.SIGNATURE_SHAPE, f"The signature's header {what}.", f"Write {shape_of(scheme)}.")


def _is_moment(token: _Token) -> bool:
    return token.label in _TIMESTAMP_LABELS or (not token.label and re.match(r"\d{9,13}\Z", token.value) is not None)


def _note_moments(scheme: KeyedDigest, moments: list[_Token]) -> list[Finding]:
    key = scheme.timestamp_key
    if not moments:
        detail = f"The header holds no moment: an item `{key}=<{moment_shape(scheme.moment)}>` is missing, or empty."
        return [
            Finding(Code.INCOMPLETE_HEADERS, detail, f"Write {shape_of(scheme)}, the moment being what you signed.")
        ]
    if len(moments) > 1:
        detail = f"The header holds {len(moments)} moments; only one can have been signed."
        return [Finding(Code.SIGNATURE_SHAPE, detail, f"Write {shape_of(scheme)}.")]
    if moments[0].label != key or moments[0].joiner != "=":
        detail = f"The moment does not stand behind `{key}=`."
        return [Finding(Code.SIGNATURE_PREFIX, detail, f"Write {shape_of(scheme)}.")]
    return []


def _public_signature(scheme: PublicKeySignature, plain: str, found: list[Finding]) -> Reading:
    is_hex = _HEX.match(plain) is not None and len(plain) % 2 == 0
    data = bytes.fromhex(plain) if is_hex and len(plain) >= 128 else lenient_base64(plain)
    if len(data) < 64:
        return Reading((*found, _shape(scheme, f"does not hold {shape_of(scheme)}")))
    if scheme.encoding is Encoding.HEX:
        repaired = data.hex()
        if not is_hex:
            code, detail, written = _KINDS["base64"]
            found.append(Finding(code, detail, f"Write it in {written}."))
    else:
        repaired = base64.b64encode(data).decode()
        if is_hex:
            code, detail, written = _KINDS["hex"]
            found.append(Finding(code, detail, f"Write it in {written}."))
        elif repaired != plain:
            code, detail, written = _KINDS["url-safe" if "-" in plain or "_" in plain else "unpadded"]
            found.append(Finding(code, detail, f"Write it in {written}."))
    return Reading(tuple(found), repaired)


# -------------------------------------------------------------------------------------------------------------- moments


@dataclass(frozen=True, slots=True)
class SignedMoment:
    """The text that says when a delivery was signed, and how the scheme reads it. `header` is empty inside a body."""

    text: str
    moment: Moment
    header: str = ""

    @property
    def ms(self) -> int | None:
        """Milliseconds since the epoch, or None for text that is no such moment."""
        return self.moment.read_ms(self.text)


def signed_moment(scheme: Simple | None, delivery: Delivery) -> SignedMoment | None:
    """Where a delivery says when it was signed; None for a scheme that has no moment, or a delivery without one."""
    if isinstance(scheme, BodyDigest):
        if scheme.moment is None:
            return None
        try:
            claim = scheme.claim(json.loads(delivery.body))
        except (ValueError, RecursionError):
            return None
        return SignedMoment(claim.moment, scheme.moment) if claim else None
    if isinstance(scheme, PublicKeySignature):
        # Where the sender promises nothing, its moment is still one; it is only not held against the tolerance.
        text = delivery.headers.get(scheme.headers.timestamp, "")
        return SignedMoment(text.strip(), scheme.moment or Moment.SECONDS, scheme.headers.timestamp)
    if not isinstance(scheme, KeyedDigest):
        return None
    names = names_sent(scheme, delivery)
    if scheme.timestamp_key:
        items = [item.strip() for item in delivery.headers.get(names.signature, "").split(scheme.separator)]
        start = scheme.timestamp_key + scheme.joiner
        texts = [item.removeprefix(start) for item in items if item.startswith(start)]
        return SignedMoment(texts[0], scheme.moment, names.signature) if texts else None
    if not names.timestamp or names.timestamp not in delivery.headers:
        return None
    return SignedMoment(delivery.headers[names.timestamp].strip(), scheme.moment, names.timestamp)


def with_moment(scheme: Simple | None, delivery: Delivery, text: str) -> Delivery | None:
    """The same delivery with its moment written otherwise; None where it is not in a header."""
    signed = signed_moment(scheme, delivery)
    if signed is None or not signed.header:
        return None
    if isinstance(scheme, KeyedDigest) and scheme.timestamp_key:
        start = scheme.timestamp_key + scheme.joiner
        header = delivery.headers[signed.header].replace(start + signed.text, start + text, 1)
        return replace(delivery, headers={**delivery.headers, signed.header: header})
    return replace(delivery, headers={**delivery.headers, signed.header: text})


def odd_moment(signed: SignedMoment) -> Finding | None:
    """What is wrong with the writing of a moment; None for one that the scheme can read."""
    if signed.ms is not None:
        return None
    said = "is no moment at all"
    if not signed.text:
        said = "is empty"
    elif re.match(r"\d{16,19}\Z", signed.text):
        said = "has the digits of microseconds or nanoseconds"
    elif re.match(r"\d+\.\d+\Z", signed.text):
        said = "has a fraction"
    elif re.match(r"\d+\Z", signed.text):
        said = "is a number since 1970"
    elif is_moment_without_zone(signed.text):
        said = "says no time zone"
    elif Moment.RFC3339.read_ms(signed.text) is not None:
        said = "is written as RFC 3339"
    elif re.match(r"[\"'].*[\"']\Z", signed.text):
        said = "stands in quotes"
    fix = f"Write {moment_shape(signed.moment)}, and sign the very text that you send."
    return Finding(Code.TIMESTAMP_FORMAT, f"The moment {said}. Expected: {moment_shape(signed.moment)}.", fix)


def is_moment_without_zone(text: str) -> bool:
    """Whether a text is a date and time to which only the offset is missing."""
    try:
        return datetime.fromisoformat(text[:64]).tzinfo is None
    except ValueError:
        return False
