"""The mistakes that people make when they sign a webhook, each as a change that undoes it.

A change takes a request and gives the one in which a single thing is otherwise: how the secret is read, how the body is
written, which address was signed. Whoever finds that a changed request verifies knows what the sender did.
"""

from __future__ import annotations

import base64
import codecs
import gzip
import json
import re
import unicodedata
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta, timezone
from functools import partial
from typing import Any
from urllib.parse import parse_qsl, quote, quote_plus, unquote, unquote_to_bytes, urlencode, urlsplit

from functions.core.source import MAX_SECRETS
from functions.signatures.providers import PROVIDERS, scheme_of
from functions.signatures.scheme import (
    Basic,
    KeyedDigest,
    Moment,
    Scheme,
    SecretForm,
    SharedSecret,
    UnusableScheme,
)
from functions.signatures.special import BodyDigest, PublicKeySignature
from ops.findings import Code, Finding
from ops.shapes import (
    MAX_HEADER_CHARACTERS,
    Simple,
    lenient_base64,
    moment_shape,
    names_sent,
    rebuilt,
    scheme_in_force,
    signed_moment,
    simple_schemes,
    with_moment,
)
from ops.verify import Request

MAX_BODY_BYTES = 1_000_000  # of a body that is written anew; a larger one is checked as it is
MAX_SLOW_BYTES = 100_000  # of one that is written anew with indents, or together with another change
MAX_INDENTS = 100_000  # of all lines of JSON that is written anew with them


@dataclass(frozen=True, slots=True)
class Change:
    """One thing to be otherwise, and what it means if that makes the request valid.

    `apply` gives None where it makes no difference. Two changes of one `group` exclude each other. `is_likely`: worth
    trying together with another one.
    """

    group: str
    finding: Finding
    apply: Callable[[Request], Request | None]
    is_likely: bool = False


def changes_of(request: Request) -> Iterator[Change]:
    """All that may be wrong with this request, the likeliest first."""
    simple = scheme_in_force(request.scheme, request.delivery)
    content = simple.content if isinstance(simple, KeyedDigest) else ""
    if isinstance(simple, SharedSecret | Basic):
        yield from _secrets(request, simple)
        yield from _credentials(simple)
    else:
        yield from _secrets(request, simple)
        yield from _moments(simple, request)
        yield from _bodies()
        if "{url}" in content:
            yield from _addresses()
        if "{method}" in content:
            yield from _methods()
        if "{form}" in content:
            yield from _content_types()
        yield from _signatures(simple, request)
        yield from _recipes(simple, request)
    yield from _providers(request)


# ---------------------------------------------------------------------------------------------------------- the secrets


def _secrets(request: Request, simple: Simple | None) -> Iterator[Change]:
    several = len(request.secrets) > 1
    for at in range(min(len(request.secrets), MAX_SECRETS)):
        name = f"Secret {at + 1}" if several else "The secret"
        if isinstance(simple, PublicKeySignature):
            yield from _public_keys(at, name)
            continue
        for code, said, fix, read, is_likely in _SECRET_TEXTS:
            yield Change(
                "secret", Finding(code, f"{name} {said}.", fix), partial(_with_secret, at=at, read=read), is_likely
            )
        if isinstance(simple, KeyedDigest | BodyDigest):
            yield from _secret_forms(at, name, simple.secret_form)
        if isinstance(simple, Basic):
            for said, fix, read in _BASIC_SECRETS:
                finding = Finding(Code.SECRET_FORM, f"{name} {said}.", fix)
                yield Change("secret", finding, partial(_with_secret, at=at, read=read))


_SECRET_TEXTS: tuple[tuple[Code, str, str, Callable[[str], str], bool], ...] = (
    (
        Code.SECRET_WRAPPED,
        "is right without the white space around it (often the newline of a file or of `echo`)",
        "Strip the secret where it is read: `printf %s` instead of `echo`, `.strip()` after reading a file.",
        str.strip,
        True,
    ),
    (
        Code.SECRET_WRAPPED,
        "is right without the quotes around it",
        "Take the quotes off: they belong to the file or the shell command that the secret came from.",
        lambda text: text.strip().strip("\"'`").strip(),
        True,
    ),
    (
        Code.SECRET_WRAPPED,
        "was used with a newline at its end",
        "Strip the secret in the sender: it was read from a file or from `echo` with its newline.",
        lambda text: text + "\n",
        True,
    ),
    (
        Code.SECRET_WRAPPED,
        "is right without the name before it, as in a line `NAME=value`",
        "Configure what stands behind the `=` alone.",
        lambda text: re.sub(r"\A(?:export\s+)?[A-Z][A-Z0-9_]{2,60}\s*=\s*", "", text.strip()).strip("\"'"),
        False,
    ),
    (
        Code.SECRET_FORM,
        "is right once it is percent-decoded",
        "Configure the secret as it is, not as it stood in an address.",
        unquote,
        False,
    ),
)


def _with_secret(request: Request, at: int, read: Callable[[str], str]) -> Request | None:
    if at >= len(request.secrets):
        return None
    secret = read(request.secrets[at])
    if not secret or secret == request.secrets[at]:
        return None
    return replace(request, secrets=(*request.secrets[:at], secret, *request.secrets[at + 1 :]))


def _secret_forms(at: int, name: str, form: SecretForm) -> Iterator[Change]:
    """The same secret, another key: what the scheme decodes taken as it stands, and the reverse."""

    def change(code: Code, said: str, fix: str, read: Callable[[str], str | None], is_likely: bool = True) -> Change:
        def apply(request: Request) -> Request | None:
            if at >= len(request.secrets):
                return None
            key = read(request.secrets[at])
            return None if not key else _with_key(request, at, key, form)

        return Change("secret", Finding(code, f"{name} {said}.", fix), apply, is_likely)

    if form is SecretForm.TEXT:
        verbatim = "This scheme takes the secret as it stands, with any prefix and undecoded: do so when you sign."
        yield change(Code.SECRET_PREFIX, "was used without its prefix `whsec_`", verbatim, _without_prefix)
        yield change(Code.SECRET_FORM, "was decoded from base64 before it was used as the key", verbatim, _base64_hex)
        yield change(
            Code.SECRET_FORM,
            "was decoded from hexadecimal before it was used as the key",
            verbatim,
            lambda text: text if _is_hex(text) else None,
        )
    else:
        written = "base64" if form is SecretForm.BASE64 else "hexadecimal"
        decode = f"This scheme's key is what the secret decodes to from {written}: decode it before you sign."
        yield change(Code.SECRET_FORM, f"was used as it stands instead of decoded from {written}", decode, _hex_of)
        yield change(
            Code.SECRET_FORM,
            "was used undecoded and without its prefix `whsec_`",
            "Take off `whsec_` and decode the rest from base64: the bytes are the key.",
            lambda text: _hex_of(text.removeprefix("whsec_")) if text.startswith("whsec_") else None,
        )
        yield change(
            Code.SECRET_PREFIX,
            "carries another prefix than `whsec_`, which is not part of the key",
            "Take off everything up to the first underscore, then decode the rest from base64.",
            lambda text: None if text.startswith("whsec_") else lenient_base64(text.partition("_")[2]).hex(),
        )
        yield change(
            Code.SECRET_ALPHABET,
            "is written in the URL-safe alphabet of base64, with - and _ for + and /",
            "Configure it in the standard alphabet, as the provider shows it.",
            lambda text: _base64_hex(text) if re.search(r"[-_]", text.removeprefix("whsec_")) else None,
        )
        if form is SecretForm.BASE64:
            yield change(
                Code.SECRET_FORM,
                "is hexadecimal, where base64 is expected",
                "Write the key's bytes in base64.",
                lambda text: text.removeprefix("whsec_") if _is_hex(text.removeprefix("whsec_")) else None,
            )
        else:
            yield change(
                Code.SECRET_FORM,
                "is base64, where hexadecimal is expected",
                "Write the key's bytes in hexadecimal.",
                _base64_hex,
            )


def _with_key(request: Request, at: int, key_hex: str, form: SecretForm) -> Request | None:
    """The request whose secret at a place is this key; the other secrets are left out, being written otherwise."""
    del form
    if key_hex.lower() == request.secrets[at].lower() and all(
        isinstance(one, KeyedDigest | BodyDigest) and one.secret_form is SecretForm.HEX
        for one in simple_schemes(request.scheme)
    ):
        return None

    def in_hex(simple: Simple) -> Scheme:
        return replace(simple, secret_form=SecretForm.HEX) if isinstance(simple, KeyedDigest | BodyDigest) else simple

    return replace(request, scheme=rebuilt(request.scheme, in_hex), secrets=(key_hex,))


def _hex_of(text: str) -> str:
    return text.encode().hex()


def _without_prefix(text: str) -> str | None:
    return _hex_of(text.removeprefix("whsec_")) if text.startswith("whsec_") else None


def _base64_hex(text: str) -> str | None:
    return lenient_base64(text.strip().removeprefix("whsec_")).hex() or None


def _is_hex(text: str) -> bool:
    return len(text) % 2 == 0 and re.match(r"[0-9A-Fa-f]+\Z", text) is not None


def _public_keys(at: int, name: str) -> Iterator[Change]:
    for said, fix, read in _PUBLIC_KEYS:
        finding = Finding(Code.SECRET_FORM, f"{name} {said}.", fix)
        yield Change("secret", finding, partial(_with_secret, at=at, read=read), is_likely=True)


_PEM = re.compile(r"-----[A-Z ]{1,40}-----")
_PUBLIC_KEYS: tuple[tuple[str, str, Callable[[str], str]], ...] = (
    (
        "is in PEM, with its BEGIN and END lines or its line breaks",
        "Give what stands between those lines, as one line.",
        lambda text: "".join(_PEM.sub("", text).split()),
    ),
    ("has white space or quotes around it", "Take them off.", lambda text: text.strip().strip("\"'`").strip()),
    (
        "is base64, where hexadecimal is expected",
        "Write the key's 32 bytes in hexadecimal.",
        lambda text: lenient_base64(text)[-32:].hex(),
    ),
    (
        "is hexadecimal, where base64 is expected",
        "Write the key's DER in base64.",
        lambda text: base64.b64encode(bytes.fromhex(text)).decode() if _is_hex(text) else text,
    ),
    (
        "is written in the URL-safe alphabet of base64",
        "Write it in the standard alphabet.",
        lambda text: base64.b64encode(lenient_base64(text)).decode(),
    ),
    ("has 0x before it", "Leave that out.", lambda text: text.removeprefix("0x")),
)


def _from_address(text: str) -> str:
    user_info, at, _ = text.partition("://")[2].rpartition("@")
    return unquote(user_info) if at else text


_BASIC_SECRETS: tuple[tuple[str, str, Callable[[str], str]], ...] = (
    (
        "is the base64 of user:password",
        "Configure `user:password` in clear; base64 is for the header.",
        lambda text: lenient_base64(text.partition(" ")[2] or text).decode("utf-8", "replace"),
    ),
    (
        "is a whole address with the credentials in it",
        "Configure `user:password` alone.",
        _from_address,
    ),
    (
        "has a space after its colon",
        "Configure `user:password` without it.",
        lambda text: re.sub(r"\s*:\s*", ":", text, count=1),
    ),
)


# ------------------------------------------------------------------------------------------------------ shared secrets


def _credentials(simple: SharedSecret | Basic) -> Iterator[Change]:
    table = _BASIC_HEADERS if isinstance(simple, Basic) else _TOKEN_HEADERS
    header = "authorization" if isinstance(simple, Basic) else simple.header
    for said, fix, read in table:
        finding = Finding(Code.CREDENTIALS, f"The `{header}` header {said}.", fix)
        yield Change("credentials", finding, partial(_with_header, name=header, read=read), is_likely=True)
    if isinstance(simple, SharedSecret):
        if simple.prefix:
            finding = Finding(
                Code.CREDENTIALS,
                f"The `{header}` header lacks what this source expects before the secret.",
                f"Write `{simple.prefix}<the secret>`.",
            )
            prefixed = partial(_with_header, name=header, read=lambda text: simple.prefix + text.strip())
            yield Change("credentials", finding, prefixed, is_likely=True)
    else:
        finding = Finding(
            Code.CREDENTIALS,
            "The user is right, the password is not.",
            "Compare the password: an old one, another environment's, or one that a shell changed ($, !, \\).",
        )
        yield Change("credentials", finding, _same_user)
    finding = Finding(
        Code.CREDENTIALS,
        f"What the `{header}` header holds differs from the secret in upper and lower case only.",
        "Send it as it was given to you: secrets are compared letter by letter.",
    )
    yield Change("credentials", finding, partial(_in_lower_case, name=header))


def _with_header(request: Request, name: str, read: Callable[[str], str]) -> Request | None:
    value = request.delivery.headers.get(name)
    if value is None or len(value) > MAX_HEADER_CHARACTERS:
        return None
    written = read(value)
    if written == value:
        return None
    headers = {**request.delivery.headers, name: written}
    return replace(request, delivery=replace(request.delivery, headers=headers))


def _recoded(text: str) -> str:
    try:
        return text.encode("latin-1").decode("utf-8")
    except UnicodeError:
        return text


def _instead(_text: str, written: str) -> str:
    return written


_TOKEN_HEADERS: tuple[tuple[str, str, Callable[[str], str]], ...] = (
    (
        "holds the secret in quotes",
        "Send the bare value.",
        lambda text: text.strip().strip("\"'`").strip(),
    ),
    (
        "has a word before the secret (such as Bearer) that this source does not expect",
        "Leave it out, or let the source's `scheme.prefix` say so.",
        lambda text: re.sub(
            r"\A(?:bearer|token|basic|apikey|key|secret)[\s:=]+", "", text.strip(), flags=re.IGNORECASE
        ),
    ),
    (
        "holds the secret in base64",
        "Send the secret itself.",
        lambda text: lenient_base64(re.sub(r"\Abasic\s+", "", text.strip(), flags=re.IGNORECASE)).decode(
            "utf-8", "replace"
        ),
    ),
    ("holds the secret percent-encoded", "Send the secret itself; headers are not percent-encoded.", unquote),
    (
        "holds the secret's UTF-8 bytes read as Latin-1",
        "Send the header's bytes as UTF-8, or use a secret of ASCII letters.",
        _recoded,
    ),
)


def _basic_of(credentials: bytes) -> str:
    return "Basic " + base64.b64encode(credentials).decode()


def _presented(text: str) -> bytes:
    return lenient_base64(text.strip().partition(" ")[2].strip() or text.strip())


_BASIC_HEADERS: tuple[tuple[str, str, Callable[[str], str]], ...] = (
    (
        "holds user:password in clear",
        "Write `Basic ` and the base64 of `user:password`.",
        lambda text: _basic_of(
            re.sub(r"\Abasic\s+", "", text.strip(), flags=re.IGNORECASE).encode("utf-8", "surrogatepass")
        ),
    ),
    (
        "holds base64 with a newline in it (as `echo user:password | base64` makes it)",
        "Encode without the newline: `printf %s user:password | base64`.",
        lambda text: _basic_of(_presented(text).strip()),
    ),
    (
        "is not written as Basic: another word, or none, stands before the base64",
        "Write `Basic <base64 of user:password>`.",
        lambda text: _basic_of(_presented(text)),
    ),
    (
        "holds password and user the wrong way round",
        "The user comes first.",
        lambda text: _basic_of(b":".join(reversed(_presented(text).split(b":", 1)))),
    ),
    (
        "holds user:password percent-encoded, as it stood in an address",
        "Decode user and password before you encode them in base64.",
        lambda text: _basic_of(unquote_to_bytes(_presented(text))),
    ),
    (
        "holds user:password in Latin-1",
        "Encode user and password in UTF-8 before base64.",
        lambda text: _basic_of(_presented(text).decode("latin-1").encode()),
    ),
)


def _same_user(request: Request) -> Request | None:
    """With the password of the secret whose user came."""
    user = _presented(request.delivery.headers.get("authorization", "")[:MAX_HEADER_CHARACTERS]).partition(b":")[0]
    for secret in request.secrets[:MAX_SECRETS]:
        if user and secret.partition(":")[0].encode() == user:
            return _with_header(request, "authorization", partial(_instead, written=_basic_of(secret.encode())))
    return None


def _in_lower_case(request: Request, name: str) -> Request | None:
    simple = scheme_in_force(request.scheme, request.delivery)
    secrets = tuple(secret.lower() for secret in request.secrets[:MAX_SECRETS])
    if isinstance(simple, Basic):
        changed = _with_header(
            request, name, lambda text: _basic_of(_presented(text).decode("utf-8", "replace").lower().encode())
        )
    else:
        prefix = simple.prefix if isinstance(simple, SharedSecret) else ""
        changed = _with_header(request, name, lambda text: prefix + text.removeprefix(prefix).lower())
    return replace(changed or request, secrets=secrets)


# ---------------------------------------------------------------------------------------------------------- the moment


def _moments(simple: Simple | None, request: Request) -> Iterator[Change]:
    signed = signed_moment(simple, request.delivery)
    if signed is None:
        return
    shape = moment_shape(signed.moment)
    fix = f"Write one text for the moment ({shape}), sign that text and send that text."
    for said, write in _MOMENT_TEXTS:
        text = write(signed.text, signed.ms)
        if text and text != signed.text:
            finding = Finding(Code.TIMESTAMP_SPELLING, f"The signature covers the moment {said}.", fix)
            yield Change("moment", finding, partial(_with_moment, text=text), is_likely=True)
    for hours in range(-12, 15) if signed.moment is Moment.RFC3339 else ():
        text = _rfc3339(signed.ms, offset_minutes=hours * 60)
        if text and text != signed.text:
            finding = Finding(Code.TIMESTAMP_SPELLING, f"The signature covers the moment as of UTC{hours:+}.", fix)
            yield Change("moment", finding, partial(_with_moment, text=text))
    for moment in Moment:
        if moment is signed.moment or moment.read_ms(signed.text) is None:
            continue
        code = Code.TIMESTAMP_UNIT if Moment.RFC3339 not in (moment, signed.moment) else Code.TIMESTAMP_FORMAT
        finding = Finding(
            code,
            f"The moment is given as {moment_shape(moment)}; expected: {shape}.",
            f"Write {shape}, and sign that text.",
        )
        yield Change("moment", finding, partial(_read_as, moment=moment), is_likely=True)


def _whole_seconds(ms: int | None) -> str:
    return "" if ms is None else str(ms // 1000)


def _rfc3339(ms: int | None, timespec: str = "seconds", offset_minutes: int = 0) -> str:
    if ms is None or not 0 <= ms < _YEAR_3000_MS:
        return ""
    zone = timezone(timedelta(minutes=offset_minutes))
    return (datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=ms)).astimezone(zone).isoformat(timespec=timespec)


def _zulu(ms: int | None, timespec: str = "seconds") -> str:
    return _rfc3339(ms, timespec).replace("+00:00", "Z")


_YEAR_3000_MS = 32_503_680_000_000
_MOMENT_TEXTS: tuple[tuple[str, Callable[[str, int | None], str]], ...] = (
    ("in seconds", lambda _, ms: _whole_seconds(ms)),
    ("in milliseconds", lambda _, ms: "" if ms is None else str(ms)),
    (
        "in seconds, having read what came as seconds as milliseconds",
        lambda t, _: t[:-3] if re.match(r"\d{13}\Z", t) else "",
    ),
    ("as RFC 3339 without a fraction of a second", lambda _, ms: _zulu(ms)),
    ("as RFC 3339 with milliseconds", lambda _, ms: _zulu(ms, "milliseconds")),
    ("as RFC 3339 with +00:00 for Z", lambda _, ms: _rfc3339(ms)),
    ("with Z for +00:00", lambda text, _: text.replace("+00:00", "Z")),
    ("with +00:00 for Z", lambda text, _: text.replace("Z", "+00:00")),
)


def _with_moment(request: Request, text: str) -> Request | None:
    delivery = with_moment(scheme_in_force(request.scheme, request.delivery), request.delivery, text)
    return None if delivery is None else replace(request, delivery=delivery)


def _read_as(request: Request, moment: Moment) -> Request:
    def other(simple: Simple) -> Scheme:
        if isinstance(simple, KeyedDigest):
            return replace(simple, moment=moment)
        if isinstance(simple, BodyDigest | PublicKeySignature) and simple.moment:
            return replace(simple, moment=moment)
        return simple

    return replace(request, scheme=rebuilt(request.scheme, other))


# ------------------------------------------------------------------------------------------------------------ the body

Rewrite = Callable[[bytes], bytes | None]
_RAW = "Sign the very bytes that you send, and check the very bytes that came: never parse and write them anew between."


def _bodies() -> Iterator[Change]:
    for group, code, said, rewrite, is_likely in _BODY_REWRITES:
        finding = Finding(code, f"The signature covers the body {said}.", _BODY_FIXES.get(code, _RAW))
        yield Change(group, finding, partial(_with_body, rewrite=rewrite), is_likely)


def _with_body(request: Request, rewrite: Rewrite) -> Request | None:
    body = request.delivery.body
    if len(body) > MAX_BODY_BYTES:
        return None
    try:
        written = rewrite(body)
    except (ValueError, RecursionError, OverflowError, EOFError, zlib.error):
        return None  # a body to which this cannot be done
    if written is None or written == body or len(written) > 4 * MAX_BODY_BYTES:
        return None
    return replace(request, delivery=replace(request.delivery, body=written))


def _json_as(body: bytes, **style: Any) -> bytes:
    if "indent" in style and (len(body) > MAX_SLOW_BYTES or not _is_shallow(body)):
        raise ValueError("too large or too deep: indents are slow to write, and their depth counts twice")
    return json.dumps(json.loads(body), **style).encode("utf-8", "surrogatepass")


_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"')


def _is_shallow(body: bytes) -> bool:
    """Whether the indents of all lines together stay within `MAX_INDENTS`."""
    depth = indents = 0
    for sign in re.findall(rb"[\[\]{},]", _STRING.sub(b"", body)):
        depth += {b"[": 1, b"{": 1, b",": 0}.get(sign, -1)
        indents += depth
        if indents > MAX_INDENTS:
            return False
    return True


def _php(body: bytes) -> bytes:
    """As `json_encode` writes it: slashes and everything beyond ASCII escaped."""
    return _json_as(body, separators=(",", ":")).replace(b"/", b"\\/")


def _html_safe(body: bytes) -> bytes:
    """As Go's `json.Marshal` writes it: signs that mean something in HTML escaped, keys in order."""
    text = _json_as(body, separators=(",", ":"), ensure_ascii=False, sort_keys=True)
    return text.replace(b"&", b"\\u0026").replace(b"<", b"\\u003c").replace(b">", b"\\u003e")


def _javascript_numbers(body: bytes) -> bytes:
    """As JavaScript writes what it parsed: 1.0 is 1."""

    def number(text: str) -> float | int:
        value = float(text)
        return int(value) if value.is_integer() and abs(value) < 1e21 else value

    document = json.loads(body, parse_float=number)
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "surrogatepass")


def _latin_1(body: bytes) -> bytes:
    return body.decode("utf-8", "surrogatepass").encode("latin-1")


def _unzipped(data: bytes) -> bytes | None:
    if not data.startswith(b"\x1f\x8b"):
        return None
    return zlib.decompressobj(wbits=31).decompress(data, MAX_BODY_BYTES)


def _form_again(body: bytes, write: Callable[..., str] = quote_plus, is_sorted: bool = False) -> bytes | None:
    text = body.decode("utf-8", "surrogatepass")
    if "=" not in text or text.lstrip()[:1] in ("{", "["):
        return None
    pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=2000)
    return urlencode(sorted(pairs) if is_sorted else pairs, quote_via=write).encode()


def _in_json_string(body: bytes) -> bytes | None:
    document = json.loads(body)
    return document.encode("utf-8", "surrogatepass") if isinstance(document, str) else None


def _constantly(body: bytes) -> Rewrite:
    return lambda _body: body


def _json_styles() -> Iterator[tuple[str, Rewrite, bool]]:
    for said, style, is_likely in (
        ("as compact JSON, without white space", {"separators": (",", ":")}, True),
        ("as JSON with a space after each comma and colon (Python's way)", {}, True),
        ("as JSON indented by 2 spaces", {"indent": 2}, True),
        ("as JSON indented by 4 spaces", {"indent": 4}, False),
        ("as JSON indented by tabs", {"indent": "\t"}, False),
    ):
        for keys in (False, True):
            for is_ascii in (False, True):
                words = said + (", keys sorted" if keys else "")
                words += ", letters beyond ASCII escaped as \\u...." if is_ascii else ""
                options: dict[str, Any] = {**style, "sort_keys": keys, "ensure_ascii": is_ascii}
                yield words, partial(_json_as, **options), is_likely and not keys and not is_ascii
    yield "as PHP's json_encode writes it, with \\/ for / and \\u....", _php, True
    yield "as Go's json.Marshal writes it, with < > & escaped and keys sorted", _html_safe, False
    yield "as JavaScript writes it after parsing, with 1 for 1.0", _javascript_numbers, False


_ENDS: tuple[tuple[str, Rewrite], ...] = (
    ("without the newline at its end", lambda body: body.rstrip(b"\r\n")),
    ("with a newline at its end", lambda body: body + b"\n"),
    ("with a carriage return and a newline at its end", lambda body: body + b"\r\n"),
    ("without the white space around it", bytes.strip),
)
_LINES: tuple[tuple[str, Rewrite], ...] = (
    ("with LF line ends, where CRLF came", lambda body: body.replace(b"\r\n", b"\n")),
    ("with CRLF line ends, where LF came", lambda body: body.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")),
)
_BOMS: tuple[tuple[str, Rewrite], ...] = (
    ("without the byte order mark before it", lambda body: body.removeprefix(codecs.BOM_UTF8)),
    ("with a byte order mark before it", lambda body: codecs.BOM_UTF8 + body),
)
_CHARSETS: tuple[tuple[str, Rewrite], ...] = (
    ("in Latin-1, or UTF-8 came that had been taken for Latin-1", _latin_1),
    ("in Windows-1252", lambda body: body.decode().encode("cp1252")),
    ("encoded in UTF-8 twice", lambda body: body.decode("latin-1").encode()),
    ("in UTF-16 (the encoding that .NET calls Unicode)", lambda body: body.decode().encode("utf-16-le")),
    ("in Unicode normal form C", lambda body: unicodedata.normalize("NFC", body.decode()).encode()),
    ("in Unicode normal form D", lambda body: unicodedata.normalize("NFD", body.decode()).encode()),
    ("with its letters beyond ASCII replaced by ?", lambda body: body.decode().encode("ascii", "replace")),
)
_ENCODINGS: tuple[tuple[str, Rewrite], ...] = (
    ("before it was encoded in base64", lambda body: lenient_base64(body.decode("ascii").strip()) or None),
    ("encoded in base64", base64.b64encode),
    ("before it was compressed with gzip", _unzipped),
    (
        "before it was compressed with gzip and encoded in base64",
        lambda body: _unzipped(lenient_base64(body.decode("ascii").strip())),
    ),
    ("before it was compressed with gzip (its bytes stand here as Latin-1)", lambda body: _unzipped(_latin_1(body))),
    ("compressed with gzip", lambda body: gzip.compress(body, compresslevel=6, mtime=0)),
    ("compressed with gzip at its highest level", lambda body: gzip.compress(body, compresslevel=9, mtime=0)),
    ("before it was put into a JSON string", _in_json_string),
    (
        "as a JSON string that holds the document",
        lambda body: json.dumps(body.decode("utf-8", "surrogatepass"), ensure_ascii=False).encode(
            "utf-8", "surrogatepass"
        ),
    ),
)
_FORMS: tuple[tuple[str, Rewrite], ...] = (
    ("as a form with + for a space", _form_again),
    ("as a form with %20 for a space", partial(_form_again, write=quote)),
    ("as a form with its fields sorted", partial(_form_again, is_sorted=True)),
    ("as a form with its fields sorted and %20 for a space", partial(_form_again, write=quote, is_sorted=True)),
    ("percent-decoded", lambda body: unquote_to_bytes(body.replace(b"+", b" ")) if b"=" in body else None),
    ("as a form with %xx in lower case", lambda body: re.sub(rb"%[0-9A-F]{2}", lambda f: f.group().lower(), body)),
    ("as a form with %XX in upper case", lambda body: re.sub(rb"%[0-9a-f]{2}", lambda f: f.group().upper(), body)),
)
_EMPTIES: tuple[tuple[str, Rewrite], ...] = (
    ("when it was still empty", _constantly(b"")),
    ("as {}, where nothing or something else came", _constantly(b"{}")),
    ("as null", _constantly(b"null")),
)
STYLE = "body's style"
# In this order two of them are applied together: what was wrapped is unwrapped before it is written anew.
_BODY_REWRITES: tuple[tuple[str, Code, str, Rewrite, bool], ...] = (
    *(
        ("body's encoding", Code.BODY_ENCODED, said, rewrite, at in (0, 2))
        for at, (said, rewrite) in enumerate(_ENCODINGS)
    ),
    *(("body's mark", Code.BODY_BOM, said, rewrite, at == 0) for at, (said, rewrite) in enumerate(_BOMS)),
    *((STYLE, Code.BODY_JSON, said, rewrite, is_likely) for said, rewrite, is_likely in _json_styles()),
    *((STYLE, Code.BODY_FORM, said, rewrite, at < 2) for at, (said, rewrite) in enumerate(_FORMS)),
    *(("body's letters", Code.BODY_CHARSET, said, rewrite, at == 0) for at, (said, rewrite) in enumerate(_CHARSETS)),
    *(("body's lines", Code.BODY_LINES, said, rewrite, True) for said, rewrite in _LINES),
    *(("body's end", Code.BODY_END, said, rewrite, at < 2) for at, (said, rewrite) in enumerate(_ENDS)),
    *((STYLE, Code.BODY_EMPTY, said, rewrite, False) for said, rewrite in _EMPTIES),
)
_BODY_FIXES: Mapping[Code, str] = {
    Code.BODY_JSON: "Write the JSON once, keep those bytes, sign them and send them. A framework that parses the body "
    "and a client that is given an object write it anew: take the raw body there.",
    Code.BODY_LINES: "Sign what you send: an editor, git (autocrlf) or a text-mode file changed the line ends.",
    Code.BODY_END: "Sign what you send, to the last byte: a file's or a here-document's newline counts.",
    Code.BODY_BOM: "Write UTF-8 without a byte order mark, and sign that.",
    Code.BODY_CHARSET: "Encode the body as UTF-8 once, and sign and send those bytes.",
    Code.BODY_ENCODED: "Sign the bytes that go over the wire as the provider's page says; give the raw body here.",
    Code.BODY_FORM: "Sign the form as it is sent: encode it once, and neither sort nor decode it afterwards.",
    Code.BODY_EMPTY: "Sign after the body is written: the one signed was not yet, or was replaced.",
}


# --------------------------------------------------------------------------------------------------------- the address

_PROXY = (
    "The address that was signed is the one that the sender was given. Behind a proxy, declare it as the source's "
    "`public_url`, or register the address that arrives."
)


def _addresses() -> Iterator[Change]:
    for group, code, said, rewrite, is_likely in _URL_REWRITES:
        finding = Finding(code, f"The signature covers the address {said}.", _PROXY)
        yield Change(group, finding, partial(_with_url, rewrite=rewrite), is_likely)


def _with_url(request: Request, rewrite: Callable[[str, Mapping[str, str]], str]) -> Request | None:
    url = request.delivery.url
    if len(url) > MAX_HEADER_CHARACTERS:
        return None
    try:
        written = rewrite(url, request.delivery.headers)
    except ValueError:
        return None  # an address that is none
    if not written or written == url or len(written) > 2 * MAX_HEADER_CHARACTERS:
        return None
    return replace(request, delivery=replace(request.delivery, url=written))


def _with_scheme(url: str, scheme: str) -> str:
    return urlsplit(url)._replace(scheme=scheme).geturl() if "://" in url else ""


def _with_port(url: str, port: str) -> str:
    parts = urlsplit(url)
    host = re.sub(r":\d*\Z", "", parts.netloc)
    return parts._replace(netloc=host + port).geturl() if host else ""


def _at_port(url: str, _headers: Mapping[str, str], port: int) -> str:
    return _with_port(url, f":{port}")


def _with_host(url: str, host: str) -> str:
    first = host.partition(",")[0].strip()
    return urlsplit(url)._replace(netloc=first).geturl() if first else ""


def _with_path(url: str, path: str) -> str:
    return urlsplit(url)._replace(path=path).geturl()


def _forwarded(headers: Mapping[str, str], member: str) -> str:
    found = re.search(rf'{member}="?([^;,"]+)', headers.get("forwarded", "")[:MAX_HEADER_CHARACTERS], re.IGNORECASE)
    return found.group(1) if found else ""


def _original(url: str, headers: Mapping[str, str]) -> str:
    """With the path and query that a proxy saw."""
    seen = next(
        (headers[name] for name in ("x-original-uri", "x-original-url", "x-rewrite-url") if headers.get(name)), ""
    )
    if "://" in seen:
        return seen
    path, mark, query = seen.partition("?")
    return urlsplit(url)._replace(path=path, query=query if mark else "").geturl() if seen.startswith("/") else ""


def _without_segments(url: str, number: int) -> str:
    segments = urlsplit(url).path.split("/")
    return _with_path(url, "/" + "/".join(segments[1 + number :])) if len(segments) > 1 + number else ""


def _slash(url: str) -> str:
    path = urlsplit(url).path
    return _with_path(url, path[:-1] if path.endswith("/") else path + "/")


def _sorted_query(url: str) -> str:
    parts = urlsplit(url)
    return parts._replace(query="&".join(sorted(parts.query.split("&")))).geturl()


UrlRewrite = Callable[[str, Mapping[str, str]], str]
_URL_REWRITES: tuple[tuple[str, Code, str, UrlRewrite, bool], ...] = (
    ("url scheme", Code.URL_SCHEME, "with https, where http arrived", lambda u, _: _with_scheme(u, "https"), True),
    ("url scheme", Code.URL_SCHEME, "with http, where https arrived", lambda u, _: _with_scheme(u, "http"), True),
    (
        "url host",
        Code.URL_HOST,
        "with the host of x-forwarded-host",
        lambda u, h: _with_host(u, h.get("x-forwarded-host", "")),
        True,
    ),
    (
        "url host",
        Code.URL_HOST,
        "with the host of the Forwarded header",
        lambda u, h: _with_host(u, _forwarded(h, "host")),
        True,
    ),
    (
        "url host",
        Code.URL_HOST,
        "with the host of x-original-host",
        lambda u, h: _with_host(u, h.get("x-original-host", "")),
        False,
    ),
    (
        "url host",
        Code.URL_HOST,
        "with the host of the Host header",
        lambda u, h: _with_host(u, h.get("host", "")),
        True,
    ),
    (
        "url host",
        Code.URL_HOST,
        "with its host in lower case",
        lambda u, _: _with_host(u, urlsplit(u).netloc.lower()),
        True,
    ),
    (
        "url host",
        Code.URL_HOST,
        "without the user and password in it",
        lambda u, _: _with_host(u, urlsplit(u).netloc.rpartition("@")[2]),
        False,
    ),
    ("url port", Code.URL_PORT, "without its port", lambda u, _: _with_port(u, ""), True),
    *(
        ("url port", Code.URL_PORT, f"with port {port}", partial(_at_port, port=port), False)
        for port in (443, 80, 8080, 8443, 3000)
    ),
    (
        "url port",
        Code.URL_PORT,
        "with the port of x-forwarded-port",
        lambda u, h: _with_port(u, f":{h['x-forwarded-port']}") if "x-forwarded-port" in h else "",
        False,
    ),
    ("url path", Code.URL_PATH, "with the path that x-original-uri or its like names", _original, True),
    (
        "url path",
        Code.URL_PATH,
        "with the prefix of x-forwarded-prefix before its path",
        lambda u, h: _with_path(u, h.get("x-forwarded-prefix", "").rstrip("/") + urlsplit(u).path),
        True,
    ),
    ("url path", Code.URL_PATH, "without the first segment of its path", lambda u, _: _without_segments(u, 1), False),
    (
        "url path",
        Code.URL_PATH,
        "without the first two segments of its path",
        lambda u, _: _without_segments(u, 2),
        False,
    ),
    ("url path", Code.URL_PATH, "without any path", lambda u, _: _with_path(u, ""), False),
    (
        "url path",
        Code.URL_PATH,
        "as the path alone, without scheme and host",
        lambda u, _: urlsplit(u)._replace(scheme="", netloc="").geturl(),
        False,
    ),
    (
        "url slash",
        Code.URL_SLASH,
        "with or without the slash at the end of its path, the other way round",
        lambda u, _: _slash(u),
        True,
    ),
    ("url query", Code.URL_QUERY, "without its query", lambda u, _: urlsplit(u)._replace(query="").geturl(), True),
    ("url query", Code.URL_QUERY, "with its query sorted", lambda u, _: _sorted_query(u), False),
    (
        "url query",
        Code.URL_QUERY,
        "with the query that x-original-uri or its like names",
        lambda u, h: urlsplit(u)._replace(query=urlsplit(_original(u, h) or u).query).geturl(),
        False,
    ),
    (
        "url query",
        Code.URL_QUERY,
        "without its fragment, which is never sent",
        lambda u, _: urlsplit(u)._replace(fragment="").geturl(),
        False,
    ),
    ("url escapes", Code.URL_ESCAPES, "percent-decoded", lambda u, _: unquote(u), True),
    (
        "url escapes",
        Code.URL_ESCAPES,
        "percent-encoded",
        lambda u, _: quote(u, safe="/:?&=%#@+,;~!$'()*[]", errors="replace"),
        False,
    ),
    (
        "url escapes",
        Code.URL_ESCAPES,
        "with its query percent-encoded once more",
        lambda u, _: urlsplit(u)._replace(query=quote(urlsplit(u).query, safe="&=%")).geturl(),
        False,
    ),
    (
        "url escapes",
        Code.URL_ESCAPES,
        "with %20 for + in its query",
        lambda u, _: urlsplit(u)._replace(query=urlsplit(u).query.replace("+", "%20")).geturl(),
        False,
    ),
    (
        "url escapes",
        Code.URL_ESCAPES,
        "with %xx in lower case",
        lambda u, _: re.sub(r"%[0-9A-F]{2}", lambda found: found.group().lower(), u),
        False,
    ),
    (
        "url escapes",
        Code.URL_ESCAPES,
        "with %XX in upper case",
        lambda u, _: re.sub(r"%[0-9a-f]{2}", lambda found: found.group().upper(), u),
        False,
    ),
)


# ------------------------------------------------------------------------------------------------- method, content type


def _methods() -> Iterator[Change]:
    for method in ("POST", "GET", "PUT", "PATCH", "DELETE"):
        finding = Finding(
            Code.WRONG_METHOD,
            f"The signature covers the method {method}; the request was made, or recorded, with another.",
            "Sign the method that the request is sent with, in capitals.",
        )
        yield Change("method", finding, partial(_with_method, method=method), is_likely=method == "POST")


def _with_method(request: Request, method: str) -> Request | None:
    if request.delivery.method == method:
        return None
    return replace(request, delivery=replace(request.delivery, method=method))


def _content_types() -> Iterator[Change]:
    for said, content_type in (("a form", "application/x-www-form-urlencoded"), ("JSON", "application/json")):
        finding = Finding(
            Code.CONTENT_TYPE,
            f"The signature is right for a body that is {said}; the Content-Type says otherwise, or is missing.",
            f"Send `Content-Type: {content_type}`: it decides what of the body is signed.",
        )
        yield Change(
            "content type",
            finding,
            partial(_with_content_type, content_type=content_type),
            is_likely=content_type != "application/json",
        )


def _with_content_type(request: Request, content_type: str) -> Request:
    headers = {**request.delivery.headers, "content-type": content_type}
    return replace(request, delivery=replace(request.delivery, headers=headers))


# ------------------------------------------------------------------------------------------- the signature's own recipe


def _signatures(simple: Simple | None, request: Request) -> Iterator[Change]:
    """One of several items wrong, or several headers covered in another order."""
    if not isinstance(simple, KeyedDigest) or simple.separator != ",":
        return
    name = names_sent(simple, request.delivery).signature
    text = request.delivery.headers.get(name, "")
    items = [item.strip() for item in text.split(",")] if len(text) <= MAX_HEADER_CHARACTERS else []
    for at, item in enumerate(items[:8]):
        if re.match(r"(?:t|ts|h)=", item):
            continue
        finding = Finding(
            Code.SIGNATURE_STRONGER,
            f"Item {at + 1} of the signature's header is wrong; the others are right, but this one decides.",
            "Correct that item, or stop sending it if you do not mean to: a weaker signature never stands in for it.",
        )
        rest = ",".join(items[:at] + items[at + 1 :])
        yield Change("signature", finding, partial(_with_header, name=name, read=partial(_instead, written=rest)))
    for at, item in enumerate(items[:8]):
        covered = item[2:].split(" ")
        if not item.startswith("h=") or not 1 < len(covered) <= 8:
            continue
        for said, order in (("in reverse order", covered[::-1]), ("in alphabetical order", sorted(covered))):
            finding = Finding(
                Code.COVERED_HEADERS,
                f"The signature covers the headers that `h` names {said}.",
                "Name the headers in `h` in the order in which you sign their values.",
            )
            text = ",".join([*items[:at], "h=" + " ".join(order), *items[at + 1 :]])
            yield Change("signature", finding, partial(_with_header, name=name, read=partial(_instead, written=text)))


_CONTENTS = {
    "{body}": "the body alone",
    "{timestamp}.{body}": "the moment, a dot and the body",
    "{timestamp}{body}": "the moment and the body with nothing between",
    "{timestamp}:{body}": "the moment, a colon and the body",
    "{body}{timestamp}": "the body and the moment",
    "{body}.{timestamp}": "the body, a dot and the moment",
    "v0:{timestamp}:{body}": "v0, the moment and the body between colons",
    "{id}.{timestamp}.{body}": "the id, the moment and the body between dots",
    "{id}.{body}": "the id, a dot and the body",
    "{timestamp}.{id}.{body}": "the moment, the id and the body between dots",
    "{url}{body}": "the address and the body",
    "{url}{timestamp}{body}": "the address, the moment and the body",
    "{method}{url}{body}": "the method, the address and the body",
    "{method}{url}{body}{timestamp}": "the method, the address, the body and the moment",
    "{url}": "the address alone",
}
_PARTS = {
    "{body}": "<body>", "{timestamp}": "<moment>", "{id}": "<id>", "{url}": "<address>", "{method}": "<method>",
    "{form}": "<sorted form fields>",
}  # fmt: skip


def _recipes(simple: Simple | None, request: Request) -> Iterator[Change]:
    if not isinstance(simple, KeyedDigest):
        return
    signed = simple.content
    for part, said in _PARTS.items():
        signed = signed.replace(part, said)
    for content, words in _CONTENTS.items():
        # An address that carries the body's hash is all that is signed of such a request.
        is_hashed = simple.body_hash_query and f"{simple.body_hash_query}=" in request.delivery.url
        if content == simple.content or (content == "{url}" and is_hashed):
            continue
        finding = Finding(
            Code.WRONG_CONTENT,
            f"The signature covers {words}, which is not what this scheme signs.",
            f"Sign `{signed}`.",
        )
        yield Change("content", finding, partial(_with_content, content=content), is_likely=content == "{body}")
    if not simple.is_plain_hash:
        finding = Finding(
            Code.PLAIN_HASH,
            "The signature is a plain hash of the secret and the content, no HMAC.",
            f"Use HMAC-{simple.algorithm.upper()} with the secret as its key.",
        )
        yield Change("algorithm", finding, _as_plain_hash)
    else:
        finding = Finding(
            Code.PLAIN_HASH,
            "The signature is an HMAC; this version of the scheme hashes the secret and the content without one.",
            f"Hash the secret followed by `{signed}` with {simple.algorithm.upper()}.",
        )
        yield Change("algorithm", finding, _as_hmac)


def _digests(request: Request, change: Callable[[KeyedDigest], Scheme]) -> Request | None:
    scheme = rebuilt(request.scheme, lambda simple: change(simple) if isinstance(simple, KeyedDigest) else simple)
    return None if scheme == request.scheme else replace(request, scheme=scheme)


def _with_content(request: Request, content: str) -> Request | None:
    return _digests(request, lambda digest: replace(digest, content=content, id_borders=()))


def _as_plain_hash(request: Request) -> Request | None:
    return _digests(request, lambda digest: replace(digest, is_plain_hash=True))


def _as_hmac(request: Request) -> Request | None:
    return _digests(request, lambda digest: replace(digest, is_plain_hash=False))


def signed_with(request: Request, algorithm: str) -> Request | None:
    """The request as a source would take it whose scheme is the same with another algorithm."""
    return _digests(request, lambda digest: replace(digest, algorithm=algorithm))


# ---------------------------------------------------------------------------------------------------- another provider


def _providers(request: Request) -> Iterator[Change]:
    for name, row in PROVIDERS.items():
        try:
            scheme = scheme_of(row, {})
        except UnusableScheme:
            continue  # it says nothing without options
        if scheme == request.scheme:
            continue
        finding = Finding(
            Code.WRONG_PROVIDER,
            f"The request is a valid one of the provider `{name}`; this record says `{request.provider.name}`.",
            f"Set the provider to `{name}`, or send to the source that expects you.",
        )
        yield Change("provider", finding, partial(_with_provider, scheme=scheme))


def _with_provider(request: Request, scheme: Scheme) -> Request:
    return replace(request, scheme=scheme)
