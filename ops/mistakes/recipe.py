"""What is signed, in which order, by which algorithm, and for which provider."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

from functions.signatures.providers import PROVIDERS, scheme_of
from functions.signatures.scheme import KeyedDigest, Scheme, UnusableScheme
from ops.findings import Code, Finding
from ops.mistakes.change import Change
from ops.mistakes.credential import instead, with_header
from ops.shapes import MAX_HEADER_CHARACTERS, Simple, names_sent, rebuilt
from ops.verify import Request

# ------------------------------------------------------------------------------------------- the signature's own recipe


def signatures(simple: Simple | None, request: Request) -> Iterator[Change]:
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
        yield Change("signature", finding, partial(with_header, name=name, read=partial(instead, written=rest)))
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
            yield Change("signature", finding, partial(with_header, name=name, read=partial(instead, written=text)))


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


def recipes(simple: Simple | None, request: Request) -> Iterator[Change]:
    """The right parts were signed in another order, or by another algorithm."""
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


def providers(request: Request) -> Iterator[Change]:
    """It is signed as another provider signs."""
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
