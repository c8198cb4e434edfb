"""How CloudWatch makes datapoints of what is counted, and a state of datapoints.

Source: "Alarm evaluation" and "Configuring how CloudWatch alarms treat missing data", CloudWatch user guide. Each
minute the periods are laid back from that minute's end. Where some of the last N have no datapoint, older ones take
their place, from a range that is a little longer than N; only where those do not suffice does the rule for missing data
count. So one bad minute of a sparse metric holds an alarm for as long as it is in that range.
"""

from __future__ import annotations

import math
import operator
from bisect import bisect_left, insort
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from functions.core.alarms import STAGE, Alarm, Series
from ops.alarms.expression import Values, evaluate

MINUTE_MS: Final = 60_000
RANGE_BEYOND: Final = 2
"""By how many periods more than N CloudWatch looks back. It says no number; its own table shows this one for N = 3."""

Identity = tuple[str, str, frozenset[tuple[str, str]]]
"""Of a metric: namespace, name, dimensions."""


class State(StrEnum):
    """In CloudWatch's words."""

    OK = "OK"
    ALARM = "ALARM"
    INSUFFICIENT_DATA = "INSUFFICIENT_DATA"


_COMPARE: Final[dict[str, Callable[[float, float], bool]]] = {
    "GreaterThanThreshold": operator.gt,
    "GreaterThanOrEqualToThreshold": operator.ge,
    "LessThanThreshold": operator.lt,
    "LessThanOrEqualToThreshold": operator.le,
}


@dataclass(frozen=True, slots=True)
class Watched:
    """One metric and the statistic of it that is taken."""

    identity: Identity
    statistic: str

    @classmethod
    def of(cls, series: Series, stage: str) -> Watched:
        """As the table has it: symbolic names stay as they are, and the stage is put in."""
        dimensions = {name: value.replace(STAGE, stage) for name, value in series.dimensions.items()}
        return cls((series.namespace, series.metric, frozenset(dimensions.items())), series.statistic)


@dataclass(frozen=True, slots=True, kw_only=True)
class Definition:
    """One alarm on metrics, as CloudWatch is told of it."""

    metrics: Mapping[str, Watched]
    expression: str
    comparison: str
    threshold: float
    periods: int
    datapoints: int
    missing: str
    period_seconds: int


def definitions_of(alarm: Alarm, stage: str) -> tuple[Definition, ...]:
    """What must fire together for this row of the table to fire."""
    windows = [alarm.period_seconds, *([alarm.also_over_seconds] if alarm.also_over_seconds else [])]
    return tuple(
        Definition(
            metrics={name: Watched.of(series, stage) for name, series in alarm.series.items()},
            expression=alarm.expression,
            comparison=alarm.comparison,
            threshold=alarm.threshold,
            periods=alarm.periods,
            datapoints=alarm.datapoints,
            missing=alarm.missing,
            period_seconds=seconds,
        )
        for seconds in windows
    )


@dataclass(frozen=True, slots=True)
class Sample:
    """One value that was counted at a time, and when CloudWatch had it."""

    at_ms: int
    value: float
    arrived_ms: int


@dataclass(slots=True)
class Samples:
    """What was counted, by metric."""

    _kept: dict[Identity, list[Sample]] = field(default_factory=dict)

    def add(self, identity: Identity, at_ms: int, value: float, arrived_ms: int | None = None) -> None:
        """One value; it arrives when it is counted unless it is said otherwise."""
        sample = Sample(at_ms, value, at_ms if arrived_ms is None else arrived_ms)
        insort(self._kept.setdefault(identity, []), sample, key=_when)

    @property
    def identities(self) -> set[Identity]:
        """The metrics of which anything was counted."""
        return set(self._kept)

    def forget_before(self, at_ms: int) -> None:
        """Drop what is older."""
        for identity, kept in list(self._kept.items()):
            self._kept[identity] = kept[bisect_left(kept, at_ms, key=_when) :]

    def datapoint(self, watched: Watched, begins_ms: int, ends_ms: int, now_ms: int) -> float | None:
        """The statistic of what lies in the period and had arrived; None if nothing did."""
        kept = self._kept.get(watched.identity, [])
        within = kept[bisect_left(kept, begins_ms, key=_when) : bisect_left(kept, ends_ms, key=_when)]
        values = [sample.value for sample in within if sample.arrived_ms <= now_ms]
        return _statistic(watched.statistic, values) if values else None


def _when(sample: Sample) -> int:
    return sample.at_ms


def _statistic(name: str, values: Sequence[float]) -> float:
    match name:
        case "Sum":
            return sum(values)
        case "Maximum":
            return max(values)
        case "Minimum":
            return min(values)
        case "Average":
            return sum(values) / len(values)
        case "SampleCount":
            return float(len(values))
    if not name.startswith("p"):
        raise ValueError(f"the statistic {name} is not computed here")
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * float(name[1:]) / 100) - 1)]


def values_of(
    definition: Definition, samples: Samples, now_ms: int, *, minute_ms: int = MINUTE_MS, as_of_ms: int | None = None
) -> list[float | None]:
    """The expression's value in each period of the range that CloudWatch looks at, oldest first; None is a gap. With
    `as_of_ms` it is the range that it looked at then, by what has arrived until now.
    """
    period_ms = definition.period_seconds * minute_ms // 60
    as_of_ms = now_ms if as_of_ms is None else as_of_ms
    end_ms = as_of_ms - as_of_ms % minute_ms
    ends = [end_ms - back * period_ms for back in range(definition.periods + RANGE_BEYOND - 1, -1, -1)]
    series: dict[str, Values] = {
        name: {
            end: value
            for end in ends
            if (value := samples.datapoint(watched, end - period_ms, end, now_ms)) is not None
        }
        for name, watched in definition.metrics.items()
    }
    found = evaluate(definition.expression, series, ends)
    return [found.get(end) for end in ends]


def state_of(definition: Definition, values: Sequence[float | None], before: State = State.OK) -> State:
    """The state, by the values of the range (oldest first) and, where missing data is ignored, by the state before."""
    compare = _COMPARE[definition.comparison]
    real = [compare(value, definition.threshold) for value in values if value is not None]
    if len(real) >= definition.periods:
        judged, gaps = real[-definition.periods :], 0
    else:
        judged, gaps = real, definition.periods - len(real)
    if not judged and definition.missing == "missing":
        return State.INSUFFICIENT_DATA
    if gaps and definition.missing == "ignore":
        return before
    breaching = sum(judged) + (gaps if definition.missing == "breaching" else 0)
    return State.ALARM if breaching >= definition.datapoints else State.OK


def judge(
    definitions: Sequence[Definition],
    samples: Samples,
    now_ms: int,
    *,
    before: State = State.OK,
    minute_ms: int = MINUTE_MS,
    as_of_ms: int | None = None,
) -> State:
    """The state at that moment: an alarm if each of the definitions is one. `as_of_ms` as `values_of` has it."""
    values = (values_of(each, samples, now_ms, minute_ms=minute_ms, as_of_ms=as_of_ms) for each in definitions)
    states = [state_of(each, found, before) for each, found in zip(definitions, values, strict=True)]
    if all(state is State.ALARM for state in states):
        return State.ALARM
    return State.OK if State.OK in states else State.INSUFFICIENT_DATA


def definition_in(properties: Mapping[str, Any], named: Callable[[Any], str]) -> Definition:
    """The alarm of a CloudFormation template. `named` gives the text of a value that may be a reference."""

    def watched(metric: Mapping[str, Any], statistic: str) -> Watched:
        dimensions = {each["Name"]: named(each["Value"]) for each in metric.get("Dimensions", ())}
        return Watched((metric["Namespace"], metric["MetricName"], frozenset(dimensions.items())), statistic)

    parts: dict[str, Watched] = {}
    if "Metrics" in properties:
        (math_part,) = [each for each in properties["Metrics"] if "Expression" in each]
        stats = {each["Id"]: each["MetricStat"] for each in properties["Metrics"] if "MetricStat" in each}
        parts = {name: watched(stat["Metric"], stat["Stat"]) for name, stat in stats.items()}
        (period,) = {stat["Period"] for stat in stats.values()}
        expression = math_part["Expression"]
    else:
        parts["m"] = watched(properties, properties.get("Statistic") or properties["ExtendedStatistic"])
        period, expression = properties["Period"], "m"
    return Definition(
        metrics=parts,
        expression=expression,
        comparison=properties["ComparisonOperator"],
        threshold=properties["Threshold"],
        periods=properties["EvaluationPeriods"],
        datapoints=properties.get("DatapointsToAlarm", properties["EvaluationPeriods"]),
        missing=properties.get("TreatMissingData", "missing"),
        period_seconds=period,
    )
