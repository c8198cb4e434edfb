"""A double of Twilio's Messages resource (https://www.twilio.com/docs/messaging/api/message-resource), API 2010-04-01.

Known, and where from: a message is made by a form with `To`, `Body` and `From` or `MessagingServiceSid`, and answered
with 201; there is no idempotency key, so that the same form again makes another one. The list is filtered by `To`,
newest first, and paged with `next_page_uri`. Errors are `{"code", "message", "more_info", "status"}`. The numbers with
a meaning are those of Twilio's test credentials (https://www.twilio.com/docs/iam/test-credentials). An account on trial
puts words before each text.

An effect's key is the reference at the end of the text, where there is one.
"""

from __future__ import annotations

import base64
import binascii
import itertools
import re
import time
from collections import deque
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any
from urllib.parse import parse_qsl, urlencode

from ops.simulator.http import Call, Reply, Request, reply_json
from ops.simulator.record import Record

PROVIDER = "sms"
PREFIX = "/twilio/2010-04-01/Accounts/"
MAX_MESSAGES = 50_000
TRIAL = "Sent from your Twilio trial account - "
_PATH = re.compile(re.escape(PREFIX) + r"(AC[0-9a-fA-F]{32})/Messages\.json\Z")
_NUMBER = re.compile(r"\+[1-9][0-9]{6,14}\Z")
_REFERENCE = re.compile(r"Ref ([0-9A-HJKMNP-TV-Z]{8})\Z")
_TO_ERRORS = {
    "+15005550001": (400, 21211, "The 'To' number +15005550001 is not a valid phone number."),
    "+15005550002": (400, 21612, "The message cannot be sent to +15005550002."),
    "+15005550003": (400, 21408, "Permission to send an SMS has not been enabled for +15005550003."),
    "+15005550004": (400, 21610, "Attempt to send to unsubscribed recipient +15005550004."),
    "+15005550009": (400, 21614, "'To' number +15005550009 is not a valid mobile number."),
}
_FROM_ERRORS = {
    "+15005550001": (400, 21212, "The 'From' number +15005550001 is not a valid phone number."),
    "+15005550008": (429, 21611, "This 'From' number has exceeded the maximum number of queued messages."),
}


def _error(status: int, code: int, message: str) -> Reply:
    more = f"https://www.twilio.com/docs/errors/{code}"
    return reply_json(status, {"code": code, "message": message, "more_info": more, "status": status})


class Sms:
    """The messages, and the API on them. The caller holds the world's lock."""

    def __init__(self, record: Record) -> None:
        self._record = record
        self._messages: deque[dict[str, Any]] = deque(maxlen=MAX_MESSAGES)
        self._numbers = itertools.count(1)
        self.accepted_keys: frozenset[str] | None = None
        self.is_on_trial = False

    def call(self, request: Request) -> Call | None:
        """What the request asks for, or None when it is not for this provider."""
        if not request.path.startswith(PREFIX):
            return None
        found = _PATH.match(request.path)
        if found is None or request.method not in ("GET", "POST"):
            return Call(PROVIDER, "unknown", "", lambda: _error(404, 20404, "The requested resource was not found"))
        account = found[1]
        if request.method == "GET":
            target = request.query.get("To", "")
            return Call(PROVIDER, "list", target, lambda: self._guarded(request, lambda: self._list(request, account)))
        form = dict(parse_qsl(request.body.decode("utf-8", "replace"), keep_blank_values=True))
        return Call(
            PROVIDER,
            "send",
            form.get("To", ""),
            lambda: self._guarded(request, lambda: self._send(request, account, form)),
        )

    def messages(self, to: str) -> list[dict[str, Any]]:
        """The messages to that number, the newest first."""
        return [message for message in self._messages if message["to"] == to]

    def change(self, to: str, change: dict[str, Any]) -> list[dict[str, Any]]:
        """What happens to every message to that number afterwards: `status`, `error_code`, `body` (null: redacted)."""
        found = self.messages(to)
        for message in found:
            message |= {name: change[name] for name in ("status", "error_code", "body") if name in change}
        return found

    def _guarded(self, request: Request, perform: Any) -> Reply:
        scheme, _, proof = request.headers.get("authorization", "").partition(" ")
        try:
            _, _, key = base64.b64decode(proof, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            key = ""
        if scheme != "Basic" or not key or (self.accepted_keys is not None and key not in self.accepted_keys):
            return _error(401, 20003, "Authenticate")
        reply: Reply = perform()
        return reply

    def _send(self, request: Request, account: str, form: dict[str, str]) -> Reply:
        if not request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
            return _error(400, 21604, "A 'To' phone number is required.")
        to, body = form.get("To", ""), form.get("Body", "")
        sender, service = form.get("From", ""), form.get("MessagingServiceSid", "")
        if not to:
            return _error(400, 21604, "A 'To' phone number is required.")
        if not body:
            return _error(400, 21602, "Message body is required.")
        if len(body) > 1600:
            return _error(400, 21617, "The concatenated message body exceeds the 1600 character limit.")
        if not sender and not service:
            return _error(400, 21603, "A 'From' phone number is required.")
        if not _NUMBER.match(to):
            return _error(400, 21211, f"The 'To' number {to} is not a valid phone number.")
        for known, number in ((_TO_ERRORS, to), (_FROM_ERRORS, sender)):
            if number in known:
                return _error(*known[number])
        now = format_datetime(datetime.fromtimestamp(time.time(), UTC))
        reference = _REFERENCE.search(body)
        message = {
            "sid": f"SM{next(self._numbers):032x}",
            "account_sid": account,
            "api_version": "2010-04-01",
            "body": (TRIAL if self.is_on_trial else "") + body,
            "date_created": now,
            "date_sent": None,
            "date_updated": now,
            "direction": "outbound-api",
            "error_code": None,
            "error_message": None,
            "from": sender or None,
            "messaging_service_sid": service or None,
            "num_media": "0",
            "num_segments": "1",
            "price": None,
            "price_unit": "USD",
            "status": "queued",
            "to": to,
        }
        self._messages.appendleft(message)
        self._record.effect(
            request,
            provider=PROVIDER,
            kind="sms",
            target=to,
            key=reference[1] if reference else "",
            params=form,
            detail={"sid": str(message["sid"])},
        )
        return reply_json(201, message)

    def _list(self, request: Request, account: str) -> Reply:
        query = request.query
        size = min(max(int(query.get("PageSize", "50")), 1), 1000) if query.get("PageSize", "50").isdecimal() else 50
        page = int(query["Page"]) if query.get("Page", "").isdecimal() else 0
        if page and not query.get("PageToken"):
            return _error(400, 20001, "PageToken is required")
        found = [
            message
            for message in self._messages
            if message["account_sid"] == account and query.get("To", message["to"]) == message["to"]
        ]
        shown = found[page * size : (page + 1) * size]
        further = None
        if (page + 1) * size < len(found):
            asked = {**query, "Page": str(page + 1), "PageToken": f"PA{shown[-1]['sid']}"}
            further = f"/2010-04-01/Accounts/{account}/Messages.json?{urlencode(asked)}"
        return reply_json(200, {"messages": shown, "page": page, "page_size": size, "next_page_uri": further})
