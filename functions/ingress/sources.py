"""The sources that ingress knows: read from the parameter store, kept, and refreshed (architecture §5, "Sources").

What is known goes on working whatever happens to the parameter store; only its word "not found" means that there is no
such source; and senders who invent ids cannot use up what real ones need.

Lambda freezes an environment the moment its answer is out. A thread that refreshes in the background would thaw in the
middle of a later invocation, with a connection that died meanwhile, and nothing may run after the answer. So a copy
past its time is refreshed by the request that meets it, within 300 ms; on any trouble it goes on with the copy. Every
read leaves the request enough of its time to store the event.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

from functions.core.clock import Clock, Deadline, Random
from functions.core.event import NAME
from functions.core.failure import HoldfastError, StorageUnavailable
from functions.core.source import MalformedSource, SourceState
from functions.ingress.bucket import TokenBucket
from functions.signatures.providers import Endpoint

# What is refused or parked by an operator's word is asked again sooner, since that word may have been taken back.
FRESH_MS: Final = {SourceState.ACTIVE: 300_000, SourceState.HELD: 60_000, SourceState.DISABLED: 30_000}
FRESH_JITTER: Final = 0.2  # either way, so that environments started together do not ask together for ever
LAST_KNOWN_MS: Final = 24 * 3600 * 1000
REFRESH_AGAIN_MS: Final = 10_000  # after a refresh that failed
UNKNOWN_MS: Final = 10_000  # how long "not found" is believed; a source just added waits no longer than this
ASK_AGAIN_MS: Final = 1_000  # after the first read of a source failed
# How long a read may take. A refresh has a copy to fall back on; a re-read decides whether a signature is good.
FIRST_READ_SECONDS: Final = 0.6
REREAD_SECONDS: Final = 0.4
REFRESH_SECONDS: Final = 0.3
READ_SHARE: Final = 0.45  # of what is left of the request's time, at most: it may take two reads, and must store then
REMEMBERED_IDS: Final = 1024  # of ids that are no source, or could not be read
# A bad signature may mean a rotation that we have not seen. One re-read in ten seconds per source in the long run; some
# at once, because a forgery just before a rotation must not leave the honest events after it without theirs.
REREADS_PER_SECOND: Final = 0.1
REREADS_AT_ONCE: Final = 5
# First reads of ids never seen, in all; the parameter store gives an account 40 a second. Known sources never wait.
FIRST_READS_PER_SECOND: Final = 10.0
FIRST_READS_AT_ONCE: Final = 50


class SourceParameters(Protocol):
    """The parameter store, one entry per source."""

    def read(self, source_id: str, timeout_seconds: float) -> str | None:
        """The entry's text; None only if the store says that there is none. Raises `StorageUnavailable`."""
        ...


class LookupsExhausted(HoldfastError):
    """Too many ids that nobody knows were asked for, and this one was not looked up. `retry_after_ms`: wait."""

    def __init__(self, retry_after_ms: int) -> None:
        super().__init__("too many unknown ids")
        self.retry_after_ms = retry_after_ms


@dataclass(frozen=True, slots=True)
class Lookup:
    """What is known of a source. `endpoint` None: there is none of that id.

    `malformed`: its entry has been read and is unusable, for this reason; `endpoint` is then the last usable copy.
    `stale`: why the entry could not be read again in time; `endpoint` is then the last known copy.
    """

    endpoint: Endpoint | None
    malformed: str = ""
    stale: str = ""


UNKNOWN: Final = Lookup(None)


class Sources(Protocol):
    """What the handler asks."""

    def find(self, source_id: str, deadline: Deadline) -> Lookup:
        """Raises `StorageUnavailable` when nothing is known of it, or nothing recent enough; `LookupsExhausted`."""
        ...

    def reread(self, source_id: str, deadline: Deadline) -> Lookup:
        """What the store says now, as often as its budget allows, else the copy at hand.

        Raises `StorageUnavailable` when what it says now cannot be known, so that a doubt of ours refuses nobody.
        """
        ...


def _share(deadline: Deadline, at_most_seconds: float) -> float:
    return min(at_most_seconds, deadline.remaining_seconds() * READ_SHARE)


def _reread_budget() -> TokenBucket:
    return TokenBucket(REREADS_PER_SECOND, REREADS_AT_ONCE)


@dataclass(slots=True)
class _Copy:
    endpoint: Endpoint
    read_at_ms: int
    refresh_at_ms: int
    rereads: TokenBucket = field(default_factory=_reread_budget)
    is_doubtful: bool = False  # the last re-read failed or met a malformed entry


class SourceCache:
    """`Sources` over a parameter store. One request at a time, as in a Lambda environment."""

    def __init__(
        self, parameters: SourceParameters, endpoint_of: Callable[[str, str], Endpoint], clock: Clock, random: Random
    ) -> None:
        self._parameters = parameters
        self._endpoint_of = endpoint_of
        self._clock = clock
        self._random = random
        self._copies: dict[str, _Copy] = {}
        self._unknown_until_ms: OrderedDict[str, int] = OrderedDict()
        self._failing_until_ms: OrderedDict[str, int] = OrderedDict()
        self._first_reads = TokenBucket(FIRST_READS_PER_SECOND, FIRST_READS_AT_ONCE)

    def find(self, source_id: str, deadline: Deadline) -> Lookup:
        """See `Sources.find`."""
        if not NAME.match(source_id):
            return UNKNOWN
        now_ms = self._clock.now_ms()
        copy = self._copies.get(source_id)
        if copy is not None:
            return self._known(source_id, copy, now_ms, deadline)
        if self._unknown_until_ms.get(source_id, 0) > now_ms:
            return UNKNOWN
        if self._failing_until_ms.get(source_id, 0) > now_ms:
            raise StorageUnavailable("the source could not be read a moment ago")
        wait_ms = self._first_reads.take(now_ms)
        if wait_ms:
            raise LookupsExhausted(wait_ms)
        return self._first_read(source_id, now_ms, deadline)

    def reread(self, source_id: str, deadline: Deadline) -> Lookup:
        """See `Sources.reread`."""
        now_ms = self._clock.now_ms()
        copy = self._copies.get(source_id)
        if copy is None:
            return self.find(source_id, deadline)
        if copy.rereads.take(now_ms):
            if copy.is_doubtful:
                raise StorageUnavailable("the source could not be read again a moment ago")
            return Lookup(copy.endpoint)
        copy.is_doubtful = True
        lookup = self._read_again(source_id, copy, now_ms, _share(deadline, REREAD_SECONDS))
        copy.is_doubtful = bool(lookup.malformed)
        return lookup

    def _known(self, source_id: str, copy: _Copy, now_ms: int, deadline: Deadline) -> Lookup:
        if now_ms >= copy.refresh_at_ms:
            try:
                return self._read_again(source_id, copy, now_ms, _share(deadline, REFRESH_SECONDS))
            except StorageUnavailable as exc:
                copy.refresh_at_ms = now_ms + self._jittered(REFRESH_AGAIN_MS)
                if now_ms - copy.read_at_ms > LAST_KNOWN_MS:
                    raise
                return Lookup(copy.endpoint, stale=str(exc))
        if now_ms - copy.read_at_ms > LAST_KNOWN_MS:
            raise StorageUnavailable("what is known of the source is over a day old")
        return Lookup(copy.endpoint)

    def _read_again(self, source_id: str, copy: _Copy, now_ms: int, timeout_seconds: float) -> Lookup:
        text = self._parameters.read(source_id, timeout_seconds)
        if text is None:
            del self._copies[source_id]
            self._remember(self._unknown_until_ms, source_id, now_ms + UNKNOWN_MS)
            return UNKNOWN
        try:
            copy.endpoint = self._endpoint_of(source_id, text)
        except MalformedSource as exc:
            copy.refresh_at_ms = now_ms + self._jittered(REFRESH_AGAIN_MS)
            if now_ms - copy.read_at_ms > LAST_KNOWN_MS:
                raise StorageUnavailable(f"malformed for over a day: {exc}") from exc
            return Lookup(copy.endpoint, malformed=str(exc))
        copy.read_at_ms = now_ms
        copy.refresh_at_ms = now_ms + self._jittered(FRESH_MS[copy.endpoint.source.state])
        copy.is_doubtful = False
        return Lookup(copy.endpoint)

    def _first_read(self, source_id: str, now_ms: int, deadline: Deadline) -> Lookup:
        try:
            text = self._parameters.read(source_id, _share(deadline, FIRST_READ_SECONDS))
        except StorageUnavailable:
            self._remember(self._failing_until_ms, source_id, now_ms + ASK_AGAIN_MS)
            raise
        if text is None:
            self._remember(self._unknown_until_ms, source_id, now_ms + UNKNOWN_MS)
            return UNKNOWN
        try:
            endpoint = self._endpoint_of(source_id, text)
        except MalformedSource as exc:
            self._remember(self._failing_until_ms, source_id, now_ms + ASK_AGAIN_MS)
            return Lookup(None, malformed=str(exc))
        self._copies[source_id] = _Copy(endpoint, now_ms, now_ms + self._jittered(FRESH_MS[endpoint.source.state]))
        return Lookup(endpoint)

    def _jittered(self, milliseconds: int) -> int:
        return int(milliseconds * self._random.uniform(1 - FRESH_JITTER, 1 + FRESH_JITTER))

    @staticmethod
    def _remember(ids: OrderedDict[str, int], source_id: str, until_ms: int) -> None:
        ids[source_id] = until_ms
        ids.move_to_end(source_id)
        while len(ids) > REMEMBERED_IDS:
            ids.popitem(last=False)
