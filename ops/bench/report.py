"""What was measured as one JSON object, and as a table.

Schema `holdfast.bench-ingress/1`:

- `schema`, `python`, `machine`, `cpus`
- `method`: `tls`, and the fields of `ops.bench.measure.Load`
- `ours`, `peer`: `{"loads_boto3"}`, whether the process has loaded it after its first answer
- `keeps_schedule`: false where half of somebody's events waited longer than one interval: the machine was busy, and the
  ACK figures are those of a queue that grew
- `bare_cpu_seconds`: a spread, of an interpreter that does nothing
- `measures`: by name `{"ours": spread, "peer": spread, "ratio": spread, "target", "is_met"}`. The ratio is ours to the
  peer's, taken pair by pair; `target` is the most its median may be, null where none is set, and so is `is_met` then.

A spread is `{"median", "q1", "q3", "n"}`. The measures, by the unit in their names:

- `cold_cpu_seconds`: user and system, from the start of the process to its first answer;
  `cold_cpu_above_bare_seconds`: less that of the bare interpreter in the same pair
- `warm_cpu_seconds_per_event`: within the handler
- `peak_memory_bytes`: after the warm events
- `bundle_zip_bytes`: boto3 is in neither, it comes from the runtime
- `modules_loaded`: after the first answer
- `aws_requests_first_event`, `aws_requests_per_warm_event`: as the endpoint counted them
- `ack_p50_seconds`, `ack_p99_seconds`: wall time from the scheduled arrival to the answer, one value per round
"""

from __future__ import annotations

import math
import os
import platform
import statistics
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from ops.bench.measure import Load, Run, Taken
from ops.bench.subjects import NAMES, OURS, PEER

SCHEMA = "holdfast.bench-ingress/1"
TARGETS = {"cold_cpu_seconds": 0.25, "warm_cpu_seconds_per_event": 0.5, "peak_memory_bytes": 0.5}
_MS = 1000.0
# What the table calls a measure, and what its values are multiplied by to be read there.
_ROWS = {
    "cold_cpu_seconds": ("cold CPU, ms", _MS),
    "cold_cpu_above_bare_seconds": ("cold CPU above bare Python, ms", _MS),
    "warm_cpu_seconds_per_event": ("warm CPU per event, ms", _MS),
    "peak_memory_bytes": ("peak memory, MiB", 1 / 2**20),
    "bundle_zip_bytes": ("bundle zipped, MiB (boto3 in neither)", 1 / 2**20),
    "modules_loaded": ("modules loaded", 1.0),
    "aws_requests_first_event": ("AWS requests, first event", 1.0),
    "aws_requests_per_warm_event": ("AWS requests per warm event", 1.0),
    "ack_p50_seconds": ("ACK p50, ms", _MS),
    "ack_p99_seconds": ("ACK p99, ms", _MS),
}


def report(taken: Taken, load: Load, bundle_bytes: dict[str, int], *, is_tls: bool) -> dict[str, Any]:
    """The JSON object."""
    values = {name: _values(taken, name, bundle_bytes[name]) for name in NAMES}
    return {
        "schema": SCHEMA,
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "cpus": os.cpu_count(),
        "method": {"tls": is_tls, **asdict(load)},
        **{name: {"loads_boto3": taken.runs[name][-1].loads_boto3} for name in NAMES},
        "keeps_schedule": all(
            percentile(seconds, 0.5) <= load.interval_seconds
            for rounds in taken.ack_seconds.values()
            for seconds in rounds
        ),
        "bare_cpu_seconds": spread(taken.bare_cpu_seconds),
        "measures": {
            measure: _compared(measure, values[OURS][measure], values[PEER][measure]) for measure in values[OURS]
        },
    }


def _values(taken: Taken, name: str, bundle_bytes: int) -> dict[str, list[float]]:
    """Every measure of one subject, one value per pair or round."""
    runs: list[Run] = taken.runs[name]
    rounds = taken.ack_seconds[name]
    return {
        "cold_cpu_seconds": [run.cold_cpu_seconds for run in runs],
        "cold_cpu_above_bare_seconds": [
            run.cold_cpu_seconds - bare for run, bare in zip(runs, taken.bare_cpu_seconds, strict=True)
        ],
        "warm_cpu_seconds_per_event": [run.warm_cpu_seconds for run in runs],
        "peak_memory_bytes": [run.peak_bytes for run in runs],
        "bundle_zip_bytes": [bundle_bytes],
        "modules_loaded": [run.modules for run in runs],
        "aws_requests_first_event": [run.first_aws_requests for run in runs],
        "aws_requests_per_warm_event": [run.warm_aws_requests for run in runs],
        "ack_p50_seconds": [percentile(seconds, 0.50) for seconds in rounds],
        "ack_p99_seconds": [percentile(seconds, 0.99) for seconds in rounds],
    }


def _compared(measure: str, ours: Sequence[float], peer: Sequence[float]) -> dict[str, Any]:
    ratio = spread([one / other for one, other in zip(ours, peer, strict=True)])
    target = TARGETS.get(measure)
    return {
        "ours": spread(ours),
        "peer": spread(peer),
        "ratio": ratio,
        "target": target,
        "is_met": None if target is None else ratio["median"] <= target,
    }


def spread(values: Sequence[float]) -> dict[str, float]:
    """The median and the quartiles (inclusive) of at least one value."""
    q1, median, q3 = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else list(values) * 3
    return {"median": median, "q1": q1, "q3": q3, "n": len(values)}


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least this share of all values does not exceed."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def table(document: dict[str, Any]) -> str:
    """The measures for a person, one line each."""
    method = document["method"]
    what = (
        f"Ingress beside a Powertools + boto3 handler of the same work: Python {document['python']}, "
        f"{document['machine']}, {document['cpus']} CPUs, {method['pairs']} pairs of fresh processes, "
        f"{method['warm_requests']} warm events each, {'TLS' if method['tls'] else 'plain HTTP'}."
    )
    how = (
        f"ACK: {method['rounds']} × {method['arrivals']} events, one each {method['interval_seconds'] * 1000:g} ms; "
        "the local endpoint answers at once. Medians; quartiles of the ratio in brackets."
    )
    lines = [what, how, "", f"{'':38}{'ours':>10}{'peer':>10}{'ratio':>8}  {'quartiles':<16}target"]
    for measure, compared in document["measures"].items():
        label, factor = _ROWS[measure]
        ours, peer = (compared[name]["median"] * factor for name in NAMES)
        ratio = compared["ratio"]
        target = ""
        if compared["target"] is not None:
            target = f"≤ {compared['target']:g}: {'met' if compared['is_met'] else 'MISSED'}"
        quartiles = f"[{ratio['q1']:.3f}, {ratio['q3']:.3f}]"
        lines.append(f"{label:38}{ours:>10.2f}{peer:>10.2f}{ratio['median']:>8.3f}  {quartiles:<16}{target}".rstrip())
    if not document["keeps_schedule"]:
        lines.append("The machine was too busy to keep the schedule: ACK figures are those of a queue that grew.")
    lines.append(f"{'(bare Python, ms)':38}{document['bare_cpu_seconds']['median'] * 1000:>10.2f}")
    return "\n".join(lines)
