"""The parameter store, as all functions but ingress read it: the operator's switches, and the integrations' secrets."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from botocore.exceptions import ClientError

from functions.adapters import aws
from functions.adapters.hosts import AllowedHosts
from functions.core.clock import Clock
from functions.core.failure import StorageUnavailable
from functions.core.switches import FRESH_FOR_MS, Snapshot

if TYPE_CHECKING:
    from mypy_boto3_ssm import SSMClient

PAGE_SIZE: Final = 10  # the most that GetParametersByPath gives
REST_MS: Final = 1_000  # after a refresh that failed: a burst of sends must not queue up behind a store that is down
CACHED_MS: Final = 300_000
KNOWN_MS: Final = 24 * 3_600_000  # how long an integration's last good secret serves while the store is down

CUSTOMER_VISIBLE: Final = "customer_visible"
OTHER: Final = "other"

_LOG = logging.getLogger(__name__)

# ------------------------------------------------------------------------------------------------------------ switches


class SsmSwitches:
    """`ports.Switches`: parameters below a path, read to the last page. Failed refreshes are counted: `switches_stale`.

    A read that finds a change measures for how long, after it was made, the process still went by what was said before:
    `switch_lag_ms`, for those who ask as a customer-visible send does and for all others apart. A process that asked
    nothing meanwhile went by nothing, so idleness is no lag.

    May be asked by several threads at once; each may then read for itself, and the newest read stays.
    """

    def __init__(
        self,
        client: SSMClient,
        path: str,
        clock: Clock,
        count: aws.Count = aws.uncounted,
        measure: aws.Measure = aws.unmeasured,
    ) -> None:
        self._client = client
        self._path = path.rstrip("/")
        self._clock = clock
        self._count = count
        self._measure = measure
        self._went_by_ms: dict[str, int] = {}  # by who asks: when the last read served for the last time
        self._lock = threading.Lock()
        self._last: Snapshot | None = None
        self._rest_until_ms = 0

    def snapshot(self, max_age_ms: int) -> Snapshot | None:
        """The last complete read, refreshed first if it is older than that; None if there never was one. Never raises.

        A snapshot's age counts from before its first page was asked for. A failed refresh rests for a second.
        """
        now_ms = self._clock.now_ms()
        last = self._last
        asks = CUSTOMER_VISIBLE if max_age_ms <= FRESH_FOR_MS else OTHER
        if last is not None and abs(now_ms - last.read_at_ms) <= max_age_ms:
            self._went_by_ms[asks] = now_ms
            return last
        if 0 < self._rest_until_ms - now_ms <= REST_MS:
            self._went_by_ms[asks] = now_ms
            return last
        try:
            values, changed_ms = self._read()
            fresh = Snapshot.complete(values, now_ms)
        except StorageUnavailable as exc:
            self._went_by_ms[asks] = now_ms
            return self._stale(str(exc))
        if fresh is None:
            self._went_by_ms[asks] = now_ms
            return self._stale("a parameter that must exist is missing")
        with self._lock:
            # One from after the present was read before the clock was set back: it is not the newer one.
            if self._last is None or not fresh.read_at_ms < self._last.read_at_ms <= self._clock.now_ms():
                if self._last is not None:
                    self._say_lag(self._last, fresh, changed_ms)
                self._last = fresh
            return self._last

    def _say_lag(self, before: Snapshot, after: Snapshot, changed_ms: Mapping[str, int]) -> None:
        """Of those that say something else than before: for how long that was gone by all the same."""
        moved = [name for name, value in after.values.items() if before.values.get(name) != value]
        for name in (one for one in moved if one in changed_ms):
            for asks, went_by_ms in self._went_by_ms.items():
                self._measure("switch_lag_ms", max(0, went_by_ms - changed_ms[name]), outcome=asks)

    def _stale(self, why: str) -> Snapshot | None:
        now_ms = self._clock.now_ms()
        last = self._last
        age_ms = None if last is None else now_ms - last.read_at_ms
        _LOG.warning(
            "the switches could not be read: the last ones known hold as long as they may, then what is safest",
            extra={"reason": why, "age_ms": age_ms},
        )
        self._count("switches_stale")
        self._rest_until_ms = now_ms + REST_MS
        return last

    def _read(self) -> tuple[dict[str, str], dict[str, int]]:
        """What every switch says, and when that was written."""
        values: dict[str, str] = {}
        changed_ms: dict[str, int] = {}
        further: dict[str, Any] = {}
        while True:
            with aws.border("read the switches"):
                page = self._client.get_parameters_by_path(
                    Path=self._path, Recursive=True, MaxResults=PAGE_SIZE, **further
                )
            for parameter in page["Parameters"]:
                name = parameter["Name"].removeprefix(f"{self._path}/")
                values[name] = parameter["Value"]
                if "LastModifiedDate" in parameter:  # what is only measured must not keep a switch from being read
                    changed_ms[name] = int(parameter["LastModifiedDate"].timestamp() * 1000)
            if not page.get("NextToken"):
                return values, changed_ms
            further = {"NextToken": page["NextToken"]}


# -------------------------------------------------------------------------------------------------------- integrations


class UnusableSecret(StorageUnavailable):
    """An integration's parameter is missing, or is not what an adapter can use. The text quotes no secret."""


@dataclass(frozen=True, slots=True)
class IntegrationSecret:
    """Where an integration is and what it is called with. `version` is the parameter's, `extra` its further keys."""

    base_url: str
    credential: str = field(repr=False)
    extra: Mapping[str, Any] = field(default_factory=dict, repr=False)
    version: str = ""

    @staticmethod
    def parse(integration: str, text: str, version: str) -> IntegrationSecret:
        """Read `{"base_url", "api_key", …}`. The URL comes back without a slash at its end. Raises `UnusableSecret`."""
        try:
            raw = json.loads(text)
        except (ValueError, RecursionError) as exc:
            raise UnusableSecret(f"the secret of {integration} is not JSON") from exc
        if not isinstance(raw, dict):
            raise UnusableSecret(f"the secret of {integration} is not a JSON object")
        base_url, credential = raw.pop("base_url", None), raw.pop("api_key", None)
        if not isinstance(base_url, str) or not _is_usable(base_url):
            raise UnusableSecret(f"base_url of {integration} is not an http or https URL of a host, without query")
        if not isinstance(credential, str) or not credential:
            raise UnusableSecret(f"api_key of {integration} is missing or not a text")
        return IntegrationSecret(base_url.rstrip("/"), credential, raw, version)


def _is_usable(base_url: str) -> bool:
    try:
        parts = urlsplit(base_url)
        is_host = bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        return False
    is_plain = not (parts.query or parts.fragment or parts.username or parts.password)
    return parts.scheme in ("http", "https") and is_host and is_plain and base_url.isprintable() and " " not in base_url


class IntegrationSettings:
    """The integrations' secrets, `{path}/{integration}` (SecureString), cached for five minutes.

    One whose `base_url` names no host of `hosts` is as unusable as one that is not JSON: nothing is ever sent there.
    """

    def __init__(self, client: SSMClient, path: str, clock: Clock, hosts: AllowedHosts) -> None:
        self._client = client
        self._path = path.rstrip("/")
        self._clock = clock
        self._hosts = hosts
        self._known: dict[str, tuple[IntegrationSecret, int]] = {}
        self._one_reader = threading.Lock()

    def get(self, integration: str) -> IntegrationSecret:
        """The secret, at most five minutes old; while it cannot be read, or is unusable, the last good one for a day.

        Raises `StorageUnavailable`, of which `UnusableSecret` is one.
        """
        known = self._known.get(integration)
        if known is not None and self._clock.now_ms() - known[1] <= CACHED_MS:
            return known[0]
        with self._one_reader:  # a batch's calls all ask at once, and the store allows few requests a second
            return self._read_if_old(integration)

    def _read_if_old(self, integration: str) -> IntegrationSecret:
        known = self._known.get(integration)
        age_ms = KNOWN_MS if known is None else self._clock.now_ms() - known[1]
        if known is not None and age_ms <= CACHED_MS:
            return known[0]
        try:
            return self.refresh(integration)
        except StorageUnavailable as exc:
            if known is None or age_ms >= KNOWN_MS:
                raise
            _LOG.error(
                "the integration's parameter could not be read: the last good one serves for a day at most",
                extra={"integration": integration, "reason": str(exc), "age_ms": age_ms},
            )
            return known[0]

    def refresh(self, integration: str) -> IntegrationSecret:
        """The secret, past the cache. Raises `StorageUnavailable`, of which `UnusableSecret` is one."""
        read_at_ms = self._clock.now_ms()
        name = f"{self._path}/{integration}"
        with aws.border(f"read the secret of {integration}"):
            try:
                parameter = self._client.get_parameter(Name=name, WithDecryption=True)["Parameter"]
            except ClientError as exc:
                if aws.code_of(exc) != "ParameterNotFound":
                    raise
                raise UnusableSecret(f"there is no parameter {name}") from exc  # a retry will not store it
        secret = IntegrationSecret.parse(integration, parameter["Value"], str(parameter["Version"]))
        refused = self._hosts.why_not(integration, secret.base_url)
        if refused is not None:
            raise UnusableSecret(refused)
        self._known[integration] = (secret, read_at_ms)
        return secret
