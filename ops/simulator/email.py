"""A double of Amazon SES's `SendEmail`, API v2 (https://docs.aws.amazon.com/ses/latest/APIReference-V2/API_SendEmail.html).

Known: `POST /v2/email/outbound-emails`, signed for the service `ses`; an answer `{"MessageId"}`; errors by the header
`x-amzn-errortype` with `{"message"}`. There is no idempotency key: the same request again is another email. An address
of which SES knows nothing may be written from: only the domain `unverified.example` is not.

The signature's form is checked, not the signature: this double knows no secret. An effect's key is the tag `action_id`.
"""

from __future__ import annotations

import itertools
import re
from typing import Any

from ops.simulator.http import Call, Reply, Request, reply_json
from ops.simulator.record import Record

PROVIDER = "email"
PREFIX = "/ses/v2/"
MAX_RECIPIENTS = 50
_SIGNED = re.compile(
    r"AWS4-HMAC-SHA256 Credential=([^/, ]+)/[0-9]{8}/([a-z0-9-]+)/ses/aws4_request, "
    r"SignedHeaders=([a-z0-9;-]+), Signature=[0-9a-f]{64}\Z"
)


def _error(status: int, code: str, message: str) -> Reply:
    return reply_json(status, {"message": message}, {"x-amzn-errortype": f"{code}:http://internal.amazon.com/coral/"})


class Email:
    """Takes emails, and forgets them once they are on record. The caller holds the world's lock."""

    def __init__(self, record: Record) -> None:
        self._record = record
        self._numbers = itertools.count(1)
        self.accepted_keys: frozenset[str] | None = None

    def call(self, request: Request) -> Call | None:
        """What the request asks for, or None when it is not for this provider."""
        if not request.path.startswith(PREFIX):
            return None
        if (request.method, request.path) != ("POST", f"{PREFIX}email/outbound-emails"):
            return Call(PROVIDER, "unknown", "", lambda: _error(404, "NotFoundException", "no such operation"))
        document = request.json_object() or {}
        return Call(PROVIDER, "send", ",".join(_recipients(document)), lambda: self._guarded(request, document))

    def _guarded(self, request: Request, document: dict[str, Any]) -> Reply:
        signed = _SIGNED.match(request.headers.get("authorization", ""))
        if signed is None or not {"host", "x-amz-date"} <= set(signed[3].split(";")):
            return _error(403, "MissingAuthenticationTokenException", "Missing Authentication Token")
        if self.accepted_keys is not None and signed[1] not in self.accepted_keys:
            return _error(403, "UnrecognizedClientException", "The security token included in the request is invalid.")
        return self._send(request, document)

    def _send(self, request: Request, document: dict[str, Any]) -> Reply:
        recipients, sender = _recipients(document), str(document.get("FromEmailAddress", ""))
        simple = _at(document, "Content", "Simple")
        subject, text = _at(simple, "Subject").get("Data"), _at(simple, "Body", "Text").get("Data")
        if not recipients or len(recipients) > MAX_RECIPIENTS or not all("@" in one for one in recipients):
            return _error(400, "BadRequestException", f"Missing or illegal address among {recipients}")
        if not sender or not isinstance(subject, str) or not isinstance(text, str):
            return _error(400, "BadRequestException", "FromEmailAddress, Subject and Body are required")
        if sender.rstrip(">").endswith("@unverified.example"):
            return _error(400, "MessageRejected", f"Email address is not verified: {sender}")
        tags = {str(tag.get("Name")): str(tag.get("Value")) for tag in document.get("EmailTags", [])}
        message_id = f"0100{next(self._numbers):012x}-simulated-000000"
        for recipient in recipients:
            self._record.effect(
                request,
                provider=PROVIDER,
                kind="email",
                target=recipient,
                key=tags.get("action_id", ""),
                params=document,
                detail={"message_id": message_id, "subject": subject},
            )
        return reply_json(200, {"MessageId": message_id})


def _at(document: Any, *names: str) -> dict[str, Any]:
    """The object at that place; an empty one where there is none."""
    for name in names:
        document = document.get(name) if isinstance(document, dict) else None
    return document if isinstance(document, dict) else {}


def _recipients(document: dict[str, Any]) -> list[str]:
    found = _at(document, "Destination")
    lists = [found.get(name, []) for name in ("ToAddresses", "CcAddresses", "BccAddresses")]
    return [str(one) for several in lists if isinstance(several, list) for one in several]
