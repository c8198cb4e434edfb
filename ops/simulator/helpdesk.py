"""A double of Richpanel's ticket API, as far as its public documentation and public clients tell.

Known, and where from:

- Base URL `https://api.richpanel.com/v1`, header `x-richpanel-key`, JSON bodies, answers wrapped as
  `{"ticket": {...}}`, errors as `{"error": {"message"}}`: https://developer.richpanel.com/reference/authentication,
  https://developer.richpanel.com/reference/create-conversation and Pipedream's public component
  https://github.com/PipedreamHQ/pipedream/tree/master/components/richpanel
- Update and reply: `PUT /tickets/{id}` with `{"ticket": {"status", "priority", "comment": {"body", "sender_type"}}}`,
  sender type `operator` or `customer`: https://developer.richpanel.com/reference/update-a-conversation
- Add tags: `PUT /tickets/{id}/add-tags` with `{"tags": [...]}`, `remove-tags` likewise; `GET /tickets/{id}`;
  `GET /tags` gives `{"tag": [{"id", "name"}]}`: the public node https://www.npmjs.com/package/n8n-nodes-richpanel
- A ticket carries `id, status (OPEN, CLOSED, SNOOZED), priority, subject, assignee_id, tags, created_at, updated_at,
  comments[]`; a comment `id, body, plain_body, author_id, isOperator, created_at, metadata, via`.
- 100 calls a minute; a 429 carries `Retry-After` and `X-RateLimit-*`.

Our assumptions, to be checked against the account: a team is assigned by `{"ticket": {"team_id"}}`; the ticket tells
who assigned it and when (`assigned_by`, `assigned_at`); a comment's `metadata` is stored as sent; tags may be given
by name. No idempotency key is honoured: a reply that is sent twice is there twice.

Any ticket comes into being when it is first touched, except ids that begin with `missing`, which answer 404.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from ops.simulator.http import Call, Reply, Request, reply_json
from ops.simulator.record import Record, now_text

PROVIDER = "helpdesk"
PREFIX = "/richpanel/v1"
API_AUTHOR = "api"
MAX_TICKETS = 50_000
MAX_COMMENTS = 500
_MARKER = re.compile(r"\[hf:[A-Za-z0-9_-]{6,80}\]")
_STATUSES = frozenset({"OPEN", "CLOSED", "SNOOZED"})


@dataclass(slots=True)
class Ticket:
    """One conversation."""

    ticket_id: str
    created_at: str
    updated_at: str
    status: str = "OPEN"
    priority: str = "LOW"
    subject: str = ""
    assignee_id: str | None = None
    team_id: str | None = None
    assigned_by: str | None = None
    assigned_at: str | None = None
    tags: list[str] = field(default_factory=list)
    comments: list[dict[str, Any]] = field(default_factory=list)
    comment_count: int = 0

    def to_json(self) -> dict[str, Any]:
        """As the API shows it."""
        return {
            "id": self.ticket_id,
            "status": self.status,
            "priority": self.priority,
            "subject": self.subject,
            "assignee_id": self.assignee_id,
            "team_id": self.team_id,
            "assigned_by": self.assigned_by,
            "assigned_at": self.assigned_at,
            "tags": list(self.tags),
            "created_at": self.created_at,
            "updated_at": self.updated_at,
            "comments": [dict(comment) for comment in self.comments],
        }


def _error(status: int, message: str, code: str) -> Reply:
    return reply_json(status, {"error": {"message": message, "code": code}})


def marker_of(comment: dict[str, Any]) -> str:
    """Our marker in a comment: in its metadata, else in its text; empty without one."""
    metadata = comment.get("metadata")
    if isinstance(metadata, dict):
        for value in metadata.values():
            if isinstance(value, str) and _MARKER.fullmatch(value):
                return value
    found = _MARKER.findall(str(comment.get("body", "")))
    return found[-1] if found else ""


class Helpdesk:
    """The tickets, and the API on them. The caller holds the world's lock while `perform` runs."""

    def __init__(self, record: Record) -> None:
        self._record = record
        self._tickets: OrderedDict[str, Ticket] = OrderedDict()
        self.accepted_keys: frozenset[str] | None = None

    def ticket(self, ticket_id: str) -> Ticket:
        """The ticket, made now if nobody touched it before."""
        found = self._tickets.get(ticket_id)
        if found is None:
            while len(self._tickets) >= MAX_TICKETS:
                self._tickets.popitem(last=False)
            now = now_text()
            found = self._tickets[ticket_id] = Ticket(ticket_id, created_at=now, updated_at=now)
        return found

    def call(self, request: Request) -> Call | None:
        """What the request asks for, or None when it is not for this provider."""
        if not request.path.startswith(PREFIX + "/"):
            return None
        parts = [unquote(part) for part in request.path[len(PREFIX) + 1 :].split("/")]
        if parts == ["tags"] and request.method == "GET":
            return Call(PROVIDER, "list_tags", "", lambda: self._guarded(request, "", self._list_tags))
        if parts[0] != "tickets" or len(parts) < 2 or not parts[1]:
            return Call(PROVIDER, "unknown", "", lambda: _error(404, "no such resource", "NOT_FOUND"))
        ticket_id = parts[1]
        if len(parts) == 2 and request.method == "GET":
            return Call(
                PROVIDER,
                "get_ticket",
                ticket_id,
                lambda: self._guarded(request, ticket_id, lambda: self._get(ticket_id)),
            )
        if len(parts) == 2 and request.method == "PUT":
            return Call(
                PROVIDER,
                _operation_of(request),
                ticket_id,
                lambda: self._guarded(request, ticket_id, lambda: self._update(request, ticket_id)),
            )
        if len(parts) == 3 and request.method == "PUT" and parts[2] in ("add-tags", "remove-tags"):
            operation = parts[2].replace("-", "_")
            return Call(
                PROVIDER,
                operation,
                ticket_id,
                lambda: self._guarded(request, ticket_id, lambda: self._tag(request, ticket_id, operation)),
            )
        return Call(PROVIDER, "unknown", ticket_id, lambda: _error(405, "method not allowed", "METHOD_NOT_ALLOWED"))

    def person(self, ticket_id: str, change: dict[str, Any]) -> Ticket:
        """A person at the helpdesk changes a ticket: `team_id`, `assignee_id`, `status`, `subject`, `tags`,
        `comment`, `by`.
        """
        ticket, now = self.ticket(ticket_id), now_text()
        who = str(change.get("by", "person"))
        if "team_id" in change or "assignee_id" in change:
            ticket.team_id = change.get("team_id", ticket.team_id)
            ticket.assignee_id = change.get("assignee_id", ticket.assignee_id)
            ticket.assigned_by, ticket.assigned_at = who, str(change.get("at", now))
        ticket.status = str(change.get("status", ticket.status))
        ticket.subject = str(change.get("subject", ticket.subject))
        if "tags" in change:
            ticket.tags = [str(tag) for tag in change["tags"]]
        if "comment" in change:
            self._comment(
                ticket, {"body": str(change["comment"])}, author=who, is_operator=bool(change.get("is_operator", True))
            )
        ticket.updated_at = now
        return ticket

    def _guarded(self, request: Request, ticket_id: str, perform: Any) -> Reply:
        key = request.headers.get("x-richpanel-key", "")
        if not key or (self.accepted_keys is not None and key not in self.accepted_keys):
            return _error(401, "the API key is missing or not valid", "UNAUTHORIZED")
        if ticket_id.startswith("missing"):
            return _error(404, "the ticket does not exist", "NOT_FOUND")
        reply: Reply = perform()
        return reply

    def _list_tags(self) -> Reply:
        names = sorted({tag for ticket in self._tickets.values() for tag in ticket.tags})
        return reply_json(200, {"tag": [{"id": name, "name": name} for name in names], "count": len(names)})

    def _get(self, ticket_id: str) -> Reply:
        return reply_json(200, {"ticket": self.ticket(ticket_id).to_json()})

    def _update(self, request: Request, ticket_id: str) -> Reply:
        body = request.json_object()
        change = body.get("ticket") if body is not None else None
        if not isinstance(change, dict) or not change:
            return _error(400, 'the body must be {"ticket": {...}}', "BAD_REQUEST")
        comment, status, team = change.get("comment"), change.get("status"), change.get("team_id")
        if status is not None and status not in _STATUSES:
            return _error(422, "status must be OPEN, CLOSED or SNOOZED", "INVALID_STATUS")
        if comment is not None and not (isinstance(comment, dict) and str(comment.get("body", "")).strip()):
            return _error(422, "a comment needs a body", "INVALID_COMMENT")
        ticket = self.ticket(ticket_id)
        if comment is not None and len(ticket.comments) >= MAX_COMMENTS:
            return _error(422, "the ticket has too many comments", "TOO_MANY_COMMENTS")
        now = now_text()
        if team is not None or "assignee_id" in change:
            assignee = change.get("assignee_id", ticket.assignee_id)
            new_team = team if team is not None else ticket.team_id
            changed = (new_team, assignee) != (ticket.team_id, ticket.assignee_id)
            ticket.team_id, ticket.assignee_id = new_team, assignee
            ticket.assigned_by, ticket.assigned_at = API_AUTHOR, now
            self._effect(
                request, "assign", ticket_id, changed=changed, params=change, detail={"team": str(new_team or "")}
            )
        for name in ("status", "priority"):
            if change.get(name) is not None:
                value = str(change[name])
                changed = getattr(ticket, name) != value
                setattr(ticket, name, value)
                self._effect(
                    request, f"set_{name}", ticket_id, changed=changed, params={name: value}, detail={name: value}
                )
        answer = ticket.to_json()
        if comment is not None:
            stored = self._comment(
                ticket, comment, author=API_AUTHOR, is_operator=comment.get("sender_type") != "customer"
            )
            self._effect(
                request,
                "reply",
                ticket_id,
                key=marker_of(stored),
                params=comment,
                detail={"comment_id": str(stored["id"])},
            )
            answer = ticket.to_json()
        ticket.updated_at = now
        return reply_json(200, {"ticket": answer})

    def _tag(self, request: Request, ticket_id: str, operation: str) -> Reply:
        body = request.json_object()
        tags = body.get("tags") if body is not None else None
        if (
            not isinstance(tags, list)
            or not tags
            or not all(isinstance(tag, str) and 0 < len(tag) <= 100 for tag in tags)
        ):
            return _error(422, "tags must be a list of names", "INVALID_TAGS")
        ticket = self.ticket(ticket_id)
        for tag in tags:
            changed = (tag not in ticket.tags) if operation == "add_tags" else (tag in ticket.tags)
            if changed and operation == "add_tags":
                ticket.tags.append(tag)
            elif changed:
                ticket.tags.remove(tag)
            kind = "add_tag" if operation == "add_tags" else "remove_tag"
            self._effect(request, kind, ticket_id, changed=changed, params={"tag": tag}, detail={"tag": tag})
        ticket.updated_at = now_text()
        return reply_json(200, {"ticket": ticket.to_json()})

    def _comment(self, ticket: Ticket, comment: dict[str, Any], *, author: str, is_operator: bool) -> dict[str, Any]:
        ticket.comment_count += 1
        metadata = comment.get("metadata")
        text = str(comment["body"])
        stored = {
            "id": f"{ticket.ticket_id}_c{ticket.comment_count}",
            "body": text,
            "plain_body": text,
            "author_id": author,
            "isOperator": is_operator,
            "created_at": now_text(),
            "metadata": metadata if isinstance(metadata, dict) else {},
            "via": {"channel": "api"},
        }
        ticket.comments.append(stored)
        return stored

    def _effect(
        self,
        request: Request,
        kind: str,
        target: str,
        *,
        params: Any,
        detail: dict[str, str],
        key: str = "",
        changed: bool = True,
    ) -> None:
        key = key or request.headers.get("idempotency-key", "")
        self._record.effect(
            request, provider=PROVIDER, kind=kind, target=target, key=key, changed=changed, params=params, detail=detail
        )


def _operation_of(request: Request) -> str:
    body = request.json_object()
    change = body.get("ticket") if body is not None else None
    if isinstance(change, dict):
        if "comment" in change:
            return "reply"
        if "team_id" in change or "assignee_id" in change:
            return "assign"
        if "status" in change:
            return "set_status"
    return "update_ticket"
