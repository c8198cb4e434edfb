"""Sources as operators keep them: read, checked with the very code of ingress, put on record, written.

A change is audited before it is made: without the audit it is not made. The parameter store has no conditional write.
That a source is new is sure (the store refuses to overwrite); that nobody else wrote between our read and our write is
only seen afterwards, by the version, and then said, here and in the audit.
"""

from __future__ import annotations

import base64
import json
import re
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Final

from botocore.exceptions import BotoCoreError, ClientError

from functions.adapters.audit import DynamoAudit
from functions.catalog.loader import load
from functions.core import synthetic
from functions.core.audit import AuditEvent, AuditType, Severity
from functions.core.clock import Clock, Ids
from functions.core.event import NAME
from functions.core.failure import HoldfastError, StorageUnavailable
from functions.core.source import MAX_SECRETS, MalformedSource, Secret, Source, SourceState
from functions.flows.registry import FLOWS
from functions.signatures.providers import PROVIDERS, Endpoint, endpoint_of, scheme_of
from functions.signatures.scheme import Basic, KeyedDigest, SecretForm, UnusableScheme
from functions.signatures.special import PublicKeySignature
from ops.local import parameters
from ops.records import Item, plain
from ops.stack import Stack

STANDARD_BYTES: Final = 4096  # what a parameter of the standard tier holds
ADVANCED_BYTES: Final = 8192  # ... of the advanced tier, which costs
OLD_SECRET_DAYS: Final = 180
DAY_MS: Final = 24 * 3600 * 1000
DEFAULT_KEY: Final = "alias/aws/ssm"
ENTITY: Final = "source"
_UNKNOWN_MOMENT: Final = "unknown"


class SourceTrouble(HoldfastError):
    """A source cannot be read or changed as asked. The text quotes no secret."""


class NotAudited(SourceTrouble):
    """The audit could not be written, so nothing else was. `is_unreachable`: nobody answered."""

    def __init__(self, text: str, *, is_unreachable: bool) -> None:
        super().__init__(text)
        self.is_unreachable = is_unreachable


class NotWritten(SourceTrouble):
    """The parameter was not written, or nobody knows whether it was. `is_unreachable`: nobody answered."""

    def __init__(self, text: str, *, is_unreachable: bool) -> None:
        super().__init__(text)
        self.is_unreachable = is_unreachable


# ------------------------------------------------------------------------------------------------------------- reading


@dataclass(frozen=True, slots=True)
class Stored:
    """A source's entry as the parameter store has it, whatever it holds."""

    name: str
    text: str = field(repr=False)
    version: int
    changed_at_ms: int

    def endpoint(self) -> Endpoint:
        """What ingress makes of it. Raises `MalformedSource`."""
        return endpoint_of(self.name, self.text)

    def raw(self) -> dict[str, Any]:
        """The entry's members, checked or not; none if it is no JSON object."""
        try:
            document = json.loads(self.text)
        except (ValueError, RecursionError):
            return {}
        return document if isinstance(document, dict) else {}


@dataclass(frozen=True, slots=True)
class Written:
    """A change that was made. `trouble` says that somebody else's change was lost by it, if one was."""

    version: int
    is_advanced: bool
    trouble: str = ""


def check_name(name: str) -> str:
    """The name itself, if a source can bear it. Raises `SourceTrouble`."""
    if not NAME.match(name):
        raise SourceTrouble("a source's name is 1 to 64 letters, digits, '-' or '_'")
    return name


def check_entry(name: str, text: str) -> Endpoint:
    """What ingress would make of the entry. Raises `SourceTrouble` for what it could not use, or that has no flow."""
    check_name(name)
    size = len(text.encode("utf-8", "surrogatepass"))
    if size > ADVANCED_BYTES:
        raise SourceTrouble(f"the entry has {size} bytes; a parameter holds at most {ADVANCED_BYTES}")
    try:
        endpoint = endpoint_of(name, text)
    except MalformedSource as exc:
        raise SourceTrouble(str(exc)) from exc
    if trouble := _without_flow(endpoint.source):
        raise SourceTrouble(trouble)
    return endpoint


def _without_flow(source: Source) -> str:
    if (source.flow == synthetic.FLOW) is not (source.id == synthetic.SOURCE):
        return (
            f"the flow {synthetic.FLOW} and the source {synthetic.SOURCE} are made for each other, and for nothing else"
        )
    known = sorted(set(FLOWS) & {*load().flows, synthetic.FLOW})
    return "" if source.flow in known else f"there is no flow {source.flow}; there are {', '.join(known)}"


def problems_of(stored: Stored, now_ms: int) -> list[str]:
    """What is wrong with an entry, the worst first: it cannot be used, has no flow, or has old secrets."""
    try:
        source = stored.endpoint().source
    except MalformedSource as exc:
        return [f"ingress cannot use it: {exc}"]
    found = [trouble] if (trouble := _without_flow(source)) else []
    for number, secret in enumerate(source.secrets, start=1):
        age = age_days(secret, now_ms)
        if age is None:
            found.append(f"secret {number} has no date of creation")
        elif age > OLD_SECRET_DAYS:
            found.append(f"secret {number} is {age} days old")
    return found


def created_ms(secret: Secret) -> int | None:
    """When it was made, by its note; None for a note that is no ISO date or date-time."""
    return moment_ms(secret.created_at)


def moment_ms(text: str) -> int | None:
    """Milliseconds of an ISO date or date-time, UTC if it names no zone; None for anything else."""
    try:
        moment = datetime.fromisoformat(text)
        return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)
    except (ValueError, OverflowError):
        return None


def age_days(secret: Secret, now_ms: int) -> int | None:
    """Whole days since it was made, if that is known."""
    made_ms = created_ms(secret)
    return None if made_ms is None else max(0, (now_ms - made_ms) // DAY_MS)


def moment_text(ms: int | None) -> str:
    """An ISO date-time in UTC, or `unknown`."""
    if ms is None:
        return _UNKNOWN_MOMENT
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


# ------------------------------------------------------------------------------------------------------ making secrets


def new_secret(provider_name: str, options: Mapping[str, str]) -> str:
    """A random secret of the shape that the provider issues, or that the options ask for. Raises `SourceTrouble`."""
    provider = PROVIDERS.get(provider_name)
    if provider is None:
        raise SourceTrouble(f"provider {ascii(provider_name)[:80]} is not known; known are {', '.join(PROVIDERS)}")
    try:
        scheme = scheme_of(provider, options)
    except UnusableScheme as exc:
        raise SourceTrouble(str(exc)) from exc
    if isinstance(scheme, PublicKeySignature):
        raise SourceTrouble(f"{provider_name} signs with a private key of its own: its public key is what we are given")
    if isinstance(scheme, KeyedDigest) and provider_name == "generic-hmac" and scheme.secret_form is SecretForm.BASE64:
        return base64.b64encode(secrets.token_bytes(32)).decode()
    return parameters.new_secret("generic-basic" if isinstance(scheme, Basic) else provider_name)


# ------------------------------------------------------------------------------------------------------------ changing


def usable(stored: Stored) -> Source:
    """The source of an entry that is to be edited. Raises `SourceTrouble`: what cannot be read is not half repaired."""
    try:
        return stored.endpoint().source
    except MalformedSource as exc:
        raise SourceTrouble(
            f"the entry of {stored.name} cannot be used as it is: {exc}; put a whole one with `holdfast source add "
            f"{stored.name} --replace`"
        ) from exc


def with_state(stored: Stored, state: SourceState) -> str:
    """The entry in another state, else as it was. Raises `SourceTrouble`."""
    usable(stored)
    return entry_text({**stored.raw(), "state": state.value})


def with_secret(stored: Stored, secret: Mapping[str, str]) -> str:
    """The entry with a further secret, before those it has: the first is the newest. Raises `SourceTrouble`."""
    present = _secrets(stored)
    if any(entry.get("secret") == secret["secret"] for entry in present):
        raise SourceTrouble("that is one of its secrets already")
    if len(present) >= MAX_SECRETS:
        raise SourceTrouble(f"it has {len(present)} secrets, and {MAX_SECRETS} is the most: retire one first")
    return entry_text({**stored.raw(), "secrets": [dict(secret), *present]})


def without_older(stored: Stored) -> tuple[str, int]:
    """The entry with its newest secret only, and how many go. Raises `SourceTrouble` if nobody knows which that is."""
    present = _secrets(stored)
    moments = [moment_ms(str(entry.get("created_at", ""))) for entry in present]
    known = [moment for moment in moments if moment is not None]
    if len(present) > 1 and not known:
        raise SourceTrouble(
            "none of its secrets says when it was created, so that the newest is not known: rotate anew"
        )
    newest = moments.index(max(known)) if known else 0
    return entry_text({**stored.raw(), "secrets": [present[newest]]}), len(present) - 1


def without_created_before(stored: Stored, moment: int) -> tuple[str, int, int]:
    """The entry without secrets made before that moment: with it, how many go, and how many stay without a date.

    Raises `SourceTrouble` if none would be left.
    """
    present = _secrets(stored)
    moments = [moment_ms(str(entry.get("created_at", ""))) for entry in present]
    kept = [entry for entry, made in zip(present, moments, strict=True) if made is None or made >= moment]
    if not kept:
        raise SourceTrouble("that would leave it without a secret: add the new one first")
    return entry_text({**stored.raw(), "secrets": kept}), len(present) - len(kept), moments.count(None)


def entry_text(entry: Mapping[str, Any]) -> str:
    """An entry as it is stored. Raises `SourceTrouble` for one that nests too deep to be written."""
    try:
        return json.dumps(entry, separators=(",", ":"))
    except RecursionError as exc:
        raise SourceTrouble("the entry nests too deep") from exc


def _secrets(stored: Stored) -> list[dict[str, Any]]:
    usable(stored)
    found: list[dict[str, Any]] = stored.raw()["secrets"]
    return found


def state_of(stored: Stored) -> dict[str, Any]:
    """What the audit says of an entry: nothing that is secret, and nothing that could be one in the wrong place."""
    try:
        source = stored.endpoint().source
    except MalformedSource as exc:
        return {"problem": str(exc), "version": stored.version}
    return {
        "provider": source.provider,
        "tenant": source.tenant,
        "flow": source.flow,
        "state": source.state.value,
        "secrets": len(source.secrets),
        "created_at": [moment_text(created_ms(secret)) for secret in source.secrets],
        "version": stored.version,
    }


def changed_keys(before: Stored | None, after: Stored) -> list[str]:
    """The members of the entry that a change touches."""
    old, new = {} if before is None else before.raw(), after.raw()
    return sorted(key for key in {*old, *new} & ENTRY_KEYS if old.get(key) != new.get(key))


ENTRY_KEYS: Final = frozenset(
    {"tenant", "provider", "flow", "secrets", "state", "identity", "repeat_window_seconds", "throttle"}
    | {"expected_gap_seconds", "fields", "scheme", "event_name", "event_version", "content", "public_url"}
    | {"verify_token"}
)
SECRET_KEYS: Final = frozenset({"secrets", "verify_token"})
"""Members of an entry that nobody is shown."""


@dataclass(frozen=True, slots=True)
class StoredSources:
    """The sources of one stage, and the record of their changes."""

    stack: Stack
    clock: Clock
    ids: Ids
    who: Callable[[], str]
    """Who changes something, as AWS knows the caller; asked before anything is written."""

    def _parameter(self, name: str) -> str:
        return f"{self.stack.output('SourcesPath')}/{check_name(name)}"

    def find(self, name: str) -> Stored | None:
        """One entry, or None."""
        parameter = self._parameter(name)
        try:
            found = self.stack.client("ssm").get_parameter(Name=parameter, WithDecryption=True)["Parameter"]
        except ClientError as exc:
            if exc.response.get("Error", {}).get("Code") == "ParameterNotFound":
                return None
            raise
        return _stored(name, found)

    def get(self, name: str) -> Stored:
        """One entry. Raises `SourceTrouble` if there is none."""
        stored = self.find(name)
        if stored is None:
            raise SourceTrouble(f"stage {self.stack.stage} has no source {name!r}")
        return stored

    def all(self) -> list[Stored]:
        """Every entry, by name."""
        path = self.stack.output("SourcesPath")
        pages = (
            self.stack.client("ssm").get_paginator("get_parameters_by_path").paginate(Path=path, WithDecryption=True)
        )
        found = [parameter for page in pages for parameter in page["Parameters"]]
        return sorted((_stored(one["Name"].removeprefix(f"{path}/"), one) for one in found), key=lambda one: one.name)

    def names(self) -> set[str]:
        """Every name, without reading a secret."""
        path = self.stack.output("SourcesPath")
        pages = self.stack.client("ssm").get_paginator("get_parameters_by_path").paginate(Path=path)
        return {parameter["Name"].removeprefix(f"{path}/") for page in pages for parameter in page["Parameters"]}

    def history(self, name: str, limit: int) -> list[Item]:
        """The last audited changes, latest first."""
        found = self.stack.client("dynamodb").query(
            TableName=self.stack.output("AuditTable"),
            KeyConditionExpression="pk = :entity",
            ExpressionAttributeValues={":entity": {"S": f"{ENTITY}#{check_name(name)}"}},
            ScanIndexForward=False,
            Limit=limit,
            ConsistentRead=True,
        )
        return [plain(item) for item in found["Items"]]

    def write(self, name: str, text: str, before: Stored | None, reason: str) -> Written:
        """Put a checked entry over the one that was read, or where there was none; on record first.

        Raises `SourceTrouble` for an entry that ingress could not use, `NotAudited` or `NotWritten`.
        """
        source = check_entry(name, text).source
        version = 1 if before is None else before.version + 1
        after = Stored(name, text, version, self.clock.now_ms())
        changed = changed_keys(before, after)
        event = AuditEvent(
            id=self.ids.new_id()[:24],
            at_ms=self.clock.now_ms(),
            event_type=AuditType.SOURCE_CHANGED,
            severity=Severity.WARNING,
            tenant=source.tenant,
            actor=self.who(),
            affected_entity=ENTITY,
            affected_id=name,
            request_id=self.ids.new_id(),
            before_state="" if before is None else _compact(state_of(before)),
            after_state=_compact({**state_of(after), "changed": changed}),
            reason=reason,
        )
        request = self._request(name, text, before, reason)
        self._append(event)
        try:
            put = int(self.stack.client("ssm").put_parameter(**request)["Version"])
        except (ClientError, BotoCoreError) as exc:
            put = self._after_failure(event, after, exc)
        is_advanced = request.get("Tier") == "Advanced"
        if put == version:
            return Written(put, is_advanced)
        # Somebody else wrote after our read, and what was written is gone from the entry. It is in the history.
        trouble = (
            f"it is version {put} where {version} was expected: somebody changed it at the same time, and that change "
            f"is overwritten; compare with `aws ssm get-parameter-history --with-decryption --name {request['Name']}`"
        )
        try:
            self._append_further(event, f"OVERWROTE: version {put} where {version} was expected")
        except NotAudited as late:
            trouble += f"; that could not be put on record ({late.__cause__})"
        return Written(put, is_advanced, trouble)

    def _request(self, name: str, text: str, before: Stored | None, reason: str) -> dict[str, Any]:
        request: dict[str, Any] = {
            "Name": self._parameter(name),
            "Value": text,
            "Type": "SecureString",
            "Description": reason,
            "Overwrite": before is not None,
        }
        if len(text.encode()) > STANDARD_BYTES:
            request["Tier"] = "Advanced"  # never said otherwise: a parameter cannot come back from it
        if before is not None:
            filters = [{"Key": "Name", "Option": "Equals", "Values": [request["Name"]]}]
            described = self.stack.client("ssm").describe_parameters(ParameterFilters=filters)["Parameters"]
            key = str(described[0].get("KeyId", "")) if described else ""
            if key not in ("", DEFAULT_KEY):
                request["KeyId"] = key  # a version under another key could be one that ingress may not decrypt
        return request

    def _append(self, event: AuditEvent) -> None:
        try:
            DynamoAudit(self.stack.client("dynamodb"), self.stack.output("AuditTable")).append([event])
        except StorageUnavailable as exc:
            raise NotAudited(
                f"the change could not be put on record, so it was not made ({exc})",
                is_unreachable=isinstance(exc.__cause__, BotoCoreError),
            ) from exc

    def _append_further(self, event: AuditEvent, error: str, code: str = "", status: str = "") -> None:
        """A second event about the same change, of a later moment."""
        at_ms = max(self.clock.now_ms(), event.at_ms + 1)
        further = replace(event, id=self.ids.new_id()[:24], at_ms=at_ms, severity=Severity.ERROR)
        self._append(replace(further, error=error, failure_type=code, recovery_status=status))

    def _after_failure(self, event: AuditEvent, after: Stored, exc: ClientError | BotoCoreError) -> int:
        """The version that we wrote although the answer was lost. Raises `NotWritten` after putting that on record."""
        code = exc.response.get("Error", {}).get("Code", "") if isinstance(exc, ClientError) else type(exc).__name__
        try:
            found = self.find(after.name)
            if found is not None and found.text == after.text and found.version >= after.version:
                return found.version
            what, status = "was not written", "not_written"
        except (ClientError, BotoCoreError):
            what, status = "may or may not have been written", "unknown"
        text = f"the source {what}: {code}"
        try:
            self._append_further(event, f"{code}: {what}", code, status)
        except NotAudited as late:
            text += f"; the record says that it was about to be, and could not be told otherwise ({late.__cause__})"
        raise NotWritten(text, is_unreachable=isinstance(exc, BotoCoreError)) from exc


def _stored(name: str, parameter: Mapping[str, Any]) -> Stored:
    changed = parameter.get("LastModifiedDate")
    return Stored(
        name,
        str(parameter["Value"]),
        int(parameter["Version"]),
        int(changed.timestamp() * 1000) if isinstance(changed, datetime) else 0,
    )


def _compact(state: Mapping[str, Any]) -> str:
    return json.dumps(state, separators=(",", ":"), sort_keys=True)


_PAIR = re.compile(r"([^=]+)=(.*)\Z", re.DOTALL)


def pairs(texts: Iterable[str], what: str) -> dict[str, str]:
    """`name=value` texts as a map. Raises `SourceTrouble` for one that is none, or a name that comes twice."""
    found: dict[str, str] = {}
    for text in texts:
        matched = _PAIR.match(text)
        if matched is None or matched.group(1) in found:
            raise SourceTrouble(f"{what} takes name=value, each name once")
        found[matched.group(1)] = matched.group(2)
    return found


def identity_of(texts: Sequence[str]) -> object:
    """An entry's `identity` from `window`, `header:NAME`, `header:NAME:covered` or pointers. Raises `SourceTrouble`."""
    if list(texts) == ["window"]:
        return "window"
    if len(texts) == 1 and texts[0].startswith("header:"):
        name, _, claim = texts[0].removeprefix("header:").partition(":")
        if claim not in ("", "covered"):
            raise SourceTrouble("--identity is header:NAME, or header:NAME:covered if the signature covers it")
        return {"header": name, "covered": True} if claim else {"header": name}
    if all(text.startswith("/") for text in texts):
        return {"pointers": list(texts)}
    raise SourceTrouble("--identity is window, header:NAME, or one or more pointers such as /id")


_DURATION = re.compile(r"([0-9]{1,9})([smhd])\Z")
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def seconds_of(text: str, what: str) -> int:
    """Whole seconds of `90s`, `10m`, `1h` or `7d`. Raises `SourceTrouble`."""
    matched = _DURATION.match(text)
    if matched is None:
        raise SourceTrouble(f"{what} is a number and a unit: 90s, 10m, 1h or 7d")
    return int(matched.group(1)) * _UNITS[matched.group(2)]


_THROTTLE = re.compile(r"([0-9]+(?:\.[0-9]+)?)/([0-9]{1,9})\Z")


def throttle_of(text: str) -> dict[str, float | int]:
    """An entry's `throttle` from `rate/burst`. Raises `SourceTrouble`."""
    matched = _THROTTLE.match(text)
    if matched is None or len(text) > 40:
        raise SourceTrouble("--throttle is rate/burst: events a second, and how many at once, such as 50/100")
    rate = float(matched.group(1))
    return {"rate": int(rate) if rate.is_integer() else rate, "burst": int(matched.group(2))}
