"""An AWS request, understood as far as a fault needs it: which operation it is, and how its service refuses one.

Formats: DynamoDB, SQS and SSM speak AWS's JSON protocol, S3 REST with XML, SNS and others the query protocol
(https://smithy.io/2.0/aws/protocols/index.html). Error codes: each service's API reference, "Common Errors" and
"Error Retries and Exponential Backoff".
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any
from urllib.parse import parse_qs, urlsplit


class Way(StrEnum):
    """How a call goes wrong. Whether it was carried out is part of it."""

    THROTTLED = "throttled"  # refused before it was done, as too many
    ERROR = "error"  # a 5xx before it was done
    RESET = "reset"  # the connection is reset before it was done
    SILENT = "silent"  # not done, and never answered
    ERROR_AFTER = "error_after"  # done, and answered with a 5xx all the same
    DROPPED = "dropped"  # done, and the connection is reset instead of an answer
    LATE = "late"  # done, and answered after its caller has given up
    BELATED = "belated"  # done only after its caller has given up, and perhaps asked again
    SLOW = "slow"  # done after a pause that its caller still bears
    CONFLICT = "conflict"  # a transaction is cancelled because of another one
    UNPROCESSED = "unprocessed"  # some keys of a batch were not read
    PARTLY = "partly"  # some messages of a batch were not accepted, as far as the answer tells


ONLY_FOR: Mapping[Way, str] = {
    Way.CONFLICT: "TransactWriteItems",
    Way.UNPROCESSED: "BatchGetItem",
    Way.PARTLY: "SendMessageBatch",
}
"""Ways that only one operation knows."""

TIMEOUTS = frozenset({Way.SILENT, Way.LATE, Way.BELATED})
"""Ways in which a caller waits in vain until it gives up."""

_SCOPE = re.compile(r"Credential=[^/]+/\d{8}/[^/]+/([a-z0-9-]+)/aws4_request")
_THROTTLED = {
    "dynamodb": ("ThrottlingException", "ProvisionedThroughputExceededException", "RequestLimitExceeded"),
    "sqs": ("RequestThrottled",),
    "ssm": ("ThrottlingException",),
    "s3": ("SlowDown",),
}
_ERROR = {
    "dynamodb": "InternalServerError",
    "sqs": "InternalError",
    "ssm": "InternalServerError",
    "s3": "InternalError",
}


@dataclass(frozen=True, slots=True)
class Operation:
    """Which operation of which service, and in what format it is answered: `json`, `xml` (S3) or `query`."""

    service: str
    name: str
    protocol: str

    @property
    def label(self) -> str:
        """As it is counted."""
        return f"{self.service}.{self.name}"


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer of a service. Header names are lower-case; the length is added by whoever sends it."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def operation_of(method: str, target: str, headers: Mapping[str, str], body: bytes) -> Operation:
    """What a signed request asks for; an unsigned one is of the service `unknown`."""
    scope = _SCOPE.search(headers.get("authorization", ""))
    service = scope[1] if scope else "unknown"
    if "x-amz-target" in headers:
        return Operation(service, headers["x-amz-target"].rpartition(".")[2], "json")
    if service == "s3":
        return Operation(service, _s3_operation(method, target), "xml")
    if headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
        return Operation(service, parse_qs(body.decode("latin-1")).get("Action", ["unknown"])[0], "query")
    return Operation(service, f"{method} {urlsplit(target).path.split('/')[1]}", "json")


def _s3_operation(method: str, target: str) -> str:
    parts = urlsplit(target)
    if not parts.path.strip("/").partition("/")[2]:
        return "ListObjectsV2" if method == "GET" else f"{method}Bucket"
    return {"GET": "GetObject", "PUT": "PutObject", "DELETE": "DeleteObject", "HEAD": "HeadObject"}.get(method, method)


def refusal(way: Way, operation: Operation, body: bytes, chance: random.Random) -> Answer:
    """The answer by which the service refuses this request in that way. Raises ValueError for a way without one."""
    match way:
        case Way.THROTTLED:
            code = chance.choice(_THROTTLED.get(operation.service, ("ThrottlingException",)))
            return _error(operation, 503 if operation.protocol == "xml" else 400, code, "Rate exceeded")
        case Way.ERROR | Way.ERROR_AFTER:
            return _error(operation, 500, _ERROR.get(operation.service, "InternalFailure"), "An error of the service")
        case Way.CONFLICT:
            return _conflict(operation, len(json.loads(body)["TransactItems"]), chance)
        case _:
            raise ValueError(f"{way} is no refusal")


def _error(operation: Operation, status: int, code: str, message: str, **fields: Any) -> Answer:
    if operation.protocol == "xml":
        text = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message}</Message></Error>"
        return Answer(status, {"content-type": "application/xml"}, text.encode())
    if operation.protocol == "query":
        text = f"<ErrorResponse><Error><Type>Sender</Type><Code>{code}</Code><Message>{message}</Message></Error>"
        return Answer(status, {"content-type": "text/xml"}, f"{text}</ErrorResponse>".encode())
    document = {"__type": f"com.amazonaws.{operation.service}#{code}", "message": message, **fields}
    return Answer(status, {"content-type": "application/x-amz-json-1.0"}, json.dumps(document).encode())


def _conflict(operation: Operation, size: int, chance: random.Random) -> Answer:
    culprit = chance.randrange(size)
    reasons = [{"Code": "TransactionConflict" if index == culprit else "None"} for index in range(size)]
    codes = ", ".join(reason["Code"] for reason in reasons)
    return _error(
        operation,
        400,
        "TransactionCanceledException",
        f"Transaction cancelled, please refer cancellation reasons for specific reasons [{codes}]",
        CancellationReasons=reasons,
    )


def unprocessed(request: bytes, answer: Answer, chance: random.Random) -> Answer:
    """A BatchGetItem's answer with a share of the keys, at least one, left unread."""
    if answer.status != 200:
        return answer
    document, asked = json.loads(answer.body), json.loads(request)["RequestItems"]
    keys = [(table, key) for table, wanted in asked.items() for key in wanted["Keys"]]
    left = chance.sample(keys, chance.randint(1, len(keys)))
    again: dict[str, Any] = document.setdefault("UnprocessedKeys", {})
    for table, key in left:
        found = document["Responses"].get(table, [])
        document["Responses"][table] = [item for item in found if not _bears(item, key)]
        again.setdefault(table, {**asked[table], "Keys": []})["Keys"].append(key)
    return _changed(answer, document)


def _bears(item: Mapping[str, Any], key: Mapping[str, Any]) -> bool:
    return all(item.get(name) == value for name, value in key.items())


def all_refused(request: bytes) -> Answer:
    """A SendMessageBatch of which nothing was accepted."""
    failed = [_failed(entry["Id"]) for entry in json.loads(request)["Entries"]]
    body = json.dumps({"Successful": [], "Failed": failed}).encode()
    return Answer(200, {"content-type": "application/x-amz-json-1.0"}, body)


def partly_refused(answer: Answer, chance: random.Random) -> Answer:
    """A SendMessageBatch's answer which says of a share of the messages, at least one, that they were not accepted."""
    if answer.status != 200:
        return answer
    document = json.loads(answer.body)
    sent = document.get("Successful", [])
    if not sent:
        return answer
    chosen = {entry["Id"] for entry in chance.sample(sent, chance.randint(1, len(sent)))}
    document["Successful"] = [entry for entry in sent if entry["Id"] not in chosen]
    document["Failed"] = [*document.get("Failed", []), *map(_failed, sorted(chosen))]
    return _changed(answer, document)


def _failed(entry_id: str) -> dict[str, Any]:
    return {"Id": entry_id, "SenderFault": False, "Code": "InternalError", "Message": "An error of the service"}


def _changed(answer: Answer, document: Any) -> Answer:
    """With another body, and without the checksums of the first."""
    kept = {
        name: value for name, value in answer.headers.items() if not name.startswith(("x-amz-crc", "x-amz-checksum"))
    }
    return Answer(answer.status, kept, json.dumps(document).encode())


def error_code(answer: Answer) -> str:
    """The code of an error that a service answered; empty for a success."""
    if answer.status < 400:
        return ""
    xml = re.search(rb"<Code>([^<]{1,100})</Code>", answer.body)
    if xml:
        return xml[1].decode("latin-1")
    try:
        said = json.loads(answer.body).get("__type", "")
    except (ValueError, AttributeError):
        said = answer.headers.get("x-amzn-errortype", "")
    return str(said).rpartition("#")[2].partition(":")[0] or f"HTTP {answer.status}"
