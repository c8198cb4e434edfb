"""The flow `support`: a customer's message in, a team, tags and perhaps a reply out.

What decides, in this order:

1. An echo of our own doing, or no customer's message at all: nothing happens.
2. Mode `manual`: the human team of the flow.
3. A high-signal keyword rule (confidence 1.0). It may reply, since the LLM was not needed.
4. The LLM, at or over the bar. It may reply. Under the bar: the default team and a person, nothing else (runbook
   002, 003).
5. Without an answer of the LLM: a rule at its lower bar (0.6), else the default team and a person. Never a reply
   (runbook 002, 1.4).

The text comes from strangers, and may try to talk the LLM into something. All that the LLM gives back is one label
of a fixed set, a number and reasons of a fixed set; teams, tags and replies come from the catalog. So an injection
can at most mislabel its own message, which the author could have had by writing about something else.

Whether an event is an echo is told by its author or our marker, never by a tag: a conversation that we tagged goes
on, and the customer's next message in it is a message like any other.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import replace
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import Any

from functions.core.catalog import SkipRule, SupportRules
from functions.core.decision import Action, Classification, DecidedBy, Decision, MessageRef, Mode
from functions.core.event import Event
from functions.core.failure import ClassifierUnavailable, RootCause
from functions.core.pointer import ABSENT, resolve
from functions.core.recipient import recipient_of
from functions.core.schema import knows_version
from functions.core.text import plain, readable, without_quotes
from functions.flows.flow import Finding, Prepared, UnreadableEvent, Verdict
from functions.flows.keywords import first_match
from functions.flows.reading import Reader, ends_with_marker

SUBJECT_LIMIT = 200
MAX_REASON_CODES = 2
_ANSWERED_SUBJECT = re.compile(r"\s*(?:re|fwd?|aw|wg|sv)\s*:", re.IGNORECASE)
_CODE = re.compile(r"[a-z][a-z0-9_]{0,23}\Z")
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,39}\Z")
_NEVER = frozenset({"", "false", "none", "null", "0"})


class Support:
    """See the module. Holds nothing but the catalog's rules."""

    name = "support"

    def __init__(self, rules: SupportRules) -> None:
        self._rules = rules
        self._labels = MappingProxyType({label.id: label.description for label in rules.labels.values()})

    def prepare(self, event: Event) -> Prepared:
        """Read the event and find what can be found without the LLM. Raises `UnreadableEvent`."""
        if not knows_version(self._rules.versions, event.source, event.event_name, event.event_version):
            raise UnreadableEvent(RootCause.SCHEMA_MISMATCH, "its event's version is not one that is read")
        reader = Reader.of(event, self._rules.pointers)
        raw = reader.text("text")
        text = without_quotes(readable(raw or "", self._rules.text_limit))
        if self._is_echo(event, reader, text):
            return self._nothing("echo", "own_doing")
        for rule in self._rules.skip:
            if _skips(rule, event, reader):
                return self._nothing("ignored", rule.reason)
        if self._is_staff(reader):
            return self._nothing("ignored", "from_staff")
        if not text and event.provider in self._rules.optional_text:
            return self._nothing("ignored", "no_message")
        if raw is None:
            raise UnreadableEvent(RootCause.SCHEMA_MISMATCH, f"no text at {', '.join(reader.places('text'))}")
        return self._message(event, reader, text)

    def decide(self, event: Event, prepared: Prepared, verdict: Verdict, mode: Mode, now_ms: int) -> Decision:
        """The decision. Pure: the same arguments, the same decision."""
        found = prepared.finding
        if found.calls_for_nothing:
            return Decision(self.name, mode, found.classification, (), now_ms)
        if mode is Mode.MANUAL:
            found = self._by_hand()
        elif prepared.needs_llm:
            found = self._said(verdict, found)
        elif isinstance(verdict, ClassifierUnavailable):
            found = _silent(found)
        return Decision(self.name, mode, found.classification, self._actions(event, prepared, found), now_ms)

    # ------------------------------------------------------------------------------------------------------- reading

    def _is_echo(self, event: Event, reader: Reader, text: str) -> bool:
        if event.provider in self._rules.helpdesk_sources:
            author = plain(reader.text("author") or "")
            if author in self._rules.own_identities or reader.bears_our_metadata():
                return True
        return ends_with_marker(text) and str(reader.value("staff")).lower() not in ("false", "0")

    def _is_staff(self, reader: Reader) -> bool:
        """Whether the event says that one of the helpdesk's own people wrote this."""
        return str(reader.value("staff")).lower() in ("true", "1")

    def _message(self, event: Event, reader: Reader, text: str) -> Prepared:
        subject = readable(reader.text("subject") or "", SUBJECT_LIMIT).replace("\n", " ")
        if _ANSWERED_SUBJECT.match(subject):
            subject = ""  # it says what the conversation began with, not what this message is about
        whole = "\n\n".join(part for part in (subject, text) if part)[: self._rules.text_limit]
        finding = self._found(text, whole)
        return Prepared(
            subject=reader.conversation(),
            text=whole,
            labels=self._labels,
            needs_llm=not finding.is_final,
            finding=finding,
            recipient=recipient_of(event.tenant, reader.contact()),
        )

    def _found(self, text: str, whole: str) -> Finding:
        """What the rules say: at once if that is beyond doubt, else for want of an answer of the LLM."""
        rules = self._rules
        if not whole:
            return self._default("no_text", is_final=True)
        if ends_with_marker(text):
            # The helpdesk says that a customer wrote this, yet it ends as our replies do: most likely a quotation
            # without a sign of it. A machine that answers might be answering itself, so a person looks.
            return self._default("bears_our_marker", is_final=True)
        rule = first_match(rules.keywords, plain(text), is_high_signal=True)
        strength, reason, is_final = 1.0, "high_signal", True
        if rule is None:
            rule = first_match(rules.keywords, plain(whole), is_high_signal=False)
            strength, reason, is_final = rules.bar, "keywords", False
        if rule is None:
            return self._default("no_rule")
        return Finding(
            Classification(rule.label, strength, DecidedBy.RULES, rules.rules_version, (reason,)),
            team=rule.team,
            tag=rule.tag,
            reply=rule.reply if is_final else "",
            needs_person=rules.labels[rule.label].needs_person,
            is_final=is_final,
        )

    def _nothing(self, label: str, reason: str) -> Prepared:
        said = Classification(label, 1.0, DecidedBy.RULES, self._rules.rules_version, (reason,))
        finding = Finding(said, is_final=True, calls_for_nothing=True)
        return Prepared("", "", self._labels, needs_llm=False, finding=finding)

    # ------------------------------------------------------------------------------------------------------ deciding

    def _said(self, verdict: Verdict, fallback: Finding) -> Finding:
        """What the LLM's answer means, or what stands in for one."""
        if verdict is None:
            return _because(fallback, "llm_skipped")
        if isinstance(verdict, ClassifierUnavailable):
            code = "llm_" + verdict.code.lower().removeprefix("llm_")
            return _because(fallback, code if _CODE.match(code) else "llm_unavailable")
        label = self._rules.labels.get(verdict.label)
        if label is None or not math.isfinite(verdict.confidence) or not 0 <= verdict.confidence <= 1:
            return _because(fallback, "llm_invalid")
        reasons = tuple(code for code in verdict.reason_codes if code in self._rules.reason_codes)[:1]
        said = Classification(
            label.id,
            round(float(verdict.confidence), 2),
            DecidedBy.LLM,
            verdict.version if _VERSION.match(verdict.version) else "unknown",
            reasons,
        )
        if verdict.confidence < self._rules.bar:
            return self._default("weak", said)
        return Finding(said, label.team, label.tag, label.reply, label.needs_person)

    def _default(self, reason: str, weak: Classification | None = None, *, is_final: bool = False) -> Finding:
        """The default team and a person. A weak classification is kept for people to see; nothing follows from it."""
        said = Classification(
            weak.label if weak else "unknown",
            weak.confidence if weak else 0.0,
            DecidedBy.DEFAULT,
            weak.version if weak else self._rules.rules_version,
            (reason,),
        )
        return Finding(said, self._rules.default_team.id, needs_person=True, is_final=is_final)

    def _by_hand(self) -> Finding:
        said = Classification("manual", 0.0, DecidedBy.DEFAULT, self._rules.rules_version, ("mode_manual",))
        return Finding(said, self._rules.human_team.id, needs_person=True, is_final=True)

    def _actions(self, event: Event, prepared: Prepared, found: Finding) -> tuple[Action, ...]:
        rules = self._rules
        # Whether somebody may be contacted is asked about a person: without one there is nobody to ask about.
        replies = bool(found.reply) and bool(prepared.recipient)
        needs_person = found.needs_person or (bool(found.reply) and not replies)
        tags = [rules.processed_tag, *([found.tag] if found.tag else []), *([rules.triage_tag] if needs_person else [])]
        team = rules.teams[found.team].helpdesk_id_for(event.tenant)
        actions = [
            self._action("tag", "add_tags", prepared.subject, {"tags": tags}),
            self._action("assign", "assign_team", prepared.subject, {"team": team}),
        ]
        if replies:
            reply = replace(
                self._action("reply", "reply", prepared.subject, {}),
                message=MessageRef(found.reply, rules.newest_messages[found.reply]),
                requires=("tag",),
                customer_visible=True,
                recipient=prepared.recipient,
                expires_seconds=rules.reply.expires_seconds,
                priority=rules.reply.priority,
            )
            instead = self._action("reply_suppressed", "add_tags", prepared.subject, {"tags": [rules.triage_tag]})
            actions += [reply, replace(instead, instead_of=reply.name)]
        return tuple(actions)

    def _action(self, name: str, verb: str, target: str, params: Mapping[str, Any]) -> Action:
        integration, timing = self._rules.integration, self._rules.routing
        rules = integration.kinds[f"{integration.id}.{verb}"]
        return Action(
            name=name,
            kind=rules.kind,
            integration=integration.id,
            repeat=rules.repeat,
            target=target,
            params=params,
            expires_seconds=timing.expires_seconds,
            priority=timing.priority,
        )


def _skips(rule: SkipRule, event: Event, reader: Reader) -> bool:
    if not fnmatchcase(event.provider, rule.provider):
        return False
    name = event.event_name
    if not any(fnmatchcase(name, wanted) for wanted in rule.events):
        return False
    if any(fnmatchcase(name, exempt) for exempt in rule.except_events):
        return False
    if not rule.pointer:
        return True
    found = resolve(reader.document, rule.pointer)
    if found is ABSENT or isinstance(found, dict | list):
        return found is not ABSENT and not rule.values
    said = plain(str(found)[:100])
    return said in rule.values if rule.values else said not in _NEVER


def _silent(finding: Finding) -> Finding:
    """The same without a reply: while the LLM is down nothing replies, whatever decided."""
    return replace(finding, reply="", needs_person=finding.needs_person or bool(finding.reply))


def _because(finding: Finding, reason: str) -> Finding:
    said = finding.classification
    return replace(finding, classification=replace(said, reason_codes=(reason, *said.reason_codes)[:MAX_REASON_CODES]))
