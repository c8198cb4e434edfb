"""The helpdesk `Provider` over Richpanel's API.

| kind | repeat | call |
|---|---|---|
| `helpdesk.add_tags` | idempotent | `PUT /tickets/{id}/add-tags` `{"tags": [...]}` |
| `helpdesk.assign_team` | setting | `PUT /tickets/{id}` `{"ticket": {"team_id"}}`; read back with `GET /tickets/{id}` |
| `helpdesk.reply` | lookup | `PUT /tickets/{id}` `{"ticket": {"comment": {"body", "sender_type": "operator"}}}` |

Every call carries `x-richpanel-key`. Sources: https://developer.richpanel.com/reference/authentication,
https://developer.richpanel.com/reference/update-a-conversation; the tag call as public clients of the API make it
(https://www.npmjs.com/package/n8n-nodes-richpanel).

Richpanel honours no idempotency key. A reply therefore ends with our marker, `[hf:...]`, made from the action's id:
it is what a lookup finds among the ticket's comments. The marker is in the text because that is the only field of a
comment whose survival is documented.

Assumed, and to be checked against the account: a team is assigned by `team_id`, and a ticket shows `team_id`,
`assigned_at` and `assigned_by`. Without the last two a changed assignment cannot be told from an old one, and the
reader is told so with None.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, TypeVar

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError

from functions.adapters.http import (
    Answer,
    HttpCaller,
    IntegrationSecrets,
    correlation,
    secret_of,
    url_below,
)
from functions.core.clock import Clock
from functions.core.decision import Action, MessageRef
from functions.core.failure import Done, Failure, FailureClass, NetworkCause, failure_of_network
from functions.core.ports import Absent, Call, SettingState

ADD_TAGS = "helpdesk.add_tags"
ASSIGN_TEAM = "helpdesk.assign_team"
REPLY = "helpdesk.reply"
COUNT_REPLIES = "helpdesk.count_replies"
MARKER = re.compile(r"\[hf:([0-9a-f]{24})\]")
OWN_IDENTITIES_KEY = "own_identities"  # of the integration's parameter: how Richpanel names us in `assigned_by`

_Model = TypeVar("_Model", bound=BaseModel)


def marker_of(action_id: str) -> str:
    """The marker that a reply of this action bears."""
    return f"[hf:{action_id[:24]}]"


class _Comment(BaseModel):
    model_config = ConfigDict(extra="ignore")

    id: str | int = ""
    body: str | None = None
    plain_body: str | None = None
    is_operator: Any = Field(default=None, validation_alias=AliasChoices("isOperator", "is_operator"))
    created_at: Any = None

    @property
    def text(self) -> str:
        return (self.plain_body or self.body or "").strip()

    def bears(self, marker: str) -> bool:
        return marker in (self.body or "") or marker in (self.plain_body or "")


class _Ticket(BaseModel):
    model_config = ConfigDict(extra="ignore")

    id: str | int
    team_id: str | int | None = None
    assigned_at: str | None = None
    assigned_by: str | None = None
    comments: list[_Comment] | None = Field(default=None)


class _TicketAnswer(BaseModel):
    model_config = ConfigDict(extra="ignore")

    ticket: _Ticket


class RichpanelProvider:
    """Implements `functions.core.ports.Provider`.

    `render` gives a message's text and raises KeyError for one that the catalog does not hold. `definite_statuses` are
    the catalog's. Nothing raises for Richpanel's trouble.
    """

    def __init__(
        self,
        http: HttpCaller,
        secrets: IntegrationSecrets,
        clock: Clock,
        render: Callable[[MessageRef], str],
        *,
        integration: str = "helpdesk",
        definite_statuses: frozenset[int] = frozenset(),
    ) -> None:
        self._http = http
        self._secrets = secrets
        self._clock = clock
        self._render = render
        self._integration = integration
        self._definite_statuses = definite_statuses

    async def send(self, action: Action, call: Call) -> Done | Failure:
        """Do it. A 2xx is done even when its body is lost: then the id that Richpanel gave is not known."""
        if action.kind == COUNT_REPLIES:
            return await self._counted(action, call)
        request = self._request(action)
        if isinstance(request, Failure):
            return request
        segments, payload = request
        answer = await self._exchange("PUT", segments, payload, call, key=action.action_id)
        if isinstance(answer, Failure):
            return answer
        failure = answer.failure(self._clock.now_ms(), self._definite_statuses)
        if failure is not None:
            return failure
        return self._shown(answer, action) if action.kind == REPLY else Done()

    async def look_up(self, action: Action, call: Call) -> Done | Absent | Failure:
        """Whether a comment of the ticket bears the action's marker."""
        ticket = await self._ticket(action, call)
        if isinstance(ticket, Failure):
            return ticket
        if ticket.comments is None:  # absent comments prove nothing about a comment
            return _unread("the ticket came without its comments")
        return _done(ticket.comments, marker_of(action.action_id)) or Absent()

    async def read_setting(self, action: Action, call: Call) -> SettingState | Failure:
        """The team that the ticket is assigned to; empty for none."""
        ticket = await self._ticket(action, call)
        if isinstance(ticket, Failure):
            return ticket
        secret = await secret_of(self._secrets, self._integration, self._clock, call.deadline_ms)
        ours = [] if isinstance(secret, Failure) else secret.extra.get(OWN_IDENTITIES_KEY, [])
        is_known = ticket.assigned_by is not None and isinstance(ours, list) and bool(ours)
        return SettingState(
            value="" if ticket.team_id is None else str(ticket.team_id),
            changed_at_ms=_milliseconds(ticket.assigned_at),
            changed_by_us=(ticket.assigned_by in ours) if is_known else None,
        )

    def wanted(self, action: Action) -> str:
        """The team that the action assigns."""
        return str(action.params.get("team", ""))

    def refresh_credential(self) -> str:
        """Re-read the parameter past every cache. Raises `StorageUnavailable`."""
        return self._secrets.refresh(self._integration).version

    async def _counted(self, action: Action, call: Call) -> Done | Failure:
        """How often the reply is there. One that is not there any more was taken away by somebody."""
        if not action.counted_id:
            return _unsendable("PARAMS_INVALID", "no reply is named")
        found = await self.look_up(replace(action, action_id=action.counted_id), call)
        return Done() if isinstance(found, Absent) else found

    def _request(self, action: Action) -> tuple[tuple[str, ...], Mapping[str, Any]] | Failure:
        match action.kind:
            case "helpdesk.add_tags":
                tags = action.params.get("tags")
                if (
                    not isinstance(tags, list | tuple)
                    or not tags
                    or not all(isinstance(tag, str) and tag for tag in tags)
                ):
                    return _unsendable("PARAMS_INVALID", "tags is not a list of names")
                return ("tickets", action.target, "add-tags"), {"tags": list(tags)}
            case "helpdesk.assign_team":
                if not self.wanted(action):
                    return _unsendable("PARAMS_INVALID", "no team is named")
                return ("tickets", action.target), {"ticket": {"team_id": self.wanted(action)}}
            case "helpdesk.reply" if action.message is not None:
                try:
                    text = self._render(action.message)
                except KeyError:
                    return _unsendable("MESSAGE_UNKNOWN", f"no message {action.message.id}@{action.message.version}")
                body = f"{text.rstrip()}\n\n{marker_of(action.action_id)}"
                return ("tickets", action.target), {"ticket": {"comment": {"body": body, "sender_type": "operator"}}}
            case _:
                return _unsendable("KIND_UNKNOWN", f"this helpdesk has no way to do {action.kind}")

    async def _exchange(
        self, method: str, segments: tuple[str, ...], payload: Any, call: Call, *, key: str = ""
    ) -> Answer | Failure:
        secret = await secret_of(self._secrets, self._integration, self._clock, call.deadline_ms)
        if isinstance(secret, Failure):
            return secret
        url = url_below(secret.base_url, *segments)
        if url is None:
            return _unsendable("TARGET_INVALID", "the ticket's id cannot be part of a URL")
        headers = {"x-richpanel-key": secret.credential, **correlation(call.request_id, call.traceparent, key)}
        return await self._http.exchange(method, url, headers=headers, payload=payload, deadline_ms=call.deadline_ms)

    async def _ticket(self, action: Action, call: Call) -> _Ticket | Failure:
        """Read the ticket. A read changes nothing, so none of its failures may have."""
        answer = await self._exchange("GET", ("tickets", action.target), None, call)
        if isinstance(answer, Failure):
            return replace(answer, may_have_happened=False)
        failure = answer.failure(self._clock.now_ms())
        if failure is not None:
            return replace(failure, may_have_happened=False)
        read = _validated(_TicketAnswer, answer)
        if read is None:
            return _unread(answer.trouble or "the answer is no ticket")
        return read.ticket

    def _shown(self, answer: Answer, action: Action) -> Done:
        """Done; with the id of the newest comment, and how many there are, if the answer shows them."""
        read = _validated(_TicketAnswer, answer)
        ours = _replies((read.ticket.comments or []) if read is not None else [], marker_of(action.action_id))
        return Done(str(ours[-1].id), len(ours)) if ours else Done()


def _done(comments: list[_Comment], marker: str) -> Done | None:
    """The reply among the comments, and how often it is there."""
    ours = _replies(comments, marker)
    return Done(str(ours[0].id), len(ours)) if ours else None


def _replies(comments: list[_Comment], marker: str) -> list[_Comment]:
    """The reply, and what repeats it word for word. An answer that quotes it bears its marker too, and is none: it came
    later, and is not an operator's, or says more. One that is listed twice is one.
    """
    bearing = [comment for comment in comments if comment.bears(marker)]
    found = [comment for comment in bearing if comment.is_operator is not False]
    if not found:
        return bearing[:1]  # it was there, and was taken away: customers who quote it say nothing of how often
    times = [_milliseconds(comment.created_at) if isinstance(comment.created_at, str) else None for comment in found]
    dated = [at_ms for at_ms in times if at_ms is not None]
    if len(dated) == len(found):  # else as they are listed
        found = [comment for _, comment in sorted(zip(dated, found, strict=True), key=lambda one: one[0])]
    same = [comment for comment in found if comment.text == found[0].text]
    return list({(comment.id, 0 if comment.id else number): comment for number, comment in enumerate(same)}.values())


def _validated(model: type[_Model], answer: Answer) -> _Model | None:
    if answer.body is None:
        return None
    try:
        return model.model_validate_json(answer.body)
    except ValidationError:
        return None


def _unsendable(code: str, detail: str) -> Failure:
    return Failure(FailureClass.DATA_ERROR, code, detail, is_retryable=False, may_have_happened=False)


def _unread(detail: str) -> Failure:
    return replace(failure_of_network(NetworkCause.PROTOCOL, detail), may_have_happened=False)


def _milliseconds(text: str | None) -> int | None:
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)
