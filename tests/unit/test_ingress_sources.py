"""What ingress knows of its sources, and how long."""

from __future__ import annotations

import pytest

from functions.core.clock import Deadline
from functions.core.failure import StorageUnavailable
from functions.ingress.bucket import TokenBucket
from functions.ingress.sources import UNKNOWN, Lookup, LookupsExhausted, SourceCache
from functions.signatures.providers import endpoint_of
from tests.ingress_fakes import FakeParameters, MiddleRandom, SettableClock

ENTRY = {"tenant": "acme", "provider": "stripe", "flow": "support", "secrets": [{"secret": "one"}]}
MINUTE = 60_000
DAY = 24 * 60 * MINUTE


class Known:
    def __init__(self) -> None:
        self.clock = SettableClock()
        self.parameters = FakeParameters()
        self.parameters.put("shop", **ENTRY)
        self.sources = SourceCache(self.parameters, endpoint_of, self.clock, MiddleRandom())

    def find(self, source_id: str) -> Lookup:
        return self.sources.find(source_id, self.request())

    def reread(self, source_id: str) -> Lookup:
        return self.sources.reread(source_id, self.request())

    def request(self) -> Deadline:
        return Deadline.after(1.0, self.clock.seconds)

    def secret(self, source_id: str = "shop") -> str:
        endpoint = self.find(source_id).endpoint
        assert endpoint is not None
        return endpoint.source.secrets[0].value

    def asked(self) -> int:
        return len(self.parameters.asked)


@pytest.fixture
def known() -> Known:
    return Known()


def test_a_source_is_read_once_in_five_minutes(known: Known) -> None:
    for _ in range(300):
        known.secret()
        known.clock.ms += 999
    assert known.asked() == 1
    known.clock.ms += 1000
    known.secret()
    # The first read may take what the request can spare, a refresh no more than it is worth.
    assert known.parameters.asked == [("shop", 0.45), ("shop", 0.3)]


def test_a_change_arrives_with_the_refresh(known: Known) -> None:
    known.secret()
    known.parameters.put("shop", **{**ENTRY, "secrets": [{"secret": "two"}]})
    assert known.secret() == "one"
    known.clock.ms += 5 * MINUTE
    assert known.secret() == "two"


def test_a_known_source_goes_on_for_a_day_without_the_parameter_store_and_not_longer(known: Known) -> None:
    known.secret()
    known.parameters.is_down = True
    known.clock.ms += DAY
    lookup = known.find("shop")
    assert lookup.endpoint is not None
    assert lookup.stale == "the fake parameter store is down"
    known.clock.ms += 1
    for _ in range(2):  # also between two tries to read it
        with pytest.raises(StorageUnavailable):
            known.find("shop")
    known.clock.ms += MINUTE
    with pytest.raises(StorageUnavailable):
        known.find("shop")
    known.parameters.is_down = False
    known.clock.ms += MINUTE
    assert known.secret() == "one"


def test_while_the_parameter_store_is_down_a_known_source_asks_it_every_ten_seconds_only(known: Known) -> None:
    known.secret()
    known.parameters.is_down = True
    known.clock.ms += 5 * MINUTE
    for _ in range(100):
        known.secret()
        known.clock.ms += 100
    assert known.asked() == 2


def test_only_not_found_means_unknown(known: Known) -> None:
    assert known.find("nobody") == UNKNOWN
    known.parameters.is_down = True
    with pytest.raises(StorageUnavailable):
        known.find("somebody")
    asked = known.asked()
    with pytest.raises(StorageUnavailable):
        known.find("somebody")
    assert known.asked() == asked  # asked again only a second later
    known.parameters.is_down = False
    known.parameters.put("somebody", **ENTRY)
    known.clock.ms += 1000
    assert known.secret("somebody") == "one"


def test_a_source_that_is_removed_becomes_unknown_and_one_that_is_added_known_within_ten_seconds(known: Known) -> None:
    known.secret()
    entry = known.parameters.entries.pop("shop")
    known.clock.ms += 5 * MINUTE
    assert known.find("shop") == UNKNOWN
    known.parameters.entries["shop"] = entry
    assert known.find("shop") == UNKNOWN
    known.clock.ms += 10_000
    assert known.secret() == "one"


@pytest.mark.parametrize("source_id", ["", "../x", "a b", "x" * 65, "ä"])
def test_an_id_that_no_source_can_have_is_not_even_looked_up(known: Known, source_id: str) -> None:
    assert known.find(source_id) == UNKNOWN
    assert known.asked() == 0


def test_invented_ids_use_up_neither_what_known_sources_need_nor_the_memory(known: Known) -> None:
    known.secret()
    refused = 0
    for number in range(5000):
        try:
            assert known.find(f"junk{number}") == UNKNOWN
        except LookupsExhausted as exc:
            refused += exc.retry_after_ms > 0
        known.clock.ms += 1
    assert known.asked() <= 1 + 50 + 50  # the burst, and ten a second for five seconds
    assert refused > 4800
    assert len(known.sources._unknown_until_ms) <= 1024
    known.clock.ms += 5 * MINUTE
    known.parameters.put("shop", **{**ENTRY, "secrets": [{"secret": "two"}]})
    for number in range(200):
        try:
            known.find(f"more{number}")
        except LookupsExhausted:
            break
    assert known.secret() == "two"  # refreshed although no first read is left
    with pytest.raises(LookupsExhausted):
        known.find("another")
    known.clock.ms += 1000
    known.parameters.put("another", **ENTRY)
    assert known.secret("another") == "one"


def test_the_memory_of_unknown_ids_is_bounded(known: Known) -> None:
    for number in range(3000):
        known.clock.ms += 100
        known.find(f"junk{number}")
    assert len(known.sources._unknown_until_ms) == 1024


def test_the_same_invented_id_is_looked_up_once_in_ten_seconds(known: Known) -> None:
    for _ in range(100):
        assert known.find("junk") == UNKNOWN
        known.clock.ms += 99
    assert known.asked() == 1


def test_a_malformed_entry_keeps_the_last_good_copy_and_says_so(known: Known) -> None:
    known.secret()
    known.parameters.entries["shop"] = '{"tenant": "acme"}'
    known.clock.ms += 5 * MINUTE
    lookup = known.find("shop")
    assert lookup.endpoint is not None
    assert "provider" in lookup.malformed
    assert known.secret() == "one"
    known.clock.ms += DAY
    with pytest.raises(StorageUnavailable, match="malformed"):
        known.find("shop")


def test_an_entry_that_was_never_good_is_not_an_unknown_source(known: Known) -> None:
    known.parameters.entries["new"] = "{"
    lookup = known.find("new")
    assert lookup.endpoint is None
    assert lookup.malformed
    with pytest.raises(StorageUnavailable):
        known.find("new")
    known.parameters.put("new", **ENTRY)
    known.clock.ms += 1000
    assert known.secret("new") == "one"


def test_a_disabled_source_is_asked_for_sooner_so_that_enabling_it_does_not_take_minutes(known: Known) -> None:
    known.parameters.put("shop", **ENTRY, state="disabled")
    known.secret()
    known.parameters.put("shop", **ENTRY)
    known.clock.ms += 30_000
    endpoint = known.find("shop").endpoint
    assert endpoint is not None
    assert endpoint.source.state == "active"


def test_rereads_are_few_at_once_and_one_in_ten_seconds_in_the_long_run(known: Known) -> None:
    known.secret()
    for _ in range(1000):
        assert known.reread("shop").endpoint is not None
        known.clock.ms += 100
    assert 10 <= known.asked() - 1 <= 15
    assert all(seconds >= 0.4 for _, seconds in known.parameters.asked)  # more than a refresh gets


def test_a_reread_that_cannot_be_had_is_our_trouble_until_one_succeeds(known: Known) -> None:
    known.secret()
    known.parameters.is_down = True
    for _ in range(20):
        with pytest.raises(StorageUnavailable):
            known.reread("shop")
    assert known.asked() == 1 + 5
    assert known.secret() == "one"
    known.parameters.is_down = False
    known.clock.ms += 10_000
    assert known.reread("shop").endpoint is not None
    assert known.reread("shop").endpoint is not None  # out of budget, and no longer in doubt
    assert known.asked() == 7


def test_a_reread_of_a_source_that_is_gone_finds_nothing(known: Known) -> None:
    known.secret()
    known.parameters.entries.clear()
    assert known.reread("shop") == UNKNOWN
    assert known.reread("shop") == UNKNOWN
    assert known.asked() == 2


def test_a_bucket_gives_its_burst_then_its_rate_and_nothing_for_a_clock_that_steps_back() -> None:
    bucket = TokenBucket(rate=2, burst=3)
    assert [bucket.take(1000) for _ in range(4)] == [0, 0, 0, 500]
    assert bucket.take(0) > 0
    assert bucket.take(500) == 0
    assert bucket.take(500) == 500
