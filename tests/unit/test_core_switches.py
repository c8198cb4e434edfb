"""The operator's switches: reading, narrowing, and what holds when they cannot be known (architecture §9)."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from functions.core.decision import Mode, Repeat
from functions.core.integration import Integration, KindRules
from functions.core.switches import (
    KNOWN_FOR_MS,
    REQUIRED,
    Integrations,
    Snapshot,
    SwitchView,
    UnfitSwitch,
    everyday,
    is_everyday,
    pattern_of,
    problem,
    view,
    written,
)
from tests.unit.builders import NOON_MS

LIVE = {
    "mode": "live",
    "auto_reply": "on",
    "classifier": "llm",
    "optional_calls": "on",
    "replay": "on",
    "disabled_integrations": "none",
    "replay_blocked_integrations": "none",
}


def seen(values: dict[str, str], now_ms: int = NOON_MS, **scope: str) -> SwitchView:
    """What those parameters, read at noon, mean."""
    whose = {"flow": "support", "source": "shop", "tenant": "acme"} | scope
    return view(Snapshot(values, NOON_MS), now_ms=now_ms, **whose)


def test_a_read_without_every_parameter_is_no_snapshot() -> None:
    for name in REQUIRED:
        assert Snapshot.complete({key: value for key, value in LIVE.items() if key != name}, NOON_MS) is None
    whole = Snapshot.complete(LIVE | {"limits/helpdesk": "0.5"}, NOON_MS)
    assert whole == Snapshot(LIVE | {"limits/helpdesk": "0.5"}, NOON_MS)


def test_everything_is_permitted_only_where_everything_says_so() -> None:
    found = seen(LIVE, NOON_MS + 3)
    assert found == SwitchView(Mode.LIVE, True, True, True, True, Integrations(), Integrations(), {}, 3)


def test_a_value_that_is_not_there_is_no_permission() -> None:
    found = seen({})
    assert found.mode is Mode.ROUTE_ONLY
    assert not any((found.auto_reply, found.use_llm, found.optional_calls, found.replay))


@pytest.mark.parametrize("now_ms", [NOON_MS + KNOWN_FOR_MS + 1, NOON_MS + 10 * KNOWN_FOR_MS])
def test_after_ten_minutes_every_switch_takes_its_value_for_cannot_be_known(now_ms: int) -> None:
    found = seen(LIVE | {"disabled_integrations": "sms", "limits/llm": "0.2"}, now_ms)
    assert found.mode is Mode.ROUTE_ONLY
    assert not any((found.auto_reply, found.use_llm, found.optional_calls, found.replay))
    assert "sms" in found.disabled  # lists and limits keep their last known value
    assert found.limit("llm") == 0.2


def test_for_ten_minutes_the_last_known_values_hold() -> None:
    assert seen(LIVE, NOON_MS + KNOWN_FOR_MS).auto_reply


def test_a_clock_set_back_behind_the_snapshot_s_makes_it_no_newer_than_it_is_off() -> None:
    """Else a kill switch thrown after the clock was set back would not be seen until the clock has caught up."""
    assert seen(LIVE, NOON_MS - 5_000).age_ms == 5_000


def test_without_a_snapshot_nothing_is_disabled_and_nothing_permitted() -> None:
    found = view(None, flow="f", source="s", tenant="t", now_ms=NOON_MS)
    assert found == SwitchView(Mode.ROUTE_ONLY, False, False, False, False, Integrations(), Integrations(), {}, None)
    assert found.limit("helpdesk") == 1.0


@pytest.mark.parametrize("scope", ["flow/support/", "source/shop/", "tenant/acme/"])
def test_a_narrower_parameter_makes_stricter_and_never_freer_001_32(scope: str) -> None:
    assert seen(LIVE | {f"{scope}mode": "manual"}).mode is Mode.MANUAL
    assert seen(LIVE | {"mode": "hold", f"{scope}mode": "live"}).mode is Mode.HOLD
    assert not seen(LIVE | {f"{scope}auto_reply": "off"}).auto_reply
    assert not seen(LIVE | {"auto_reply": "off", f"{scope}auto_reply": "on"}).auto_reply
    assert not seen(LIVE | {f"{scope}classifier": "rules"}).use_llm
    narrowed = seen(LIVE | {"disabled_integrations": "llm", f"{scope}disabled_integrations": "sms"})
    assert narrowed.disabled == Integrations(some=frozenset({"llm", "sms"}))
    limited = seen(LIVE | {"limits/helpdesk": "0.5", f"{scope}limits/helpdesk": "0.9", f"{scope}limits/llm": "0.1"})
    assert (limited.limit("helpdesk"), limited.limit("llm")) == (0.5, 0.1)


@pytest.mark.parametrize("scope", ["flow/outreach/", "source/other/", "tenant/globex/"])
def test_a_parameter_of_somebody_else_changes_nothing(scope: str) -> None:
    others = {f"{scope}{name}": "off" for name in REQUIRED} | {f"{scope}limits/helpdesk": "0"}
    assert seen(LIVE | others) == seen(LIVE)


@pytest.mark.parametrize("name", ["auto_reply", "classifier", "optional_calls", "replay"])
@pytest.mark.parametrize("value", ["ON", "yes", "", "true", "llm on", "0"])
def test_a_value_nobody_understands_is_no_permission(name: str, value: str) -> None:
    fields = {"classifier": "use_llm"}
    assert getattr(seen(LIVE | {name: value}), fields.get(name, name)) is False


@pytest.mark.parametrize("value", ["LIVE", "", "paused"])
def test_a_mode_nobody_understands_replies_to_nobody(value: str) -> None:
    assert seen(LIVE | {"mode": value}).mode is Mode.ROUTE_ONLY


def test_blanks_around_a_value_do_not_count() -> None:
    assert seen({name: f" {value}\n" for name, value in LIVE.items()}) == seen(LIVE)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("none", Integrations()),
        ("", Integrations()),
        ("all", Integrations(every=True)),
        (" sms , email,, none ", Integrations(some=frozenset({"sms", "email"}))),
        ("sms,all", Integrations(every=True, some=frozenset({"sms"}))),
    ],
)
def test_a_list_names_none_all_or_some(value: str, expected: Integrations) -> None:
    found = seen(LIVE | {"disabled_integrations": value, "replay_blocked_integrations": value})
    assert found.disabled == found.replay_blocked == expected
    assert ("sms" in expected) is (expected.every or "sms" in expected.some)


@pytest.mark.parametrize("value", ["half", "", "-0.1", "1.1", "nan", "inf"])
def test_a_limit_nobody_understands_is_one(value: str) -> None:
    assert seen(LIVE | {"limits/helpdesk": value}).limit("helpdesk") == 1.0
    assert problem("limits/helpdesk", value) is not None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("mode", "hold"),
        ("auto_reply", "off"),
        ("classifier", "rules"),
        ("optional_calls", "on"),
        ("replay", "off"),
        ("disabled_integrations", "sms,email"),
        ("replay_blocked_integrations", "none"),
        ("limits/helpdesk", "0.25"),
        ("flow/support/mode", "manual"),
        ("source/shop/auto_reply", "off"),
        ("tenant/acme/limits/llm", "0"),
    ],
)
def test_a_value_that_means_something_may_be_written(name: str, value: str) -> None:
    assert problem(name, value) is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("mode", "Live"),
        ("mode", ""),
        ("auto_reply", "off; drop table"),
        ("disabled_integrations", "  "),
        ("limits/", "1"),
        ("limits", "1"),
        ("limits/helpdesk/more", "1"),
        ("", "on"),
        ("../sources/shop", "on"),
        ("flow//mode", "live"),
        ("flow/support", "live"),
        ("flow/support/nothing", "on"),
        ("team/support/mode", "live"),
        ("flow/support/tenant/acme/mode", "live"),
    ],
)
def test_a_name_or_value_that_means_nothing_is_refused_with_a_reason(name: str, value: str) -> None:
    assert problem(name, value)


NAMES = st.sampled_from([*REQUIRED, "limits/helpdesk"])
SCOPES = st.sampled_from(["", "flow/support/", "source/shop/", "tenant/acme/", "tenant/globex/"])
VALUES = st.sampled_from([*Mode, "on", "off", "llm", "rules", "none", "all", "helpdesk", "0", "0.3", "1", "?", ""])


@given(st.dictionaries(st.tuples(SCOPES, NAMES).map("".join), VALUES), st.tuples(SCOPES, NAMES).map("".join), VALUES)
def test_a_further_narrowing_never_permits_more(values: dict[str, str], name: str, value: str) -> None:
    base = LIVE | values
    assume(name not in base)
    before, after = seen(base), seen(base | {name: value})
    assert after.mode.strictness >= before.mode.strictness
    for switch in ("auto_reply", "use_llm", "optional_calls", "replay"):
        assert getattr(after, switch) <= getattr(before, switch)
    for integration in ("helpdesk", "sms"):
        assert (integration in after.disabled) >= (integration in before.disabled)
        assert (integration in after.replay_blocked) >= (integration in before.replay_blocked)
    assert after.limit("helpdesk") <= before.limit("helpdesk")


@given(SCOPES, st.sampled_from(["mode", "auto_reply", "replay", "limits/helpdesk"]), VALUES | st.text())
def test_whatever_may_be_written_is_read_as_it_was_meant(scope: str, name: str, value: str) -> None:
    if problem(scope + name, value) is not None or scope == "tenant/globex/":
        return
    found = seen({**LIVE, scope + name: value})
    meant = {
        "mode": found.mode.value == value,
        "auto_reply": found.auto_reply is (value == "on"),
        "replay": found.replay is (value == "on"),
        "limits/helpdesk": name != "limits/helpdesk" or found.limit("helpdesk") == float(value),
    }
    assert meant[name]


# ---------------------------------------------------------------------------------------------- what a parameter takes

CATALOG = {
    "helpdesk": Integration("helpdesk", kinds={"reply": KindRules("reply", Repeat.KEYED)}),
    "llm": Integration("llm"),
}


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("auto_reply", "off", "off"),
        ("flow/support/mode", "hold", "hold"),
        ("limits/helpdesk", "0.25", "0.25"),
        ("tenant/acme/limits/llm", "0", "0"),
        ("disabled_integrations", " none ", "none"),
        ("disabled_integrations", "all", "all"),
        ("disabled_integrations", "llm, helpdesk,", "llm,helpdesk"),
        ("source/shop/replay_blocked_integrations", "helpdesk,intake", "helpdesk,intake"),
    ],
)
def test_a_value_is_written_as_its_parameter_takes_it(name: str, value: str, expected: str) -> None:
    assert written(name, value, CATALOG) == expected


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("auto_reply", "maybe", "takes on, off"),
        ("no_such", "on", "there is no switch"),
        ("flow/a b/mode", "live", "cannot be a switch's name"),
        ("tenant/../mode", "live", "cannot be a switch's name"),
        ("limits/nobody", "0", "there is no integration 'nobody'"),
        ("limits/helpdesk", "1e-1", "written otherwise"),
        ("limits/helpdesk", "0.123456", "written otherwise"),
        ("disabled_integrations", "helpdeks", "there is no integration 'helpdeks'"),
        ("disabled_integrations", "intake", "there is no integration 'intake'"),
        ("disabled_integrations", "none,llm", "stand alone"),
        ("disabled_integrations", ", ,", "stand alone"),
        ("replay_blocked_integrations", "llm", "no action goes to 'llm'"),
    ],
)
def test_what_would_do_nothing_or_be_refused_is_not_written(name: str, value: str, says: str) -> None:
    with pytest.raises(UnfitSwitch, match=says):
        written(name, value, CATALOG)


@pytest.mark.parametrize("name", [*REQUIRED, "limits/helpdesk", "flow/support/auto_reply", "tenant/acme/limits/llm"])
def test_what_a_switch_says_every_day_may_be_written_and_permits_everything(name: str) -> None:
    value = everyday(name)
    assert written(name, value, CATALOG) == value
    changed, usual = seen({**LIVE, name: value}), seen(LIVE)
    assert replace(changed, limits={}) == replace(usual, limits={})
    assert {changed.limit(integration) for integration in CATALOG} == {1.0}


def test_a_factor_says_what_it_says_every_day_however_it_is_written() -> None:
    assert [is_everyday("limits/helpdesk", value) for value in ("1", "1.0", "0.5")] == [True, True, False]
    assert [is_everyday("auto_reply", value) for value in ("on", "off")] == [True, False]
    assert not is_everyday("something", "on")


def test_what_is_no_switch_has_no_everyday_value_and_no_pattern() -> None:
    assert everyday("something") == ""
    with pytest.raises(KeyError):
        pattern_of("something")


def test_what_is_remembered_of_a_read_has_an_end_however_many_tenants_there_are() -> None:
    snapshot = Snapshot({**LIVE, "tenant/t-3/mode": "hold"}, 0)
    views = [snapshot.said("support", "desk", f"t-{number}") for number in range(2_500)]
    assert [number for number, seen in enumerate(views) if seen.mode is Mode.HOLD] == [3]
    assert len(snapshot._sense._views) <= 1_000
    assert snapshot.said("support", "desk", "t-3").mode is Mode.HOLD
