"""The handler that ingress is compared with, written as the Powertools documentation teaches.

Same work: verify a signature, enqueue, answer 202 with the event's id. It takes Powertools' resolver, logger, metrics,
parser and parameters (https://docs.aws.amazon.com/powertools/python/latest/), and a boto3 client that is made once,
outside the handler (https://docs.aws.amazon.com/lambda/latest/dg/best-practices.html). It does none of what else
ingress does: rotation, throttles, traces, identities, spill, claim checks.

It is bundled and compiled like ingress and never imported by anything but the benchmark's process.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from datetime import datetime
from typing import Any

import boto3
from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.event_handler import APIGatewayHttpResolver, Response, content_types
from aws_lambda_powertools.event_handler.exceptions import BadRequestError, UnauthorizedError
from aws_lambda_powertools.logging import correlation_paths
from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities import parameters
from aws_lambda_powertools.utilities.parser import BaseModel, parse
from aws_lambda_powertools.utilities.typing import LambdaContext

EVENTS_QUEUE_URL = os.environ["EVENTS_QUEUE_URL"]
SOURCES_PATH = os.environ["SOURCES_PATH"]

logger = Logger()
metrics = Metrics()
app = APIGatewayHttpResolver()
sqs = boto3.client("sqs")


class Ticket(BaseModel):
    """What a customer wrote about."""

    id: str
    subject: str
    text: str


class TicketEvent(BaseModel):
    """One webhook of the helpdesk."""

    event: str
    id: str
    ticket: Ticket
    author: str
    created_at: datetime


@app.post("/webhooks/<source>")
def receive(source: str) -> Response[dict[str, str]]:
    """Verify the signature over the raw body, enqueue, answer."""
    body = app.current_event.decoded_body or ""
    secret = parameters.get_parameter(f"{SOURCES_PATH}/{source}", decrypt=True, max_age=300)
    expected = hmac.new(secret.encode(), body.encode(), hashlib.sha256).hexdigest()
    if not hmac.compare_digest(expected, app.current_event.headers.get("x-signature", "")):
        metrics.add_metric(name="webhooks_rejected", unit=MetricUnit.Count, value=1)
        raise UnauthorizedError("The request could not be verified.")
    try:
        ticket_event = parse(event=app.current_event.json_body, model=TicketEvent)
    except ValueError as exc:  # not JSON, or not such an event
        raise BadRequestError("The request cannot be read.") from exc

    context = app.current_event.request_context
    event_id = f"{source}:{ticket_event.id}"
    attributes = {
        "event_name": ticket_event.event,
        "source": source,
        "request_id": context.request_id,
        "traceparent": app.current_event.headers.get("traceparent", ""),
    }
    sqs.send_message(
        QueueUrl=EVENTS_QUEUE_URL,
        MessageBody=body,
        MessageAttributes={
            **{name: {"DataType": "String", "StringValue": text} for name, text in attributes.items() if text},
            "received_at": {"DataType": "Number", "StringValue": str(context.time_epoch)},
        },
    )
    metrics.add_metric(name="webhooks_accepted", unit=MetricUnit.Count, value=1)
    logger.info("webhook accepted", extra={"event_id": event_id, "source": source, "event_name": ticket_event.event})
    return Response(
        status_code=202,
        content_type=content_types.APPLICATION_JSON,
        body={"event_id": event_id, "request_id": context.request_id},
    )


@logger.inject_lambda_context(correlation_id_path=correlation_paths.API_GATEWAY_HTTP)
@metrics.log_metrics(capture_cold_start_metric=True)
def lambda_handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """What Lambda calls."""
    return app.resolve(event, context)
