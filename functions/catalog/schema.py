"""What a catalog file may say.

Files are written by people of many teams: everything is checked, and an unknown key is refused.
"""

from __future__ import annotations

import re
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator, model_validator

from functions.core.cap import DEFAULT_PER_HOUR
from functions.core.catalog import params_of
from functions.core.decision import REPLY_EXPIRES_SECONDS, Repeat
from functions.core.pointer import check_pointer

Id = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,31}$")]
Tag = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,31}$")]
Line = Annotated[str, StringConstraints(min_length=1, max_length=300, pattern=r"^[^\x00-\x1f]*$")]
ProviderName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9-]{1,64}$")]
Tenant = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
Ratio = Annotated[float, Field(gt=0, le=1)]
# A name of at least two labels; `*.` before it means every name below. Never a number: an address is no name.
Host = Annotated[
    str,
    StringConstraints(max_length=253, pattern=r"^(\*\.)?([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z][a-z0-9-]{0,62}$"),
]
_KIND = re.compile(r"[a-z][a-z0-9_]{0,31}\.[a-z][a-z0-9_]{0,31}\Z")
# A repeated group that itself repeats can take for ever on text that a stranger chose.
_NESTED_REPEAT = re.compile(r"\((?:[^()\\]|\\.)*[+*}](?:[^()\\]|\\.)*\)[+*{]")


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class PolicyModel(_Model):
    """Attempts and the waits between them."""

    max_attempts: int = Field(ge=1, le=10)
    waits_seconds: list[Annotated[int, Field(ge=1, le=86_400)]]
    budget_seconds: int = Field(ge=1, le=7 * 86_400)

    @model_validator(mode="after")
    def _enough_waits(self) -> Self:
        if len(self.waits_seconds) != self.max_attempts - 1:
            raise ValueError(f"{self.max_attempts} attempts have {self.max_attempts - 1} waits between them")
        return self


class KindModel(_Model):
    """One kind of action of an integration."""

    repeat: Repeat = Field(strict=False)
    established: str = Field(min_length=1, max_length=500)
    key_window_seconds: int = Field(default=0, ge=0)
    settle_seconds: int = Field(default=180, ge=0, le=3600)
    can_look_up: bool = False
    counted_by: str = ""

    @model_validator(mode="after")
    def _fits_its_kind(self) -> Self:
        if (self.repeat is Repeat.KEYED) != (self.key_window_seconds > 0):
            raise ValueError("key_window_seconds goes with repeat = 'keyed', and only with it")
        if self.repeat is Repeat.LOOKUP and not self.can_look_up:
            raise ValueError("repeat = 'lookup' needs can_look_up = true")
        if self.counted_by and not self.can_look_up:
            raise ValueError("counted_by counts after a lookup: it needs can_look_up = true")
        if self.counted_by and not self.repeat.is_once:
            raise ValueError("counted_by is for what must not come about twice: keyed or lookup")
        if not self.established.startswith("https://"):
            raise ValueError("established begins with the page that says so")
        return self


class RateModel(_Model):
    """How often an integration may be called."""

    per_second: float = Field(gt=0, le=10_000)
    burst: int = Field(ge=1, le=10_000)


class IntegrationModel(_Model):
    """One entry of `integrations.toml`. No call may last longer than the gate's arithmetic allows (architecture §9)."""

    provider: ProviderName
    feature: Id
    deadline_seconds: float = Field(gt=0, le=8)
    success_threshold: Ratio
    recovery_threshold: Ratio
    minimum_calls: int = Field(ge=1)
    policy: PolicyModel
    kinds: dict[str, KindModel] = Field(default_factory=dict)
    definite_statuses: list[Annotated[int, Field(ge=400, le=599)]] = Field(default_factory=list)
    channel: Annotated[str, StringConstraints(pattern=r"^(email|sms|)$")] = ""
    hosts: list[Host] = Field(default_factory=list)
    rate: RateModel | None = None
    own_identities: list[Line] = Field(default_factory=list)
    status_url: str = Field(default="", pattern=r"^(https://\S+)?$")
    support_contact: str = Field(default="", max_length=200)

    @field_validator("kinds")
    @classmethod
    def _kind_names(cls, kinds: dict[str, KindModel]) -> dict[str, KindModel]:
        for kind in kinds:
            if not _KIND.match(kind):
                raise ValueError(f"{kind!r} is not integration.verb")
        return kinds

    @model_validator(mode="after")
    def _counts_without_harm(self) -> Self:
        for kind, rules in self.kinds.items():
            counting = self.kinds.get(rules.counted_by)
            if rules.counted_by and (counting is None or counting.repeat is not Repeat.IDEMPOTENT):
                raise ValueError(f"{kind!r} is counted by {rules.counted_by!r}, which is no idempotent kind here")
        return self

    @model_validator(mode="after")
    def _recovers_above(self) -> Self:
        if self.recovery_threshold < self.success_threshold:
            raise ValueError("recovery_threshold lies below success_threshold: health would flap")
        return self


class IntegrationsFile(_Model):
    """`integrations.toml`."""

    integrations: dict[Id, IntegrationModel] = Field(min_length=1)


class TeamModel(_Model):
    """One team of people."""

    name: Line
    helpdesk_id: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._:-]{1,40}$")]
    tenants: dict[Tenant, Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._:-]{1,40}$")]] = Field(
        default_factory=dict
    )


class TeamsFile(_Model):
    """`teams.toml`."""

    default_team: Id
    human_teams: dict[Id, Id]
    teams: dict[Id, TeamModel] = Field(min_length=1)


class LabelModel(_Model):
    """One label. Its tag is its id unless it says otherwise."""

    description: Line
    team: Id
    tag: Tag | None = None
    reply: Id | None = None
    needs_person: bool = False

    @model_validator(mode="after")
    def _one_or_the_other(self) -> Self:
        if self.needs_person and self.reply is not None:
            raise ValueError("a label that needs a person has no reply")
        return self


class LabelsFile(_Model):
    """`labels.toml`."""

    labels: dict[Id, LabelModel] = Field(min_length=1, max_length=40)


class KeywordRuleModel(_Model):
    """One rule: phrases or patterns, and what they mean."""

    label: Id
    high_signal: bool = False
    phrases: list[Line] = Field(default_factory=list)
    patterns: list[Line] = Field(default_factory=list)
    unless: list[Line] = Field(default_factory=list)
    team: Id | None = None
    tag: Tag | None = None
    reply: Id | None = None

    @field_validator("phrases", "unless")
    @classmethod
    def _hold_words(cls, phrases: list[str]) -> list[str]:
        for phrase in phrases:
            if not re.search(r"\w", phrase):
                raise ValueError(f"{phrase!r} holds no word")
        return phrases

    @field_validator("patterns")
    @classmethod
    def _are_patterns(cls, patterns: list[str]) -> list[str]:
        for pattern in patterns:
            try:
                compiled = re.compile(pattern)
            except (re.error, RecursionError, OverflowError) as exc:
                raise ValueError(f"{pattern!r} is no regular expression: {exc}") from exc
            if compiled.search(""):
                raise ValueError(f"{pattern!r} matches everything")
            if _NESTED_REPEAT.search(pattern):
                raise ValueError(f"{pattern!r} repeats a group that repeats")
        return patterns

    @model_validator(mode="after")
    def _means_something(self) -> Self:
        if not self.phrases and not self.patterns:
            raise ValueError("a rule needs phrases or patterns")
        if self.reply is not None and not self.high_signal:
            raise ValueError("only a high-signal rule may reply (the others decide when the LLM cannot)")
        return self


class KeywordsFile(_Model):
    """`keywords.toml`."""

    rules: list[KeywordRuleModel] = Field(min_length=1, max_length=500)


class MessageModel(_Model):
    """One version of one text."""

    id: Id
    version: int = Field(ge=1, le=9999)
    text: str = Field(min_length=1, max_length=2000)
    subject: Annotated[str, StringConstraints(max_length=120, pattern=r"^([^\x00-\x1f{}]*[^\x00-\x1f{} ])?$")] = ""

    @field_validator("text")
    @classmethod
    def _is_clean(cls, text: str) -> str:
        if not text.strip():
            raise ValueError("the text is blank")
        if any(ord(character) < 32 and character != "\n" for character in text):
            raise ValueError("the text holds control characters")
        rest = text
        for param in params_of(text):
            rest = rest.replace("{" + param + "}", "")
        if "{" in rest or "}" in rest:
            raise ValueError("a brace does not belong to a parameter such as {name}")
        return text


class MessagesFile(_Model):
    """One file of `messages/`."""

    messages: list[MessageModel] = Field(min_length=1)


class ReleasedFile(_Model):
    """`messages/released.toml`: digests by `id@version`."""

    released: dict[
        Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,31}@[1-9][0-9]{0,3}$")],
        Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")],
    ]


class PromptFile(_Model):
    """One file of `prompts/`."""

    version: Annotated[str, StringConstraints(pattern=r"^[a-z0-9.-]{1,12}$")]
    text: str = Field(min_length=1, max_length=4000)
    reason_codes: list[Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,23}$")]] = Field(min_length=1)


class TimingModel(_Model):
    """How long an action is worth doing, how urgent it is."""

    expires_seconds: int | None = Field(default=None, ge=1, le=7 * 86_400)
    priority: int = Field(default=5, ge=1, le=9)


class SkipModel(_Model):
    """Events that call for nothing."""

    provider: Annotated[str, StringConstraints(pattern=r"^[a-z0-9*-]{1,64}$")]
    reason: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,23}$")]
    events: list[Line] = Field(default_factory=lambda: ["*"], min_length=1)
    except_events: list[Line] = Field(default_factory=list)
    pointer: str = ""
    values: list[Line] = Field(default_factory=list)

    @field_validator("pointer")
    @classmethod
    def _is_pointer(cls, pointer: str) -> str:
        return check_pointer(pointer)

    @model_validator(mode="after")
    def _says_which(self) -> Self:
        if self.values and not self.pointer:
            raise ValueError("values need a pointer to look at")
        if self.events == ["*"] and not self.except_events and not self.pointer:
            raise ValueError("the rule would skip everything its provider sends")
        return self


class VersionsModel(_Model):
    """In which versions events are read; an event without a version has the version ""."""

    sources: list[Line] = Field(default_factory=lambda: ["*"], min_length=1)
    events: list[Line] = Field(default_factory=lambda: ["*"], min_length=1)
    known: list[Annotated[str, StringConstraints(max_length=128)]] = Field(min_length=1)

    @model_validator(mode="after")
    def _says_which(self) -> Self:
        if self.events == ["*"] and self.sources == ["*"]:
            raise ValueError("the rule would mean every event there is: say of which sources or names")
        return self


POINTERS = ("conversation", "text", "subject", "author", "contact", "staff", "metadata")


class SupportModel(_Model):
    """The flow `support`."""

    integration: Id
    bar: Ratio
    text_limit: int = Field(ge=100, le=20_000)
    processed_tag: Tag
    triage_tag: Tag
    helpdesk_sources: list[ProviderName]
    optional_text: list[ProviderName] = Field(default_factory=list)
    routing: TimingModel = TimingModel()
    reply: TimingModel = TimingModel()
    max_automatic_per_hour: int = Field(default=DEFAULT_PER_HOUR, ge=1, le=100)
    pointers: dict[str, list[str]]
    skip: list[SkipModel] = Field(default_factory=list)
    versions: list[VersionsModel] = Field(default_factory=list)

    @field_validator("pointers")
    @classmethod
    def _are_pointers(cls, pointers: dict[str, list[str]]) -> dict[str, list[str]]:
        if set(pointers) != set(POINTERS):
            raise ValueError(f"pointers are those of {', '.join(POINTERS)}")
        for several in pointers.values():
            for pointer in several:
                if not check_pointer(pointer):
                    raise ValueError("an empty pointer leads to the whole body")
        return pointers

    @field_validator("reply")
    @classmethod
    def _replies_expire(cls, reply: TimingModel) -> TimingModel:
        if (reply.expires_seconds or REPLY_EXPIRES_SECONDS) > REPLY_EXPIRES_SECONDS:
            raise ValueError(f"a reply is worth {REPLY_EXPIRES_SECONDS} s at most")
        return reply


class FlowsFile(_Model):
    """`flows.toml`."""

    support: SupportModel
