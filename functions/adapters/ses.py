"""The email `Provider` over Amazon SES, API v2, without the SDK.

| kind | repeat | call |
|---|---|---|
| `email.send` | blind | `POST /v2/email/outbound-emails` |

Signed with Signature Version 4 as the function's own role, over the same HTTP client as every other provider: a call
of the SDK runs in a thread, which could not be cancelled and would post in a later invocation.

SES knows no idempotency key, and can be asked about a message only by the id that it gave
(https://docs.aws.amazon.com/ses/latest/APIReference-V2/API_SendEmail.html, …/API_GetMessageInsights.html); so an email
of which no answer came may be there or not, and a person finds out. The tag `action_id` says in SES's events which
action an email was sent for. An error that SES itself answers means that nothing was sent
(https://docs.aws.amazon.com/ses/latest/dg/troubleshoot-error-messages.html).

SES knows us by the function's role, so that a 401 or 403 is about its permission or its session, and no parameter of
ours will ever change that: it is tried again like any failure (a session is renewed, a permission comes into force
after some minutes), and once its attempts are used up it is a person's, with the permission's name.

The parameter of the integration: `base_url` (`https://email.{region}.amazonaws.com`), `api_key` (the word `role`: there
is no other credential), `from` (an address that SES has verified, perhaps with a name), and if wanted `subject` (for
messages without one), `reply_to` and `configuration_set`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, ValidationError

from functions.adapters import aws_wire, wire
from functions.adapters.http import (
    Answer,
    HttpCaller,
    IntegrationSecret,
    IntegrationSecrets,
    correlation,
    malformed_credential,
    secret_of,
)
from functions.adapters.sigv4 import Credentials, Signer
from functions.core.clock import Clock
from functions.core.decision import Action, MessageRef
from functions.core.failure import Done, Failure, FailureClass, StorageUnavailable, failure_of_status
from functions.core.ports import Absent, Call, SettingState

SEND: Final = "email.send"
PATH: Final = "/v2/email/outbound-emails"
BY_ROLE: Final = "role"  # the parameter's api_key
MAX_ADDRESS_LENGTH: Final = 254

# Requests that SES did not take because of a rate or a quota. It states no wait.
_LIMITED: Final = frozenset({"TooManyRequestsException", "LimitExceededException", "Throttling", "ThrottlingException"})
# The account or the sender may not send; nothing but a change of ours helps, and another channel meanwhile.
_NOT_ALLOWED: Final = frozenset({"AccountSuspendedException", "MailFromDomainNotVerifiedException"})
_DENIED: Final = frozenset({"AccessDeniedException", "AccessDenied"})

_REGIONAL = re.compile(r"email\.([a-z]{2}(?:-[a-z]+)+-[0-9])\.amazonaws\.com\Z")
_ADDRESS = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]{1,64}@[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?\Z")
_NAMED = re.compile(r"[^<>\x00-\x1f\x7f]{1,100} <([^<>]+)>\Z")
_SET = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")
_TAG = re.compile(r"[A-Za-z0-9_-]{1,256}\Z")
_MESSAGE_ID = re.compile(r"[\x21-\x7e]{1,200}\Z")


class _Sent(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)

    MessageId: str


class SesProvider:
    """Implements `functions.core.ports.Provider`.

    `render` and `subject_of` give a message's text and subject and raise KeyError for one that the catalog does not
    hold. `region` is for a base URL that names none. `credentials` are read for every call, and raise
    `StorageUnavailable`. Nothing raises for SES's trouble, and no failure's detail holds an address: SES's texts do.
    """

    def __init__(
        self,
        http: HttpCaller,
        secrets: IntegrationSecrets,
        clock: Clock,
        render: Callable[[MessageRef], str],
        subject_of: Callable[[MessageRef], str],
        *,
        region: str,
        credentials: Callable[[], Credentials] = Credentials.from_env,
        integration: str = "email",
        definite_statuses: frozenset[int] = frozenset(),
    ) -> None:
        self._http = http
        self._secrets = secrets
        self._clock = clock
        self._render = render
        self._subject_of = subject_of
        self._region = region
        self._credentials = credentials
        self._integration = integration
        self._definite_statuses = definite_statuses

    async def send(self, action: Action, call: Call) -> Done | Failure:
        """Send it. A 2xx is done even when its body is lost: then the id that SES gave is not known."""
        if action.kind != SEND:
            return _unsendable("KIND_UNKNOWN", f"there is no way to do {action.kind} by email")
        if not is_address(call.contact):
            return _no_contact(call.contact)
        secret = await secret_of(self._secrets, self._integration, self._clock, call.deadline_ms)
        if isinstance(secret, Failure):
            return secret
        refused = _refused(secret)
        if refused:
            return malformed_credential(refused)
        document = self._document(action, call, secret)
        if isinstance(document, Failure):
            return document
        answer = await self._exchange(secret, document, action, call)
        if isinstance(answer, Failure):
            return answer
        failure = self._failure(answer)
        return Done(_id_of(answer)) if failure is None else failure

    async def look_up(self, action: Action, call: Call) -> Done | Absent | Failure:  # noqa: ARG002  # the port's
        """SES cannot be asked by what we know of an email."""
        return _unsendable("NO_LOOKUP", "the provider cannot be asked whether it sent this")

    async def read_setting(self, action: Action, call: Call) -> SettingState | Failure:  # noqa: ARG002  # the port's
        """An email that was sent sets nothing."""
        return _unsendable("KIND_UNKNOWN", f"{action.kind} sets nothing that could be read")

    def wanted(self, action: Action) -> str:  # noqa: ARG002  # the port's
        """Nothing."""
        return ""

    def refresh_credential(self) -> str:
        """Re-read the parameter past every cache. Raises `StorageUnavailable`."""
        return self._secrets.refresh(self._integration).version

    def _document(self, action: Action, call: Call, secret: IntegrationSecret) -> dict[str, Any] | Failure:
        if action.message is None:
            return _unsendable("PARAMS_INVALID", "no message is named")
        try:
            text = self._render(action.message)
            subject = self._subject_of(action.message) or str(secret.extra.get("subject", ""))
        except KeyError:
            return _unsendable("MESSAGE_UNKNOWN", f"no message {action.message.id}@{action.message.version}")
        if not subject.strip():
            return _unsendable("PARAMS_INVALID", "neither the message nor the integration's parameter has a subject")
        tags = {"action_id": action.action_id, "tenant": call.tenant}
        document: dict[str, Any] = {
            "FromEmailAddress": secret.extra["from"],
            "Destination": {"ToAddresses": [call.contact]},
            "Content": {"Simple": {"Subject": _content(subject), "Body": {"Text": _content(text)}}},
            "EmailTags": [{"Name": name, "Value": value} for name, value in tags.items() if _TAG.match(value)],
        }
        if "reply_to" in secret.extra:
            document["ReplyToAddresses"] = [secret.extra["reply_to"]]
        if "configuration_set" in secret.extra:
            document["ConfigurationSetName"] = secret.extra["configuration_set"]
        return document

    async def _exchange(
        self, secret: IntegrationSecret, document: dict[str, Any], action: Action, call: Call
    ) -> Answer | Failure:
        url = secret.base_url.rstrip("/") + PATH
        parts = urlsplit(url)
        try:
            credentials = self._credentials()
        except StorageUnavailable as exc:
            return Failure(
                FailureClass.TRANSIENT, "CREDENTIAL_UNREADABLE", str(exc), is_retryable=True, may_have_happened=False
            )
        regional = _REGIONAL.match(parts.hostname or "")
        signer = Signer("ses", regional[1] if regional else self._region)
        signed = signer.signed(
            credentials,
            "POST",
            parts.path,
            {"host": parts.netloc, "content-type": "application/json"},
            json.dumps(document, separators=(",", ":")).encode(),  # as `exchange` writes it
            self._clock.now_ms(),
        )
        headers = {**correlation(call.request_id, call.traceparent, action.action_id), **signed}
        return await self._http.exchange("POST", url, headers=headers, payload=document, deadline_ms=call.deadline_ms)

    def _failure(self, answer: Answer) -> Failure | None:
        """What the answer says went wrong. SES's code tells more than a status that says no."""
        failure = answer.failure(self._clock.now_ms(), self._definite_statuses)
        codes = aws_wire.codes_of(wire.Answer(answer.status, answer.headers, answer.body or b""))
        if failure is not None and failure.failure_class is FailureClass.AUTH_ERROR:
            return replace(_role_refused(answer.status, codes), answer=failure.answer)
        if failure is None or failure.may_have_happened or not codes:
            return failure
        detail = f"the provider answered {answer.status} ({codes[0]})"
        if not _LIMITED.isdisjoint(codes):
            limited = failure_of_status(429, detail=detail, retry_after_ms=failure.retry_after_ms)
            return replace(limited, answer=failure.answer)
        if "SendingPausedException" in codes:
            return Failure(
                FailureClass.TRANSIENT,
                "SENDING_PAUSED",
                detail,
                is_retryable=True,
                may_have_happened=False,
                status=answer.status,
                answer=failure.answer,
            )
        if not _NOT_ALLOWED.isdisjoint(codes):
            return replace(_unsendable("SENDER_NOT_ALLOWED", detail), status=answer.status, answer=failure.answer)
        if "MessageRejected" in codes:
            return replace(_unsendable("MESSAGE_REJECTED", detail), status=answer.status, answer=failure.answer)
        return replace(failure, detail=detail)


def is_address(text: str) -> bool:
    """Whether this is one email address and nothing else, as SES takes it: ASCII, without a name."""
    local, _, domain = text.rpartition("@")
    return (
        len(text) <= MAX_ADDRESS_LENGTH
        and bool(_ADDRESS.match(text))
        and not local.startswith(".")
        and not local.endswith(".")
        and ".." not in text
        and all(part and len(part) <= 63 and not part.startswith("-") for part in domain.split("."))
    )


def _refused(secret: IntegrationSecret) -> str:
    """What of the parameter cannot be used; empty if all can. Quotes nothing of it."""
    extra = secret.extra
    sender, reply_to = extra.get("from"), extra.get("reply_to", "")
    if secret.credential != BY_ROLE:
        return f"api_key is not {BY_ROLE}: SES is called as the function's role and with no key"
    if not isinstance(sender, str) or not is_address(named[1] if (named := _NAMED.match(sender)) else sender):
        return "from is missing or no address"
    if reply_to and not (isinstance(reply_to, str) and is_address(reply_to)):
        return "reply_to is no address"
    name = extra.get("configuration_set", "x")
    if not isinstance(name, str) or not _SET.match(name):
        return "configuration_set is no name"
    subject = extra.get("subject", "")
    if not isinstance(subject, str) or not subject.isprintable():
        return "subject is no line of text"
    return ""


def _content(text: str) -> dict[str, str]:
    return {"Data": text, "Charset": "UTF-8"}


def _id_of(answer: Answer) -> str:
    try:
        sent = _Sent.model_validate_json(answer.body or b"")
    except ValidationError:
        return ""
    return sent.MessageId if _MESSAGE_ID.match(sent.MessageId) else ""


def _no_contact(contact: str) -> Failure:
    if not contact:
        return _unsendable("NO_CONTACT", "the recipient has no address")
    return _unsendable("CONTACT_INVALID", "the recipient's address is none that can be written to")


def _role_refused(status: int, codes: Sequence[str]) -> Failure:
    """The function's own role was refused. SES's text names the sender's or the recipient's address: it is not kept."""
    is_denied = not codes or not _DENIED.isdisjoint(codes)
    what = (
        "the worker's own role lacks the permission ses:SendEmail on the sender's identity, or a policy denies it"
        if is_denied
        else "the session of the worker's own role, or its signature, was not accepted"
    )
    said = f"the provider answered {status}" + (f" ({codes[0]})" if codes else "")
    return Failure(
        FailureClass.AUTH_ERROR,
        "ROLE_NOT_PERMITTED" if is_denied else "ROLE_NOT_ACCEPTED",
        f"{said}: {what}",
        is_retryable=True,
        may_have_happened=False,
        status=status,
    )


def _unsendable(code: str, detail: str) -> Failure:
    return Failure(FailureClass.DATA_ERROR, code, detail, is_retryable=False, may_have_happened=False)
