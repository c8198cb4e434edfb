"""CloudWatch's metric math, as far as the table of alarms uses it.

    evaluate("IF(asked >= 20, SUM([failed, TIME_SERIES(0)]) / asked, 0)", {"asked": {...}, "failed": {}}, times)

A series maps the end of a period to its value; a period without one is a gap. As CloudWatch does: arithmetic of two
series has gaps where either has one, `SUM`, `MAX`, `MIN` and `AVG` of a list take what is there, a division by zero is
a gap. Source: "Using math expressions with CloudWatch metrics", CloudWatch user guide.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, reduce
from typing import Final

Values = Mapping[int, float]


class BadExpression(ValueError):
    """The text is no expression of those understood here, or names a series that was not given."""


_TOKEN = re.compile(r"\s*(?:(\d+(?:\.\d+)?)|([A-Za-z_]\w*)|(<=|>=|==|!=|&&|\|\||[-+*/<>()\[\],]))")
_COMPARE: Final[dict[str, Callable[[float, float], bool]]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
}
_LOGIC: Final[dict[str, Callable[[float, float], bool]]] = {
    "AND": lambda left, right: left != 0 and right != 0,
    "OR": lambda left, right: left != 0 or right != 0,
}
_ARITHMETIC: Final[dict[str, Callable[[float, float], float]]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
}
_ACROSS: Final[dict[str, Callable[[Sequence[float]], float]]] = {
    "SUM": sum,
    "MAX": max,
    "MIN": min,
    "AVG": lambda values: sum(values) / len(values),
}


@dataclass(frozen=True, slots=True)
class _Node:
    """`kind` is `number`, `series`, `list`, an operator, or the name of a function."""

    kind: str
    parts: tuple[_Node, ...] = ()
    number: float = 0.0
    name: str = ""


def evaluate(expression: str, series: Mapping[str, Values], times: Sequence[int]) -> Values:
    """The values at `times`; a number alone is one at each of them. Raises `BadExpression`.

    `FILL` of a series that has nothing but gaps is nothing: CloudWatch promises no more.
    """
    found = _Evaluation(series, times).of(_parse(expression))
    return found if isinstance(found, Mapping) else dict.fromkeys(times, found)


def ids_of(expression: str) -> set[str]:
    """The series that it names. Raises `BadExpression`."""
    return set(_names(_parse(expression)))


def _names(node: _Node) -> Iterator[str]:
    if node.kind == "series":
        yield node.name
    for part in node.parts:
        yield from _names(part)


# ------------------------------------------------------------------------------------------------------------- reading


@cache
def _parse(text: str) -> _Node:
    reader = _Reader(text)
    node = reader.logic()
    if reader.here:
        raise BadExpression(f"{text!r}: {reader.here!r} is one too many")
    return node


class _Reader:
    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens: list[str] = []
        at = 0
        while text[at:].strip():
            found = _TOKEN.match(text, at)
            if found is None:
                raise BadExpression(f"{text!r}: nothing begins with {text[at:].strip()[:10]!r}")
            self._tokens.append(found[0].strip())
            at = found.end()

    @property
    def here(self) -> str:
        return self._tokens[0] if self._tokens else ""

    def _take(self, *wanted: str) -> str:
        """The next token if it is one of these, else empty."""
        return self._tokens.pop(0) if self._tokens and self._tokens[0] in wanted else ""

    def _need(self, wanted: str) -> None:
        if not self._take(wanted):
            raise BadExpression(f"{self._text!r}: {wanted!r} is missing before {self.here!r}")

    def logic(self) -> _Node:
        node = self._comparison()
        while word := self._take("AND", "&&", "OR", "||"):
            node = _Node("AND" if word in ("AND", "&&") else "OR", (node, self._comparison()))
        return node

    def _comparison(self) -> _Node:
        node = self._sum()
        if word := self._take(*_COMPARE):
            node = _Node(word, (node, self._sum()))
        return node

    def _sum(self) -> _Node:
        node = self._product()
        while word := self._take("+", "-"):
            node = _Node(word, (node, self._product()))
        return node

    def _product(self) -> _Node:
        node = self._single()
        while word := self._take("*", "/"):
            node = _Node(word, (node, self._single()))
        return node

    def _single(self) -> _Node:
        if self._take("-"):
            return _Node("-", (_Node("number"), self._single()))
        if self._take("("):
            node = self.logic()
            self._need(")")
            return node
        if self._take("["):
            return _Node("list", self._until("]"))
        token = self._tokens.pop(0) if self._tokens else ""
        if re.fullmatch(r"\d+(?:\.\d+)?", token):
            return _Node("number", number=float(token))
        if not re.fullmatch(r"[A-Za-z_]\w*", token):
            raise BadExpression(f"{self._text!r}: a value is missing before {token!r}")
        if self._take("("):
            return _Node(token, self._until(")"))
        return _Node("series", name=token)

    def _until(self, end: str) -> tuple[_Node, ...]:
        parts = [self.logic()]
        while self._take(","):
            parts.append(self.logic())
        self._need(end)
        return tuple(parts)


# ----------------------------------------------------------------------------------------------------------- computing


class _Evaluation:
    def __init__(self, series: Mapping[str, Values], times: Sequence[int]) -> None:
        self._series = series
        self._times = times

    def of(self, node: _Node) -> Values | float:
        match node.kind, node.parts:
            case "number", _:
                return node.number
            case "series", _:
                if node.name not in self._series:
                    raise BadExpression(f"there is no series {node.name!r}")
                known = self._series[node.name]
                return {time: known[time] for time in self._times if time in known}
            case "IF", (condition, then, otherwise):
                return self._if(self._wide(self.of(condition)), self.of(then), self.of(otherwise))
            case "TIME_SERIES", (value,):
                return dict.fromkeys(self._times, self._number(value))
            case "FILL", (series, value):
                known, number = self._wide(self.of(series)), self._number(value)
                return {time: known.get(time, number) for time in self._times} if known else known
            case name, (_Node(kind="list", parts=parts),) if name in _ACROSS:
                return self._across(_ACROSS[name], [self._wide(self.of(part)) for part in parts])
            case word, (left, right) if word in _COMPARE or word in _LOGIC:
                holds = _COMPARE.get(word) or _LOGIC[word]
                return self._both(lambda one, other: float(holds(one, other)), self.of(left), self.of(right))
            case word, (left, right) if word in _ARITHMETIC:
                return self._both(_ARITHMETIC[word], self.of(left), self.of(right))
        raise BadExpression(f"{node.kind} of {len(node.parts)} is not understood")

    def _wide(self, value: Values | float) -> Values:
        return value if isinstance(value, Mapping) else dict.fromkeys(self._times, value)

    def _number(self, node: _Node) -> float:
        value = self.of(node)
        if isinstance(value, Mapping):
            raise BadExpression("a number is needed where a series stands")
        return value

    def _both(self, compute: Callable[[float, float], float], left: Values | float, right: Values | float) -> Values:
        one, other = self._wide(left), self._wide(right)
        computed: dict[int, float] = {}
        for time in self._times:
            if time in one and time in other:
                try:
                    computed[time] = compute(one[time], other[time])
                except ZeroDivisionError:
                    continue  # a gap, as in CloudWatch
        return computed

    def _if(self, condition: Values, then: Values | float, otherwise: Values | float) -> Values:
        yes, no = self._wide(then), self._wide(otherwise)
        chosen = {time: (yes if holds else no) for time, holds in condition.items()}
        return {time: values[time] for time, values in chosen.items() if time in values}

    def _across(self, compute: Callable[[Sequence[float]], float], listed: list[Values]) -> Values:
        there: set[int] = reduce(set.union, (set(values) for values in listed), set())
        return {
            time: compute([values[time] for values in listed if time in values])
            for time in self._times
            if time in there
        }
