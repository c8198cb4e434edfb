"""The ways by which whoever is on call is told: an SNS topic, and what is configured in the parameter store beside it.

A channel is a SecureString `{path}/{name}`, JSON:

    {"kind": "slack", "url": "https://hooks…", "to": ["primary"], "severities": ["SEV0", "SEV1"], "audiences": ["ml"]}
    {"kind": "pagerduty", "routing_key": "…", "api_token": "…"}

`slack` is any service that takes `{"text": …}` as Slack does. `pagerduty` is its Events API v2; with an `api_token`
(REST, read-only) it is asked each minute whether somebody has acknowledged there, which needs no door of ours to be
open to it and cannot get lost. `to`, `severities` and `audiences` narrow, a test excepted, which is for every
channel; of these `audiences` may be empty, which is all. `events_url` and `api_url` stand in for PagerDuty's own.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import httpx
from botocore.exceptions import BotoCoreError, ClientError

from functions.adapters import aws
from functions.adapters.http import is_base_url
from functions.core.alarms import Audience, Sev
from functions.core.clock import Clock
from functions.core.failure import HoldfastError
from functions.core.incident import PageKind, Role, call_of
from functions.core.page import Letter
from functions.core.ports import Sent

if TYPE_CHECKING:
    from mypy_boto3_sns import SNSClient
    from mypy_boto3_ssm import SSMClient

TOPIC: Final = "sns"
CONFIGURATION: Final = "configuration"
"""What a failure goes by that is of no channel: what channels there are could not be read."""
CACHED_MS: Final = 60_000  # while nobody is told anything
FRESH_MS: Final = 5_000  # where somebody is: a channel that was just set, or mended, is to hear of it
ASKING_MS: Final = 10_000  # who has acknowledged what: clocks are looked at afterwards, and run out meanwhile
TIMEOUT: Final = httpx.Timeout(5.0, connect=3.0)
EVENTS_URL: Final = "https://events.pagerduty.com/v2/enqueue"
API_URL: Final = "https://api.pagerduty.com"
MOST_CHARACTERS: Final = 30_000  # of a text; SNS takes 256 KB
MOST_SUMMARY: Final = 1_024  # PagerDuty cuts there

_LOG = logging.getLogger(__name__)
_SEVERITIES: Final = {Sev.SEV0: "critical", Sev.SEV1: "critical", Sev.SEV2: "error", Sev.SEV3: "warning"}


class _NotTaken(HoldfastError):
    """A channel did not take it. The text is a stable code."""


class _Unusable(HoldfastError):
    """A channel's parameter is not what it should be."""


@dataclass(frozen=True, slots=True)
class _Channel:
    name: str
    kind: str
    url: str = field(repr=False)
    key: str = field(default="", repr=False)
    api_url: str = ""
    api_token: str = field(default="", repr=False)
    to: frozenset[Role] = frozenset(Role)
    severities: frozenset[Sev] = frozenset(Sev)
    audiences: frozenset[Audience] = frozenset(Audience)

    def wants(self, letter: Letter) -> bool:
        """Whether it is for this channel."""
        if not self.to & set(letter.to):
            return False
        if letter.kind is PageKind.TEST:
            return True
        if self.kind == "pagerduty" and letter.kind in (PageKind.ACKNOWLEDGED, PageKind.RESOLVED):
            return True  # of whatever severity it is now: it may have called by a graver one, and nobody else ends that
        is_for_it = letter.severity in self.severities and not self.audiences.isdisjoint(
            (letter.audience, *letter.copies)
        )
        return is_for_it and (self.kind == "slack" or letter.is_calling)


class SnsAndWebhooks:
    """`ports.OnCallChannels`. `source` is what PagerDuty calls us: the stage's name."""

    def __init__(
        self,
        sns: SNSClient,
        topic_arn: str,
        ssm: SSMClient,
        path: str,
        clock: Clock,
        *,
        source: str,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._sns = sns
        self._topic_arn = topic_arn
        self._ssm = ssm
        self._path = path
        self._clock = clock
        self._source = source
        self._http = httpx.Client(
            timeout=TIMEOUT, follow_redirects=False, trust_env=False, transport=transport, headers=_AGENT
        )
        self._known: Sequence[_Channel] = ()
        self._unusable: Mapping[str, str] = {}
        self._read_at_ms = -CACHED_MS
        # httpx logs the URL of every call, and a webhook's URL is its password.
        logging.getLogger("httpx").setLevel(logging.WARNING)

    # --------------------------------------------------------------------------------------------------------- sending

    def send(self, letter: Letter, already: Sequence[str] = ()) -> Sent:
        """See the port."""
        took: list[str] = []
        failed: dict[str, str] = {}
        if TOPIC not in already:
            self._try(TOPIC, took, failed, lambda: self._publish(letter))
        channels, unusable = self._channels(failed, FRESH_MS)
        failed.update(unusable)
        for channel in channels:
            if channel.name not in already and channel.wants(letter):
                self._try(channel.name, took, failed, lambda one=channel: self._post(one, letter))
        return Sent(tuple(took), failed)

    def _try(self, name: str, took: list[str], failed: dict[str, str], send: Any) -> None:
        try:
            send()
        except Exception as refused:  # noqa: BLE001  # whatever it is: the others are still to be tried
            failed[name] = str(refused) if isinstance(refused, _NotTaken) else type(refused).__name__
            _LOG.error("a page was not taken by a channel", extra={"reason": f"{name}: {failed[name]}"})
        else:
            took.append(name)

    def _publish(self, letter: Letter) -> None:
        try:
            self._sns.publish(
                TopicArn=self._topic_arn,
                Subject=letter.title,
                Message=letter.text[:MOST_CHARACTERS],
                MessageAttributes={
                    "incident_id": _text(letter.incident_id),
                    "severity": _text(letter.severity.value),
                    "audience": _text(letter.audience.value),
                    "kind": _text(letter.kind.value),
                    "is_calling": _text("yes" if letter.is_calling else "no"),
                    "to": {"DataType": "String.Array", "StringValue": json.dumps([role.value for role in letter.to])},
                },
            )
        except (BotoCoreError, ClientError) as exc:
            raise _NotTaken(aws.code_of(exc)) from exc

    def _post(self, channel: _Channel, letter: Letter) -> None:
        for body in self._events(channel, letter) if channel.kind == "pagerduty" else [_message(letter)]:
            try:
                answer = self._http.post(channel.url, json=body)
            except httpx.HTTPError as exc:
                raise _NotTaken(type(exc).__name__) from exc
            if not answer.is_success:
                raise _NotTaken(f"HTTP_{answer.status_code}")

    def _events(self, channel: _Channel, letter: Letter) -> list[dict[str, Any]]:
        """https://developer.pagerduty.com/docs/send-alert-event: one incident there for each time that one of ours is
        open. A trigger by the key of one that is acknowledged there calls nobody, so the earlier one is closed.
        """
        events = [self._event(channel, letter)]
        if letter.kind is PageKind.RECURRED and letter.recurrences:
            earlier = call_of(letter.incident_id, letter.recurrences - 1)
            events.insert(0, {"routing_key": channel.key, "dedup_key": earlier, "event_action": "resolve"})
        return events

    def _event(self, channel: _Channel, letter: Letter) -> dict[str, Any]:
        head = {"routing_key": channel.key, "dedup_key": call_of(letter.incident_id, letter.recurrences)}
        action = {PageKind.ACKNOWLEDGED: "acknowledge", PageKind.RESOLVED: "resolve"}.get(letter.kind, "trigger")
        if action != "trigger":
            return {**head, "event_action": action}
        return {
            **head,
            "event_action": action,
            "payload": {
                "summary": letter.title[:MOST_SUMMARY],
                "source": self._source,
                "severity": _SEVERITIES[letter.severity],
                "timestamp": datetime.fromtimestamp(letter.at_ms / 1000, UTC).isoformat(),
                "group": letter.group,
                "class": letter.kind.value,
                "custom_details": {"page": letter.text[:MOST_CHARACTERS]},
            },
            # What is no address of the web is in the page, and no link for PagerDuty.
            **({"links": [{"href": letter.runbook, "text": "runbook"}]} if "://" in letter.runbook else {}),
        }

    # -------------------------------------------------------------------------------------------------- acknowledgement

    def acknowledged(self, calls: Sequence[str]) -> Mapping[str, str]:
        """See the port."""
        found: dict[str, str] = {}
        until_ms = self._clock.now_ms() + ASKING_MS
        channels, _ = self._channels({}, CACHED_MS)
        for channel in channels:
            if channel.kind != "pagerduty" or not channel.api_token:
                continue
            for call in calls:
                if self._clock.now_ms() >= until_ms:
                    _LOG.warning("not all acknowledgements could be asked for in time: again in a minute")
                    return found
                who = "" if call in found else self._who(channel, call)
                if who is None:
                    break
                if who:
                    found[call] = f"{channel.name}: {who}"
        return found

    def _who(self, channel: _Channel, call: str) -> str | None:
        """Empty: nobody. None: it cannot be asked now, of that one or any other."""
        try:
            answer = self._http.get(
                f"{channel.api_url}/incidents",
                params={"incident_key": call},
                headers={
                    "authorization": f"Token token={channel.api_token}",
                    "accept": "application/vnd.pagerduty+json;version=2",
                },
            )
            answer.raise_for_status()
            return _acknowledger(answer.json(), call)
        except (httpx.HTTPError, TypeError, ValueError, RecursionError) as exc:
            _LOG.warning(
                "whether a page was acknowledged could not be asked: again in a minute",
                extra={"reason": f"{channel.name}: {type(exc).__name__}"},
            )
            return None

    # --------------------------------------------------------------------------------------------------- configuration

    def _channels(self, failed: dict[str, str], fresh_ms: int) -> tuple[Sequence[_Channel], Mapping[str, str]]:
        """Those that are configured, and what is wrong with others, as they were at most so long ago. Where that cannot
        be read now, those known last.
        """
        now_ms = self._clock.now_ms()
        if 0 <= now_ms - self._read_at_ms < fresh_ms:
            return self._known, self._unusable
        try:
            entries = self._read()
        except (BotoCoreError, ClientError) as exc:
            failed[CONFIGURATION] = aws.code_of(exc)
            _LOG.error("what channels there are could not be read", extra={"reason": aws.code_of(exc)})
            return self._known, self._unusable
        usable: list[_Channel] = []
        unusable: dict[str, str] = {}
        for name, text in sorted(entries.items()):
            try:
                usable.append(_channel(name, text))
            except _Unusable as wrong:
                unusable[name] = "UNUSABLE"
                _LOG.error("a channel's parameter is not usable", extra={"reason": f"{name}: {wrong}"})
        self._known, self._unusable, self._read_at_ms = usable, unusable, now_ms
        return usable, unusable

    def _read(self) -> dict[str, str]:
        pages = self._ssm.get_paginator("get_parameters_by_path").paginate(Path=self._path, WithDecryption=True)
        return {
            parameter["Name"].removeprefix(f"{self._path}/"): parameter["Value"]
            for page in pages
            for parameter in page["Parameters"]
        }


_AGENT: Final = {"user-agent": "holdfast"}


def _text(value: str) -> Any:
    return {"DataType": "String", "StringValue": value}


def _message(letter: Letter) -> dict[str, Any]:
    """Slack reads `&`, `<` and `>` as markup."""
    text = f"*{letter.title}*\n{letter.text}"[:MOST_CHARACTERS]
    return {"text": text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")}


def _acknowledger(document: Any, call: str) -> str:
    """Who has acknowledged, or closed, it there; empty: nobody. Raises TypeError for what PagerDuty does not say."""
    if not isinstance(document, dict) or not isinstance(document.get("incidents"), list):
        raise TypeError("the answer is no list of incidents")
    for one in document["incidents"]:
        if not isinstance(one, dict) or one.get("incident_key") != call:
            continue
        if one.get("status") not in ("acknowledged", "resolved"):
            continue
        names = [*_names(one.get("acknowledgements")), *_names([{"acknowledger": one.get("last_status_change_by")}])]
        return names[0] if names else "somebody"
    return ""


def _names(acknowledgements: Any) -> list[str]:
    found = []
    for one in acknowledgements if isinstance(acknowledgements, list) else []:
        who = one.get("acknowledger") if isinstance(one, dict) else None
        name = who.get("summary") if isinstance(who, dict) else None
        if isinstance(name, str) and name:
            found.append(name[:100])
    return found


def trouble_with(name: str, text: str) -> str:
    """What is wrong with a channel's parameter, quoting nothing of it; empty: it can be used."""
    try:
        _channel(name, text)
    except _Unusable as wrong:
        return str(wrong)
    return ""


def _channel(name: str, text: str) -> _Channel:
    """Read a parameter. Raises `_Unusable`, which quotes nothing of it."""
    try:
        said = json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise _Unusable("it is not JSON") from exc
    if not isinstance(said, dict):
        raise _Unusable("it is no object")
    to = _some(said, "to", Role)
    severities = _some(said, "severities", Sev)
    audiences = _audiences(said)
    if said.get("kind") == "slack":
        return _Channel(name, "slack", _url(said, "url", ""), to=to, severities=severities, audiences=audiences)
    if said.get("kind") != "pagerduty":
        raise _Unusable("its kind is neither slack nor pagerduty")
    key, token = said.get("routing_key"), said.get("api_token", "")
    if not isinstance(key, str) or not key or not isinstance(token, str) or not token.isascii():
        raise _Unusable("it has no routing_key, or an api_token that is none")
    return _Channel(
        name,
        "pagerduty",
        _url(said, "events_url", EVENTS_URL),
        key=key,
        api_url=_url(said, "api_url", API_URL).rstrip("/"),
        api_token=token,
        to=to,
        severities=severities,
        audiences=audiences,
    )


def _url(said: Mapping[str, Any], name: str, default: str) -> str:
    url = said.get(name, default)
    if not isinstance(url, str) or not is_base_url(url):
        raise _Unusable(f"its {name} is no https URL without a query")
    return url


def _audiences(said: Mapping[str, Any]) -> frozenset[Audience]:
    """Empty: all, as where nothing is said."""
    return frozenset(Audience) if said.get("audiences") == [] else _some(said, "audiences", Audience)


def _some(said: Mapping[str, Any], name: str, kind: Any) -> frozenset[Any]:
    if name not in said:
        return frozenset(kind)
    values = said[name]
    if not isinstance(values, list):
        raise _Unusable(f"its {name} is no list")
    if not values:
        raise _Unusable(f"its {name} is empty: it would get nothing")
    try:
        return frozenset(kind(value) for value in values)
    except (TypeError, ValueError) as exc:
        raise _Unusable(f"its {name} names what is none of {', '.join(kind)}") from exc
