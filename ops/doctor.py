"""Looks at every part of a stage and says what to do about what is not as it should be.

Everything is read, nothing is changed; what a part keeps secret is read where it must be checked and is never part of a
finding. A part that cannot be looked at is unknown, which is not the same as well. Each part is looked at on its own:
one that does not answer hides no other.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final
from urllib.parse import urlsplit

import httpx
from botocore.exceptions import BotoCoreError, ClientError

from functions.adapters.aws import code_of
from functions.adapters.hosts import AllowedHosts
from functions.adapters.ssm import IntegrationSecret, UnusableSecret
from functions.catalog.loader import load
from functions.core import synthetic
from functions.core.alarms import ALARMS, name_at
from functions.core.clock import SystemClock, SystemIds
from functions.core.event import SPILL
from functions.core.failure import StorageUnavailable
from functions.core.gate import Health
from functions.core.health import is_kept_up
from functions.core.source import MalformedSource, SourceState
from functions.core.switches import REQUIRED, everyday, is_everyday, problem
from functions.observability import NAMESPACE
from infra.config import STAGES
from ops import records, standing
from ops.cloudwatch import metrics, query
from ops.function_logs import recent
from ops.sources import StoredSources, problems_of
from ops.stack import Stack, StackNotFound

RUNBOOKS: Final = "docs/runbooks"
TABLES: Final = ("LedgerTable", "RecoveryTable", "AuditTable", "ControlTable", "RecipientsTable")
READ_FROM: Final = ("WorkerFunction", "TriageFunction", "PagerFunction")
"""Functions that queues hand their messages to."""
BEATS: Final = {"EvaluatorFunction": "evaluator", "SweeperFunction": "sweeper", "PagerFunction": "pager"}
LATE_SECONDS: Final = 300  # the oldest message of a queue that keeps up is younger
BEAT_SECONDS: Final = 240  # each minute one, and what CloudWatch takes to tell of it
SYNTHETIC_SECONDS: Final = 900
LOCAL_SECONDS: Final = 90  # a local stack beats every second, on a machine that may be slow
CONNECT_SECONDS: Final = 3.0
ADD_SYNTHETIC: Final = (
    f"holdfast source add {synthetic.SOURCE} --provider {synthetic.PROVIDER} --tenant holdfast "
    f'--flow {synthetic.FLOW} --generate --reason "its own way"'
)


class Verdict(StrEnum):
    """Of one thing."""

    OK = "ok"
    BAD = "not ok"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. `do` is a command, or the section of a runbook; empty: nothing is to be done."""

    part: str
    what: str
    verdict: Verdict
    says: str = ""
    do: str = ""


@dataclass(frozen=True, slots=True)
class Outside:
    """What is reached past AWS: our own public address, and the hosts of providers."""

    get: Callable[[str], tuple[int, Any]]
    """The status and the JSON of an address; 0 and None if nobody answered in time."""
    can_connect: Callable[[str, int, bool], bool]
    """Whether anybody takes a connection at a host and port, with TLS or without. Nothing is sent."""


def examine(stack: Stack, now_ms: int, outside: Outside | None = None) -> list[Finding]:
    """Every part, in the order in which an event meets them."""
    reached = outside or Outside(_get, _can_connect)
    parts: dict[str, Callable[[], Iterator[Finding]]] = {
        "api": lambda: _api(stack, reached),
        "functions": lambda: _functions(stack),
        "queues": lambda: _queues(stack, now_ms),
        "tables": lambda: _tables(stack),
        "switches": lambda: _switches(stack),
        "sources": lambda: _sources(stack, now_ms),
        "credentials": lambda: _credentials(stack),
        "providers": lambda: _providers(stack, now_ms, reached),
        "alarms": lambda: _alarms(stack),
        "heartbeats": lambda: _heartbeats(stack, now_ms),
    }
    with ThreadPoolExecutor(max_workers=len(parts)) as pool:
        looked = {part: pool.submit(_looked_at, part, look) for part, look in parts.items()}
        return [finding for part in parts for finding in looked[part].result()]


def _looked_at(part: str, look: Callable[[], Iterator[Finding]]) -> list[Finding]:
    found: list[Finding] = []
    try:
        found.extend(look())
    except (BotoCoreError, ClientError) as refused:
        # The code alone: what AWS says in words may quote what was asked for.
        found.append(Finding(part, "the rest of it", Verdict.UNKNOWN, f"AWS says {code_of(refused)}", _LOGIN))
    except (StackNotFound, StorageUnavailable) as trouble:
        found.append(Finding(part, "the rest of it", Verdict.UNKNOWN, str(trouble), "holdfast env"))
    return found


_LOGIN: Final = "look at your AWS credentials: aws sts get-caller-identity"


def _section(alarm: str) -> str:
    return f"{RUNBOOKS}/alarms.md#{alarm}"


# ----------------------------------------------------------------------------------------------------------------- api


def _api(stack: Stack, outside: Outside) -> Iterator[Finding]:
    status, said = outside.get(f"{stack.api_url}/health")
    checks = said.get("checks") if isinstance(said, dict) else None
    if isinstance(checks, dict) and status in (200, 503):
        for name, word in sorted(checks.items()):
            verdict = {"ok": Verdict.OK, "failing": Verdict.BAD}.get(str(word), Verdict.UNKNOWN)
            do = "" if verdict is Verdict.OK else _OF_A_CHECK.get(name, "holdfast status")
            yield Finding("api", f"/health: {name}", verdict, str(word), do)
    else:
        yield Finding("api", "/health", Verdict.BAD, _answered(status), _section("ingress-failing"))
    status, _ = outside.get(f"{stack.api_url}/webhooks/nobody")
    # Refused is what a stranger should be: then gateway, ingress and the parameter store work together.
    verdict = Verdict.OK if status == 401 else Verdict.BAD
    yield Finding(
        "api", "/webhooks", verdict, _answered(status), "" if verdict is Verdict.OK else _section("ingress-failing")
    )


_OF_A_CHECK: Final = {
    "storage": _section("tables-throttled"),
    "switches": _section("switches-unknown"),
    "watch": _section("evaluator-missing"),
}


def _answered(status: int) -> str:
    return f"answers {status}" if status else "does not answer"


# ----------------------------------------------------------------------------------------------------------- functions


def _functions(stack: Stack) -> Iterator[Finding]:
    client = stack.client("lambda")
    for output in sorted(key for key in stack.outputs if key.endswith("Function")):
        name = stack.output(output)
        told = client.get_function_configuration(FunctionName=name)
        state, update = told.get("State", "Active"), told.get("LastUpdateStatus", "Successful")
        reserved = client.get_function_concurrency(FunctionName=name).get("ReservedConcurrentExecutions")
        if reserved == 0:
            yield Finding(
                "functions",
                name,
                Verdict.BAD,
                "it may not run at all: its reserved concurrency is 0",
                f"aws lambda delete-function-concurrency --function-name {name}",
            )
        elif state not in ("Active", "Inactive") or update == "Failed":
            yield Finding(
                "functions", name, Verdict.BAD, f"{state}, last update {update}", f"make deploy STAGE={stack.stage}"
            )
        else:
            yield Finding("functions", name, Verdict.OK, f"{state}, {told.get('LastModified', '')}")
        if output in READ_FROM:
            yield from _mappings(client, name)


def _mappings(client: Any, function: str) -> Iterator[Finding]:
    found = client.list_event_source_mappings(FunctionName=function)["EventSourceMappings"]
    off = [one for one in found if str(one.get("State", "Enabled")) not in _TAKING]
    for one in off:
        yield Finding(
            "functions",
            f"{function} from {str(one.get('EventSourceArn', '')).rpartition(':')[2]}",
            Verdict.BAD,
            f"its trigger is {one.get('State')}",
            f"aws lambda update-event-source-mapping --uuid {one.get('UUID')} --enabled",
        )
    if not found:
        yield Finding(
            "functions", function, Verdict.BAD, "no queue hands it anything", f"make deploy STAGE={_stage_in(function)}"
        )


_TAKING: Final = ("Enabled", "Enabling", "Updating", "Creating")


def _stage_in(function: str) -> str:
    return function.split("-")[1] if function.count("-") > 1 else "STAGE"


# -------------------------------------------------------------------------------------------------------------- queues


def _queues(stack: Stack, now_ms: int) -> Iterator[Finding]:
    depths = records.queue_depths(stack)
    try:
        ages = standing.ages(stack, now_ms)
    except (BotoCoreError, ClientError) as refused:
        ages = {}
        yield Finding("queues", "how old messages are", Verdict.UNKNOWN, f"AWS says {code_of(refused)}", _LOGIN)
    for queue, depth in sorted(depths.items()):
        if queue.endswith("Dlq"):
            continue
        name = queue.lower()
        late = ages.get(name, 0) > LATE_SECONDS
        says = f"{depth} messages" + (f", the oldest {ages[name]} s old" if name in ages else "")
        yield Finding("queues", name, Verdict.BAD if late else Verdict.OK, says, _section(_LATE[name]) if late else "")
    for queue, depth in sorted(depths.items()):
        if not queue.endswith("Dlq"):
            continue
        name = f"{queue.removesuffix('Dlq').lower()}-dlq"
        verdict = Verdict.BAD if depth else Verdict.OK
        yield Finding("queues", name, verdict, f"{depth} messages", _section(_HOLDS[name]) if depth else "")
    spilled = stack.client("s3").list_objects_v2(Bucket=stack.output("Bucket"), Prefix=SPILL).get("KeyCount", 0)
    yield Finding(
        "queues",
        "spill",
        Verdict.BAD if spilled else Verdict.OK,
        f"{spilled} events",
        _section("spill-not-drained") if spilled else "",
    )


_LATE: Final = {
    "events": "events-late",
    "retries": "retries-late",
    "replays": "retries-late",
    "pages": "pages-dlq-not-empty",
}
_HOLDS: Final = {
    **{f"{name}-dlq": f"{name}-dlq-not-drained" for name in ("events", "retries", "replays")},
    "ops-dlq": "ops-dlq-not-empty",
    "pages-dlq": "pages-dlq-not-empty",
}


# -------------------------------------------------------------------------------------------------------------- tables


def _tables(stack: Stack) -> Iterator[Finding]:
    for output in TABLES:
        name = stack.output(output)
        status = stack.client("dynamodb").describe_table(TableName=name)["Table"]["TableStatus"]
        good = status in ("ACTIVE", "UPDATING")
        yield Finding(
            "tables", name, Verdict.OK if good else Verdict.BAD, status, "" if good else _section("tables-throttled")
        )
    bucket = stack.output("Bucket")
    stack.client("s3").head_bucket(Bucket=bucket)
    yield Finding("tables", bucket, Verdict.OK, "the bucket is there")


# ------------------------------------------------------------------------------------------------------------ switches


def _switches(stack: Stack) -> Iterator[Finding]:
    path = stack.output("SwitchesPath")
    pages = stack.client("ssm").get_paginator("get_parameters_by_path").paginate(Path=path, Recursive=True)
    said = {
        parameter["Name"].removeprefix(f"{path}/"): parameter["Value"]
        for page in pages
        for parameter in page["Parameters"]
    }
    for name in REQUIRED:
        if name not in said:
            yield Finding(
                "switches",
                name,
                Verdict.BAD,
                "it is not there, and so no switch can be read",
                _set(name, everyday(name)),
            )
    unusual = 0
    for name, value in sorted(said.items()):
        trouble, usual = problem(name, value), everyday(name)
        if trouble is not None:
            yield Finding("switches", name, Verdict.BAD, trouble, _section("switch-unreadable"))
        elif not is_everyday(name, value):
            unusual += 1
            yield Finding(
                "switches",
                name,
                Verdict.BAD,
                f"says {value}, every day {usual}: somebody has set it",
                _set(name, usual),
            )
    if not unusual:
        yield Finding("switches", f"{len(said)} switches", Verdict.OK, "all say what they say every day")


def _set(name: str, value: str) -> str:
    return f'holdfast switch set {name} {value} --reason "back to every day"'


# ------------------------------------------------------------------------------------------------------------- sources


def _sources(stack: Stack, now_ms: int) -> Iterator[Finding]:
    found = StoredSources(stack, SystemClock(), SystemIds(), lambda: "").all()
    for stored in found:
        try:
            state = stored.endpoint().source.state
        except MalformedSource as malformed:
            yield Finding("sources", stored.name, Verdict.BAD, str(malformed), _section("source-malformed"))
            continue
        troubles = problems_of(stored, now_ms)
        fatal = [one for one in troubles if "secret" not in one.split(" ")[0]]
        old = [one for one in troubles if one.endswith("days old")]
        if fatal:
            yield Finding("sources", stored.name, Verdict.BAD, fatal[0], f"holdfast source show {stored.name}")
        elif state is SourceState.HELD:
            says = "held: what it sends waits"
            yield Finding(
                "sources", stored.name, Verdict.BAD, says, f'holdfast source enable {stored.name} --reason "..."'
            )
        elif old:
            do = f'holdfast source rotate {stored.name} --generate --reason "old"'
            yield Finding("sources", stored.name, Verdict.BAD, old[0], do)
        else:
            yield Finding("sources", stored.name, Verdict.OK, state.value)
    if synthetic.SOURCE not in {stored.name for stored in found}:
        says = "not there: no event of our own can go the whole way"
        yield Finding("sources", synthetic.SOURCE, Verdict.BAD, says, ADD_SYNTHETIC)


# --------------------------------------------------------------------------------------------------------- credentials


def _parameters(stack: Stack) -> Mapping[str, str]:
    path = stack.output("IntegrationsPath")
    pages = stack.client("ssm").get_paginator("get_parameters_by_path").paginate(Path=path, WithDecryption=True)
    return {
        parameter["Name"].removeprefix(f"{path}/"): parameter["Value"]
        for page in pages
        for parameter in page["Parameters"]
    }


def _credentials(stack: Stack) -> Iterator[Finding]:
    catalog = load()
    hosts = AllowedHosts.of(catalog.integrations, is_loopback_allowed=stack.is_local)
    stored = _parameters(stack)
    for name, integration in sorted(catalog.integrations.items()):
        parameter = f"{stack.output('IntegrationsPath')}/{name}"
        if name not in stored:
            if integration.hosts:
                says = "no address and no credential: nothing can be sent there"
                yield Finding("credentials", name, Verdict.BAD, says, f"{RUNBOOKS}/recovery.md, section 5: {parameter}")
            continue
        try:
            secret = IntegrationSecret.parse(name, stored[name], "")
            trouble = hosts.why_not(name, secret.base_url)
        except UnusableSecret as unusable:
            trouble = str(unusable)
        if trouble is not None:
            yield Finding("credentials", name, Verdict.BAD, trouble, f"{RUNBOOKS}/recovery.md, section 5: {parameter}")
        else:
            yield Finding("credentials", name, Verdict.OK, "an address and a credential that can be used")


# ----------------------------------------------------------------------------------------------------------- providers


def _providers(stack: Stack, now_ms: int, outside: Outside) -> Iterator[Finding]:
    catalog = load()
    stage = STAGES.get(stack.stage)
    scale = 1.0 if stage is None else stage.time_scale
    for name, record in sorted(standing.health_records(stack).read(sorted(catalog.profiles)).items()):
        health = record.state(name).health_at(now_ms)
        if not is_kept_up(record, now_ms, scale):
            says = "nobody has judged its calls for minutes"
            yield Finding("providers", name, Verdict.UNKNOWN, says, _section("evaluator-missing"))
        elif health is Health.HEALTHY:
            yield Finding("providers", name, Verdict.OK, health.value)
        else:
            yield Finding("providers", name, Verdict.BAD, health.value, f"holdfast integrations {name}")
    for name, text in sorted(_parameters(stack).items()):
        try:
            address = urlsplit(IntegrationSecret.parse(name, text, "").base_url)
        except UnusableSecret:
            continue  # of which its credential tells
        is_tls = address.scheme == "https"
        port = address.port or (443 if is_tls else 80)
        if outside.can_connect(str(address.hostname), port, is_tls):
            yield Finding("providers", f"{name}: its address", Verdict.OK, "takes connections from this machine")
        elif stack.is_local:
            says = "the simulator does not answer"
            yield Finding("providers", f"{name}: its address", Verdict.BAD, says, "make down, then make up")
        else:
            says = "not reached from this machine, which says nothing of the stage's own way"
            yield Finding("providers", f"{name}: its address", Verdict.UNKNOWN, says, f"holdfast integrations {name}")


# -------------------------------------------------------------------------------------------------- alarms, heartbeats


def _alarms(stack: Stack) -> Iterator[Finding]:
    client = stack.client("cloudwatch")
    states: dict[str, tuple[str, bool]] = {}
    pages = client.get_paginator("describe_alarms").paginate(
        AlarmNamePrefix=name_at(stack.stage, ""), AlarmTypes=["MetricAlarm", "CompositeAlarm"]
    )
    for page in pages:
        for one in (*page.get("MetricAlarms", ()), *page.get("CompositeAlarms", ())):
            states[one["AlarmName"]] = (one["StateValue"], bool(one.get("ActionsEnabled", True)))
    quiet, unjudged = 0, 0
    for alarm in ALARMS:
        state, speaks = states.get(name_at(stack.stage, alarm.name), ("", True))
        if not state:
            do = f"make deploy STAGE={stack.stage}"
            yield Finding("alarms", alarm.name, Verdict.BAD, "it is not deployed", do)
        elif not speaks:
            do = f"aws cloudwatch enable-alarm-actions --alarm-names {name_at(stack.stage, alarm.name)}"
            yield Finding("alarms", alarm.name, Verdict.BAD, "it tells nobody: its actions are off", do)
        elif state == "ALARM":
            yield Finding("alarms", alarm.name, Verdict.BAD, alarm.says, f"{RUNBOOKS}/{alarm.page}")
        elif state == "OK":
            quiet += 1
        else:
            unjudged += 1
    if quiet:
        yield Finding("alarms", f"{quiet} alarms", Verdict.OK, "quiet")
    if unjudged:
        do = (
            "make down, then make up"
            if stack.is_local
            else "wait a quarter of an hour after a first deploy, and ask again"
        )
        yield Finding("alarms", f"{unjudged} alarms", Verdict.UNKNOWN, "nobody has judged them yet", do)


def _heartbeats(stack: Stack, now_ms: int) -> Iterator[Finding]:
    for output, service in BEATS.items():
        age = _age(stack, output, service, "heartbeat", BEAT_SECONDS, now_ms)
        yield _beat(service, age, BEAT_SECONDS, stack, _section(f"{service}-missing"), "has come to its end")
    age = _age(stack, "WorkerFunction", "worker", "synthetic_settled", SYNTHETIC_SECONDS, now_ms)
    yield _beat("synthetic event", age, SYNTHETIC_SECONDS, stack, _section("synthetic-missing"), "was settled")


def _beat(what: str, age: int | None, within: int, stack: Stack, do: str, verb: str) -> Finding:
    seconds = LOCAL_SECONDS if stack.is_local else within
    if age is None:
        return Finding("heartbeats", what, Verdict.BAD, f"not one {verb} for {seconds} s", do)
    return Finding("heartbeats", what, Verdict.OK, f"{verb} {age} s ago at most")


def _age(stack: Stack, output: str, service: str, metric: str, within: int, now_ms: int) -> int | None:
    """Seconds since it was last counted; None if that was not in time."""
    if stack.is_local:
        lines = recent(stack, output, metric, now_ms - LOCAL_SECONDS * 1000)
        counted = [int(line["_aws"]["Timestamp"]) for line in lines if metric in line and "_aws" in line]
        return max(0, (now_ms - max(counted)) // 1000) if counted else None
    now = now_ms // 1000
    one = query("beats", NAMESPACE, metric, {"service": service, "stage": stack.stage}, 60, "Sum")
    values = metrics(stack, [one], now - within, now)["beats"]
    beaten = [moment for moment, value in values.items() if value > 0]
    return max(0, now - max(beaten)) if beaten else None


# ------------------------------------------------------------------------------------------------------------- outside


def _get(url: str) -> tuple[int, Any]:
    try:
        answer = httpx.get(url, timeout=10, follow_redirects=False, trust_env=False)
    except (httpx.HTTPError, httpx.InvalidURL):
        return 0, None
    try:
        return answer.status_code, answer.json()
    except ValueError:
        return answer.status_code, None


def _can_connect(host: str, port: int, is_tls: bool) -> bool:  # a port says as little by name
    try:
        with socket.create_connection((host, port), timeout=CONNECT_SECONDS) as connection:
            if is_tls:
                with ssl.create_default_context().wrap_socket(connection, server_hostname=host):
                    return True
            return True
    except (OSError, ValueError):  # ssl's and the resolver's errors are OSErrors; a host that is none is a ValueError
        return False
