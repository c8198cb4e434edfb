"""The catalog: what ships holds together, what does not is refused by file and key, releases stay what they were."""

from __future__ import annotations

import re
import shutil
import tomllib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from functions.catalog.loader import HERE, MalformedCatalog, load, load_from, load_released
from functions.catalog.released import broken_releases, release_digest, release_key
from functions.core.catalog import Message, VersionRule, params_of
from functions.core.decision import MessageRef, Repeat
from functions.core.integration import INTAKE
from functions.core.schema import knows_version

Edit = Callable[[str, str, str], None]


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The shipped catalog's files, to be broken."""
    directory = tmp_path / "catalog"
    shutil.copytree(HERE, directory, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    return directory


@pytest.fixture
def edit(copy: Path) -> Edit:
    def change(name: str, old: str, new: str) -> None:
        path = copy / name
        text = path.read_text()
        assert old in text, f"{name} has no {old!r} to change"
        path.write_text(text.replace(old, new, 1))

    return change


# ------------------------------------------------------------------------------------------------------- what ships


def test_the_helpdesk_may_be_called_five_times_with_one_two_four_and_eight_minutes_between() -> None:
    policy = load().integrations["helpdesk"].policy
    assert (policy.max_attempts, policy.waits_seconds) == (5, (60, 120, 240, 480))


def test_every_kind_says_how_it_may_be_repeated_and_where_that_was_established() -> None:
    kinds = load().integrations["helpdesk"].kinds
    assert {kind: rules.repeat for kind, rules in kinds.items()} == {
        "helpdesk.add_tags": Repeat.IDEMPOTENT,
        "helpdesk.assign_team": Repeat.SETTING,
        "helpdesk.reply": Repeat.LOOKUP,
        "helpdesk.count_replies": Repeat.IDEMPOTENT,
    }
    assert all(rules.established.startswith("https://") for rules in kinds.values())
    assert kinds["helpdesk.reply"].can_look_up
    assert kinds["helpdesk.reply"].settle_seconds == 180
    assert {kind: rules.counted_by for kind, rules in kinds.items() if rules.counted_by} == {
        "helpdesk.reply": "helpdesk.count_replies"
    }


def test_deadlines_keep_a_kill_switch_within_fifteen_seconds_and_the_llm_within_two_and_a_half() -> None:
    """002.29, 002.14"""
    integrations = load().integrations
    assert all(integration.deadline_seconds <= 8 for integration in integrations.values())
    assert integrations["llm"].deadline_seconds == 2.5
    assert not integrations["llm"].kinds


def test_the_id_of_whole_events_belongs_to_no_integration() -> None:
    assert INTAKE not in load().integrations


def test_whoever_is_paged_finds_whom_to_ask_at_each_provider_004_22() -> None:
    asked = {name: profile.support_contact for name, profile in load().profiles.items() if profile.provider != "rules"}
    assert len(asked) > 4
    assert [name for name, contact in asked.items() if not contact.startswith("https://")] == []


def test_thresholds_are_those_of_the_requirements() -> None:
    thresholds = {name: profile.success_threshold for name, profile in load().profiles.items()}
    assert thresholds.pop("ocr") == 0.85
    assert set(thresholds.values()) == {0.90}
    assert {profile.recovery_threshold for profile in load().profiles.values()} == {0.95}


def test_the_catalog_is_read_once() -> None:
    assert load() is load()


def test_the_prompt_names_the_reason_codes_it_allows() -> None:
    prompt = load().prompts["support"]
    assert all(code in prompt.text for code in prompt.reason_codes)


def test_texts_for_customers_name_no_provider_and_no_integration() -> None:
    """000.25: no technical provider names in what users read."""
    catalog = load()
    names = {"richpanel", "openai", "chatgpt", "stripe", "twilio", "shopify", "slack", "github", "aws", "amazon"}
    names |= {profile.provider for profile in catalog.profiles.values()}
    for message in catalog.messages.values():
        words = set(re.findall(r"[a-z]+", message.text.lower()))
        assert not words & names, f"{message.id}@{message.version}"


def test_a_stored_decision_finds_the_text_it_names() -> None:
    assert load().text_of(MessageRef("order_status", 1)).startswith("Hello,")


def test_a_text_that_is_not_there_is_said_so() -> None:
    with pytest.raises(KeyError):
        load().text_of(MessageRef("order_status", 99))


def test_a_team_has_the_id_its_tenant_gave_it() -> None:
    team = replace(load().teams["orders"], helpdesk_ids={"acme": "team_4711"})
    assert team.helpdesk_id_for("acme") == "team_4711"
    assert team.helpdesk_id_for("globex") == "orders"


# --------------------------------------------------------------------------------------------------------- releases


def test_released_messages_are_what_they_were_and_every_message_is_released() -> None:
    """A stored decision can be carried out for as long as it is stored."""
    assert broken_releases(load().messages.values(), load_released()) == []


@pytest.mark.parametrize("change", ["edited", "removed", "unreleased"])
def test_a_released_message_cannot_be_changed_unseen(change: str) -> None:
    one, other = Message("hello", 1, "Hello."), Message("bye", 1, "Bye.")
    released = {release_key(message): release_digest(message) for message in (one, other)}
    assert broken_releases([one, other], released) == []
    changed = {
        "edited": [one, replace(other, text="Bye!")],
        "removed": [one],
        "unreleased": [one, other, Message("bye", 2, "Bye!")],
    }[change]
    problems = broken_releases(changed, released)
    assert len(problems) == 1
    assert problems[0].startswith("bye@2" if change == "unreleased" else "bye@1")


# ---------------------------------------------------------------------------------------------------------- messages


def test_parameters_are_put_in_once_and_not_read_again() -> None:
    message = Message("hello", 1, "{greeting}, {name}!", params_of("{greeting}, {name}!"))
    assert message.params == {"greeting", "name"}
    assert message.render({"greeting": "{name}", "name": "you"}) == "{name}, you!"


def test_a_missing_parameter_is_named() -> None:
    with pytest.raises(KeyError, match="name"):
        Message("hello", 1, "{name}").render({})


# ----------------------------------------------------------------------------------------------------- broken catalogs


def test_an_untouched_copy_loads(copy: Path) -> None:
    assert load_from(copy).rules_version == load().rules_version


def test_the_rules_version_changes_with_a_word_and_not_with_a_comment(copy: Path, edit: Edit) -> None:
    edit("keywords.toml", "# Words", "# Some words")
    assert load_from(copy).rules_version == load().rules_version
    edit("keywords.toml", '"caught fire"', '"went up in flames"')
    assert load_from(copy).rules_version != load().rules_version


BLANK = '[[messages]]\nid = "blank"\nversion = 1\ntext = " "\n'
BROKEN = [
    (
        "integrations.toml",
        "deadline_seconds = 8.0",
        "deadline_seconds = 8.5",
        "deadline_seconds",
        "less than or equal to 8",
    ),
    ("integrations.toml", "deadline_seconds = 8.0", "deadline_seconds = nan", "deadline_seconds", "finite"),
    ("integrations.toml", "deadline_seconds = 8.0", 'deadline_seconds = "8"', "deadline_seconds", "number"),
    ("integrations.toml", "[60, 120, 240, 480]", "[60, 120]", "policy", "5 attempts have 4 waits"),
    ("integrations.toml", 'repeat = "lookup"', 'repeat = "keyed"', "helpdesk.reply", "key_window_seconds"),
    ("integrations.toml", 'repeat = "lookup"', 'repeat = "sometimes"', "repeat", "Input should be"),
    (
        "integrations.toml",
        "can_look_up = true\ncounted",
        "can_look_up = false\ncounted",
        "helpdesk.reply",
        "can_look_up",
    ),
    (
        "integrations.toml",
        'established = "https://developer.richpanel.com/reference/get-a',
        'counted_by = "helpdesk.add_tags"\nestablished = "https://developer.richpanel.com/reference/get-a',
        "helpdesk.count_replies",
        "it needs can_look_up",
    ),
    ("integrations.toml", '= "helpdesk.count_replies"', '= "helpdesk.count"', "integrations.helpdesk", "no idempotent"),
    ("integrations.toml", '= "helpdesk.count_replies"', '= "helpdesk.reply"', "helpdesk.reply", "no idempotent kind"),
    ("integrations.toml", '"helpdesk.reply"', '"mail.reply"', "mail.reply", "does not begin with 'helpdesk.'"),
    (
        "integrations.toml",
        '"helpdesk.reply"',
        '"helpdesk.answer"',
        "integrations.helpdesk.kinds",
        "lacks helpdesk.reply",
    ),
    ("integrations.toml", '"helpdesk.reply"', '"reply"', "kinds", "is not integration.verb"),
    ("integrations.toml", "recovery_threshold = 0.95", "recovery_threshold = 0.5", "helpdesk", "flap"),
    (  # else what counts would be counted, and that again
        "integrations.toml",
        'repeat = "idempotent"\nestablished = "https://developer.richpanel.com/reference/get-a',
        'repeat = "idempotent"\ncan_look_up = true\ncounted_by = "helpdesk.count_replies"\nestablished = "https://a',
        "helpdesk.count_replies",
        "counted_by is for what must not come about twice",
    ),
    ("integrations.toml", 'established = "https://', 'established = "', "established", "page that says so"),
    ("integrations.toml", "settle_seconds", "setle_seconds", "setle_seconds", "not permitted"),
    ("integrations.toml", "settle_seconds = 180", "settle_seconds = true", "settle_seconds", "integer"),
    ("teams.toml", 'default_team = "email_support"', 'default_team = "nobody"', "default_team", "'nobody' is no team"),
    ("teams.toml", 'support = "live_chat"', 'support = "robots"', "human_teams.support", "'robots' is no team"),
    ("teams.toml", 'support = "live_chat"', 'sales = "live_chat"', "human_teams.sales", "is no flow"),
    ("teams.toml", 'support = "live_chat"', "", "human_teams", "no team for the flow"),
    ("teams.toml", 'helpdesk_id = "orders"', 'helpdesk_id = "the orders team"', "helpdesk_id", "pattern"),
    ("labels.toml", 'team = "technical"', 'team = "cellar"', "labels.technical.team", "'cellar' is no team"),
    ("labels.toml", 'reply = "billing"', 'reply = "sorry"', "labels.billing.reply", "'sorry' is no message"),
    ("labels.toml", "[labels.legal]", "[labels.echo]", "labels.echo", "a word of the flow"),
    ("labels.toml", "[labels.legal]", "[labels.Legal]", "labels.Legal", "pattern"),
    (
        "labels.toml",
        "needs_person = true",
        'needs_person = true\nreply = "billing"',
        "labels.other",
        "no reply",
    ),
    (
        "labels.toml",
        "[labels.legal]",
        '[labels.legal]\ntag = "needs_manual_triage"',
        "needs_manual_triage",
        "flow itself",
    ),
    ("keywords.toml", 'label = "legal"', 'label = "leagl"', "rules.1.label", "'leagl' is no label"),
    ("keywords.toml", 'reply = "order_status"', 'reply = "where"', "rules.4.reply", "'where' is no message"),
    ("keywords.toml", 'label = "refund"', 'label = "refund"\nreply = "billing"', "rules.5", "high-signal"),
    ("keywords.toml", '"refund", "refunded"', '" ? ", "refunded"', "rules.5.phrases", "holds no word"),
    ("keywords.toml", "when will (?:it|", "when will ((?:it|", "rules.8.patterns", "no regular expression"),
    ("keywords.toml", "patterns = ['", "patterns = ['(a+)+b', '", "rules.8.patterns", "repeats"),
    ("keywords.toml", "patterns = ['", "patterns = ['x*', '", "rules.8.patterns", "matches everything"),
    ("keywords.toml", 'label = "sales"\nphrases', 'label = "sales"\nunless', "rules.11", "needs phrases or patterns"),
    (
        "flows.toml",
        'integration = "helpdesk"',
        'integration = "mail"',
        "support.integration",
        "'mail' is no integration",
    ),
    ("flows.toml", "bar = 0.6", "bar = 0.0", "support.bar", "greater than 0"),
    ("flows.toml", "expires_seconds = 900", "expires_seconds = 901", "support.reply", "900 s at most"),
    ("flows.toml", '"/subject"', '"subject"', "support.pointers", "starts with '/'"),
    ("flows.toml", '"/subject"', '""', "support.pointers", "whole body"),
    ("flows.toml", "contact = ", "contacts = ", "support.pointers", "pointers are those of"),
    ("flows.toml", 'pointer = "/event/subtype"\n', "", "support.skip.3", "values need a pointer"),
    ("flows.toml", 'pointer = "/event/bot_id"\n', "", "support.skip.2", "skip everything"),
    ("prompts/support.toml", 'version = "p1"', 'version = "the first"', "version", "pattern"),
    ("messages/support.toml", "Hello,\n\nthank you for telling", "\\u0007", "messages.3.text", "control characters"),
    ("messages/support.toml", "[[messages]]", BLANK + "[[messages]]", "messages.0.text", "blank"),
    ("keywords.toml", 'label = "safety"', 'label = "safety"\nteam = "cellar"', "rules.0.team", "'cellar' is no team"),
    ("messages/support.toml", "version = 1", "version = 0", "messages.0.version", "greater than or equal to 1"),
    (
        "messages/support.toml",
        '"returns"',
        '"order_status"',
        "order_status version 1",
        "twice",
    ),
    ("messages/support.toml", "thank you for your message about your order", "{}", "messages.0.text", "brace"),
    (
        "messages/support.toml",
        "Please keep the item",
        "{name}, keep the item",
        "returns version 1",
        "no parameters",
    ),
    ("fallbacks.toml", "hop = 1", "hop = 3", "rows.messages_fallback.hop", "less than or equal to 2"),
    ("fallbacks.toml", "hop = 1", "hop = 0", "rows.messages_fallback", "`to` and `hop` go with"),
    ("fallbacks.toml", 'does = "queue"', 'does = "switch"', "rows.messages_down_other", "`to` and `hop` go with"),
    ("fallbacks.toml", "attempts = 3", "attempts = 0", "rows.messages_primary", "goes with retry"),
    ("fallbacks.toml", "attempts = 3", "retries = 3", "rows.messages_primary.retries", "not permitted"),
    ("fallbacks.toml", 'does = "hold"', 'does = "queue"\nattempts = 1', "payments_down_plans", "goes with retry"),
    (
        "fallbacks.toml",
        'kinds = ["payments.change_plan"]\n',
        "",
        "rows.payments_down_plans",
        "hold needs kinds",
    ),
    ("fallbacks.toml", "hop = 1", 'hop = 1\nkinds = ["a.b"]', "rows.messages_fallback", "that `to` names"),
    ("fallbacks.toml", "hop = 1", "hop = 1\nlater = true", "rows.messages_fallback", "the same message"),
    ("fallbacks.toml", 'integration = "llm"\n', "", "rows.classification_late", "stand in for"),
    ("fallbacks.toml", 'feature = "billing"\n', "", "rows.payments_fallback", "tell needs a feature"),
    ("fallbacks.toml", "hop = 1", "hop = 1\nasks = true", "rows.messages_fallback", "goes with rules"),
    ("fallbacks.toml", 'events = "critical"\n', "", "rows.messages_down_critical", "goes with a way for critical"),
    ("fallbacks.toml", 'starts = ["failed"]', "starts = []", "rows.messages_primary.starts", "at least 1"),
    ("fallbacks.toml", 'starts = ["failed"]', 'starts = ["late"]', "rows.messages_primary.starts.0", "Input should be"),
    ("fallbacks.toml", "stays_percent = 20", "stays_percent = 80", "stays_percent", "less than or equal to 50"),
    ("fallbacks.toml", '"helpdesk.reply"', '"helpdesk.answer"', "rows.support_down", "'helpdesk.answer' is no kind"),
    ("fallbacks.toml", '"ocr.parse" = "parser.parse"', '"ocr.parse" = "ocr.parse"', "rows.ocr_primary", "back to ocr"),
    (
        "fallbacks.toml",
        'params = { variant = "transcript_first", mark = "analysis_delayed" }',
        'params = { variant = "transcript_first" }\nmark = 1',
        "rows.ai_down.mark",
        "not permitted",
    ),
    (
        "fallbacks.toml",
        'hop = 2\nlater = true\nparams = { variant = "transcript_first", mark',
        'hop = 1\nlater = true\nparams = { variant = "transcript_first", mark',
        "rows.ai_down",
        "hop 1 of 'ai.summary' is another way in another row",
    ),
    (
        "fallbacks.toml",
        '"sms.send" = "email.send" }',
        '"helpdesk.reply" = "email.send" }',
        "rows.messages_fallback",
        "helpdesk serves no channel",
    ),
    (
        "fallbacks.toml",
        'kinds = ["email.send", "sms.send"]\nattempts = 3',
        'kinds = ["helpdesk.reply"]\nattempts = 3',
        "rows.messages_primary",
        "the policy of helpdesk has not 3 attempts",
    ),
    ("fallbacks.toml", 'feature = "billing"', 'feature = "bills"', "rows.payments_fallback", "'bills' is no feature"),
    ("fallbacks.toml", "[rows.messages_primary]", "[rows.Messages]", "rows.Messages", "pattern"),
    ("features.toml", "Support is available.", "Richpanel is available.", "features.support", "names richpanel"),
    ("features.toml", 'integrations = ["llm"]', 'integrations = ["ai"]', "classification", "the integration 'llm'"),
    ("integrations.toml", 'feature = "support"', 'feature = "help"', "features.help", "the integration 'helpdesk'"),
    ("features.toml", '"degraded"', '"operational"', "features.support.degraded", "unavailable to users"),
    (
        "flows.toml",
        "[support.reply]",
        '[[support.versions]]\nknown = ["1"]\n[support.reply]',
        "versions.0",
        "every event",
    ),
    (
        "flows.toml",
        "[support.reply]",
        '[[support.versions]]\nsources = ["a"]\nknown = []\n[support.reply]',
        "known",
        "at least",
    ),
    ("features.toml", "{ auto_parse = false }", "{ parse = false }", "document_reading", "'parse' is no capability"),
    ("features.toml", "window_minutes = 60", "window_minutes = -1", "window_minutes", "greater than or equal to 0"),
]


@pytest.mark.parametrize(("name", "old", "new", "key", "problem"), BROKEN)
def test_what_is_wrong_is_refused_by_file_and_key(
    copy: Path, edit: Edit, name: str, old: str, new: str, key: str, problem: str
) -> None:
    edit(name, old, new)
    with pytest.raises(MalformedCatalog) as refused:
        load_from(copy)
    text = str(refused.value)
    assert key in text
    assert problem in text
    assert any(part in text for part in (name, name.partition("/")[0], "labels.toml", "features.toml"))


def test_a_flow_may_list_the_versions_that_it_reads(copy: Path, edit: Edit) -> None:
    listed = '[[support.versions]]\nsources = ["orders-*"]\nevents = ["ticket.*"]\nknown = ["2", "3"]\n'
    edit("flows.toml", "[support.reply]", listed + "[support.reply]")
    (rule,) = load_from(copy).flows["support"].versions
    assert rule == VersionRule(frozenset({"2", "3"}), ("ticket.*",), ("orders-*",))
    assert not knows_version([rule], "orders-eu", "ticket.created", "1")


CHANNEL_TEXT = '[[messages]]\nmessage = "{}"\nchannel = "sms"\nis = "{}"\n\n'


def test_a_message_may_have_a_text_of_its_own_on_a_channel(copy: Path, edit: Edit) -> None:
    edit("fallbacks.toml", "[rows.messages_primary]", CHANNEL_TEXT.format("billing@1", "returns@1") + "[rows.first]")
    assert load_from(copy).fallbacks.messages == {("billing", 1, "sms"): ("returns", 1)}


@pytest.mark.parametrize(
    ("own", "other", "problem"),
    [
        ("billing@9", "returns@1", "'billing@9' is no message"),
        ("billing@1", "gone@1", "'gone@1' is no message"),
        ("billing@1", "named@1", r"needs \['name'\], which 'billing@1' does not have"),
        ("billing", "returns@1", "pattern"),
    ],
)
def test_a_text_of_a_channel_that_cannot_stand_in_is_refused(
    copy: Path, edit: Edit, own: str, other: str, problem: str
) -> None:
    (copy / "messages" / "named.toml").write_text('[[messages]]\nid = "named"\nversion = 1\ntext = "Hello {name}."\n')
    edit("fallbacks.toml", "[rows.messages_primary]", CHANNEL_TEXT.format(own, other) + "[rows.messages_primary]")
    with pytest.raises(MalformedCatalog, match=rf"fallbacks\.toml: messages\.0.*{problem}"):
        load_from(copy)


def test_two_texts_of_one_message_on_one_channel_are_refused(copy: Path, edit: Edit) -> None:
    twice = CHANNEL_TEXT.format("billing@1", "returns@1") * 2
    edit("fallbacks.toml", "[rows.messages_primary]", twice + "[rows.messages_primary]")
    with pytest.raises(MalformedCatalog, match=r"messages\.1: 'billing@1' has two texts on sms"):
        load_from(copy)


def test_the_reserved_id_cannot_be_taken(copy: Path) -> None:
    path = copy / "integrations.toml"
    path.write_text(path.read_text().replace("integrations.llm", "integrations.intake"))
    with pytest.raises(MalformedCatalog, match=r"integrations\.toml: integrations\.intake: is reserved"):
        load_from(copy)


@pytest.mark.parametrize(
    "name",
    [
        "integrations.toml",
        "teams.toml",
        "labels.toml",
        "keywords.toml",
        "flows.toml",
        "prompts/support.toml",
        "fallbacks.toml",
        "features.toml",
    ],
)
@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"a = [", b"a = 1", b"[" * 20_000, b"x" * 300_000, None])
def test_a_file_that_is_no_catalog_file_is_refused_by_name(copy: Path, name: str, content: bytes | None) -> None:
    if content is None:
        (copy / name).unlink()
    else:
        (copy / name).write_bytes(content)
    with pytest.raises(MalformedCatalog, match=re.escape(name.rpartition("/")[2])):
        load_from(copy)


def test_missing_messages_are_refused(copy: Path) -> None:
    shutil.rmtree(copy / "messages")
    with pytest.raises(MalformedCatalog, match="messages"):
        load_from(copy)


@given(st.binary(max_size=200))
def test_no_bytes_in_place_of_the_keywords_raise_anything_else(
    tmp_path_factory: pytest.TempPathFactory, raw: bytes
) -> None:
    directory = tmp_path_factory.getbasetemp() / "any-bytes"
    if not directory.exists():
        shutil.copytree(HERE, directory, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    (directory / "keywords.toml").write_bytes(raw)
    with pytest.raises(MalformedCatalog):
        load_from(directory)


def test_every_file_of_the_catalog_is_toml_that_python_reads() -> None:
    for path in sorted(HERE.rglob("*.toml")):
        tomllib.loads(path.read_text())
