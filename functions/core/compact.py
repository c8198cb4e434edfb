"""JSON as it is stored and compared here: keys in order, not a space too many. The same document, the same text."""

from __future__ import annotations

import json

compact = json.JSONEncoder(separators=(",", ":"), sort_keys=True).encode
"""Takes what `json.dumps` takes, and raises what that raises. Made once: a new encoder costs more than most texts."""
