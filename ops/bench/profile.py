"""Where the time of a subject goes, for whoever makes it less: imports one by one, then functions. Times here are those
of a slowed process and only tell what weighs more than what.
"""

from __future__ import annotations

import io
import pstats
import re
from dataclasses import dataclass

from ops.bench.measure import Stage

TOP = 30
WARM_REQUESTS = 300
_LINE = re.compile(r"import time:\s+(\d+) \|\s+(\d+) \| +(\S+)")


@dataclass(frozen=True, slots=True)
class Import:
    """One module's import, in microseconds: its own code, and with all that it imported first."""

    name: str
    self_us: int
    cumulative_us: int


def imports_in(said: str) -> list[Import]:
    """What `-X importtime` has written, in its order."""
    return [Import(name, int(own), int(cumulative)) for own, cumulative, name in _LINE.findall(said)]


def profile(stage: Stage, name: str) -> str:
    """The report on the subject of that name. Raises `ops.bench.measure.SubjectFailed`."""
    with stage.started(name, options=["-X", "importtime"]):
        pass
    imports = imports_in(stage.errors_of(name).read_text())
    path = str(stage.scratch / "profile")
    with stage.started(name, profile=path) as (process, _):
        process.ask({"do": "answer", "requests": WARM_REQUESTS})
    return "\n".join(
        [
            f"Imports of {name} and of its process: {len(imports)} modules, {sum(i.self_us for i in imports)} µs",
            "",
            *_ranked("by their own code", imports, "self_us"),
            *_ranked("with what they imported first", imports, "cumulative_us"),
            "From the start to the first answer, by own time:",
            _functions(f"{path}.first", "tottime"),
            "From the start to the first answer, by time with callees:",
            _functions(f"{path}.first", "cumtime"),
            f"{WARM_REQUESTS} warm events, by own time:",
            _functions(f"{path}.warm", "tottime"),
            f"{WARM_REQUESTS} warm events, by time with callees:",
            _functions(f"{path}.warm", "cumtime"),
        ]
    )


def _ranked(how: str, imports: list[Import], key: str) -> list[str]:
    ranked = sorted(imports, key=lambda one: int(getattr(one, key)), reverse=True)[:TOP]
    return [
        f"Modules {how}:",
        f"{'self µs':>10}{'all µs':>10}  module",
        *(f"{one.self_us:>10}{one.cumulative_us:>10}  {one.name}" for one in ranked),
        "",
    ]


def _functions(path: str, key: str) -> str:
    said = io.StringIO()
    pstats.Stats(path, stream=said).strip_dirs().sort_stats(key).print_stats(TOP)
    return said.getvalue().strip() + "\n"
