"""The kill switch by plain `aws ssm put-parameter`, in the middle of a burst of replies, under an operator's own role.

What must hold (architecture §9): no reply is sent later than 15 seconds after it; what was stopped does not go out when
the switch is back.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import boto3
from botocore.exceptions import ClientError

from functions.core.recovery import EXPIRED, SUPPRESSED, Status
from ops import records
from ops.demo.stage import Stage
from ops.drills.on_call import Claim, Traffic
from ops.drills.scenes import AGAIN_SECONDS, KNOWN_WITHIN_SECONDS, replies_after
from ops.expectation import WHERE, balance
from ops.stack import Stack

PATIENCE: Final = 240.0
PER_SECOND: Final = 12.0
BEFORE: Final = 40  # replies that have left when it is thrown
_WHO: Final = "drill-operator"


@dataclass(slots=True)
class Stopped:
    """What was seen. Seconds are from the put to the reply, by the provider's record."""

    sent: int = 0
    before: int = 0
    after: list[float] = field(default_factory=list)
    suppressed: int = 0
    expired: int = 0
    unaccounted: list[str] = field(default_factory=list)
    unfinished: int = 0
    stale: int = 0
    answered_again: int = 0
    asked_again: int = 0
    settled: bool = False
    audit: list[records.Item] = field(default_factory=list)
    refused: str = ""
    problems: list[str] = field(default_factory=list)


def operator(stack: Stack) -> Any:
    """A client of the parameter store with the credentials of a role that may write switches and nothing else."""
    iam, name = stack.client("iam"), f"{_WHO}-{uuid.uuid4().hex[:8]}"
    account = stack.client("sts").get_caller_identity()["Account"]
    trust = {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Allow", "Principal": {"AWS": f"arn:aws:iam::{account}:root"}, "Action": "sts:AssumeRole"}
        ],
    }
    path = stack.output("SwitchesPath")
    may = {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Action": "ssm:PutParameter",
                "Resource": f"arn:aws:ssm:{stack.region}:{account}:parameter{path}/*",
            }
        ],
    }
    role = iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(trust))["Role"]["Arn"]
    iam.put_role_policy(RoleName=name, PolicyName="switches", PolicyDocument=json.dumps(may))
    given = stack.client("sts").assume_role(RoleArn=role, RoleSessionName=_WHO)["Credentials"]
    return boto3.client(
        "ssm",
        endpoint_url=stack.endpoint,
        region_name=stack.region,
        aws_access_key_id=given["AccessKeyId"],
        aws_secret_access_key=given["SecretAccessKey"],
        aws_session_token=given["SessionToken"],
    )


def play(stage: Stage, *, replies: int, name: str = "kill") -> Stopped:
    """A burst of so many messages, each of which is to be replied to; the switch off in the middle, and on again."""
    seen, story = Stopped(), stage.story
    switch = f"{stage.stack.output('SwitchesPath')}/auto_reply"
    mine = operator(stage.stack)
    seen.refused = _refusal(mine, f"{stage.stack.output('SourcesPath')}/internal")
    turns = len(records.audit_of(stage.stack, "switch#auto_reply"))
    with Traffic(stage, f"{name}-burst", (WHERE,), PER_SECOND) as traffic:

        def gone() -> int:
            return len(replies_after(stage, 0, traffic.conversations))

        story.wait("the first have left", lambda: _missing(gone(), BEFORE), seconds=PATIENCE)
        off_ms = time.time_ns() // 1_000_000
        mine.put_parameter(Name=switch, Value="off", Overwrite=True)
        story.tell("aws ssm put-parameter … auto_reply off")
        began = time.monotonic()
        story.wait("the burst is over", lambda: _missing(len(traffic.letters), replies), seconds=PATIENCE)
        time.sleep(max(0.0, began + KNOWN_WITHIN_SECONDS + 5 - time.monotonic()))
    seen.sent = len(traffic.letters)
    conversations = stage.expect(traffic.letters, may_be_held_back=True)
    seen.settled = story.wait("all are settled", stage.unsettled(conversations), seconds=PATIENCE, every=1.0)
    seen.after = replies_after(stage, off_ms, conversations)
    left = gone()
    seen.before = left - len(seen.after)
    rows = [row for row in stage.rows_of(conversations) if row.get("failure_code") in (SUPPRESSED, EXPIRED)]
    seen.suppressed = sum(row["failure_code"] == SUPPRESSED for row in rows)
    seen.expired = len(rows) - seen.suppressed
    seen.unaccounted = _unaccounted(stage, conversations, {str(row["event_id"]) for row in rows})
    seen.unfinished = sum(row["status"] != Status.FAILED for row in rows)

    mine.put_parameter(Name=switch, Value="on", Overwrite=True)
    story.tell("aws ssm put-parameter … auto_reply on")
    time.sleep(AGAIN_SECONDS)
    again = stage.letters(f"{name}-again", (WHERE,), 8)
    stage.post([delivery for delivery, _ in again])
    answered = stage.expect(again)
    seen.asked_again = len(again)
    story.wait("new messages are answered", stage.unsettled(answered), seconds=PATIENCE)
    seen.answered_again = stage.replies_in(answered)
    time.sleep(AGAIN_SECONDS)
    seen.stale = gone() - left

    def unaudited() -> str:
        seen.audit = records.audit_of(stage.stack, "switch#auto_reply")[turns:]
        return "" if len(seen.audit) >= 2 else f"{len(seen.audit)} of 2 turns"

    story.wait("both turns are in the audit", unaudited, seconds=60)
    wanted = {*conversations, *answered}
    seen.problems = balance(
        {one: stage.expectations[one] for one in wanted},
        [one for one in stage.simulator.effects("helpdesk") if one.target in wanted],
    ).problems
    return seen


def _unaccounted(stage: Stage, conversations: Sequence[str], stopped: set[str]) -> list[str]:
    """Conversations with neither a reply nor one that was stopped."""
    replied = {one.target for one in stage.simulator.effects("helpdesk") if one.kind == "reply"}
    ledger = stage.ledger()
    return [one for one in conversations if one not in replied and str(ledger[one]["event_id"]) not in stopped]


def _missing(there: int, wanted: int) -> str:
    return "" if there >= wanted else f"{there} of {wanted}"


def _refusal(ssm: Any, name: str) -> str:
    """What the role is told where it may not write."""
    try:
        ssm.put_parameter(Name=name, Value="x", Overwrite=True)
    except ClientError as exc:
        return str(exc.response["Error"]["Code"])
    return ""


def verdicts(seen: Stopped, replies: int) -> list[Claim]:
    """Every promise with its figures, and whether it held."""
    last = max(seen.after, default=0.0)
    turned = [
        f"{json.loads(str(one['before_state']))['value']} → {json.loads(str(one['after_state']))['value']} "
        f"by {one.get('actor')}"
        for one in seen.audit
    ]
    late: Sequence[str] = [f"{seconds:.1f} s" for seconds in seen.after if seconds > KNOWN_WITHIN_SECONDS]
    return [
        Claim(
            f"of {seen.sent} replies {seen.before} had left when it was put; {len(seen.after)} left after that, the "
            f"last {last:.1f} s later",
            seen.sent >= replies and seen.before >= BEFORE and last <= KNOWN_WITHIN_SECONDS,
            late,
        ),
        Claim(
            f"{seen.suppressed} replies are suppressed for good, {seen.expired} came too late before they were asked",
            seen.settled
            and seen.suppressed + seen.expired + seen.before + len(seen.after) == seen.sent
            and seen.suppressed > 0
            and not seen.unfinished,
            seen.unaccounted,
        ),
        Claim(f"{seen.stale} of the stopped went out after it was on again", seen.stale == 0),
        Claim(
            f"{seen.answered_again} of {seen.asked_again} new messages are answered",
            seen.answered_again == seen.asked_again,
        ),
        Claim(
            f"the audit has both turns: {'; '.join(turned)}",
            [turn.partition(" by ")[0] for turn in turned] == ["on → off", "off → on"]
            # The emulator names its root whoever it was; AWS names the role and its session.
            and all(one.get("actor") for one in seen.audit),
            [str(one) for one in seen.audit],
        ),
        Claim(
            f"the role may write switches and nothing else ({seen.refused})",
            seen.refused.startswith("AccessDenied"),
        ),
        Claim("every other effect is there once", not seen.problems, seen.problems),
    ]
