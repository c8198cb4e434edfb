"""What `holdfast ready` asks a stage, and the catalog, of what `ops.ready` judges. Reads only.

Each question stands for itself: one that is not answered keeps none of the others from being asked.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final, TypeVar

from botocore.exceptions import BotoCoreError, ClientError

from functions.adapters.audit_log import DynamoAuditLog
from functions.adapters.incidents import DynamoIncidents
from functions.adapters.oncall import trouble_with
from functions.catalog.announcements import load_announcements
from functions.catalog.loader import MalformedCatalog, load
from functions.catalog.roles import load_roles
from functions.core.audit import MACHINE, AuditEvent
from functions.core.clock import Clock, SystemIds
from functions.core.failure import HoldfastError
from functions.core.source import MalformedSource, SourceState
from ops import records, runbooks
from ops.operator_api import ApiRefused
from ops.ready import AlarmSeen, Asked, PageTest, RoleSeen, SourceSeen, SwitchMove, Told
from ops.runbooks import UnreadableRunbook
from ops.sources import SourceTrouble, StoredSources
from ops.stack import Stack, StackNotFound, StackUnreachable
from ops.tokens import LoginFailed

T = TypeVar("T")

OWN_RULES: Final = "rules"
"""What the catalog calls the provider of an integration that calls nobody, and needs no credential."""
KILL_SWITCH: Final = "auto_reply"
MOST_MOVES: Final = 200  # of one switch or integration; older ones are older than what counts
TABLES: Final = ("LedgerTable", "RecoveryTable", "AuditTable", "ControlTable", "RecipientsTable")

_TROUBLE: Final = (
    ApiRefused,
    BotoCoreError,
    ClientError,
    HoldfastError,
    LoginFailed,
    MalformedCatalog,
    SourceTrouble,
    StackNotFound,
    StackUnreachable,
    UnreadableRunbook,
    # What is answered is not what AWS says that it answers.
    AttributeError,
    KeyError,
    TypeError,
    ValueError,
)


def ask(stack: Stack, clock: Clock, jobs: Callable[[], list[dict[str, Any]]]) -> Asked:
    """Everything that is asked of a stage. `jobs` gives its bulk replays, by the operator API."""
    now_ms = clock.now_ms()
    known_roles = _told(load_roles)
    integrations = [name for name, profile in load().profiles.items() if profile.provider != OWN_RULES]
    healths = _told(lambda: [one for name in load().integrations for one in _moves(stack, f"integration#{name}")])
    known_pages = _told(runbooks.pages)
    return Asked(
        stage=stack.stage,
        now_ms=now_ms,
        today=datetime.fromtimestamp(now_ms / 1000, UTC).date(),
        alarms=_told(partial(_alarms, stack)),
        subscribers=_told(partial(_subscribers, stack)),
        channels=_told(partial(_channels, stack)),
        tests=_told(partial(_tests, stack)),
        roles=_mapped(
            known_roles, lambda known: {name: RoleSeen(r.person, r.contact) for name, r in known.roles.items()}
        ),
        on_call=() if known_roles.value is None else (known_roles.value.primary, known_roles.value.secondary),
        texts=_told(_texts),
        switches=_told(partial(_below, stack, "SwitchesPath")),
        throws=_told(lambda: [_as_switch(one) for one in _moves(stack, f"switch#{KILL_SWITCH}")]),
        overrides=_mapped(healths, lambda every: [_override(one) for one in every if one.actor != MACHINE]),
        outages=_mapped(healths, lambda every: [_machine(one) for one in every if one.actor == MACHINE]),
        replays=_told(jobs),
        pages=_mapped(known_pages, _digests),
        tried=_told(runbooks.tried),
        dead=_told(partial(_dead, stack)),
        sources=_told(partial(_sources, stack, clock)),
        integrations=tuple(integrations),
        credentials=_told(lambda: frozenset(_below(stack, "IntegrationsPath"))),
        backups=_told(partial(_backups, stack)),
        dashboard=_told(partial(_has_dashboard, stack)),
        runbooks_url=_told(partial(_runbooks_url, stack)),
    )


def _told(question: Callable[[], T]) -> Told[T]:
    try:
        return Told(question())
    except _TROUBLE as trouble:
        return Told(trouble=_why(trouble))


def _why(trouble: BaseException) -> str:
    if isinstance(trouble, ClientError):
        error = trouble.response.get("Error", {})
        return f"{trouble.operation_name}: {error.get('Code', '?')}"
    if isinstance(trouble, AttributeError | KeyError | TypeError | ValueError):
        return f"it was answered in a way that nobody understands ({type(trouble).__name__})"
    return str(trouble) or type(trouble).__name__


def _mapped(told: Told[T], make: Callable[[T], Any]) -> Told[Any]:
    value = told.value
    return Told(trouble=told.trouble) if value is None else _told(lambda: make(value))


# ------------------------------------------------------------------------------------------------------------ the stage


def _alarms(stack: Stack) -> dict[str, AlarmSeen]:
    pages = (
        stack.client("cloudwatch")
        .get_paginator("describe_alarms")
        .paginate(AlarmNamePrefix=f"holdfast-{stack.stage}-", AlarmTypes=["MetricAlarm", "CompositeAlarm"])
    )
    return {
        str(one["AlarmName"]): AlarmSeen(
            len(one.get("AlarmActions") or []), bool(one.get("ActionsEnabled", True)), str(one.get("StateValue", ""))
        )
        for page in pages
        for one in [*page.get("MetricAlarms", []), *page.get("CompositeAlarms", [])]
    }


def _subscribers(stack: Stack) -> int:
    pages = (
        stack.client("sns")
        .get_paginator("list_subscriptions_by_topic")
        .paginate(TopicArn=stack.output("OncallTopicArn"))
    )
    # An endpoint that has not confirmed has no ARN yet, and is sent nothing.
    return sum(str(one["SubscriptionArn"]).startswith("arn:") for page in pages for one in page["Subscriptions"])


def _channels(stack: Stack) -> dict[str, str]:
    return {name: trouble_with(name, text) for name, text in _below(stack, "OncallPath", is_secret=True).items()}


def _below(stack: Stack, output: str, *, is_secret: bool = False) -> dict[str, str]:
    """Every parameter under the path of that output, by its name below it. `is_secret`: its text is wanted in clear."""
    path = stack.output(output)
    pages = (
        stack.client("ssm")
        .get_paginator("get_parameters_by_path")
        .paginate(Path=path, Recursive=True, WithDecryption=is_secret)
    )
    return {one["Name"].removeprefix(f"{path}/"): str(one["Value"]) for page in pages for one in page["Parameters"]}


def _tests(stack: Stack) -> list[PageTest]:
    incidents = DynamoIncidents(
        stack.client("dynamodb"),
        SystemIds(),
        control_table=stack.output("ControlTable"),
        audit_table=stack.output("AuditTable"),
    )
    found = incidents.several(incidents.board().recent)
    return [PageTest(one.opened_at_ms, one.is_over, one.resolution) for one in found.values() if one.is_test]


def _moves(stack: Stack, entity: str) -> list[AuditEvent]:
    """What the audit has of it, the latest first; older ones than it goes back to are not looked for."""
    log = DynamoAuditLog(stack.client("dynamodb"), stack.output("AuditTable"))
    return list(log.of_entity(entity, MOST_MOVES, latest_first=True).entries)


def _as_switch(event: AuditEvent) -> SwitchMove:
    return SwitchMove(
        event.at_ms, event.actor, _member(event.before_state, "value"), _member(event.after_state, "value")
    )


def _override(event: AuditEvent) -> SwitchMove:
    return SwitchMove(
        event.at_ms, event.actor, _member(event.before_state, "override"), _member(event.after_state, "override")
    )


def _machine(event: AuditEvent) -> SwitchMove:
    return SwitchMove(
        event.at_ms,
        event.actor,
        _member(event.before_state, "health"),
        _member(event.after_state, "health"),
        event.affected_id,
    )


def _member(state: str, name: str) -> str:
    if not state:
        return ""
    found = json.loads(state)
    return str(found.get(name) or "") if isinstance(found, dict) else ""


def _dead(stack: Stack) -> dict[str, int]:
    return {name: count for name, count in records.queue_depths(stack).items() if name.endswith("Dlq")}


def _sources(stack: Stack, clock: Clock) -> dict[str, SourceSeen]:
    found = {}
    for stored in StoredSources(stack, clock, SystemIds(), lambda: MACHINE).all():
        try:
            source = stored.endpoint().source
        except MalformedSource as exc:
            found[stored.name] = SourceSeen(is_enabled=True, gap_seconds=0, problem=str(exc))
        else:
            found[stored.name] = SourceSeen(source.state is not SourceState.DISABLED, source.expected_gap_seconds or 0)
    return found


def _backups(stack: Stack) -> dict[str, bool]:
    dynamodb, bucket = stack.client("dynamodb"), stack.output("Bucket")
    kept = {}
    for output in TABLES:
        said = dynamodb.describe_continuous_backups(TableName=stack.output(output))["ContinuousBackupsDescription"]
        recovery: Mapping[str, Any] = said.get("PointInTimeRecoveryDescription") or {}
        kept[output] = recovery.get("PointInTimeRecoveryStatus") == "ENABLED"
    kept["Bucket"] = stack.client("s3").get_bucket_versioning(Bucket=bucket).get("Status") == "Enabled"
    return kept


def _has_dashboard(stack: Stack) -> bool:
    try:
        answer = stack.client("cloudwatch").get_dashboard(DashboardName=f"holdfast-{stack.stage}")
    except ClientError as exc:
        if exc.response.get("Error", {}).get("Code") in ("ResourceNotFound", "DashboardNotFoundError"):
            return False
        raise
    return bool(json.loads(answer["DashboardBody"])["widgets"])


def _runbooks_url(stack: Stack) -> str:
    """As the pager has it that is deployed: what stands in a file of somebody's is not what people are sent."""
    told = stack.client("lambda").get_function_configuration(FunctionName=stack.output("PagerFunction"))
    return str(told["Environment"]["Variables"]["RUNBOOKS_URL"])


# ------------------------------------------------------------------------------------------------------------ the code


def _texts() -> dict[str, bool]:
    newest: dict[str, tuple[int, bool]] = {}
    for (name, version), text in load_announcements().items():
        newest[name] = max(newest.get(name, (0, False)), (version, bool(text.approved_by)))
    return {name: is_approved for name, (_, is_approved) in newest.items()}


def _digests(pages: Mapping[str, runbooks.Page]) -> dict[str, str]:
    return dict(_each(pages))


def _each(pages: Mapping[str, runbooks.Page]) -> Iterator[tuple[str, str]]:
    for page in pages.values():
        for name, commands in runbooks.verifiable(page).items():
            yield name, runbooks.digest_of(commands)
