"""The mistakes that people make when they sign a webhook, each as a change that undoes it.

A change takes a request and gives the one in which a single thing is otherwise: how the secret is read, how the body is
written, which address was signed. Whoever finds that a changed request verifies knows what the sender did.
"""

from __future__ import annotations

from collections.abc import Iterator

from functions.signatures.scheme import Basic, KeyedDigest, SharedSecret
from ops.mistakes.address import addresses, content_types, methods
from ops.mistakes.body import MAX_SLOW_BYTES, STYLE, bodies
from ops.mistakes.change import Change
from ops.mistakes.credential import credentials
from ops.mistakes.moment import moments
from ops.mistakes.recipe import providers, recipes, signatures, signed_with
from ops.mistakes.secret import secrets
from ops.shapes import scheme_in_force
from ops.verify import Request

__all__ = ["MAX_SLOW_BYTES", "STYLE", "Change", "changes_of", "signed_with"]


def changes_of(request: Request) -> Iterator[Change]:
    """All that may be wrong with this request, the likeliest first."""
    simple = scheme_in_force(request.scheme, request.delivery)
    content = simple.content if isinstance(simple, KeyedDigest) else ""
    if isinstance(simple, SharedSecret | Basic):
        yield from secrets(request, simple)
        yield from credentials(simple)
    else:
        yield from secrets(request, simple)
        yield from moments(simple, request)
        yield from bodies()
        if "{url}" in content:
            yield from addresses()
        if "{method}" in content:
            yield from methods()
        if "{form}" in content:
            yield from content_types()
        yield from signatures(simple, request)
        yield from recipes(simple, request)
    yield from providers(request)
