"""A signed body as a document that pointers lead into."""

from __future__ import annotations

import json
from collections.abc import Iterable

from functions.core.failure import HoldfastError
from functions.signatures.providers import Content
from functions.signatures.scheme import Delivery, form_pairs, media_type

MAX_DEPTH = 128  # nothing real nests deeper, and whoever reads it after us must get through it too


class Unreadable(HoldfastError):
    """A body is not what its source or its Content-Type says it is."""


def document_of(delivery: Delivery, content: Content, payload_field: str = "") -> object:
    """The JSON value, or the form's fields (the first of a name). None for an opaque body where any content is taken.

    Raises `Unreadable`. A form whose `payload_field` holds JSON is that JSON.
    """
    media = media_type(delivery.headers.get("content-type", ""))
    says_json = media == "application/json" or media.endswith("+json")
    if delivery.is_form and content is not Content.JSON:
        return _form(delivery.body, payload_field)
    if content is Content.FORM or delivery.is_form:
        raise Unreadable(f"the body is not {content.value}")
    if content is Content.ANY and not says_json:
        return None
    return _json(delivery.body)


def _form(body: bytes, payload_field: str) -> object:
    fields: dict[str, str] = {}
    try:
        for name, value in form_pairs(body):
            fields.setdefault(name.decode("utf-8", "replace"), value.decode("utf-8", "replace"))
    except ValueError as exc:
        raise Unreadable("the body is not a form") from exc
    if payload_field in fields:
        return _json(fields[payload_field])
    return fields


def _json(text: bytes | str) -> object:
    try:
        document: object = json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise Unreadable("the body is not JSON") from exc
    _check_depth(document)
    return document


def _check_depth(document: object) -> None:
    level: list[object] = [document]
    for _ in range(MAX_DEPTH + 1):
        level = [inner for value in level for inner in _children(value)]
        if not level:
            return
    raise Unreadable(f"the body nests deeper than {MAX_DEPTH}")


def _children(value: object) -> Iterable[object]:
    if isinstance(value, dict):
        return (inner for inner in value.values() if isinstance(inner, dict | list))
    if isinstance(value, list):
        return (inner for inner in value if isinstance(inner, dict | list))
    return ()
