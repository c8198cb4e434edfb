"""Alarms are judged here as CloudWatch judges them: expressions, gaps, M of N, and what is missing."""

from __future__ import annotations

import pytest

from ops.alarms.evaluation import Definition, Samples, State, Watched, judge, state_of, values_of
from ops.alarms.expression import BadExpression, evaluate, ids_of

T = [1, 2, 3]
A = {1: 1.0, 2: 2.0}
B = {2: 4.0, 3: 0.0}
WATCHED = Watched(("Holdfast", "beats", frozenset({("stage", "test")})), "Sum")
MINUTE = 60_000


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("7", {1: 7, 2: 7, 3: 7}),
        ("a", A),
        ("a + b", {2: 6}),
        ("b - a * 2", {2: 0}),
        ("-a", {1: -1, 2: -2}),
        ("a / b", {2: 0.5}),
        ("a / (b - b)", {}),
        ("SUM([a, b])", {1: 1, 2: 6, 3: 0}),
        ("MAX([a, b])", {1: 1, 2: 4, 3: 0}),
        ("MIN([a, b])", {1: 1, 2: 2, 3: 0}),
        ("AVG([a, b])", {1: 1, 2: 3, 3: 0}),
        ("SUM([nothing, TIME_SERIES(0)])", {1: 0, 2: 0, 3: 0}),
        ("FILL(a, 9)", {1: 1, 2: 2, 3: 9}),
        ("FILL(nothing, 9)", {}),
        ("IF(a > 1, b, 5)", {1: 5, 2: 4}),
        ("IF(a >= 1 AND b > 0, 1, 0)", {2: 1}),
        ("IF(a == 1 OR a != 1, 1, 0)", {1: 1, 2: 1}),
        ("a < 2", {1: 1, 2: 0}),
        ("a <= 2 && a > 1.5", {1: 0, 2: 1}),
        ("a == 7 || a == 1", {1: 1, 2: 0}),
    ],
)
def test_an_expression_is_what_cloudwatch_makes_of_it(expression: str, expected: dict[int, float]) -> None:
    assert dict(evaluate(expression, {"a": A, "b": B, "nothing": {}}, T)) == expected


@pytest.mark.parametrize(
    "expression",
    [
        "",
        "a +",
        "(a",
        "a b",
        "SUM(a, b)",
        "NONE([a])",
        "[a",
        "c",
        "a $ b",
        "TIME_SERIES(a)",
        "FILL(a, b)",
        "IF(a, 1)",
        "[a] + 1",
    ],
)
def test_what_is_no_expression_is_refused(expression: str) -> None:
    with pytest.raises(BadExpression):
        evaluate(expression, {"a": A, "b": B}, T)


def test_an_expression_names_its_series() -> None:
    assert ids_of("IF(a >= 20, SUM([b, TIME_SERIES(0)]) / c, 0)") == {"a", "b", "c"}


def definition(**given: object) -> Definition:
    said: dict[str, object] = {
        "metrics": {"m": WATCHED},
        "expression": "m",
        "comparison": "GreaterThanThreshold",
        "threshold": 0,
        "periods": 3,
        "datapoints": 2,
        "missing": "notBreaching",
        "period_seconds": 60,
        **given,
    }
    return Definition(**said)  # type: ignore[arg-type]  # each is what the default of its name is


@pytest.mark.parametrize(
    ("values", "missing", "expected"),
    [
        ([0, 0, 0, 1, 1], "notBreaching", State.ALARM),
        ([1, 1, 0, 1, 0], "notBreaching", State.OK),
        ([None, None, None, 1, 1], "notBreaching", State.ALARM),
        ([None, None, None, None, 1], "notBreaching", State.OK),
        ([None, None, None, None, 1], "breaching", State.ALARM),
        ([None, None, None, None, None], "breaching", State.ALARM),
        ([None, None, None, None, None], "notBreaching", State.OK),
        ([None, None, None, None, None], "missing", State.INSUFFICIENT_DATA),
        ([None, None, None, None, 1], "missing", State.OK),
        # Older ones take the place of those that are missing, and the rule does not count.
        ([1, 1, 0, None, None], "notBreaching", State.ALARM),
        ([0, 0, 0, None, None], "breaching", State.OK),
        ([0, 0, None, None, None], "breaching", State.OK),
        ([0, None, None, None, None], "breaching", State.ALARM),
    ],
)
def test_m_of_n_with_gaps(values: list[float | None], missing: str, expected: State) -> None:
    assert state_of(definition(missing=missing), values) is expected


@pytest.mark.parametrize("before", list(State))
def test_where_missing_data_is_ignored_the_state_stays(before: State) -> None:
    assert state_of(definition(missing="ignore"), [None, None, None, None, 1], before) is before


@pytest.mark.parametrize(
    ("comparison", "value", "expected"),
    [
        ("GreaterThanThreshold", 5, State.OK),
        ("GreaterThanOrEqualToThreshold", 5, State.ALARM),
        ("LessThanThreshold", 5, State.OK),
        ("LessThanOrEqualToThreshold", 5, State.ALARM),
    ],
)
def test_a_threshold_is_met_or_passed(comparison: str, value: float, expected: State) -> None:
    assert state_of(definition(comparison=comparison, threshold=5), [value] * 5) is expected


@pytest.mark.parametrize(
    ("statistic", "expected"),
    [("Sum", 15), ("Maximum", 5), ("Minimum", 1), ("Average", 3), ("SampleCount", 5), ("p50", 3), ("p99", 5)],
)
def test_a_datapoint_is_the_statistic_of_what_lies_in_the_period(statistic: str, expected: float) -> None:
    samples = Samples()
    for second, value in enumerate([1, 2, 3, 4, 5]):
        samples.add(WATCHED.identity, second * 1_000, value)
    samples.add(WATCHED.identity, MINUTE, 100)
    assert samples.datapoint(Watched(WATCHED.identity, statistic), 0, MINUTE, MINUTE) == expected


def test_a_statistic_that_is_not_known_is_said() -> None:
    samples = Samples()
    samples.add(WATCHED.identity, 0, 1)
    with pytest.raises(ValueError, match="tm99"):
        samples.datapoint(Watched(WATCHED.identity, "tm99"), 0, MINUTE, MINUTE)


def test_what_arrives_late_counts_from_then_on_and_in_its_own_period() -> None:
    samples = Samples()
    samples.add(WATCHED.identity, 5 * MINUTE + 1, 3, arrived_ms=8 * MINUTE)
    assert values_of(definition(), samples, 7 * MINUTE) == [None] * 5
    assert values_of(definition(), samples, 8 * MINUTE) == [None, None, 3, None, None]


def test_periods_are_laid_back_from_the_end_of_each_minute() -> None:
    samples = Samples()
    samples.add(WATCHED.identity, 10 * MINUTE, 1)
    five = definition(period_seconds=300, periods=1, datapoints=1)
    assert [values_of(five, samples, now * MINUTE)[-1] for now in range(10, 17)] == [None, 1, 1, 1, 1, 1, None]


def test_a_composite_fires_when_all_of_its_windows_do() -> None:
    samples = Samples()
    samples.add(WATCHED.identity, 59 * MINUTE, 1)
    short, long = (
        definition(periods=1, datapoints=1),
        definition(periods=1, datapoints=1, period_seconds=3_600, threshold=1),
    )
    assert judge([short], samples, 60 * MINUTE) is State.ALARM
    assert judge([short, long], samples, 60 * MINUTE) is State.OK
    samples.add(WATCHED.identity, 10 * MINUTE, 1)
    assert judge([short, long], samples, 60 * MINUTE) is State.ALARM
    nothing = definition(missing="missing", metrics={"m": Watched(("Holdfast", "other", frozenset()), "Sum")})
    assert judge([nothing, nothing], samples, 60 * MINUTE) is State.INSUFFICIENT_DATA


def test_what_is_old_is_forgotten() -> None:
    samples = Samples()
    samples.add(WATCHED.identity, MINUTE, 1)
    samples.add(WATCHED.identity, 2 * MINUTE, 1)
    samples.forget_before(2 * MINUTE)
    assert samples.datapoint(WATCHED, 0, 3 * MINUTE, 3 * MINUTE) == 1
