"""How the body is written: the bytes that were signed and those that came."""

from __future__ import annotations

import base64
import codecs
import gzip
import json
import re
import unicodedata
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any
from urllib.parse import parse_qsl, quote, quote_plus, unquote_to_bytes, urlencode

from ops.findings import Code, Finding
from ops.mistakes.change import Change
from ops.shapes import lenient_base64
from ops.verify import Request

MAX_BODY_BYTES = 1_000_000  # of a body that is written anew; a larger one is checked as it is
MAX_SLOW_BYTES = 100_000  # of one that is written anew with indents, or together with another change
MAX_INDENTS = 100_000  # of all lines of JSON that is written anew with them


Rewrite = Callable[[bytes], bytes | None]
_RAW = "Sign the very bytes that you send, and check the very bytes that came: never parse and write them anew between."


def bodies() -> Iterator[Change]:
    """Other bytes were signed than those that came."""
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
