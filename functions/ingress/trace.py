"""W3C Trace Context, as far as ingress needs it: keep the sender's `traceparent` or start one."""

from __future__ import annotations

import re

# Version 00 has exactly these four fields; an unknown later version may have more, and we start anew rather than guess.
_TRACEPARENT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}\Z")


def traceparent_of(header: str, new_id: str) -> str:
    """The header when it is valid (https://www.w3.org/TR/trace-context/), else a new trace from 32 hex digits."""
    if _TRACEPARENT.match(header):
        return header
    return f"00-{new_id}-{new_id[:16]}-01"
