"""What people are told of by themselves: every alarm, as data. Pure.

One row is one symptom. Infra makes the CloudWatch alarms and topics from this table, the pager reads from it how grave
an alarm is and which page helps, and the local stage computes the same expressions by itself. A row needs nothing but
metrics that some function counts (`tests/infra/test_alarms.py` holds both sides together), and every row has a section
of its own on the page that it names.

Rules that the rows keep:

- A ratio has a minimum count in its expression: two failures of three events at night wake nobody.
- An idle series has no datapoints, and a sum or a difference with a gap in it is a gap: the alarm would be blind just
  then, and in place of a period without a value CloudWatch looks at an older one, so that what is over would fire on.
  `SUM([a, TIME_SERIES(0)])` is `a` with 0 in its gaps, also where it has nothing but gaps, of which `FILL`
  promises nothing. A period without any data breaches nothing, except where silence is the symptom.
- A dead-letter queue is watched by what it holds, waiting and in flight. SQS's count of messages sent there does not
  move when SQS itself moves them, and a consumer that takes and fails for ever must not look like an empty queue.
- SQS hides the age of a message that was received three times. The worker measures how old what it receives is.
- CloudWatch adds up no dimensions in an alarm: a metric that is counted by integration or flow is watched by the total
  that `functions.observability.TOTALS` makes of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final

HOLDFAST: Final = "Holdfast"
SQS: Final = "AWS/SQS"
LAMBDA: Final = "AWS/Lambda"
API: Final = "AWS/ApiGateway"
DYNAMODB: Final = "AWS/DynamoDB"
SNS: Final = "AWS/SNS"

ON_CALL: Final = "on-call"
"""The group of alarms on those who would tell: infra lets them speak to people directly, past the pager."""

STAGE: Final = "{stage}"
"""In a dimension's value: the name of the stage. Infra puts it in."""


class Sev(StrEnum):
    """How grave it is. The clocks of each stand in `functions.core.incident`."""

    SEV0 = "SEV0"
    """Customers get wrong, unsafe or doubled messages, or something is proven lost."""
    SEV1 = "SEV1"
    """A core flow is down, or nobody would notice if it were."""
    SEV2 = "SEV2"
    """A major part is degraded for some."""
    SEV3 = "SEV3"
    """Minor; it can wait for the morning."""


class Audience(StrEnum):
    """Who is told. With the severity it names the topic."""

    OPS = "ops"
    CAMPAIGN = "campaign"
    COMPLIANCE = "compliance"
    ML = "ml"


@dataclass(frozen=True, slots=True)
class Series:
    """One metric as CloudWatch keeps it.

    Values of `dimensions` are symbolic where only a deploy knows the real ones: a queue, function, table or topic goes
    by its short name (`events-dlq`, `worker`, `LedgerTable`, `SEV1-ops`), the API by `api`, and `STAGE` stands for the
    stage. `statistic` is CloudWatch's word (`Sum`, `Maximum`, `p99`).
    """

    metric: str
    namespace: str
    dimensions: Mapping[str, str]
    statistic: str
    period_seconds: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Alarm:
    """One symptom, and who is told of it how.

    It fires while `expression` (CloudWatch's metric math over the ids of `series`) compares with `threshold` as
    `comparison` says in at least `datapoints` of the last `periods` periods. A period without a value counts as
    `missing` says. With `also_over_seconds` the same must hold over one period of that length too: a composite.

    Alarms of one `group` that fire together are one incident. `is_page` is false for a ticket. `copies` are told like
    `audience`. `flow` names the flow that brings the row, empty for those of the platform. `never_suppressed` alarms
    speak during planned work too. With `is_moment` it tells of what has happened, not of how things are: that it is
    quiet a minute later ends no incident that nobody has looked at.
    """

    name: str
    says: str
    sev: Sev
    audience: Audience = Audience.OPS
    copies: tuple[Audience, ...] = ()
    owner: str = "ops"
    group: str
    is_page: bool = True
    series: Mapping[str, Series]
    expression: str
    comparison: str = "GreaterThanThreshold"
    threshold: float
    periods: int
    datapoints: int
    missing: str = "notBreaching"
    also_over_seconds: int = 0
    flow: str = ""
    never_suppressed: bool = False
    is_moment: bool = False

    @property
    def page(self) -> str:
        """Where under `docs/runbooks` it says what to do."""
        return f"alarms.md#{self.name}"

    @property
    def period_seconds(self) -> int:
        """The period that all of its series share."""
        return next(iter(self.series.values())).period_seconds

    @property
    def topics(self) -> tuple[tuple[Sev, Audience], ...]:
        """The topics that it speaks to."""
        return tuple((self.sev, audience) for audience in (self.audience, *self.copies))


# --------------------------------------------------------------------------------------------------- words of the table


def _counted(service: str, metric: str, seconds: int = 60, statistic: str = "Sum", **dimensions: str) -> Series:
    """What a function counts through `functions.observability`."""
    return Series(
        metric, HOLDFAST, MappingProxyType({"service": service, "stage": STAGE, **dimensions}), statistic, seconds
    )


def _of_the_stage(metric: str, seconds: int = 60, statistic: str = "Sum", **dimensions: str) -> Series:
    """What is told apart by the stage alone: what ingress counts, and what every function counts as one."""
    return Series(metric, HOLDFAST, MappingProxyType({"stage": STAGE, **dimensions}), statistic, seconds)


def _queue(queue: str, metric: str, seconds: int = 60) -> Series:
    return Series(metric, SQS, MappingProxyType({"QueueName": queue}), "Maximum", seconds)


def _api(metric: str, seconds: int = 60, statistic: str = "Sum") -> Series:
    """Of the whole HTTP API: operators' calls are among them, and next to senders' they are few."""
    return Series(metric, API, MappingProxyType({"ApiId": "api", "Stage": "$default"}), statistic, seconds)


def _function(function: str, metric: str, seconds: int = 60) -> Series:
    return Series(metric, LAMBDA, MappingProxyType({"FunctionName": function}), "Sum", seconds)


def _held(queue: str) -> dict[str, Series]:
    """What a queue holds: its messages that wait and that somebody is working on."""
    return {
        "visible": _queue(queue, "ApproximateNumberOfMessagesVisible"),
        "in_flight": _queue(queue, "ApproximateNumberOfMessagesNotVisible"),
    }


def _or_0(*ids: str) -> str:
    """The sum of the series, each 0 where it has no datapoint."""
    return f"SUM([{', '.join(ids)}, TIME_SERIES(0)])"


_HELD: Final = "SUM([visible, in_flight])"
PEOPLE: Final = "oncall"
"""The topic that people subscribe, among the short names of topics."""

_LOUD_TOPICS: Final = (
    "SEV0-ops",
    "SEV0-compliance",
    "SEV1-ops",
    "SEV1-campaign",
    "SEV2-ops",
    "SEV2-campaign",
    "SEV2-ml",
    PEOPLE,
)
"""Those that alarms which page speak to, and the one that their pages go to."""

_TABLES: Final = ("LedgerTable", "RecoveryTable", "AuditTable", "ControlTable", "RecipientsTable")


def _not_drained(queue: str, poison: str) -> Alarm:
    return Alarm(
        name=f"{queue}-not-drained",
        says=f"Triage is broken: poison {poison} have waited for it for five minutes",
        sev=Sev.SEV2,
        group="triage",
        series=_held(queue),
        expression=_HELD,
        threshold=0,
        periods=5,
        datapoints=5,
        never_suppressed=True,
    )


def _heartbeat(function: str, consequence: str, group: str = "heartbeats") -> Alarm:
    return Alarm(
        name=f"{function}-missing",
        says=f"The {function} has not come to its end for three minutes: {consequence}",
        sev=Sev.SEV1,
        group=group,
        series={"beats": _counted(function, "heartbeat")},
        expression="beats",
        comparison="LessThanThreshold",
        threshold=1,
        periods=3,
        datapoints=3,
        missing="breaching",
        never_suppressed=True,
    )


def _door_burn(name: str, says: str, sev: Sev, *, seconds: int, also_over_seconds: int, times: float) -> Alarm:
    """The error budget of one in a thousand (an answer other than 5xx within 1.5 s) goes `times` as fast as it may."""
    return Alarm(
        name=name,
        says=says,
        sev=sev,
        group="intake",
        series={
            "failed": _api("5xx", seconds),
            "late": _of_the_stage("webhooks_late", seconds),
            "asked": _api("Count", seconds),
        },
        # Five at least: of a few requests a single one is more than the budget.
        expression=f"IF({_or_0('failed', 'late')} >= 5, {_or_0('failed', 'late')} / asked, 0)",
        threshold=round(times * 0.001, 6),
        periods=1,
        datapoints=1,
        also_over_seconds=also_over_seconds,
    )


# ------------------------------------------------------------------------------------------------------------ the table

ALARMS: Final[tuple[Alarm, ...]] = (
    # ----------------------------------------------------------------------------------------------- customers, at once
    Alarm(
        name="reply-storm",
        says="More automatic replies leave than the webhooks that came in could have asked for",
        sev=Sev.SEV0,
        copies=(Audience.COMPLIANCE,),
        owner="incident_lead",
        group="replies",
        series={
            "sent": _counted("worker", "auto_reply_sent", 300),
            "released": _counted("worker", "auto_reply_released", 300),
            "accepted": _of_the_stage("webhooks_accepted", 300),
        },
        # An event is answered once at most. Those that waited for a provider, a limit or a switch are taken out; twice,
        # because what waited in a queue is answered together with what is new. And in two windows: one may begin
        # between the last webhooks of a rush and their replies, and would have replies to nothing in it. It turns
        # replies off for good, so that what is no storm must not look like one.
        expression=(
            f"IF({_or_0('sent')} - {_or_0('released')} >= 10, "
            f"({_or_0('sent')} - {_or_0('released')}) / MAX([accepted, TIME_SERIES(1)]), 0)"
        ),
        threshold=2,
        periods=3,
        datapoints=2,
        never_suppressed=True,
    ),
    Alarm(
        name="effects-doubled",
        says="One effect has come about twice: a provider shows both",
        sev=Sev.SEV0,
        copies=(Audience.COMPLIANCE,),
        owner="incident_lead",
        group="replies",
        series={"doubled": _counted("worker", "effects_doubled")},
        expression="doubled",
        threshold=0,
        periods=1,
        datapoints=1,
        never_suppressed=True,
        is_moment=True,
    ),
    Alarm(
        name="replies-capped",
        says="Conversations reach the cap of automatic messages: we and somebody else's machine answer each other",
        sev=Sev.SEV1,
        owner="incident_lead",
        group="replies",
        series={"capped": _counted("worker", "automatic_capped", 300)},
        expression="capped",
        comparison="GreaterThanOrEqualToThreshold",
        threshold=10,
        periods=2,
        datapoints=2,
    ),
    Alarm(
        name="duplicate-storm",
        says="Most of what comes in was here before: a sender, or something of ours, sends everything again",
        sev=Sev.SEV2,
        group="replies",
        series={
            "repeats": _counted("worker", "idempotency_duplicates_detected", 300),
            "decisions": _counted("worker", "decisions_made", 300),
        },
        expression=f"IF({_or_0('repeats')} >= 50, {_or_0('repeats')} / SUM([repeats, decisions]), 0)",
        threshold=0.5,
        periods=3,
        datapoints=2,
    ),
    # ----------------------------------------------------------------------------------------------------------- intake
    _door_burn(
        "ingress-failing",
        "Senders are answered with 5xx or too late, so often that the month's error budget is gone in two days",
        Sev.SEV1,
        seconds=300,
        also_over_seconds=3_600,
        times=14.4,
    ),
    _door_burn(
        "ingress-failing-slowly",
        "Senders are answered with 5xx or too late, so often that the month's error budget is gone in five days",
        Sev.SEV2,
        seconds=1_800,
        also_over_seconds=21_600,
        times=6,
    ),
    Alarm(
        name="webhook-not-stored",
        says="At least one request was answered with 5xx: its sender has to send it again",
        sev=Sev.SEV3,
        group="intake",
        is_page=False,
        series={"failed": _api("5xx")},
        expression="failed",
        threshold=0,
        periods=1,
        datapoints=1,
    ),
    Alarm(
        name="ack-slow",
        says="One answer to a sender in a hundred takes longer than 1.5 seconds",
        sev=Sev.SEV3,
        group="intake",
        is_page=False,
        series={
            "p99": _of_the_stage("ack_ms", statistic="p99"),
            "answered": _of_the_stage("ack_ms", statistic="SampleCount"),
        },
        expression="IF(answered >= 20, p99, 0)",
        threshold=1_500,
        periods=5,
        datapoints=5,
    ),
    Alarm(
        name="spill-not-drained",
        says="Accepted events have waited outside the events queue for five minutes",
        sev=Sev.SEV2,
        group="intake",
        series={"left": _counted("sweeper", "spill_left", statistic="Maximum")},
        expression="left",
        threshold=0,
        periods=5,
        datapoints=5,
        never_suppressed=True,
    ),
    Alarm(
        name="source-silent",
        says="A source has sent nothing for longer than it ever should",
        sev=Sev.SEV2,
        group="sources",
        series={"silent": _counted("evaluator", "sources_silent", statistic="Maximum")},
        expression="silent",
        threshold=0,
        periods=3,
        datapoints=3,
    ),
    Alarm(
        name="source-malformed",
        says="A source's parameter cannot be read: what it sends is judged by its last readable entry, or refused",
        sev=Sev.SEV2,
        group="sources",
        series={"malformed": _of_the_stage("source_malformed")},
        expression="malformed",
        threshold=0,
        periods=5,
        datapoints=3,
    ),
    Alarm(
        name="signatures-refused",
        says="A quarter of all deliveries has a bad signature: a secret was changed on one side, or somebody probes us",
        sev=Sev.SEV3,
        group="sources",
        is_page=False,
        series={
            "refused": _of_the_stage("webhooks_rejected", 300, reason="bad_signature"),
            "accepted": _of_the_stage("webhooks_accepted", 300),
        },
        expression=f"IF(SUM([refused, accepted]) >= 50, {_or_0('refused')} / SUM([refused, accepted]), 0)",
        threshold=0.25,
        periods=2,
        datapoints=2,
    ),
    Alarm(
        name="synthetic-missing",
        says="No event that we send ourselves has come all the way for a quarter of an hour: the way is not open",
        sev=Sev.SEV1,
        group="intake",
        series={"settled": _counted("worker", "synthetic_settled", 300)},
        # With zeros in the gaps: CloudWatch would look further back for datapoints, and take half an hour.
        expression=_or_0("settled"),
        comparison="LessThanThreshold",
        threshold=1,
        periods=3,
        datapoints=3,
        missing="breaching",
        never_suppressed=True,
    ),
    # --------------------------------------------------------------------------------------------------------- pipeline
    Alarm(
        name="events-late",
        says="The oldest accepted event has waited for more than five minutes",
        sev=Sev.SEV2,
        group="pipeline",
        series={
            "age": _queue("events", "ApproximateAgeOfOldestMessage"),
            "received": _counted("worker", "event_age_ms", statistic="Maximum"),
        },
        expression="MAX([age, received / 1000])",
        threshold=300,
        periods=5,
        datapoints=3,
    ),
    Alarm(
        name="events-backlog",
        says="The oldest accepted event has waited for more than half an hour: replies are no longer worth sending",
        sev=Sev.SEV1,
        copies=(Audience.CAMPAIGN,),
        owner="incident_lead",
        group="pipeline",
        series={
            "age": _queue("events", "ApproximateAgeOfOldestMessage"),
            "received": _counted("worker", "event_age_ms", statistic="Maximum"),
        },
        expression="MAX([age, received / 1000])",
        threshold=1_800,
        periods=5,
        datapoints=3,
        never_suppressed=True,
    ),
    Alarm(
        name="retries-late",
        says="The oldest retry has waited for more than a quarter of an hour for a worker",
        sev=Sev.SEV2,
        group="pipeline",
        series={"age": _queue("retries", "ApproximateAgeOfOldestMessage")},
        expression="age",
        threshold=900,
        periods=5,
        datapoints=3,
    ),
    Alarm(
        name="rows-overdue",
        says="Recovery items were woken again and again, and no worker took them up",
        sev=Sev.SEV2,
        group="pipeline",
        series={"overdue": _counted("sweeper", "rows_overdue")},
        expression="overdue",
        threshold=0,
        periods=5,
        datapoints=3,
    ),
    Alarm(
        name="items-failing",
        says="More than one message in twenty meets a defect of ours",
        sev=Sev.SEV2,
        group="pipeline",
        series={
            "failed": _counted("worker", "items_failed", 300),
            "received": _counted("worker", "items_received", 300),
        },
        expression=f"IF(received >= 20, {_or_0('failed')} / received, 0)",
        threshold=0.05,
        periods=3,
        datapoints=2,
    ),
    Alarm(
        name="support-failing",
        says="A quarter of the support flow's events meets a defect of ours: it is held for half an hour",
        sev=Sev.SEV2,
        group="flow-errors",
        series={
            "failed": _counted("worker", "flow_errors", 300, flow="support"),
            "events": _counted("worker", "flow_events", 300, flow="support"),
        },
        expression=f"IF(events >= 20, {_or_0('failed')} / events, 0)",
        threshold=0.25,
        periods=3,
        datapoints=2,
        flow="support",
    ),
    Alarm(
        name="worker-dying",
        says="More than one batch in twenty kills its worker, or is refused one",
        sev=Sev.SEV2,
        group="pipeline",
        series={
            "errors": _function("worker", "Errors", 300),
            "throttled": _function("worker", "Throttles", 300),
            "batches": _function("worker", "Invocations", 300),
        },
        expression="IF(SUM([batches, throttled]) >= 20, SUM([errors, throttled]) / SUM([batches, throttled]), 0)",
        threshold=0.05,
        periods=3,
        datapoints=2,
    ),
    Alarm(
        name="effects-missing",
        says="Actions are decided, and three in ten lead to nothing: no call, no suppression, no recovery item",
        sev=Sev.SEV2,
        group="pipeline",
        series={
            "decided": _counted("worker", "actions_decided", 300),
            "done": _counted("worker", "actions_success", 300),
            "found": _counted("worker", "actions_already_done", 300),
            "stopped": _counted("worker", "actions_suppressed", 300),
            "kept": _counted("worker", "rows_created", 300),
        },
        expression=f"IF(decided >= 20, {_or_0('done', 'found', 'stopped', 'kept')} / decided, 1)",
        comparison="LessThanThreshold",
        threshold=0.7,
        periods=3,
        datapoints=2,
    ),
    Alarm(
        name="outcomes-unknown",
        says="Of an effect nobody can tell for more than 15 minutes whether it happened",
        sev=Sev.SEV2,
        group="pipeline",
        series={"unknown": _counted("sweeper", "outcomes_unknown_overdue")},
        expression="unknown",
        threshold=0,
        periods=5,
        datapoints=2,
        never_suppressed=True,
    ),
    Alarm(
        name="queue-nearly-full",
        says="So many events are taken and put aside for a moment that SQS will soon hand out no more",
        sev=Sev.SEV2,
        group="pipeline",
        series={"in_flight": _queue("events", "ApproximateNumberOfMessagesNotVisible")},
        expression="in_flight",
        threshold=80_000,  # SQS hands out nothing beyond 120,000
        periods=3,
        datapoints=3,
    ),
    Alarm(
        name="queue-long",
        says="More than ten thousand events wait",
        sev=Sev.SEV3,
        group="pipeline",
        is_page=False,
        series={"visible": _queue("events", "ApproximateNumberOfMessagesVisible")},
        expression="visible",
        threshold=10_000,
        periods=5,
        datapoints=5,
    ),
    Alarm(
        name="payload-mismatch",
        says="Two different deliveries came under one event's id",
        sev=Sev.SEV3,
        group="sources",
        is_page=False,
        series={"mismatches": _counted("worker", "payload_mismatches")},
        expression="mismatches",
        threshold=0,
        periods=1,
        datapoints=1,
    ),
    Alarm(
        name="tables-throttled",
        says="DynamoDB refuses reads or writes: more than a table takes at once",
        sev=Sev.SEV3,
        group="pipeline",
        is_page=False,
        series={
            f"{way}{number}": Series(
                f"{kind}ThrottleEvents", DYNAMODB, MappingProxyType({"TableName": table}), "Sum", 60
            )
            for number, table in enumerate(_TABLES, 1)
            for way, kind in (("r", "Read"), ("w", "Write"))
        },
        # An alarm on DynamoDB's own metrics ignores missing data and would stay as it is for ever: hence the zero.
        expression=_or_0(*(f"{way}{number}" for number in range(1, len(_TABLES) + 1) for way in ("r", "w"))),
        threshold=0,
        periods=5,
        datapoints=3,
    ),
    # ------------------------------------------------------------------------------------------- what nobody could work
    _not_drained("events-dlq", "events"),
    _not_drained("retries-dlq", "retries"),
    _not_drained("replays-dlq", "replays"),
    Alarm(
        name="ops-dlq-not-empty",
        says="A run of the sweeper, the evaluator, the pager, replay or the synthetic event failed for good",
        sev=Sev.SEV3,
        group="duties",
        is_page=False,
        series=_held("ops-dlq"),
        expression=_HELD,
        threshold=0,
        periods=1,
        datapoints=1,
        never_suppressed=True,
    ),
    # -------------------------------------------------------------------------------------------------------- providers
    Alarm(
        name="integration-down",
        says="A provider is down: what goes to it waits",
        sev=Sev.SEV2,
        copies=(Audience.CAMPAIGN,),
        group="providers",
        series={"down": _counted("evaluator", "integrations_down", statistic="Maximum")},
        expression="down",
        threshold=0,
        periods=1,
        datapoints=1,
    ),
    Alarm(
        name="integration-degraded",
        says="A provider fails more often than it may, and is still called",
        sev=Sev.SEV3,
        group="providers",
        is_page=False,
        series={"degraded": _counted("evaluator", "integrations_degraded", statistic="Maximum")},
        expression="degraded",
        threshold=0,
        periods=3,
        datapoints=3,
    ),
    Alarm(
        name="rate-limited",
        says="A provider keeps saying that we call it too often",
        sev=Sev.SEV3,
        audience=Audience.CAMPAIGN,
        copies=(Audience.OPS,),
        owner="campaign_owner",
        group="providers",
        is_page=False,
        series={"refused": _counted("worker", "rate_limited", 300)},
        # Each answer holds the whole fleet for as long as it says: a few are already a quarter of an hour.
        expression="refused",
        threshold=0,
        periods=3,
        datapoints=2,
    ),
    Alarm(
        name="classifier-out",
        says="The LLM answers next to nothing: rules route what comes in, and nothing is replied",
        sev=Sev.SEV2,
        copies=(Audience.ML,),
        group="providers",
        series={
            "without": _counted("worker", "classifier_fallbacks", 300),
            "decisions": _counted("worker", "decisions_made", 300),
        },
        expression=f"IF(decisions >= 20, {_or_0('without')} / decisions, 0)",
        threshold=0.8,
        periods=2,
        datapoints=2,
    ),
    Alarm(
        name="classifier-weak",
        says="The LLM fails to answer for more than a fifth of what comes in",
        sev=Sev.SEV3,
        audience=Audience.ML,
        owner="ml",
        group="providers",
        is_page=False,
        series={
            "without": _counted("worker", "classifier_fallbacks", 900),
            "decisions": _counted("worker", "decisions_made", 900),
        },
        expression=f"IF(decisions >= 20, {_or_0('without')} / decisions, 0)",
        threshold=0.2,
        periods=1,
        datapoints=1,
    ),
    Alarm(
        name="message-for-a-person",
        says="Something that must be done is left for a person to do",
        sev=Sev.SEV2,
        copies=(Audience.CAMPAIGN,),
        group="people",
        series={"left": _of_the_stage("people_needed")},
        expression="left",
        threshold=0,
        periods=1,
        datapoints=1,
        never_suppressed=True,
        is_moment=True,
    ),
    Alarm(
        name="items-for-people",
        says="Recovery items ended where only people can help",
        sev=Sev.SEV3,
        group="people",
        is_page=False,
        series={
            f"by_{function}": _counted(function, "ended_for_people", 900)
            for function in ("worker", "sweeper", "triage")
        },
        expression=_or_0("by_worker", "by_sweeper", "by_triage"),
        threshold=0,
        periods=1,
        datapoints=1,
    ),
    # ----------------------------------------------------------------------------------------------------------- replay
    Alarm(
        name="replay-stopped",
        says="A bulk replay stopped itself: see why",
        sev=Sev.SEV2,
        group="replay",
        series={"stopped": _counted("replay", "replay_jobs_stopped")},
        expression="stopped",
        threshold=0,
        periods=1,
        datapoints=1,
        never_suppressed=True,
        is_moment=True,
    ),
    Alarm(
        name="replay-interrupted",
        says="Bulk replays are interrupted again and again: a table, the bucket or a queue does not answer them",
        sev=Sev.SEV3,
        group="replay",
        is_page=False,
        series={"interrupted": _counted("replay", "replay_jobs_interrupted", 300)},
        # Once is what leases are for: the job goes on when its own is over, and what is still wrong then shows again.
        expression="interrupted",
        threshold=0,
        periods=3,
        datapoints=2,
    ),
    # --------------------------------------------------------------------------------------------------------- switches
    Alarm(
        name="switches-unknown",
        says="Workers cannot read the switches: the strictest holds, and replies are suppressed for good",
        sev=Sev.SEV2,
        group="switches",
        series={"stale": _counted("worker", "switches_stale")},
        expression="stale",
        threshold=0,
        periods=5,
        datapoints=3,
        never_suppressed=True,
    ),
    Alarm(
        name="switch-unreadable",
        says="A switch was set to a value that nobody can read: the strictest holds in its place",
        sev=Sev.SEV2,
        group="switches",
        series={"invalid": _counted("evaluator", "switch_values_invalid")},
        expression="invalid",
        threshold=0,
        periods=1,
        datapoints=1,
        never_suppressed=True,
        is_moment=True,
    ),
    # ----------------------------------------------------------------------------------------------- duties, heartbeats
    _heartbeat("sweeper", "nothing that waits is woken, and the spill is not drained"),
    _heartbeat("evaluator", "no health is judged, and no switch is audited or set back"),
    Alarm(
        name="sweeper-failing",
        says="A duty of the sweeper fails minute after minute: some of what waits is not woken",
        sev=Sev.SEV2,
        group="duties",
        series={"failed": _counted("sweeper", "duties_failed")},
        expression="failed",
        threshold=0,
        periods=5,
        datapoints=3,
    ),
    Alarm(
        name="evaluator-failing",
        says="A duty of the evaluator fails minute after minute: health, switches or sources go unwatched",
        sev=Sev.SEV2,
        group="duties",
        series={"failed": _counted("evaluator", "duties_failed")},
        expression="failed",
        threshold=0,
        periods=5,
        datapoints=3,
    ),
    Alarm(
        name="work-cut-short",
        says="Each minute's duties do not fit into their minute any more",
        sev=Sev.SEV3,
        group="duties",
        is_page=False,
        series={
            "sweeps": _counted("sweeper", "sweeps_cut_short"),
            "unreached": _counted("sweeper", "integrations_not_reached"),
            "drains": _counted("sweeper", "drains_cut_short"),
            "health": _counted("evaluator", "health_cut_short"),
            "silence": _counted("evaluator", "silence_cut_short"),
            "audits": _counted("evaluator", "switch_audits_cut_short"),
            "returns": _counted("evaluator", "switch_returns_cut_short"),
        },
        expression="SUM([sweeps, unreached, drains, health, silence, audits, returns])",
        threshold=0,
        periods=5,
        datapoints=5,
    ),
    Alarm(
        name="limiter-unavailable",
        says="Workers cannot ask the limiter: each goes by its own share of the rate",
        sev=Sev.SEV3,
        group="duties",
        is_page=False,
        series={"unasked": _counted("worker", "limiter_unavailable")},
        expression="unasked",
        threshold=0,
        periods=5,
        datapoints=3,
    ),
    # ---------------------------------------------------------------------------------------------------------- on call
    Alarm(
        name="alarms-not-delivered",
        says="SNS could not hand over what an alarm or a page said: somebody who should know does not",
        sev=Sev.SEV1,
        audience=Audience.OPS,
        owner="incident_lead",
        group=ON_CALL,
        series={
            f"topic{number}": Series(
                "NumberOfNotificationsFailed", SNS, MappingProxyType({"TopicName": topic}), "Sum", 60
            )
            for number, topic in enumerate(_LOUD_TOPICS, 1)
        },
        expression=f"SUM([{', '.join(f'topic{number}' for number in range(1, len(_LOUD_TOPICS) + 1))}])",
        threshold=0,
        periods=1,
        datapoints=1,
        never_suppressed=True,
        is_moment=True,
    ),
    _heartbeat(
        "pager", "no clock of an incident is looked at, and pages that did not go out stay where they are", ON_CALL
    ),
    Alarm(
        name="pages-dlq-not-empty",
        says="What an alarm said could not be taken down: there is no incident for it, and nobody was paged",
        sev=Sev.SEV1,
        owner="incident_lead",
        group=ON_CALL,
        series=_held("pages-dlq"),
        expression=_HELD,
        threshold=0,
        periods=1,
        datapoints=1,
        never_suppressed=True,
    ),
    Alarm(
        name="pages-not-delivered",
        says="A page was not taken by every channel that should have it, minute after minute",
        sev=Sev.SEV1,
        owner="incident_lead",
        group=ON_CALL,
        series={"failed": _counted("pager", "pages_failed")},
        expression="failed",
        threshold=0,
        periods=5,
        datapoints=2,
        never_suppressed=True,
    ),
    Alarm(
        name="containment-failed",
        says="A switch that an alarm throws by itself could not be set: a person has to",
        sev=Sev.SEV1,
        owner="incident_lead",
        group="switches",
        series={"failed": _counted("pager", "containments_failed")},
        expression="failed",
        threshold=0,
        periods=1,
        datapoints=1,
        never_suppressed=True,
        is_moment=True,
    ),
)

_BY_NAME: Final = {alarm.name: alarm for alarm in ALARMS}


def name_at(stage: str, alarm: str) -> str:
    """What CloudWatch calls the alarm of that name at a stage."""
    return f"holdfast-{stage}-{alarm}"


def by_name(name: str) -> Alarm | None:
    """The alarm of that name, also if it is said as CloudWatch does (`holdfast-{stage}-{name}`); None if it is none."""
    if name in _BY_NAME:
        return _BY_NAME[name]
    stage, _, short = name.removeprefix("holdfast-").partition("-")
    return _BY_NAME.get(short) if name == name_at(stage, short) else None
