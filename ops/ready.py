"""Whether a stage, and the people behind it, are ready for being on call: the checklists of runbooks 000 ("Validation
Checklist") and 001 ("Pilot Readiness Checklist", "Tooling Requirements"), as far as what they ask for is built. Pure:
`ops.ready_asked` asks the stage.

What could not be asked is neither there nor missing: it cannot be seen, and that is said.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from enum import StrEnum
from typing import Any, Final, Generic, TypeVar

from functions.core.alarms import ALARMS, name_at
from functions.core.switches import REQUIRED, everyday, is_everyday
from ops.runbooks import Tried

T = TypeVar("T")

DAY_MS: Final = 86_400_000
PAGE_TEST_DAYS: Final = 7
DRILL_DAYS: Final = 90
"""What was tried longer ago counts as untried: people, code and providers have changed since."""
MOST_NAMED: Final = 6

NOT_YET: Final = (
    "of the checklists, transcript-first packets, requests under the GDPR and disputes about authenticity come with "
    "their flows and are not looked at"
)


class Verdict(StrEnum):
    """Of one item."""

    OK = "ok"
    MISSING = "missing"
    UNSEEN = "cannot be seen"


@dataclass(frozen=True, slots=True)
class Item:
    """One line of the checklist. `row` says which requirement asks for it; `do` is empty where it is ok."""

    id: str
    row: str
    wants: str
    verdict: Verdict
    found: str
    do: str = ""


@dataclass(frozen=True, slots=True)
class Told(Generic[T]):
    """An answer, or why there is none."""

    value: T | None = None
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class AlarmSeen:
    """One alarm as it is deployed."""

    tells: int
    is_enabled: bool
    state: str


@dataclass(frozen=True, slots=True)
class PageTest:
    """A test page: when, and what became of it."""

    at_ms: int
    is_over: bool
    resolution: str


@dataclass(frozen=True, slots=True)
class SwitchMove:
    """One audited change of a switch, or of an integration's health. `whose` where several are told apart."""

    at_ms: int
    by: str
    before: str
    after: str
    whose: str = ""


@dataclass(frozen=True, slots=True)
class RoleSeen:
    """One role of the catalog."""

    person: str
    contact: str


@dataclass(frozen=True, slots=True)
class SourceSeen:
    """One source. `problem` is why it cannot be read; `gap_seconds` 0: none is expected."""

    is_enabled: bool
    gap_seconds: int
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Asked:
    """What was asked, and what was answered. By name throughout."""

    stage: str
    now_ms: int
    today: date
    alarms: Told[Mapping[str, AlarmSeen]] = field(default_factory=Told)
    subscribers: Told[int] = field(default_factory=Told)
    channels: Told[Mapping[str, str]] = field(default_factory=Told)
    """Each with what is wrong with it; empty: nothing."""
    tests: Told[Sequence[PageTest]] = field(default_factory=Told)
    roles: Told[Mapping[str, RoleSeen]] = field(default_factory=Told)
    on_call: tuple[str, ...] = ()
    texts: Told[Mapping[str, bool]] = field(default_factory=Told)
    """Each with whether its newest version is approved."""
    switches: Told[Mapping[str, str]] = field(default_factory=Told)
    throws: Told[Sequence[SwitchMove]] = field(default_factory=Told)
    """Of `auto_reply`, in any order."""
    overrides: Told[Sequence[SwitchMove]] = field(default_factory=Told)
    """What people said of any integration's health."""
    outages: Told[Sequence[SwitchMove]] = field(default_factory=Told)
    """What the machine said of any integration's health."""
    replays: Told[Sequence[Mapping[str, Any]]] = field(default_factory=Told)
    pages: Told[Mapping[str, str]] = field(default_factory=Told)
    """Each page or section of the runbooks that is tried, with the digest of its commands."""
    tried: Told[Mapping[str, Tried]] = field(default_factory=Told)
    dead: Told[Mapping[str, int]] = field(default_factory=Told)
    """Dead-letter queues, with how many messages each holds."""
    sources: Told[Mapping[str, SourceSeen]] = field(default_factory=Told)
    integrations: tuple[str, ...] = ()
    """Those that need a parameter."""
    credentials: Told[frozenset[str]] = field(default_factory=Told)
    backups: Told[Mapping[str, bool]] = field(default_factory=Told)
    """Tables and the bucket, with whether an earlier state can be had back."""
    dashboard: Told[bool] = field(default_factory=Told)
    runbooks_url: Told[str] = field(default_factory=Told)
    """Where pages link to, as it is deployed."""


def judge(asked: Asked) -> list[Item]:
    """The checklist: how one is reached first, then what there is to work with."""
    return [item for check in _CHECKS for item in check(asked)]


# ---------------------------------------------------------------------------------------------------------------- items


def _item(
    item_id: str, row: str, wants: str, told: Told[T], do: str, see: Callable[[T], tuple[bool, str]]
) -> Iterator[Item]:
    """One item of one answer. `see` gives whether it is ok, and what was found."""
    if told.value is None:
        why = told.trouble or "nobody asked"
        yield Item(item_id, row, wants, Verdict.UNSEEN, why, "ask with credentials that may see it")
        return
    is_ok, found = see(told.value)
    yield Item(item_id, row, wants, Verdict.OK if is_ok else Verdict.MISSING, found, "" if is_ok else do)


def _roles(asked: Asked) -> Iterator[Item]:
    def see(roles: Mapping[str, RoleSeen]) -> tuple[bool, str]:
        empty = [name for name, role in roles.items() if not (role.person.strip() and role.contact.strip())]
        absent = [name for name in asked.on_call if name not in roles]
        if not absent and not empty:
            return True, f"{len(roles)} roles, each with a person and how to reach them"
        return False, f"without a person or a contact: {_some([*absent, *empty])}"

    yield from _item(
        "roles",
        "000.30, 001.1, 001.56",
        "each role has a person, and how to reach them",
        asked.roles,
        "fill in `functions/catalog/roles.toml`, and deploy",
        see,
    )


def _reached(asked: Asked) -> Iterator[Item]:
    wants = "somebody is reached: a confirmed subscription of the on-call topic, or a channel"
    usable = [name for name, problem in (asked.channels.value or {}).items() if not problem]
    subscribers = asked.subscribers.value or 0
    do = "subscribe to the topic `OncallTopicArn`, or store a channel: docs/runbooks/on_call.md, section 5"
    if subscribers > 0 or usable:
        by = [f"{subscribers} subscriptions"] * (subscribers > 0) + sorted(usable)
        yield Item("reached", "001.56", wants, Verdict.OK, ", ".join(by))
        return
    # A channel that cannot be seen may be the one that there is.
    trouble = asked.subscribers.trouble or asked.channels.trouble
    is_seen = asked.subscribers.value is not None and asked.channels.value is not None
    verdict = Verdict.MISSING if is_seen else Verdict.UNSEEN
    yield Item("reached", "001.56", wants, verdict, "nobody" if is_seen else trouble or "nobody asked", do)


def _channels(asked: Asked) -> Iterator[Item]:
    def see(channels: Mapping[str, str]) -> tuple[bool, str]:
        wrong = {name: problem for name, problem in channels.items() if problem}
        said = "; ".join(f"{name}: {problem}" for name, problem in sorted(wrong.items()))
        return not wrong, said or f"{len(channels)} channels, each can be read"

    yield from _item(
        "channels",
        "001.56",
        "every channel's parameter can be used",
        asked.channels,
        "put it right, or delete it: docs/runbooks/on_call.md, section 5",
        see,
    )


def _linked(asked: Asked) -> Iterator[Item]:
    def see(url: str) -> tuple[bool, str]:
        # As a channel that makes links of pages looks at it.
        if "://" not in url:
            return False, f"not set: pages say {url or 'nothing'}, which nobody can click"
        return url.endswith("/"), url if url.endswith("/") else f"{url} has no slash at its end: every link is broken"

    yield from _item(
        "links",
        "003.27",
        "a page links its section of the runbooks, by an address that opens in a browser",
        asked.runbooks_url,
        f"set `runbooks_url` of the stage in infra/config.py to its address, `make deploy STAGE={asked.stage}`",
        see,
    )


def _tested(asked: Asked) -> Iterator[Item]:
    def see(tests: Sequence[PageTest]) -> tuple[bool, str]:
        # One of tomorrow is of a clock that is wrong, and proves nothing.
        over = [one for one in tests if one.is_over and one.at_ms <= asked.now_ms]
        if not over:
            return False, "none has come to its end"
        last = max(over, key=lambda one: one.at_ms)
        days = _days(asked.now_ms, last.at_ms)
        is_there = last.resolution.startswith("delivered")
        return is_there and days <= PAGE_TEST_DAYS, f"{_ago(days)}: {last.resolution or 'not delivered'}"

    yield from _item(
        "page test",
        "001.57",
        f"a test page has reached every channel within {PAGE_TEST_DAYS} days",
        asked.tests,
        "`holdfast page test`",
        see,
    )


def _alarms(asked: Asked) -> Iterator[Item]:
    names = [name_at(asked.stage, alarm.name) for alarm in ALARMS]
    short = {name_at(asked.stage, alarm.name): alarm.name for alarm in ALARMS}

    def see(seen: Mapping[str, AlarmSeen]) -> tuple[bool, str]:
        absent = [short[name] for name in names if name not in seen]
        silent = [short[name] for name in names if name in seen and not (seen[name].tells and seen[name].is_enabled)]
        said = [f"not there: {_some(absent)}"] * bool(absent) + [f"tell nobody: {_some(silent)}"] * bool(silent)
        return not said, "; ".join(said) or f"{len(names)} alarms, each tells somebody"

    def quiet(seen: Mapping[str, AlarmSeen]) -> tuple[bool, str]:
        firing = [short[name] for name in names if name in seen and seen[name].state == "ALARM"]
        return not firing, f"fire: {_some(firing)}" if firing else "none fires"

    yield from _item(
        "alarms",
        "001.54, 003.22",
        "every alarm is there, tells somebody, and is not switched off",
        asked.alarms,
        "deploy; `aws cloudwatch enable-alarm-actions --alarm-names NAME` for one that was switched off",
        see,
    )

    def alive(seen: Mapping[str, AlarmSeen]) -> tuple[bool, str]:
        watched = [name_at(asked.stage, alarm.name) for alarm in ALARMS if alarm.missing == "breaching"]
        # An alarm that has not judged yet proves nothing.
        unproven = [short[name] for name in watched if name not in seen or seen[name].state != "OK"]
        return not unproven, f"not seen to be quiet: {_some(unproven)}" if unproven else f"{len(watched)} alarms say so"

    yield from _item(
        "alive",
        "001.54",
        "what has to be heard of every few minutes is heard of: heartbeats, and events that we send ourselves",
        asked.alarms,
        "the alarm's section of docs/runbooks/alarms.md",
        alive,
    )
    yield from _item(
        "quiet",
        "001.54",
        "no alarm fires",
        asked.alarms,
        "`holdfast incident list`, and the alarm's section of docs/runbooks/alarms.md",
        quiet,
    )


def _dashboard(asked: Asked) -> Iterator[Item]:
    yield from _item(
        "dashboard",
        "001.54",
        "the dashboard is there",
        asked.dashboard,
        "deploy",
        lambda is_there: (is_there, f"holdfast-{asked.stage}" if is_there else "none"),
    )


def _switches(asked: Asked) -> Iterator[Item]:
    def see(values: Mapping[str, str]) -> tuple[bool, str]:
        absent = [name for name in REQUIRED if name not in values]
        unusual = [
            f"{name} = {value}"
            for name, value in sorted(values.items())
            if everyday(name) and not is_everyday(name, value)
        ]
        strange = [name for name in sorted(values) if not everyday(name)]
        said = [f"not there: {_some(absent)}"] * bool(absent) + [f"no switch: {_some(strange)}"] * bool(strange)
        said += [f"not as every day: {_some(unusual)}"] * bool(unusual)
        return not said, "; ".join(said) or "all there, and as every day"

    yield from _item(
        "switches",
        "002.34",
        "every switch is there and says what it says every day",
        asked.switches,
        "`holdfast switch list`, then `holdfast switch set NAME VALUE --reason ...`",
        see,
    )

    def thrown(moves: Sequence[SwitchMove]) -> tuple[bool, str]:
        return _drilled(moves, asked.now_ms, "off")

    yield from _item(
        "kill switch",
        "002.34",
        f"`auto_reply` was switched off within {DRILL_DAYS} days, and on again",
        asked.throws,
        "when few write: `holdfast switch set auto_reply off --reason drill --for 5m`, and see that no reply leaves",
        thrown,
    )


def _drilled(moves: Sequence[SwitchMove], now_ms: int, to: str) -> tuple[bool, str]:
    """Whether one of them moved there lately, and away again."""
    found = [
        one
        for whose in sorted({move.whose for move in moves})
        if (one := _one_drilled([move for move in moves if move.whose == whose and move.at_ms <= now_ms], now_ms, to))
    ]
    if not found:
        return False, "never, as far as the audit goes back here"
    is_done, _, said = max(found)
    return is_done, said


def _one_drilled(past: Sequence[SwitchMove], now_ms: int, to: str) -> tuple[bool, int, str] | None:
    there = [one for one in past if one.after == to and one.before != to]
    if not there:
        return None
    last = max(there, key=lambda one: one.at_ms)
    days = _days(now_ms, last.at_ms)
    is_back = any(one.at_ms >= last.at_ms and one.before == to and one.after != to for one in past)
    said = f"{last.whose} {_ago(days)} by {last.by or 'somebody'}".lstrip() + ("" if is_back else ", and not back yet")
    return is_back and days <= DRILL_DAYS, last.at_ms, said


def _degraded(asked: Asked) -> Iterator[Item]:
    def forced(moves: Sequence[SwitchMove]) -> tuple[bool, str]:
        return _lately([one for one in moves if one.after], asked.now_ms)

    yield from _item(
        "degraded mode",
        "000.32",
        f"somebody has said of an integration how it is, within {DRILL_DAYS} days",
        asked.overrides,
        "when few write: `holdfast health set email degraded --for 5m --reason drill`, and see what users are told",
        forced,
    )

    def down(moves: Sequence[SwitchMove]) -> tuple[bool, str]:
        return _drilled(moves, asked.now_ms, "hard_down")

    yield from _item(
        "outage",
        "000.31",
        f"a provider was down and came back within {DRILL_DAYS} days, simulated or not",
        asked.outages,
        "at staging, with the provider simulator: docs/runbooks/recovery.md, section 5",
        down,
    )


def _replayed(asked: Asked) -> Iterator[Item]:
    def see(jobs: Sequence[Mapping[str, Any]]) -> tuple[bool, str]:
        ended = [
            (at_ms, str(job.get("replay_id", "?")))
            for job in jobs
            if job.get("state") == "finished" and isinstance(at_ms := job.get("ended_at_ms"), int)
        ]
        past = [one for one in ended if one[0] <= asked.now_ms]
        if not past:
            return False, "none has finished"
        at_ms, name = max(past)
        days = _days(asked.now_ms, at_ms)
        return days <= DRILL_DAYS, f"{name}, {_ago(days)}"

    yield from _item(
        "replay",
        "000.34, 001.58",
        f"a bulk replay has come to its end here within {DRILL_DAYS} days",
        asked.replays,
        "docs/runbooks/recovery-and-replay.md, section 6, with a filter that means one item",
        see,
    )


def _runbooks(asked: Asked) -> Iterator[Item]:
    tried = asked.tried.value

    def see(pages: Mapping[str, str]) -> tuple[bool, str]:
        known = tried or {}
        untried = [name for name, digest in pages.items() if name not in known or known[name].digest != digest]
        oldest = asked.today - timedelta(days=DRILL_DAYS)
        # Of tomorrow: a clock that is wrong, here or there.
        late = [
            name
            for name in pages
            if name in known and name not in untried and not oldest <= known[name].on <= asked.today + timedelta(days=1)
        ]
        said = [f"not tried as they are now: {_some(untried)}"] * bool(untried)
        said += [f"longer ago: {_some(late)}"] * bool(late)
        return not said, "; ".join(said) or f"{len(pages)} pages and sections"

    wants = f"every page of the runbooks was tried, command by command, within {DRILL_DAYS} days"
    do = "`make runbooks`, then commit what it has written down"
    told: Told[Mapping[str, str]] = asked.pages
    if tried is None and told.value is not None:
        told = Told(trouble=asked.tried.trouble)
    yield from _item("runbooks", "001.61, 002.0", wants, told, do, see)


def _texts(asked: Asked) -> Iterator[Item]:
    def see(texts: Mapping[str, bool]) -> tuple[bool, str]:
        waiting = sorted(name for name, is_approved in texts.items() if not is_approved)
        if not texts:
            return False, "there is no text"
        return not waiting, f"not approved: {_some(waiting)}" if waiting else f"{len(texts)} texts"

    yield from _item(
        "texts",
        "001.59",
        "the newest version of every text for people is approved",
        asked.texts,
        "have it approved: `approved_by` and `approved_on` in functions/catalog/announcements.toml",
        see,
    )


def _dead(asked: Asked) -> Iterator[Item]:
    def see(dead: Mapping[str, int]) -> tuple[bool, str]:
        full = [f"{name}: {count}" for name, count in sorted(dead.items()) if count > 0]
        return not full and bool(dead), _some(full) if full else f"{len(dead)} queues, all empty" if dead else "none"

    yield from _item(
        "dead letters",
        "001.54, 001.58",
        "the dead-letter queues are empty",
        asked.dead,
        "docs/runbooks/recovery.md, section 2",
        see,
    )


def _sources(asked: Asked) -> Iterator[Item]:
    def see(sources: Mapping[str, SourceSeen]) -> tuple[bool, str]:
        broken = [name for name, one in sorted(sources.items()) if one.problem]
        unwatched = [
            name for name, one in sorted(sources.items()) if not one.problem and one.is_enabled and not one.gap_seconds
        ]
        said = [f"cannot be read: {_some(broken)}"] * bool(broken)
        said += [f"may fall silent unnoticed: {_some(unwatched)}"] * bool(unwatched)
        if not sources:
            return False, "there is no source"
        return not said, "; ".join(said) or f"{len(sources)} sources"

    yield from _item(
        "sources",
        "002.2",
        "every source can be read, and each that is enabled has an expected gap",
        asked.sources,
        "`holdfast source add SOURCE --replace --from-file FILE --expected-gap 1d --reason ...`",
        see,
    )


def _credentials(asked: Asked) -> Iterator[Item]:
    def see(stored: frozenset[str]) -> tuple[bool, str]:
        absent = [name for name in asked.integrations if name not in stored]
        return not absent, f"none for: {_some(absent)}" if absent else f"{len(asked.integrations)} integrations"

    yield from _item(
        "credentials",
        "001.54",
        "every integration has its parameter",
        asked.credentials,
        'store it: README.md, "Deploy"; what is not used yet may stay without',
        see,
    )


def _backups(asked: Asked) -> Iterator[Item]:
    def see(kept: Mapping[str, bool]) -> tuple[bool, str]:
        off = [name for name, is_on in sorted(kept.items()) if not is_on]
        return not off and bool(kept), f"not of: {_some(off)}" if off else f"{len(kept)} tables and buckets"

    yield from _item(
        "backups",
        "001.54",
        "tables can be set back to any second of 35 days, and the bucket keeps versions",
        asked.backups,
        "deploy: both stand in infra/storage.py, and somebody has taken them away",
        see,
    )


_CHECKS: Final = (
    _roles,
    _reached,
    _channels,
    _linked,
    _tested,
    _alarms,
    _dashboard,
    _switches,
    _degraded,
    _replayed,
    _runbooks,
    _texts,
    _dead,
    _sources,
    _credentials,
    _backups,
)


# ---------------------------------------------------------------------------------------------------------------- words


def _lately(moves: Sequence[SwitchMove], now_ms: int) -> tuple[bool, str]:
    past = [one for one in moves if one.at_ms <= now_ms]
    if not past:
        return False, "never, as far as the audit goes back here"
    last = max(past, key=lambda one: one.at_ms)
    days = _days(now_ms, last.at_ms)
    return days <= DRILL_DAYS, f"{_ago(days)} by {last.by or 'somebody'}"


def _days(now_ms: int, at_ms: int) -> int:
    return (now_ms - at_ms) // DAY_MS


def _ago(days: int) -> str:
    return "today" if days == 0 else "yesterday" if days == 1 else f"{days} days ago"


def _some(names: Iterable[str]) -> str:
    every = list(names)
    more = len(every) - MOST_NAMED
    return ", ".join(every[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
