"""Text that strangers wrote, made fit for reading and for comparing."""

from __future__ import annotations

import html
import re
import unicodedata

_HTML = re.compile(r"</[a-z]|<br\b|<p\b|<div\b", re.IGNORECASE)
_NOT_TEXT = re.compile(r"<(blockquote|style|script)\b.{0,4000}?(?:</\1\s*>|\Z)", re.IGNORECASE | re.DOTALL)
_BREAK = re.compile(r"<(?:br|/p|/div|/li|/tr)\b[^<>]{0,100}>", re.IGNORECASE)
_TAG = re.compile(r"<[^<>]{1,1000}>")
_QUOTED_LINE = re.compile(r"^[ \t]*>.*(?:\n|\Z)", re.MULTILINE)
# What mail programs write above what they quote; the quotation itself is not always marked.
_QUOTE_HEADER = re.compile(
    r"^(?:-{2,}[ ]?Original Message[ ]?-{2,}|_{10,}|On\b[^\n]{0,200}(?:\n[^\n]{0,100})?\bwrote:)[ \t]*$"
    r"|^From:[^\n]{1,200}\n(?:Sent|Date|To):[^\n]{0,200}$",
    re.MULTILINE | re.IGNORECASE,
)


def readable(text: str, limit: int) -> str:
    """At most `limit` characters of the text, as a person would read it.

    HTML is reduced to its text; control characters, invisible formatting (it can hide or reorder words) and halves of
    surrogate pairs are dropped, line breaks kept. Never fails; the work is bounded by `limit`, not by the text.
    """
    text = text[: 4 * limit]
    if _HTML.search(text):
        text = html.unescape(_TAG.sub(" ", _BREAK.sub("\n", _NOT_TEXT.sub(" ", text))))
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\t", " ")
    kept = [
        character
        for character in text
        if character == "\n" or unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Co", "Cn")
    ]
    return "".join(kept).strip()[:limit].rstrip()


def without_quotes(text: str) -> str:
    """What the author wrote: without quoted lines, and without what follows a mail program's heading of a quotation."""
    found = _QUOTE_HEADER.search(text)
    while found is not None:
        below = text[found.end() :].lstrip()
        # Below it either every quoted line is marked, and an answer may follow; or none is, and all of it is old.
        text = text[: found.start()] + ("\n" + below if below.startswith(">") else "")
        found = _QUOTE_HEADER.search(text, found.start())
    return _QUOTED_LINE.sub("", text).strip()


def plain(text: str) -> str:
    """For comparing: compatibility forms unified, lower case, straight apostrophes, single spaces."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(folded.replace("’", "'").replace("‘", "'").replace("`", "'").split())
