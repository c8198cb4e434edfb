"""The SMS `Provider` over Twilio's REST API, version 2010-04-01.

| kind | repeat | call |
|---|---|---|
| `sms.send` | lookup | `POST /2010-04-01/Accounts/{sid}/Messages.json` with `To`, `Body` and a sender, as a form |

Basic auth with the account's SID, or an API key's, and its secret. Sources:
https://www.twilio.com/docs/messaging/api/message-resource for call and list, https://www.twilio.com/docs/api/errors for
the codes. Twilio honours no idempotency key, and a message holds nothing of ours but its text; so the text ends with a
short reference made from the action's id, `Ref 7K2M9QXD`. It is what a lookup finds among the messages to that number,
and what tells two equal texts to one person apart. Comparing whole texts would not do: Twilio puts words before those
of a trial account, shortens links and replaces characters. People can quote the reference.

A lookup asks by the recipient's number. Where that has changed since the action was decided, or a text of that time is
redacted, it cannot tell, and says so.

The parameter of the integration: `base_url`, `api_key` (the auth token, or the API key's secret), `account_sid`,
`api_key_sid` if it is an API key's, and `from` (a number or sender id of ours) or `messaging_service_sid`.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any, Final, TypeVar
from urllib.parse import parse_qs, urlencode, urlsplit

from pydantic import BaseModel, ConfigDict, ValidationError

from functions.adapters.http import (
    Answer,
    HttpCaller,
    IntegrationSecret,
    IntegrationSecrets,
    correlation,
    malformed_credential,
    secret_of,
    url_below,
)
from functions.core.clock import Clock
from functions.core.decision import Action, MessageRef
from functions.core.failure import (
    Done,
    Failure,
    FailureClass,
    NetworkCause,
    failure_of_network,
    failure_of_status,
)
from functions.core.person import OPTED_OUT_THERE
from functions.core.ports import Absent, Call, SettingState

SEND: Final = "sms.send"
MAX_TEXT_LENGTH: Final = 1600  # of a message's body; longer is error 21617
PAGE_SIZE: Final = 100  # a thousand are allowed, but a page must fit our bound on bodies
MAX_PAGES: Final = 10  # of one lookup, which has one deadline
SKEW_MS: Final = 10 * 60_000  # between Twilio's clock and ours

# https://www.twilio.com/docs/api/errors/21610: they replied STOP to this sender.
_OPTED_OUT: Final = frozenset({21610})
# 21211 no number, 21217 no valid one, 21214 and 21612 not reachable, 21614 not mobile, 21635 a landline.
_BAD_CONTACT: Final = frozenset({21211, 21214, 21217, 21612, 21614, 21635})
# https://www.twilio.com/docs/api/errors/20429: such requests are not processed. 21611: the sender's queue is full.
_LIMITED: Final = frozenset({20429, 21611})
_NOT_SENT: Final = frozenset({"failed", "undelivered", "canceled"})

_ALPHABET: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # Crockford's: nothing in it is taken for something else
_NUMBER = re.compile(r"\+[1-9][0-9]{6,14}\Z")  # E.164
_ACCOUNT = re.compile(r"AC[0-9a-fA-F]{32}\Z")
_KEY = re.compile(r"SK[0-9a-fA-F]{32}\Z")
_SERVICE = re.compile(r"MG[0-9a-fA-F]{32}\Z")
_SENDER = re.compile(r"(\+[1-9][0-9]{6,14}|[0-9]{3,8}|[A-Za-z0-9 ]{1,11})\Z")
_MESSAGE = re.compile(r"(SM|MM)[0-9a-fA-F]{32}\Z")
_TOKEN = re.compile(r"[A-Za-z0-9_.-]{1,200}\Z")

_Model = TypeVar("_Model", bound=BaseModel)


def reference_of(action_id: str) -> str:
    """The end of a text that was sent for this action: 40 bits of its id, which nobody reads wrongly aloud."""
    number = int(action_id[:10], 16)
    return "Ref " + "".join(_ALPHABET[(number >> shift) & 31] for shift in range(35, -1, -5))


class _Twilio(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)


class _Message(_Twilio):
    sid: str
    direction: str
    status: str
    body: str | None
    date_created: str | None = None
    error_code: int | None = None

    @property
    def is_ours(self) -> bool:
        return self.direction.startswith("outbound")


class _Page(_Twilio):
    messages: list[_Message]
    next_page_uri: str | None


class _Made(_Twilio):
    sid: str
    status: str = ""
    error_code: int | None = None


class _Error(_Twilio):
    code: int


@dataclass(frozen=True, slots=True)
class _Account:
    """Whose messages they are, and who sends them."""

    url: str
    authorization: str
    sender: Mapping[str, str]


class TwilioProvider:
    """Implements `functions.core.ports.Provider`.

    `render` gives a message's text and raises KeyError for one that the catalog does not hold. `definite_statuses` are
    the catalog's. Nothing raises for Twilio's trouble. No failure's detail holds a number: Twilio's own texts do.
    """

    def __init__(
        self,
        http: HttpCaller,
        secrets: IntegrationSecrets,
        clock: Clock,
        render: Callable[[MessageRef], str],
        *,
        integration: str = "sms",
        definite_statuses: frozenset[int] = frozenset(),
    ) -> None:
        self._http = http
        self._secrets = secrets
        self._clock = clock
        self._render = render
        self._integration = integration
        self._definite_statuses = definite_statuses

    async def send(self, action: Action, call: Call) -> Done | Failure:
        """Send it. A 2xx is done even when its body is lost: then the id that Twilio gave is not known."""
        text = self._text(action)
        if isinstance(text, Failure):
            return text
        if not _NUMBER.match(call.contact):
            return _no_contact(call.contact)
        account = await self._account(call)
        if isinstance(account, Failure):
            return account
        answer = await self._http.exchange(
            "POST",
            account.url,
            headers=_headers(account, call, action.action_id),
            form={"To": call.contact, "Body": text, **account.sender},
            deadline_ms=call.deadline_ms,
        )
        if isinstance(answer, Failure):
            return answer
        failure = self._failure(answer)
        if failure is not None:
            return failure
        made = _validated(_Made, answer)
        if made is not None and made.status in _NOT_SENT:
            return _not_delivered(made.sid, made.status, made.error_code)
        return Done(made.sid if made is not None and _MESSAGE.match(made.sid) else "")

    async def look_up(self, action: Action, call: Call) -> Done | Absent | Failure:
        """Whether a text to that number bears the action's reference. All of them are looked through, newest first:
        one that is not sent yet has no date to look for.
        """
        if not _NUMBER.match(call.contact):
            return _no_contact(call.contact)
        if call.contact_since_ms > call.decided_at_ms:
            return _untold("CONTACT_CHANGED", "the number is another one since: the old one's messages are not known")
        account = await self._account(call)
        if isinstance(account, Failure):
            return replace(account, may_have_happened=False)
        reference, since_ms = reference_of(action.action_id), call.decided_at_ms - SKEW_MS
        query, is_redacted = {"To": call.contact, "PageSize": str(PAGE_SIZE)}, False
        for _ in range(MAX_PAGES):
            page = await self._page(account, call, query)
            if isinstance(page, Failure):
                return page
            ours = [one for one in page.messages if one.is_ours and reference in (one.body or "")]
            if ours:
                return _found(ours)
            for message in page.messages:
                is_redacted |= message.is_ours and not message.body and _is_since(message.date_created, since_ms)
            if page.next_page_uri is None:
                if is_redacted:
                    return _untold("CONTENT_REDACTED", "a text of that time is redacted: it may be this one")
                return Absent()
            further = _further(page.next_page_uri)
            if further is None:
                return _unread("the list's next page cannot be asked for")
            query = {"To": call.contact, "PageSize": str(PAGE_SIZE), **further}
        return _untold("TOO_MANY_MESSAGES", f"there are over {MAX_PAGES * PAGE_SIZE} messages to that number")

    async def read_setting(self, action: Action, call: Call) -> SettingState | Failure:  # noqa: ARG002  # the port's
        """A text that was sent sets nothing."""
        return _unsendable("KIND_UNKNOWN", f"{action.kind} sets nothing that could be read")

    def wanted(self, action: Action) -> str:  # noqa: ARG002  # the port's
        """Nothing."""
        return ""

    def refresh_credential(self) -> str:
        """Re-read the parameter past every cache. Raises `StorageUnavailable`."""
        return self._secrets.refresh(self._integration).version

    def _text(self, action: Action) -> str | Failure:
        if action.kind != SEND:
            return _unsendable("KIND_UNKNOWN", f"there is no way to do {action.kind} by SMS")
        if action.message is None:
            return _unsendable("PARAMS_INVALID", "no message is named")
        try:
            text = self._render(action.message)
        except KeyError:
            return _unsendable("MESSAGE_UNKNOWN", f"no message {action.message.id}@{action.message.version}")
        whole = f"{text.rstrip()}\n{reference_of(action.action_id)}"
        if len(whole) > MAX_TEXT_LENGTH:
            return _unsendable("MESSAGE_TOO_LONG", f"the text has {len(whole)} characters, {MAX_TEXT_LENGTH} at most")
        return whole

    async def _account(self, call: Call) -> _Account | Failure:
        secret = await secret_of(self._secrets, self._integration, self._clock, call.deadline_ms)
        if isinstance(secret, Failure):
            return secret
        sid, key = _known(secret, "account_sid", _ACCOUNT), _known(secret, "api_key_sid", _KEY)
        service, sender = _known(secret, "messaging_service_sid", _SERVICE), _known(secret, "from", _SENDER)
        if not sid or ("api_key_sid" in secret.extra and not key):
            return malformed_credential("account_sid, or api_key_sid, is missing or none of Twilio's")
        if bool(service) == bool(sender):
            return malformed_credential(
                "it names neither or both of from and messaging_service_sid, or none of Twilio's"
            )
        url = url_below(secret.base_url, "2010-04-01", "Accounts", sid, "Messages.json")
        if url is None:
            raise AssertionError("a checked account's id is a segment of a URL")
        proof = base64.b64encode(f"{key or sid}:{secret.credential}".encode()).decode("ascii")
        return _Account(url, f"Basic {proof}", {"MessagingServiceSid": service} if service else {"From": sender})

    async def _page(self, account: _Account, call: Call, query: Mapping[str, str]) -> _Page | Failure:
        """One page of the list. A read changes nothing, so none of its failures may have."""
        answer = await self._http.exchange(
            "GET",
            f"{account.url}?{urlencode(query)}",
            headers=_headers(account, call),
            deadline_ms=call.deadline_ms,
        )
        if isinstance(answer, Failure):
            return replace(answer, may_have_happened=False)
        failure = self._failure(answer)
        if failure is not None:
            return replace(failure, may_have_happened=False)
        page = _validated(_Page, answer)
        return _unread(answer.trouble or "the answer is no list of messages") if page is None else page

    def _failure(self, answer: Answer) -> Failure | None:
        """What the answer says went wrong. Twilio's code tells more than a status that says no."""
        failure = answer.failure(self._clock.now_ms(), self._definite_statuses)
        error = _validated(_Error, answer)
        if failure is None or failure.may_have_happened or error is None:
            return failure
        detail = f"the provider answered {answer.status} (code {error.code})"
        if error.code in _LIMITED:
            limited = failure_of_status(429, detail=detail, retry_after_ms=failure.retry_after_ms)
            return replace(limited, answer=failure.answer)
        if error.code in _OPTED_OUT:
            return replace(_unsendable(OPTED_OUT_THERE, detail), status=answer.status, answer=failure.answer)
        if error.code in _BAD_CONTACT:
            return replace(_unsendable("CONTACT_INVALID", detail), status=answer.status, answer=failure.answer)
        return replace(failure, detail=detail)


def _headers(account: _Account, call: Call, key: str = "") -> dict[str, str]:
    return {"authorization": account.authorization, **correlation(call.request_id, call.traceparent, key)}


def _known(secret: IntegrationSecret, name: str, form: re.Pattern[str]) -> str:
    """That key of the parameter, if it is one of Twilio's; else empty."""
    text = secret.extra.get(name)
    return text if isinstance(text, str) and form.match(text) else ""


def _found(messages: Sequence[_Message]) -> Done | Failure:
    """`messages` bear the reference, newest first. The oldest is ours, and so is what says the same; whoever quotes it
    says something else. What was not sent reached nobody, and another one may have: a person may have replayed it.
    """
    same = {one.sid: one for one in messages if one.body == messages[-1].body}
    sent = [one for one in same.values() if one.status not in _NOT_SENT]
    if not sent:
        unsent = next(iter(same.values()))
        return _not_delivered(unsent.sid, unsent.status, unsent.error_code)
    return Done(sent[0].sid if _MESSAGE.match(sent[0].sid) else "", len(sent))


def _further(next_page_uri: str) -> dict[str, str] | None:
    """How the next page is asked for: where, is ours to say, and no answer's."""
    try:
        found = parse_qs(urlsplit(next_page_uri).query)
    except ValueError:
        return None
    page, token = (found.get(name, [""])[0] for name in ("Page", "PageToken"))
    if not page.isdecimal() or len(page) > 6 or not _TOKEN.match(token):
        return None
    return {"Page": page, "PageToken": token}


def _is_since(date: str | None, since_ms: int) -> bool:
    """Whether that RFC 2822 date is no earlier; one that cannot be read may be."""
    try:
        moment = parsedate_to_datetime(date or "")
    except ValueError:
        return True
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return aware.timestamp() * 1000 >= since_ms


def _validated(model: type[_Model], answer: Answer) -> _Model | None:
    if answer.body is None:
        return None
    try:
        return model.model_validate_json(answer.body)
    except ValidationError:
        return None


def _no_contact(contact: str) -> Failure:
    if not contact:
        return _unsendable("NO_CONTACT", "the recipient has no number")
    return _unsendable("CONTACT_INVALID", "the recipient's number is not one in E.164")


def _not_delivered(sid: str, status: str, error_code: Any) -> Failure:
    named = sid if _MESSAGE.match(sid) else "it"
    return _unsendable("NOT_DELIVERED", f"the provider took {named} and says {status} (code {error_code or 'none'})")


def _unsendable(code: str, detail: str) -> Failure:
    return Failure(FailureClass.DATA_ERROR, code, detail, is_retryable=False, may_have_happened=False)


_untold = _unsendable  # a lookup that cannot tell either way: another one could not either, and a person decides


def _unread(detail: str) -> Failure:
    return replace(failure_of_network(NetworkCause.PROTOCOL, detail), may_have_happened=False)
