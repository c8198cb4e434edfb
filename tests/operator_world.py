"""The operator API over real adapters and moto: the tables as the stack makes them, and rows put into them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from typing import Any, cast

from functions.adapters.audit import DynamoAudit
from functions.adapters.audit_log import DynamoAuditLog
from functions.adapters.event_index import DynamoEventIndex
from functions.adapters.health import DynamoHealthCounts, DynamoHealthRecords
from functions.adapters.incidents import DynamoIncidents
from functions.adapters.ledger import DynamoLedger
from functions.adapters.operator_changes import DynamoOperatorChanges
from functions.adapters.quarantine import DynamoQuarantines
from functions.adapters.recovery import DynamoRecovery
from functions.adapters.replay_jobs import DynamoReplayJobs
from functions.adapters.replay_plans import S3ReplayPlans
from functions.catalog.loader import load
from functions.core.catalog import VersionRule
from functions.core.decision import Repeat
from functions.core.gate import Health
from functions.core.health import HealthChange, last_closed
from functions.core.integration import Integration, KindRules
from functions.core.recovery import Change, Row
from functions.core.schema import Known
from functions.operator_api.ports import Ports
from functions.operator_api.routes import routers
from tests import aws_tables
from tests.aws_tables import sdk_client
from tests.contract.storage import Flaky
from tests.control_fakes import FakeReplayStarter, FakeSwitchHistory, FakeSwitchReturns, FakeSwitchWriter
from tests.fakes import LIVE_SWITCHES, FakeClock, FakeDoor, FakeHints, FakeIds, FakeSwitches, FakeTables
from tests.incident_fakes import FakeRecentChanges
from tests.operator_calls import OPERATOR, Answering, call

BUCKET = "holdfast-operators"
HELPDESK = Integration(
    "helpdesk",
    {
        "add_tag": KindRules("add_tag", Repeat.IDEMPOTENT),
        "reply": KindRules("reply", Repeat.LOOKUP, settle_seconds=60, can_look_up=True),
        "push": KindRules("push", Repeat.BLIND),
    },
)

RETIRED = VersionRule(frozenset({"2"}), sources=("retired-*",))
"""Of such sources only version 2 is read any more."""


@dataclass
class OperatorWorld:
    """One stage. `flaky` makes requests to DynamoDB fail; `switches.values` are the switches."""

    client: Any
    flaky: Flaky
    ids: FakeIds = field(default_factory=FakeIds)
    clock: FakeClock = field(default_factory=FakeClock)
    hints: FakeHints = field(default_factory=FakeHints)
    starter: FakeReplayStarter = field(default_factory=FakeReplayStarter)

    def __post_init__(self) -> None:
        self.switches = FakeSwitches(self.clock)
        self.s3: Any = sdk_client("s3")
        self.s3.create_bucket(Bucket=BUCKET)
        history = FakeSwitchHistory(self.clock)
        for name, value in LIVE_SWITCHES.items():
            history.write(name, value, "deploy")
        names = {"recovery_table": aws_tables.RECOVERY, "audit_table": aws_tables.AUDIT}
        self.recovery = DynamoRecovery(self.flaky, self.ids, **names)  # type: ignore[arg-type]  # a client with faults
        absent: dict[str, Any] = {port.name: cast("Any", None) for port in fields(Ports)}
        client: Any = self.flaky
        self.ports = replace(
            Ports(**absent),
            clock=self.clock,
            ids=self.ids,
            recovery=self.recovery,
            audit=DynamoAudit(client, aws_tables.AUDIT),
            health=DynamoHealthRecords(
                client, self.ids, control_table=aws_tables.CONTROL, audit_table=aws_tables.AUDIT
            ),
            switches=self.switches,
            replays=self.hints,
            quarantines=DynamoQuarantines(client, aws_tables.CONTROL, aws_tables.AUDIT, pause=lambda _: None),
            operator_changes=DynamoOperatorChanges(
                client, self.ids, control_table=aws_tables.CONTROL, pause=lambda _: None, **names
            ),
            ledger=DynamoLedger(client, self.ids, control_table=aws_tables.CONTROL),
            health_counts=DynamoHealthCounts(client, aws_tables.CONTROL, self.ids),
            index=DynamoEventIndex(client, ledger_table=aws_tables.LEDGER, recovery_table=aws_tables.RECOVERY),
            audit_log=DynamoAuditLog(client, aws_tables.AUDIT),
            door=FakeDoor(),
            switch_history=history,
            switch_returns=FakeSwitchReturns(FakeTables()),
            switch_writer=FakeSwitchWriter(history),
            integrations={"helpdesk": HELPDESK},
            profiles=load().profiles,
            fallbacks=load().fallbacks,
            features=load().features,
            known=Known({"support": (RETIRED,)}, {"helpdesk": HELPDESK}, load().messages, load().fallbacks),
            time_scale=1.0,
            jobs=DynamoReplayJobs(
                client,
                self.ids,
                control_table=aws_tables.CONTROL,
                audit_table=aws_tables.AUDIT,
                pause=lambda _: None,
            ),
            plans=S3ReplayPlans(self.s3, BUCKET),
            starter=self.starter,
            incidents=DynamoIncidents(
                client,
                self.ids,
                control_table=aws_tables.CONTROL,
                audit_table=aws_tables.AUDIT,
                pause=lambda _: None,
            ),
            changes=FakeRecentChanges(),
        )
        self.answering = Answering(
            routers(self.ports),
            clock=self.clock,
            ids=self.ids,
        )

    def put(self, row: Row) -> Row:
        """Store it as it is."""
        assert self.recovery.put_if_absent(Change(row, None))
        return row

    def judge(self, **healths: Health) -> None:
        """The evaluator has judged the last closed minute of every integration: well, but for those named."""
        minute = last_closed(self.clock.now_ms(), self.ports.time_scale)
        for name, record in self.ports.health.read(sorted(self.ports.profiles)).items():
            after = replace(record, health=healths.get(name, Health.HEALTHY), minute=minute, version=record.version + 1)
            self.ports.health.store(name, HealthChange(after, record.version))

    def stored(self, row: Row) -> Row:
        """As it is now."""
        found = DynamoRecovery(
            self.client, self.ids, recovery_table=aws_tables.RECOVERY, audit_table=aws_tables.AUDIT
        ).get(row.recovery_id)
        assert found is not None
        return found

    def audit(self) -> list[dict[str, Any]]:
        """The audit table, oldest first."""
        found = self.client.scan(TableName=aws_tables.AUDIT)["Items"]
        plain = [{name: next(iter(value.values())) for name, value in item.items()} for item in found]
        return sorted(plain, key=lambda event: event["sk"])

    def ask(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        claims: Any = OPERATOR,
        key: str = "",
        query: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """The answer to one call."""
        headers = {"idempotency-key": key} if key else {}
        sent = None if body is None else json.dumps(body)
        return self.answering(call(method, path, claims=claims, body=sent, headers=headers, query=query))


@contextmanager
def operator_world() -> Iterator[OperatorWorld]:
    """An empty one."""
    with aws_tables.moto_tables() as client, aws_tables.one_request_at_a_time():
        yield OperatorWorld(client, Flaky(client))
