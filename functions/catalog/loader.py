"""Reads the catalog's files, checks every word of them, and builds what core and flows work with.

    integrations.toml  teams.toml  labels.toml  keywords.toml  flows.toml  prompts/*.toml  messages/*.toml
    fallbacks.toml  features.toml

A catalog with anything wrong in it is not loaded at all: a deploy that starts is one whose catalog holds together.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from functions.catalog.fallback_schema import FallbacksFile, FeaturesFile
from functions.catalog.fallbacks import FALLBACKS, FEATURES, features_of, matrix_of
from functions.catalog.schema import (
    FlowsFile,
    IntegrationsFile,
    KeywordRuleModel,
    KeywordsFile,
    LabelsFile,
    MessagesFile,
    PromptFile,
    ReleasedFile,
    TeamsFile,
    TimingModel,
)
from functions.core.catalog import (
    ActionTiming,
    Catalog,
    IntegrationProfile,
    KeywordRule,
    Label,
    Message,
    Prompt,
    SkipRule,
    SupportRules,
    Team,
    VersionRule,
    params_of,
)
from functions.core.decision import DEFAULT_EXPIRES_SECONDS, REPLY_EXPIRES_SECONDS
from functions.core.event import digest
from functions.core.failure import HoldfastError
from functions.core.integration import INTAKE, Integration, KindRules, Rate
from functions.core.retry import RetryPolicy
from functions.core.text import plain

HERE = Path(__file__).resolve().parent
RELEASED = "released.toml"
MAX_FILE_BYTES = 256 * 1024
SUPPORT_KINDS = ("add_tags", "assign_team", "reply")
_Model = TypeVar("_Model", bound=BaseModel)


class MalformedCatalog(HoldfastError):
    """A catalog file cannot be used. The text names the file, the key and what is wrong there."""


@cache
def load() -> Catalog:
    """The catalog that ships with the code, read once. Raises `MalformedCatalog`."""
    return load_from(HERE)


def load_from(directory: Path) -> Catalog:
    """The catalog in a directory. Raises `MalformedCatalog` for anything missing, misspelt or contradictory."""
    integrations, profiles = _integrations(directory)
    teams, default_team, human_teams = _teams(directory)
    messages = _messages(directory)
    newest = {message.id: message.version for message in sorted(messages.values(), key=lambda one: one.version)}
    labels = _labels(directory, teams, newest)
    rules = _keywords(directory, teams, labels, newest)
    prompts = _prompts(directory)
    rules_version = _rules_version(directory)
    for flow in human_teams:
        _require(flow == "support", "teams.toml", f"human_teams.{flow}", "is no flow")
    _require("support" in human_teams, "teams.toml", "human_teams", "has no team for the flow 'support'")
    _require("support" in prompts, "prompts", "support.toml", "is missing")
    row = _read(directory, "flows.toml", FlowsFile).support
    profile = profiles.get(row.integration)
    if profile is None:
        raise MalformedCatalog(f"flows.toml: support.integration: {row.integration!r} is no integration")
    for kind in SUPPORT_KINDS:
        known = f"{row.integration}.{kind}" in integrations[row.integration].kinds
        _require(known, "integrations.toml", f"integrations.{row.integration}.kinds", f"lacks {row.integration}.{kind}")
    for tag in {label.tag for label in labels.values()} | {rule.tag for rule in rules}:
        own = tag in (row.processed_tag, row.triage_tag)
        _require(not own, "labels.toml or keywords.toml", tag, "is a tag of the flow itself")
    support = SupportRules(
        integration=integrations[row.integration],
        bar=row.bar,
        text_limit=row.text_limit,
        processed_tag=row.processed_tag,
        triage_tag=row.triage_tag,
        labels=MappingProxyType(labels),
        keywords=rules,
        rules_version=rules_version,
        reason_codes=frozenset(prompts["support"].reason_codes),
        default_team=teams[default_team],
        human_team=teams[human_teams["support"]],
        teams=MappingProxyType(teams),
        pointers=MappingProxyType({name: tuple(several) for name, several in row.pointers.items()}),
        skip=tuple(
            SkipRule(
                provider=rule.provider,
                reason=rule.reason,
                events=tuple(rule.events),
                except_events=tuple(rule.except_events),
                pointer=rule.pointer,
                values=frozenset(plain(value) for value in rule.values),
            )
            for rule in row.skip
        ),
        helpdesk_sources=frozenset(row.helpdesk_sources),
        optional_text=frozenset(row.optional_text),
        own_identities=profile.own_identities,
        newest_messages=MappingProxyType(newest),
        routing=_timing(row.routing, DEFAULT_EXPIRES_SECONDS),
        reply=_timing(row.reply, REPLY_EXPIRES_SECONDS),
        max_automatic_per_hour=row.max_automatic_per_hour,
        versions=tuple(
            VersionRule(frozenset(rule.known), tuple(rule.events), tuple(rule.sources)) for rule in row.versions
        ),
    )
    for message_id in {label.reply for label in labels.values()} | {rule.reply for rule in rules}:
        if message_id:
            wanted = messages[message_id, newest[message_id]].params
            where = f"{message_id} version {newest[message_id]}"
            _require(
                not wanted, "messages", where, f"needs {sorted(wanted)}, but the flow gives its replies no parameters"
            )
    features = features_of(_read(directory, FEATURES, FeaturesFile), profiles, _require)
    return Catalog(
        integrations=MappingProxyType(integrations),
        profiles=MappingProxyType(profiles),
        teams=MappingProxyType(teams),
        default_team=default_team,
        rules=rules,
        rules_version=rules_version,
        labels=MappingProxyType(labels),
        messages=MappingProxyType(messages),
        prompts=MappingProxyType(prompts),
        flows=MappingProxyType({"support": support}),
        fallbacks=matrix_of(
            _read(directory, FALLBACKS, FallbacksFile), MappingProxyType(integrations), messages, features, _require
        ),
        features=features,
    )


def load_released(directory: Path = HERE) -> Mapping[str, str]:
    """Digests of the released messages by `id@version`. Raises `MalformedCatalog`."""
    return _read(directory, f"messages/{RELEASED}", ReleasedFile).released


def _integrations(directory: Path) -> tuple[dict[str, Integration], dict[str, IntegrationProfile]]:
    name = "integrations.toml"
    integrations, profiles = {}, {}
    for key, row in _read(directory, name, IntegrationsFile).integrations.items():
        where = f"integrations.{key}"
        _require(key != INTAKE, name, where, "is reserved for whole events")
        for kind in row.kinds:
            _require(kind.partition(".")[0] == key, name, f"{where}.kinds.{kind}", f"does not begin with '{key}.'")
        integrations[key] = Integration(
            id=key,
            kinds=MappingProxyType(
                {
                    kind: KindRules(
                        kind=kind,
                        repeat=rules.repeat,
                        key_window_seconds=rules.key_window_seconds,
                        settle_seconds=rules.settle_seconds,
                        can_look_up=rules.can_look_up,
                        counted_by=rules.counted_by,
                        established=rules.established,
                    )
                    for kind, rules in row.kinds.items()
                }
            ),
            policy=RetryPolicy(row.policy.max_attempts, tuple(row.policy.waits_seconds), row.policy.budget_seconds),
            deadline_seconds=row.deadline_seconds,
            definite_statuses=frozenset(row.definite_statuses),
            channel=row.channel,
            hosts=frozenset(row.hosts),
            rate=None if row.rate is None else Rate(row.rate.per_second, row.rate.burst),
        )
        profiles[key] = IntegrationProfile(
            provider=row.provider,
            feature=row.feature,
            success_threshold=row.success_threshold,
            recovery_threshold=row.recovery_threshold,
            minimum_calls=row.minimum_calls,
            own_identities=frozenset(plain(identity) for identity in row.own_identities),
            status_url=row.status_url,
            support_contact=row.support_contact,
        )
    return integrations, profiles


def _teams(directory: Path) -> tuple[dict[str, Team], str, dict[str, str]]:
    name = "teams.toml"
    file = _read(directory, name, TeamsFile)
    teams = {
        key: Team(key, row.name, row.helpdesk_id, MappingProxyType(dict(row.tenants)))
        for key, row in file.teams.items()
    }
    _known(file.default_team, teams, name, "default_team", "team")
    for flow, team in file.human_teams.items():
        _known(team, teams, name, f"human_teams.{flow}", "team")
    return teams, file.default_team, dict(file.human_teams)


def _messages(directory: Path) -> dict[tuple[str, int], Message]:
    messages: dict[tuple[str, int], Message] = {}
    for path in _files(directory, "messages"):
        if path.name == RELEASED:
            continue
        name = f"messages/{path.name}"
        for row in _read(directory, name, MessagesFile).messages:
            key = row.id, row.version
            _require(key not in messages, name, f"{row.id} version {row.version}", "is there twice")
            messages[key] = Message(row.id, row.version, row.text.strip(), params_of(row.text), row.subject.strip())
    return messages


def _labels(directory: Path, teams: Mapping[str, Team], newest: Mapping[str, int]) -> dict[str, Label]:
    name = "labels.toml"
    labels = {}
    for key, row in _read(directory, name, LabelsFile).labels.items():
        _require(key not in _RESERVED_LABELS, name, f"labels.{key}", "is a word of the flow itself")
        _known(row.team, teams, name, f"labels.{key}.team", "team")
        if row.reply is not None:
            _known(row.reply, newest, name, f"labels.{key}.reply", "message")
        labels[key] = Label(key, row.description, row.team, row.tag or key, row.reply or "", row.needs_person)
    return labels


_RESERVED_LABELS = frozenset({"echo", "ignored", "manual", "unknown"})


def _keywords(
    directory: Path, teams: Mapping[str, Team], labels: Mapping[str, Label], newest: Mapping[str, int]
) -> tuple[KeywordRule, ...]:
    name = "keywords.toml"
    rules = []
    for number, row in enumerate(_read(directory, name, KeywordsFile).rules):
        where = f"rules.{number}"
        _known(row.label, labels, name, f"{where}.label", "label")
        if row.team is not None:
            _known(row.team, teams, name, f"{where}.team", "team")
        if row.reply is not None:
            _known(row.reply, newest, name, f"{where}.reply", "message")
        label = labels[row.label]
        rules.append(
            KeywordRule(
                label=row.label,
                is_high_signal=row.high_signal,
                wanted=_wanted(row),
                unwanted=_any_of(row.unless) if row.unless else None,
                team=row.team or label.team,
                tag=row.tag or label.tag,
                reply=row.reply or "",
            )
        )
    return tuple(rules)


def _wanted(row: KeywordRuleModel) -> re.Pattern[str]:
    parts = ([_any_of(row.phrases).pattern] if row.phrases else []) + [f"(?:{pattern})" for pattern in row.patterns]
    return re.compile("|".join(parts))


def _any_of(phrases: Iterable[str]) -> re.Pattern[str]:
    """Whole words only: 'return' is not in 'returned', and a word does not end at its apostrophe."""
    return re.compile(r"(?<![\w'])(?:" + "|".join(re.escape(plain(phrase)) for phrase in phrases) + r")(?![\w'])")


def _prompts(directory: Path) -> dict[str, Prompt]:
    prompts = {}
    for path in _files(directory, "prompts"):
        row = _read(directory, f"prompts/{path.name}", PromptFile)
        prompts[path.stem] = Prompt(row.version, row.text, tuple(row.reason_codes))
    return prompts


def _rules_version(directory: Path) -> str:
    """Changes with whatever may change what the rules say; not with a comment."""
    parsed = [str(_parse(directory, name)) for name in ("keywords.toml", "labels.toml", "flows.toml", "teams.toml")]
    return "r" + digest(*parsed)[:8]


def _timing(row: TimingModel, expires_seconds: int) -> ActionTiming:
    return ActionTiming(row.expires_seconds or expires_seconds, row.priority)


def _files(directory: Path, folder: str) -> list[Path]:
    try:
        return sorted(path for path in (directory / folder).iterdir() if path.suffix == ".toml")
    except OSError as exc:
        raise MalformedCatalog(f"{folder}: cannot be read: {exc.strerror}") from exc


def _parse(directory: Path, name: str) -> dict[str, object]:
    try:
        raw = (directory / name).read_bytes()
    except OSError as exc:
        raise MalformedCatalog(f"{name}: cannot be read: {exc.strerror}") from exc
    if len(raw) > MAX_FILE_BYTES:
        raise MalformedCatalog(f"{name}: is over {MAX_FILE_BYTES} bytes")
    try:
        return tomllib.loads(raw.decode())
    except UnicodeDecodeError as exc:
        raise MalformedCatalog(f"{name}: is not UTF-8 at byte {exc.start}") from exc
    except (tomllib.TOMLDecodeError, RecursionError) as exc:
        raise MalformedCatalog(f"{name}: is not TOML: {exc}") from exc


def _read(directory: Path, name: str, model: type[_Model]) -> _Model:
    try:
        return model.model_validate(_parse(directory, name))
    except ValidationError as exc:
        first = exc.errors(include_url=False, include_context=False)[0]
        key = ".".join(str(part) for part in first["loc"]) or "the file"
        raise MalformedCatalog(f"{name}: {key}: {first['msg']}") from exc


def read_file(directory: Path, name: str, model: type[_Model]) -> _Model:
    """One file of the catalog, checked. Raises `MalformedCatalog`."""
    return _read(directory, name, model)


def _require(holds: bool, name: str, key: str, problem: str) -> None:
    if not holds:
        raise MalformedCatalog(f"{name}: {key}: {problem}")


def _known(wanted: str, known: Mapping[str, object], name: str, key: str, what: str) -> None:
    _require(wanted in known, name, key, f"{wanted!r} is no {what} of the catalog")
