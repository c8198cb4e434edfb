"""A signed body as a document that pointers lead into."""

from __future__ import annotations

import json
from itertools import chain

from functions.core.failure import HoldfastError
from functions.signatures.providers import Content
from functions.signatures.scheme import Delivery, form_pairs, media_type

MAX_DEPTH = 128  # nothing real nests deeper, and whoever reads it after us must get through it too


class Unreadable(HoldfastError):
    """A body is not what its source or its Content-Type says it is."""


def document_of(delivery: Delivery, content: Content, payload_field: str = "") -> object:
    """The JSON value, or the form's fields (the first of a name). None for an opaque body where any content is taken.

    Raises `Unreadable`. A form whose `payload_field` holds JSON is that JSON.

    No signature covers the Content-Type, and what is read here becomes the event's identity: a copy of a delivery must
    not pass for another event under another type. So JSON is JSON even where the type does not say so, never a form.
    """
    media = media_type(delivery.headers.get("content-type", ""))
    says_json = media == "application/json" or media.endswith("+json")
    if delivery.is_form and content is not Content.JSON:
        return _form(delivery.body, payload_field)
    if content is Content.FORM or delivery.is_form:
        raise Unreadable(f"the body is not {content.value}")
    try:
        return _json(delivery.body)
    except Unreadable:
        if content is Content.ANY and not says_json:
            return None
        raise


def _form(body: bytes, payload_field: str) -> object:
    if _is_json_document(body):
        raise Unreadable("the body says that it is a form, but is JSON")
    fields: dict[str, str] = {}
    try:
        for name, value in form_pairs(body):
            fields.setdefault(name.decode("utf-8", "replace"), value.decode("utf-8", "replace"))
    except ValueError as exc:
        raise Unreadable("the body is not a form") from exc
    if payload_field in fields:
        return _json(fields[payload_field])
    return fields


def _is_json_document(body: bytes) -> bool:
    """Whether it is a JSON object or list. No form is: it would have to begin with a brace, and end with one."""
    if not body.lstrip(b"\xef\xbb\xbf \t\r\n").startswith((b"{", b"[")):
        return False
    try:
        json.loads(body)
    except (ValueError, RecursionError):
        return False
    return True


def _json(text: bytes | str) -> object:
    try:
        document: object = json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise Unreadable("the body is not JSON") from exc
    _check_depth(document)
    return document


def _check_depth(document: object) -> None:
    """Level by level, each in loops of the interpreter's own: four megabytes may hold a million lists."""
    level = [document]
    for _ in range(MAX_DEPTH + 1):
        lists = chain.from_iterable(value for value in level if isinstance(value, list))
        values = chain.from_iterable(value.values() for value in level if isinstance(value, dict))
        level = [inner for inner in chain(lists, values) if inner and isinstance(inner, (dict, list))]
        if not level:
            return
    raise Unreadable(f"the body nests deeper than {MAX_DEPTH}")
