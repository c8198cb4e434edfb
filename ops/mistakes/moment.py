"""How the moment of signing is written."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from functools import partial

from functions.signatures.scheme import KeyedDigest, Moment, Scheme
from functions.signatures.special import BodyDigest, PublicKeySignature
from ops.findings import Code, Finding
from ops.mistakes.change import Change
from ops.shapes import Simple, moment_shape, rebuilt, scheme_in_force, signed_moment, with_moment
from ops.verify import Request


def moments(simple: Simple | None, request: Request) -> Iterator[Change]:
    """The moment that was signed is written otherwise in its header."""
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
