"""What replay λ reaches the world through."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from aws_lambda_powertools import Logger

from functions.core import ports
from functions.core.clock import Clock, Ids
from functions.core.integration import Integration
from functions.observability import Metrics

KnowsVersion = Callable[[str, str, str], bool]
"""Whether events of that source, of that name and in that version, are still understood."""


def every_version(_source: str, _event_name: str, _event_version: str) -> bool:
    """Where nobody keeps a list: the flow says so when it reads the event."""
    return True


@dataclass(frozen=True, slots=True)
class Ports:
    """One of each. `integrations` are those of the catalog that actions are sent to. `wait` holds an invocation up for
    so many seconds.
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
    clock: Clock
    ids: Ids
    wait: Callable[[float], None]
    log: Logger
    metrics: Metrics
    is_known_version: KnowsVersion = every_version
