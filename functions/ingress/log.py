"""One JSON line per request, which is also its metrics (CloudWatch embedded metric format, written by hand).

Ids and hashes only: no body, secret, phone number or address gets here. Libraries that write such lines cost more to
import than the whole of ingress.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence

NAMESPACE = "Holdfast"

Write = Callable[[str], None]
_ONES: Mapping[str, float] = {}


def print_line(line: str) -> None:
    """To standard output, where Lambda collects it."""
    print(line, flush=True)  # noqa: T201  # standard output is the log


def log_line(
    level: str,
    message: str,
    now_ms: int,
    fields: Mapping[str, object],
    metrics: Sequence[tuple[str, Sequence[Sequence[str]]]] = (),
    values: Mapping[str, float] = _ONES,
) -> str:
    """The line. Each metric counts 1 in every one of its dimension sets, whose values are among the fields; one that
    has a value in `values` is that many milliseconds.
    """
    line: dict[str, object] = {"level": level, "message": message, "timestamp": now_ms}
    line.update({name: value for name, value in fields.items() if value not in ("", None)})
    if metrics:
        line["_aws"] = {
            "Timestamp": now_ms,
            "CloudWatchMetrics": [
                {
                    "Namespace": NAMESPACE,
                    "Dimensions": [list(dimensions) for dimensions in sets],
                    "Metrics": [{"Name": name, "Unit": "Milliseconds" if name in values else "Count"}],
                }
                for name, sets in metrics
            ],
        }
        line.update({name: values.get(name, 1) for name, _ in metrics})
    return json.dumps(line, separators=(",", ":"))
