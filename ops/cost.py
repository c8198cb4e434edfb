"""`make cost`: what watching costs a month, and what a million events cost, in US$ at list prices of us-east-1.

The first is computed from the stage's template (alarms, composites, dashboards) and from what the code of the functions
counts (custom metrics). The second is computed from the AWS requests of one event, which tests count with hooks in the
SDK (`tests/integration/test_requests_per_event.py` holds the numbers here against the real ones). No bill of AWS stands
behind these figures.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from functions.catalog.loader import load
from functions.core.decision import DecidedBy
from functions.ingress.answers import Rejection
from ops.alarms.counted import SERVICES, metrics_of
from ops.stack import ROOT

INTEGRATIONS: Final = 10

# List prices, us-east-1, as of November 2026: aws.amazon.com/{cloudwatch,lambda,sqs,dynamodb,api-gateway}/pricing.
ALARM_METRIC: Final = 0.10  # per metric that an alarm watches, a month
COMPOSITE: Final = 0.50
CUSTOM_METRIC: Final = 0.30  # up to 10,000; a metric that is counted in some hours only costs those
DASHBOARD: Final = 3.00
LOGS_PER_GB: Final = 0.50
API_PER_MILLION: Final = 1.00
LAMBDA_PER_MILLION: Final = 0.20
LAMBDA_PER_GB_SECOND: Final = 0.0000133334  # arm64
SQS_PER_MILLION: Final = 0.50  # with fair queues
WRITES_PER_MILLION: Final = 0.625  # of DynamoDB, on demand, a unit of 1 KB
READS_PER_MILLION: Final = 0.125  # a unit of 4 KB

OUTCOMES: Final = 4  # told apart by outcome or reason where the code does not say how many there are
PROVIDERS: Final = 5  # kinds of senders
KNOWN_VALUES: Final[Mapping[tuple[str, str], int]] = {
    ("webhooks_rejected", "reason"): len(Rejection),
    ("decisions_made", "outcome"): len(DecidedBy),
    ("classifier_fallbacks", "outcome"): len(DecidedBy),
    ("duties_failed", "reason"): 2,
    ("idempotency_duplicates_detected", "reason"): 3,
}

# Of the table that follows, per event of a full batch of ten. Held against counted requests by a test.
BATCH: Final = 10
LEDGER_WRITES: Final = 2.0  # claim and settle
SHARED_WRITES: Final = 0.4  # counts of calls and the limiter, two integrations: four a batch
READ_REQUESTS: Final = 0.1  # one batched read
INDEX_ENTRIES: Final = 3  # of a ledger item: by request, by ticket, by recipient; written with the claim
READ_UNITS: Final = 2.0  # its item, and its share of states, rules and switches
SEND_REQUESTS: Final = 1.0  # by ingress

# Measured on one machine, or assumed: said so in what is printed.
INGRESS_GB_SECONDS: Final = 1769 / 1024 * 0.012
WORKER_GB_SECONDS: Final = 512 / 1024 * 2.0 / BATCH
LOG_BYTES: Final = 1_500


@dataclass(frozen=True, slots=True)
class Part:
    """One line of a bill."""

    what: str
    number: float
    price: float
    how: str

    @property
    def dollars(self) -> float:
        """Number times price."""
        return self.number * self.price


def monitoring(template: Mapping[str, Any], integrations: int = INTEGRATIONS) -> list[Part]:
    """What watching a stage costs a month, by its CloudFormation template. Custom metrics: at most."""
    resources = list(template["Resources"].values())
    alarms = [each["Properties"] for each in resources if each["Type"] == "AWS::CloudWatch::Alarm"]
    watched = sum(
        sum("MetricStat" in metric for metric in alarm["Metrics"]) if "Metrics" in alarm else 1 for alarm in alarms
    )
    composites = sum(each["Type"] == "AWS::CloudWatch::CompositeAlarm" for each in resources)
    dashboards = sum(each["Type"] == "AWS::CloudWatch::Dashboard" for each in resources)
    kept = custom_metrics(integrations)
    return [
        Part("alarms", watched, ALARM_METRIC, f"{len(alarms)} alarms on {watched} metrics"),
        Part("composite alarms", composites, COMPOSITE, "each over two windows"),
        Part("dashboards", dashboards, DASHBOARD, "the first three of an account are free"),
        Part(
            "custom metrics",
            sum(kept.values()),
            CUSTOM_METRIC,
            f"{len(kept)} names, {integrations} integrations; at most: an hour costs what was counted in it",
        ),
    ]


def custom_metrics(integrations: int = INTEGRATIONS) -> dict[tuple[str, str], int]:
    """How many metrics CloudWatch keeps at most of each that is counted, by function and name."""
    flows = len(load().flows)
    cardinality = {"integration": integrations, "provider": PROVIDERS, "flow": flows, "event_name": OUTCOMES}
    kept: dict[tuple[str, str], int] = {}
    for service in ("ingress", *SERVICES):
        for metric, dimensions in metrics_of(service):
            number = 1
            for dimension in dimensions - {"service", "stage"}:
                number *= KNOWN_VALUES.get((metric, dimension), cardinality.get(dimension, OUTCOMES))
            kept[service, metric] = kept.get((service, metric), 0) + number
    return kept


def per_million() -> list[Part]:
    """What a million events cost that were decided by rules and led to two actions each."""
    writes = LEDGER_WRITES + SHARED_WRITES + INDEX_ENTRIES
    return [
        Part("front door", 1, API_PER_MILLION, "HTTP API, one request"),
        Part("ingress", 1, LAMBDA_PER_MILLION + INGRESS_GB_SECONDS * 1e6 * LAMBDA_PER_GB_SECOND, "12 ms of one vCPU"),
        Part("queue", SEND_REQUESTS + 2 / BATCH, SQS_PER_MILLION, "sent alone; received and deleted in tens"),
        Part(
            "worker",
            1,
            LAMBDA_PER_MILLION / BATCH + WORKER_GB_SECONDS * 1e6 * LAMBDA_PER_GB_SECOND,
            "tens, side by side, in 2 s at 512 MB (assumed)",
        ),
        Part("writes", writes, WRITES_PER_MILLION, "claim, settle, index entries; a batch shares health and limits"),
        Part("reads", READ_UNITS, READS_PER_MILLION, f"in {READ_REQUESTS:g} requests"),
        Part("logs", LOG_BYTES * 1e6 / 1e9, LOGS_PER_GB, f"{LOG_BYTES} bytes an event (assumed)"),
    ]


def template_of(stage: str) -> dict[str, Any]:
    """The stage's CloudFormation template, made in this process without bundling anything."""
    from aws_cdk import App  # noqa: PLC0415  # only who asks what it costs waits for it
    from aws_cdk import aws_lambda as lambda_  # noqa: PLC0415  # as above

    from infra.config import STAGES  # noqa: PLC0415  # as above
    from infra.stack import HoldfastStack  # noqa: PLC0415  # as above

    context = json.loads((ROOT / "cdk.json").read_text())["context"]
    with tempfile.TemporaryDirectory() as directory:
        app = App(context=context, outdir=directory)
        stack = HoldfastStack(
            app, config=STAGES[stage], code_for=lambda name: lambda_.Code.from_inline(f"# the bundle of {name}")
        )
        made: dict[str, Any] = app.synth().get_stack_by_name(stack.stack_name).template
    return made


def _table(title: str, parts: Sequence[Part]) -> Table:
    table = Table(title=title, title_justify="left", show_footer=True)
    table.add_column("part", footer="total")
    table.add_column("number", justify="right")
    table.add_column("US$ each", justify="right")
    table.add_column("US$", justify="right", footer=f"{total(parts):.2f}")
    table.add_column("how")
    for part in parts:
        table.add_row(part.what, f"{part.number:g}", f"{part.price:.3g}", f"{part.dollars:.2f}", part.how)
    return table


def total(parts: Iterable[Part]) -> float:
    """All of them together."""
    return sum(part.dollars for part in parts)


def main(argv: list[str] | None = None) -> int:
    """Entry point of `python -m ops.cost`."""
    parser = argparse.ArgumentParser(prog="ops.cost", description="What watching costs, and what events cost.")
    parser.add_argument("--stage", default="prod")
    parser.add_argument("--integrations", type=int, default=INTEGRATIONS)
    parser.add_argument("--json", action="store_true", help="machine-readable")
    options = parser.parse_args(argv)
    watching = monitoring(template_of(options.stage), options.integrations)
    events = per_million()
    if options.json:
        said = {
            name: {"total": round(total(parts), 2), "parts": {part.what: round(part.dollars, 4) for part in parts}}
            for name, parts in (("monitoring_per_month", watching), ("per_million_events", events))
        }
        print(json.dumps(said, indent=2))
        return 0
    console = Console()
    console.print(_table(f"Monitoring of {options.stage}, a month, {options.integrations} integrations", watching))
    console.print(_table("A million events, two actions each", events))
    return 0


if __name__ == "__main__":
    sys.exit(main())
