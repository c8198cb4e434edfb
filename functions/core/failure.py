"""What can go wrong, in one tree, and what every outcome of a provider call means.

HoldfastError
├── MalformedEnvelope        a queue message is not an envelope this version can read
├── MalformedDecision        a stored decision cannot be read back
├── MalformedSource          a source's entry cannot be used                                   (core/source.py)
├── MalformedCatalog         a catalog file cannot be used                                 (catalog/loader.py)
├── UnreadableEvent          an event's body is not what its flow can read                     (flows/flow.py)
├── IllegalTransition        code tried to build a transition the state machine does not have
├── Conflict                 a conditional write was refused: somebody else moved first
│   ├── Fenced               the ledger item, or the job, belongs to another owner or generation by now
│   └── VersionConflict      the recovery row has another version by now
├── StorageUnavailable       a table, queue, bucket or parameter store failed us; nothing is sure to be written
│   ├── StorageRefused       the service understood the request and will not take it: again is of no use
│   └── UnusableSecret       an integration's parameter is missing or unusable                (adapters/ssm.py)
└── ClassifierUnavailable    the LLM gave no usable answer in time

Errors that never leave one function (a refused request, a body over the limit) stand in its folder, below the same
base.
Failures of providers are values (`Failure`), not exceptions: core decides what they lead to. Foreign exceptions are
translated to one of these once, in the adapter that met them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class HoldfastError(Exception):
    """Base of every error that Holdfast raises on purpose."""


class MalformedEnvelope(HoldfastError):
    """A queue message is not an envelope this version can read."""


class MalformedDecision(HoldfastError):
    """A stored decision cannot be read back."""


class IllegalTransition(HoldfastError):
    """Code tried to build a transition that the state machine does not have."""


class Conflict(HoldfastError):
    """A conditional write was refused because somebody else moved first."""


class Fenced(Conflict):
    """The ledger item, or the job, belongs to another owner or generation by now."""


class VersionConflict(Conflict):
    """The recovery row has another version by now."""


class StorageUnavailable(HoldfastError):
    """A table, queue, bucket or parameter store did not do its part."""


class UnreadableItem(StorageUnavailable):
    """An item is there, and cannot be read back: another release has written it, or somebody by hand."""


class StorageRefused(StorageUnavailable):
    """The service understood the request and will not take it: again is of no use."""


class ClassifierUnavailable(HoldfastError):
    """The LLM gave no usable answer in time. `code` is stable and bounded, for metrics. `retry_after_ms` is a wait that
    it asked for, already clamped.
    """

    def __init__(self, code: str, detail: str = "", retry_after_ms: int | None = None) -> None:
        super().__init__(f"{code}: {detail}" if detail else code)
        self.code = code
        self.retry_after_ms = retry_after_ms


class FailureClass(StrEnum):
    """What kind of trouble one outcome was (runbooks 000 and 004, as requirements.md maps them)."""

    TRANSIENT = "transient"
    RATE_LIMITED = "rate_limited"
    DATA_ERROR = "data_error"
    AUTH_ERROR = "auth_error"
    UNKNOWN_OUTCOME = "unknown_outcome"


class RootCause(StrEnum):
    """Why an item died (runbook 001, "DLQ and Replay Procedure", step 2)."""

    TRANSIENT_INFRA = "transient_infra"
    SCHEMA_MISMATCH = "schema_mismatch"
    CODE_DEFECT = "code_defect"
    BAD_SOURCE_DATA = "bad_source_data"


PROPOSED_ROOT_CAUSE: dict[FailureClass, RootCause] = {
    FailureClass.TRANSIENT: RootCause.TRANSIENT_INFRA,
    FailureClass.RATE_LIMITED: RootCause.TRANSIENT_INFRA,
    FailureClass.UNKNOWN_OUTCOME: RootCause.TRANSIENT_INFRA,
    FailureClass.AUTH_ERROR: RootCause.BAD_SOURCE_DATA,
    FailureClass.DATA_ERROR: RootCause.BAD_SOURCE_DATA,
}


ADAPTER_DEFECT = "ADAPTER_DEFECT"  # our own code raised: what the provider knows of it is not known


@dataclass(frozen=True, slots=True)
class Failure:
    """One failed call: what happened, and what is known about the outside world.

    `may_have_happened` is False only where the provider cannot have acted: nothing was sent, or it answered with a
    status that promises so. `retry_after_ms` is a wait that the provider asked for, already clamped.
    `detail` is for operators: it names no secret, no body and no address of a person. `answer` is what the provider
    answered, as JSON for operators' eyes and likewise without any of that; empty where it gave no answer.
    """

    failure_class: FailureClass
    code: str
    detail: str
    is_retryable: bool
    may_have_happened: bool
    retry_after_ms: int | None = None
    status: int | None = None
    answer: str = field(default="", compare=False)

    @property
    def wants_credential(self) -> bool:
        """Whether nothing but another credential helps, which is stored by a person: it waits for that. Who is refused
        as the function's own role has none: it is tried again, and then a person's.
        """
        return self.failure_class is FailureClass.AUTH_ERROR and not self.is_retryable

    @property
    def root_cause(self) -> RootCause:
        """What it suggests. An exception is a defect of the code; a permission our own role lacks, of the deploy."""
        if self.code == ADAPTER_DEFECT or (self.failure_class is FailureClass.AUTH_ERROR and self.is_retryable):
            return RootCause.CODE_DEFECT
        return PROPOSED_ROOT_CAUSE[self.failure_class]


@dataclass(frozen=True, slots=True)
class Done:
    """The provider did it, or had done it already. `provider_id` is its own id of the effect, or empty. `times`: how
    often it was found done, where it was asked; more than once is an effect that came about twice.
    """

    provider_id: str = ""
    times: int = 1


Outcome = Done | Failure


class NetworkCause(StrEnum):
    """How a call failed without an answer. The first six happen before the first byte of the request."""

    DNS = "DNS_LOOKUP_FAILED"
    CONNECT_REFUSED = "CONNECTION_REFUSED"
    CONNECT_TIMEOUT = "CONNECT_TIMEOUT"
    TLS = "TLS_HANDSHAKE_FAILED"
    POOL_TIMEOUT = "NO_CONNECTION_FREE"
    NOT_STARTED = "NOT_STARTED"
    READ_TIMEOUT = "READ_TIMEOUT"
    DEADLINE = "DEADLINE_EXCEEDED"
    RESET = "CONNECTION_RESET"
    PROTOCOL = "PROTOCOL_ERROR"


_BEFORE_FIRST_BYTE = frozenset(
    {
        NetworkCause.DNS,
        NetworkCause.CONNECT_REFUSED,
        NetworkCause.CONNECT_TIMEOUT,
        NetworkCause.TLS,
        NetworkCause.POOL_TIMEOUT,
        NetworkCause.NOT_STARTED,
    }
)

# Body codes that mean 429 whatever the status says (runbook 003, line 205).
RATE_LIMIT_CODES = frozenset({"RATE_LIMIT_EXCEEDED", "RATE_LIMITED", "TOO_MANY_REQUESTS"})


def failure_of_network(cause: NetworkCause, detail: str = "") -> Failure:
    """A call without an answer (architecture §7: "nothing happened" ends with the first request byte)."""
    return Failure(
        failure_class=FailureClass.TRANSIENT,
        code=cause.value,
        detail=detail or cause.value.replace("_", " ").lower(),
        is_retryable=True,
        may_have_happened=cause not in _BEFORE_FIRST_BYTE,
    )


def failure_of_status(
    status: int,
    *,
    body_code: str = "",
    detail: str = "",
    retry_after_ms: int | None = None,
    definite_statuses: frozenset[int] = frozenset(),
) -> Failure:
    """The failure that an HTTP answer outside 2xx means.

    Retryable are 408, 409, 425, 429 and every 5xx (runbook 004, lines 24 to 26). A status in `definite_statuses`
    promises that nothing happened: a catalog row may list one together with the provider's page that promises it. So
    does every other 4xx; a redirect or a status nobody knows promises nothing.
    """
    is_rate_limit = status == 429 or body_code.upper() in RATE_LIMIT_CODES
    code = "HTTP_429" if is_rate_limit else f"HTTP_{status}"
    text = detail or f"the provider answered {status}" + (f" ({body_code})" if body_code else "")
    if is_rate_limit:
        failure_class = FailureClass.RATE_LIMITED
    elif status in (401, 403):
        failure_class = FailureClass.AUTH_ERROR
    elif status >= 500 or status in (408, 409, 425) or status < 400:
        failure_class = FailureClass.TRANSIENT
    else:
        failure_class = FailureClass.DATA_ERROR
    is_definite = is_rate_limit or status in definite_statuses or (400 <= status < 500 and status not in (408, 409))
    return Failure(
        failure_class=failure_class,
        code=code,
        detail=text,
        is_retryable=is_rate_limit or status >= 500 or status in (408, 409, 425),
        may_have_happened=not is_definite,
        retry_after_ms=retry_after_ms,
        status=status,
    )
