"""What replay λ reaches the world through."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from aws_lambda_powertools import Logger

from functions.core import ports
from functions.core.clock import Clock, Ids
from functions.core.integration import Integration
from functions.core.schema import Known
from functions.observability import Metrics


@dataclass(frozen=True, slots=True)
class Ports:
    """One of each. `integrations` are those of the catalog that actions are sent to, `known` is what can be carried out
    today. `wait` holds an invocation up for so many seconds.
    """

    ledger: ports.Ledger
    recovery: ports.Recovery
    jobs: ports.ReplayJobs
    plans: ports.ReplayPlans
    recipients: ports.Recipients
    switches: ports.Switches
    replays: ports.Hints
    backlog: ports.LiveBacklog
    integrations: Mapping[str, Integration]
    known: Known
    clock: Clock
    ids: Ids
    wait: Callable[[float], None]
    log: Logger
    metrics: Metrics
