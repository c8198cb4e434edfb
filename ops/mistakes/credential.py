"""What a sender presents that signs nothing: a shared secret in a header, or a user and a password."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from urllib.parse import unquote, unquote_to_bytes

from functions.core.source import MAX_SECRETS
from functions.signatures.scheme import Basic, SharedSecret
from ops.findings import Code, Finding
from ops.mistakes.change import Change
from ops.shapes import MAX_HEADER_CHARACTERS, lenient_base64, scheme_in_force
from ops.verify import Request


def credentials(simple: SharedSecret | Basic) -> Iterator[Change]:
    """The credential stands in its header otherwise than it was agreed."""
    table = _BASIC_HEADERS if isinstance(simple, Basic) else _TOKEN_HEADERS
    header = "authorization" if isinstance(simple, Basic) else simple.header
    for said, fix, read in table:
        finding = Finding(Code.CREDENTIALS, f"The `{header}` header {said}.", fix)
        yield Change("credentials", finding, partial(with_header, name=header, read=read), is_likely=True)
    if isinstance(simple, SharedSecret):
        if simple.prefix:
            finding = Finding(
                Code.CREDENTIALS,
                f"The `{header}` header lacks what this source expects before the secret.",
                f"Write `{simple.prefix}<the secret>`.",
            )
            prefixed = partial(with_header, name=header, read=lambda text: simple.prefix + text.strip())
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


def with_header(request: Request, name: str, read: Callable[[str], str]) -> Request | None:
    """The request with that header read otherwise; None if it is not there, is too long or reads the same."""
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


def instead(_text: str, written: str) -> str:
    """A reading that takes no account of what is there."""
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
            return with_header(request, "authorization", partial(instead, written=_basic_of(secret.encode())))
    return None


def _in_lower_case(request: Request, name: str) -> Request | None:
    simple = scheme_in_force(request.scheme, request.delivery)
    secrets = tuple(secret.lower() for secret in request.secrets[:MAX_SECRETS])
    if isinstance(simple, Basic):
        changed = with_header(
            request, name, lambda text: _basic_of(_presented(text).decode("utf-8", "replace").lower().encode())
        )
    else:
        prefix = simple.prefix if isinstance(simple, SharedSecret) else ""
        changed = with_header(request, name, lambda text: prefix + text.removeprefix(prefix).lower())
    return replace(changed or request, secrets=secrets)
