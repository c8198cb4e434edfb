"""`holdfast trace` and `holdfast audit`: what happened, through the operator API."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from typing import Annotated, Any, Final
from urllib.parse import quote

import typer

from ops import operator_api
from ops.cli.console import AsJson, Limit, Refused, emit, say, show_fields, show_table, stack_of, time_of
from ops.operator_api import ApiRefused, OperatorApi

IN_FULL: Final = 3  # so many events are told in full; of more there is a list
PAGE: Final = "docs/runbooks/recovery-and-replay.md"
_EVENT = re.compile(r"[A-Za-z0-9_-]{1,64}:.+\Z")
_PSEUDONYM = re.compile(r"[0-9a-f]{32}\Z")
_RECOVERY_ID = re.compile(r"[0-9a-f]{24}\Z")
_REQUEST_ID = re.compile(r"[A-Za-z0-9._=-]{1,64}\Z")
Answer = dict[str, Any]


def trace(
    ctx: typer.Context,
    what: Annotated[
        str, typer.Argument(metavar="[TICKET|EVENT|REQUEST|RECIPIENT]", help="What kind it is, is guessed.")
    ] = "",
    ticket: Annotated[str, typer.Option(help="A conversation, as the helpdesk calls it.")] = "",
    event: Annotated[str, typer.Option(help="An event: source:identity.")] = "",
    request: Annotated[str, typer.Option(help="A request id: of a delivery, or of anything that was done.")] = "",
    recipient: Annotated[str, typer.Option(help="A person's pseudonym, 32 hexadecimal digits.")] = "",
    tenant: Annotated[str, typer.Option(help="With an event: whose it is, where its source does not tell.")] = "",
    limit: Limit = 20,
    as_json: AsJson = False,
) -> None:
    """What happened to a ticket, event, request or recipient: received, decided, done, waiting, dead, by whom.

    A recovery id is understood as well. Exit code 1 if nothing is known of it.
    """
    named = {"ticket": ticket, "event": event, "request": request, "recipient": recipient}
    given = [(kind, value) for kind, value in named.items() if value]
    if len(given) + bool(what) != 1:
        raise Refused("say what to trace: one ticket, event, request or recipient")
    if "@" in what or what.startswith("+"):
        raise Refused(
            "a number or an address is not typed: `holdfast recipient show --contact-file FILE` says the pseudonym"
        )
    asking = _Asking(operator_api.connect(stack_of(ctx)), tenant, limit)
    for kind, value in given or [(kind, what) for kind in guesses(what)]:
        found = asking.ask(kind, value)
        if is_something(found):
            break
    else:
        raise Refused(_nothing(found))
    if as_json:
        emit({"kind": kind, **found})
        return
    _show(kind, found)


def guesses(what: str) -> Iterator[str]:
    """The kinds that a text may be of, the likeliest first."""
    if _EVENT.match(what):
        yield "event"
    if _RECOVERY_ID.match(what):
        yield "item"
    if _PSEUDONYM.match(what):
        yield from ("request", "recipient")
    yield "ticket"
    if _REQUEST_ID.match(what) and not _PSEUDONYM.match(what):
        yield "request"


class _Asking:
    def __init__(self, api: OperatorApi, tenant: str, limit: int) -> None:
        self._api = api
        self._tenant = tenant
        self._limit = limit

    def ask(self, kind: str, value: str) -> Answer:
        """What the API knows of it, always in the shape of a trace."""
        match kind:
            case "event":
                return self._event(value)
            case "item":
                return self._item(value)
            case "request":
                return self._trace(request_id=value)
        return self._trace(limit=str(self._limit), **{kind: value})

    def _trace(self, **query: str) -> Answer:
        return self._api.call("GET", "/platform/trace", query=query)

    def _event(self, event_id: str) -> Answer:
        query = {"tenant": self._tenant} if self._tenant else None
        try:
            found = self._api.call("GET", f"/platform/events/{quote(event_id, safe='')}", query=query)
        except ApiRefused as refused:
            if refused.status != HTTPStatus.NOT_FOUND:
                raise
            since_ms = refused.more.get("log_read_since_ms", 0)
            return {"events": [], "audit": [], "door": {"request": None, "since_ms": since_ms, "is_complete": True}}
        events = [found["event"], *found["others"]]
        return {"events": events, "audit": [], "door": None, "cursor": None, "is_complete": found["is_complete"]}

    def _item(self, recovery_id: str) -> Answer:
        """By the request that began it, which its record names."""
        query = {"entity": f"recovery_item#{recovery_id}", "limit": "1"}
        events = self._api.call("GET", "/platform/audit", query=query)["events"]
        origin = next((one["origin_request_id"] or one["request_id"] for one in events), "")
        return self._trace(request_id=origin) if origin else {"events": [], "audit": [], "door": None}


def is_something(found: Mapping[str, Any]) -> bool:
    """Whether anything is known."""
    return bool(found["events"] or found["audit"] or (found.get("door") or {}).get("request"))


def _nothing(found: Mapping[str, Any]) -> str:
    door = found.get("door")
    if not door:
        return "nothing is known of it"
    return (
        f"nothing is known of it, nor does the log of ingress name it since {time_of(door['since_ms'])}: an earlier "
        "refusal is found by `holdfast rejections --request-id ID --since 7d`"
    )


# ------------------------------------------------------------------------------------------------------------ showing


def _show(kind: str, found: Answer) -> None:
    events, door = found["events"], found.get("door")
    if len(events) > IN_FULL:
        show_table(
            "",
            ("received", "event", "state", "what happened"),
            [(time_of(one["received"]["at_ms"]), one["event_id"], one["state"], one["summary"]) for one in events],
        )
        say("one of them in full: holdfast trace EVENT")
    else:
        for number, one in enumerate(events):
            if number:
                typer.echo("")
            _event(one)
    if found["audit"]:
        _audit("what that request did besides" if events else "what that request did", found["audit"])
    if door and door["request"]:
        _door(door["request"], is_known=bool(events))
    if found.get("cursor"):
        say(f"there are more: --limit, up to 200; these are the latest {len(events)}")
    if not found.get("is_complete", True):
        request_id = events[0]["received"]["request_id"] if len(events) == 1 else "ID"
        say(f"more is on record of it than is told here: holdfast audit --request {request_id or 'ID'} --all")
    if kind == "request" and door and not door["is_complete"]:
        say(f"the log of ingress is long: it was read back to {time_of(door['since_ms'])} only")


def _event(one: Answer) -> None:
    received, decided = one["received"], one["decided"]
    show_fields(
        [
            ("event", one["event_id"] + (" (shadow)" if one["is_shadow"] else "")),
            ("tenant", one["tenant"]),
            ("state", one["state"]),
            ("", one["summary"]),
            ("received", f"{time_of(received['at_ms'])}  {received['event_name']}".strip()),
            ("request", received["request_id"]),
            ("decided", _decided(decided) if decided else ""),
            ("switches now", _switches(one["switches"])),
            ("unreadable", ", ".join(one["unreadable"])),
        ]
    )
    actions = [*one["actions"], *one["whole"]]
    if actions:
        show_table(
            "",
            ("action", "state", "at", "provider's id", "attempts", "more"),
            [
                (
                    told["name"],
                    told["state"].replace("_", " "),
                    told["kind"] or told["integration"],
                    told["provider_id"],
                    told["attempts"] or "",
                    _more(told),
                )
                for told in actions
            ],
        )
    if one["steps_left_out"]:
        whole = f"holdfast audit --request {received['request_id']} --all"
        say(f"{one['steps_left_out']} earlier steps are left out: {whole}")
    show_table(
        "",
        ("time", "what", "about", "by", "detail"),
        [
            (time_of(step["at_ms"]), step["what"].removeprefix("platform."), step["about"], step["by"], step["detail"])
            for step in one["steps"]
        ],
    )
    for advice in _advice(actions):
        say(advice)


def _decided(decided: Answer) -> str:
    why = f" ({', '.join(decided['reason_codes'])})" if decided["reason_codes"] else ""
    return (
        f"{decided['label']} {decided['confidence']:g} by {decided['by']} {decided['version']}{why}, flow "
        f"{decided['flow']}, mode {decided['mode']}, {time_of(decided['at_ms'])}"
    )


def _switches(now: Answer) -> str:
    """What is not as it is every day; all of it where that is nothing."""
    if not now["is_known"]:
        return "could not be read"
    everyday = {"mode": "live", "auto_reply": "on", "classifier": "llm", "optional_calls": "on", "replay": "on"}
    odd = [f"{name} {now[name]}" for name, value in everyday.items() if now[name] != value]
    odd += [f"{name} {', '.join(now[name])}" for name in _LISTS if now[name]]
    odd += [f"limit of {name} {factor:g}" for name, factor in now["limits"].items() if factor != 1]
    return "; ".join(odd) or "as every day"


_LISTS: Final = ("disabled_integrations", "replay_blocked_integrations")


def _more(told: Answer) -> str:
    """What a reader wants to know next of an action in its state."""
    parts = []
    if told["waiting_for"]:
        parts.append(f"waits for {told['waiting_for']}")
    if told["next_at_ms"]:
        parts.append(f"next {time_of(told['next_at_ms'])}")
    if told["until_ms"] and told["state"] in ("waiting", "under_way", "dead", "suppressed"):
        parts.append(f"until {time_of(told['until_ms'])}")
    if told["failure_code"] and told["state"] not in ("done", "superseded"):
        parts.append(
            f"{told['failure_code']}: {told['failure_detail']}" if told["failure_detail"] else told["failure_code"]
        )
    if told["replays"]:
        parts.append(f"replayed {told['replays']} times, last by {told['last_replay_by'] or 'somebody'}")
    if told["ended_by"]:
        parts.append(f"ended by {told['ended_by']}")
    parts += [f"left {way}" for way in told["hops"]]
    return "; ".join(parts)


def _advice(actions: list[Answer]) -> Iterator[str]:
    for told in actions:
        if told["recovery_id"] and told["state"] in ("dead", "unknown", "suppressed", "waiting"):
            yield f"{told['name']}: holdfast queue {told['recovery_id']} says what can be done ({PAGE})"


def _door(request: Answer, *, is_known: bool) -> None:
    if request["is_refused"]:
        why = f": {request['why']}" if request["why"] else ""
        show_fields(
            [
                ("request", f"refused with {request['status']} at {time_of(request['at_ms'])}"),
                ("reason", f"{request['reason']}{why}"),
                ("source", request["source"]),
            ]
        )
        say("what to do: docs/runbooks/senders.md")
    elif is_known:
        say(f"that request brought the event at {time_of(request['at_ms'])}, by the log of ingress")


def audit(
    ctx: typer.Context,
    entity: Annotated[
        str, typer.Argument(help="What it is about: switch#mode, recovery_item#ID, source#NAME, ...")
    ] = "",
    request: Annotated[str, typer.Option(help="A request id, instead: all that came of it.")] = "",
    limit: Limit = 50,
    is_whole: Annotated[bool, typer.Option("--all", help="Every page, to the end of the record.")] = False,
    as_json: AsJson = False,
) -> None:
    """What is on record of one thing or of one request: when, what, by whom, why. Oldest first."""
    if bool(entity) is bool(request):
        raise Refused("say one of them: an entity such as switch#mode, or --request ID")
    query = {"entity": entity} if entity else {"request_id": request}
    api = operator_api.connect(stack_of(ctx))
    found = api.call("GET", "/platform/audit", query={**query, "limit": "200" if is_whole else str(limit)})
    while is_whole and found["cursor"]:
        more = api.call("GET", "/platform/audit", query={**query, "limit": "200", "cursor": found["cursor"]})
        events, unreadable = [*found["events"], *more["events"]], found["unreadable"] + more["unreadable"]
        found = {**more, "events": events, "unreadable": unreadable}
    if as_json:
        emit(found)
        return
    if not found["events"]:
        say("nothing is on record")
        return
    _audit("", found["events"])
    if found["cursor"]:
        say(f"{len(found['events'])} are shown, and there are more: --all")
    if found["unreadable"]:
        say(f"{found['unreadable']} more could not be read back: were they written by a newer version?")


def _audit(title: str, events: list[Answer]) -> None:
    show_table(
        title,
        ("time", "event", "about", "by", "why", "request"),
        [
            (
                time_of(one["at_ms"]),
                one["event_type"].removeprefix("platform."),
                f"{one['affected_entity']}#{one['affected_id']}",
                one["actor"],
                "; ".join(part for part in (one["reason"], one["error"], one["containment_action"]) if part),
                one["request_id"],
            )
            for one in events
        ],
    )
