"""What differs between stages, as values. Nothing else in `infra` asks for a stage by name."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

LOGIN_REDIRECTS = tuple(f"http://localhost:{port}/" for port in (18417, 18418, 18419))
"""Where a person's browser may bring the command line its code. The pool compares them letter by letter, and takes
plain HTTP for `localhost` only; more than one, because a port may be taken.
"""


class Platform(Enum):
    """Where a bundle's compiled packages must run."""

    LAMBDA = "lambda"
    """Lambda's Python 3.13 on arm64."""
    HOST = "host"
    """The Python that synthesizes: the local stack runs functions with it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StageConfig:
    """One stage. Durations are whole seconds; a timeout is the function's, a visibility the queue's.

    `time_scale` multiplies every wait that the requirements state in minutes; it is 1.0 wherever real providers are
    called.
    """

    name: str
    platform: Platform = Platform.LAMBDA

    retain: bool = False
    """Keep tables, bucket and logs when the stack goes, and refuse to delete it."""

    emulated: bool = False
    """Deployed to the emulator of the local stack. Everything this changes is listed in tests/infra/test_stack.py."""

    log_retention_days: int = 30
    worker_timeout_seconds: int = 60
    visibility_timeouts: int = 6
    """For how many of the worker's timeouts a message stays invisible. AWS asks for six."""
    triage_timeout_seconds: int = 30
    sweeper_timeout_seconds: int = 50
    evaluator_timeout_seconds: int = 50
    pager_timeout_seconds: int = 50
    replay_timeout_seconds: int = 900
    """A bulk replay is taken up again within a minute of this."""
    max_receive_count: int = 10
    events_concurrency: int = 10
    retries_concurrency: int = 2
    replays_concurrency: int = 2
    ingress_reserved_concurrency: int | None = None
    api_rate_per_second: int = 500
    api_burst: int = 1000
    public_rate_per_second: int = 20
    """Of each call that needs no token and no signature."""
    public_burst: int = 40
    time_scale: float = 1.0
    runbooks_url: str = "docs/runbooks/"
    """Where whoever is paged opens `docs/runbooks`, with a slash at its end. With your repository's address in its
    place (`https://git.example.com/holdfast/blob/main/docs/runbooks/`) each page's link is one to click.
    """

    @property
    def visibility_seconds(self) -> int:
        """Of the queues the worker reads."""
        return self.visibility_timeouts * self.worker_timeout_seconds

    @property
    def dlq_visibility_seconds(self) -> int:
        """Of the dead-letter queues that triage reads."""
        return 6 * self.triage_timeout_seconds

    @property
    def parameters_path(self) -> str:
        """Under which everything of this stage lies in SSM. Has no trailing slash."""
        return f"/holdfast/{self.name}"

    @property
    def switches_path(self) -> str:
        """Operators' switches. Has no trailing slash."""
        return f"{self.parameters_path}/switches"

    @property
    def sources_path(self) -> str:
        """Senders' endpoints and secrets, one parameter per source. Has no trailing slash."""
        return f"{self.parameters_path}/sources"

    @property
    def integrations_path(self) -> str:
        """Integrations' addresses and credentials, one parameter per integration. Has no trailing slash."""
        return f"{self.parameters_path}/integrations"

    @property
    def oncall_path(self) -> str:
        """Where whoever is on call is told beside the topic, one parameter per channel. Has no trailing slash."""
        return f"{self.parameters_path}/oncall"


LOCAL = StageConfig(
    name="local",
    platform=Platform.HOST,
    emulated=True,
    log_retention_days=1,
    worker_timeout_seconds=24,
    visibility_timeouts=2,
    triage_timeout_seconds=10,
    sweeper_timeout_seconds=20,
    evaluator_timeout_seconds=20,
    pager_timeout_seconds=20,
    replay_timeout_seconds=60,
    max_receive_count=4,
    time_scale=1 / 60,
)
DEV = StageConfig(name="dev")
STAGING = StageConfig(name="staging", ingress_reserved_concurrency=50)
PROD = StageConfig(name="prod", retain=True, log_retention_days=365, ingress_reserved_concurrency=200)

STAGES = {stage.name: stage for stage in (LOCAL, DEV, STAGING, PROD)}
