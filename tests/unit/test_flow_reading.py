"""Reading bodies: what the senders send, what nobody should send, and text as people wrote it."""

from __future__ import annotations

import json
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from functions.catalog.loader import load
from functions.core.decision import Mode
from functions.core.event import MAX_BODY_BYTES, Event
from functions.core.failure import RootCause
from functions.core.recipient import PSEUDONYM_LENGTH, recipient_of
from functions.core.text import plain, readable, without_quotes
from functions.flows.flow import UnreadableEvent
from functions.flows.reading import MAX_CONVERSATION_LENGTH, ends_with_marker
from functions.flows.registry import flows_of
from ops.senders import PROVIDERS, SAMPLE_POINTERS, ticket_event

FLOW = flows_of(load())["support"]
FORM = "application/x-www-form-urlencoded; charset=utf-8"


def an_event(
    body: bytes | object,
    *,
    provider: str = "richpanel",
    content_type: str = "application/json",
    name: str = "ticket.message_created",
    fields: dict[str, str] | None = None,
) -> Event:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Event(
        tenant="acme",
        source="src",
        provider=provider,
        flow="support",
        identity="m1",
        event_name=name,
        event_version="",
        received_at_ms=1,
        request_id="r",
        traceparent="",
        payload_hash="",
        content_type=content_type,
        body=raw,
        fields=fields or {},
    )


# --------------------------------------------------------------------------------------------------- what senders send


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_message_of_every_sender_is_read_where_its_source_says(provider: str) -> None:
    sample = ticket_event(provider, "T-77", "I would like to know more", "ann@example.com", "m-1", now=1_700_000_000)
    event = an_event(
        sample.body,
        provider=provider,
        content_type=sample.content_type,
        name=sample.event_name,
        fields=dict(SAMPLE_POINTERS[provider].fields),
    )
    prepared = FLOW.prepare(event)
    assert prepared.subject == sample.conversation
    assert prepared.text.endswith(sample.text)
    assert prepared.needs_llm
    assert prepared.recipient == recipient_of("acme", sample.author)


def test_the_helpdesks_own_webhook_needs_no_pointers() -> None:
    sample = ticket_event("richpanel", "T-77", "I would like to know more", "ann@example.com", "m-1", now=1_700_000_000)
    prepared = FLOW.prepare(an_event(sample.body))
    assert (prepared.subject, prepared.recipient) == ("T-77", recipient_of("acme", "ann@example.com"))


@pytest.mark.parametrize(
    "body",
    [
        {
            "ticket_id": "T-1",
            "message": {"id": "m", "text": "I have a question"},
            "customer": {"id": "c", "email": "ann@example.com"},
        },
        {"conversation_id": "T-1", "message": {"body": "I have a question"}, "customer": {"email": " Ann@Example.com"}},
        {
            "ticket": {"id": "T-1"},
            "comment": {"plain_body": "I have a question", "author_id": "c"},
            "customer": {"email": "ann@example.com"},
        },
    ],
)
def test_other_shapes_of_the_helpdesks_webhook_are_read_too(body: object) -> None:
    prepared = FLOW.prepare(an_event(body))
    assert (prepared.subject, prepared.text) == ("T-1", "I have a question")
    assert prepared.recipient == recipient_of("acme", "ann@example.com")


def test_a_second_place_is_tried_when_the_first_is_empty() -> None:
    fields = {
        "conversation": "/event/thread_ts",
        "conversation_else": "/event/ts",
        "text": "/event/text",
        "author": "/event/user",
    }
    event = an_event(
        {"event": {"ts": "17.1", "text": "hi there", "user": "U1"}}, provider="slack", name="message", fields=fields
    )
    assert FLOW.prepare(event).subject == "17.1"


def test_a_number_is_a_conversation_id() -> None:
    assert FLOW.prepare(an_event({"ticket_id": 8_123_456_789_012, "text": "hello"})).subject == "8123456789012"


def test_a_form_is_read_by_its_field_names() -> None:
    body = urlencode({"ticket_id": "T-1", "text": "grüß dich & tschüß"}).encode()
    assert FLOW.prepare(an_event(body, content_type=FORM)).text == "grüß dich & tschüß"


def test_a_form_may_hold_a_whole_document() -> None:
    body = urlencode({"payload": json.dumps({"ticket_id": "T-1", "text": "hello"})}).encode()
    assert FLOW.prepare(an_event(body, content_type=FORM)).subject == "T-1"


def test_the_subject_belongs_to_the_text_unless_it_is_an_answers() -> None:
    assert FLOW.prepare(an_event({"ticket_id": "1", "subject": "Lost", "text": "hello"})).text == "Lost\n\nhello"
    assert FLOW.prepare(an_event({"ticket_id": "1", "subject": "RE: Lost", "text": "hello"})).text == "hello"


def test_text_for_the_llm_is_bounded_and_bears_no_control_characters() -> None:
    prepared = FLOW.prepare(
        an_event({"ticket_id": "1", "subject": "s" * 5000, "text": "a\x00b\u202e\x1b[31m\ud800" + "c" * 90_000})
    )
    assert len(prepared.text) == 4000
    assert "\n\nab[31mccc" in prepared.text


# ------------------------------------------------------------------------------------------- what nobody should send


@pytest.mark.parametrize(
    ("body", "cause"),
    [
        (b"", RootCause.BAD_SOURCE_DATA),
        (b"{", RootCause.BAD_SOURCE_DATA),
        (b"\xff\xfe{}", RootCause.BAD_SOURCE_DATA),
        (b"[" * 100_000, RootCause.BAD_SOURCE_DATA),
        (b'{"ticket_id":' + b"9" * 5000 + b"}", RootCause.BAD_SOURCE_DATA),
        (b"null", RootCause.SCHEMA_MISMATCH),
        (b"[]", RootCause.SCHEMA_MISMATCH),
        (b'"text"', RootCause.SCHEMA_MISMATCH),
        ({"text": "hello"}, RootCause.SCHEMA_MISMATCH),
        ({"ticket_id": {"id": "1"}, "text": "hello"}, RootCause.SCHEMA_MISMATCH),
        ({"ticket_id": True, "text": "hello"}, RootCause.SCHEMA_MISMATCH),
        ({"ticket_id": "1"}, RootCause.SCHEMA_MISMATCH),
        ({"ticket_id": "1", "text": ["hello"]}, RootCause.SCHEMA_MISMATCH),
        ({"ticket_id": "", "text": "hello"}, RootCause.BAD_SOURCE_DATA),
        ({"ticket_id": None, "text": "hello"}, RootCause.BAD_SOURCE_DATA),
        ({"ticket_id": "..", "text": "hello"}, RootCause.BAD_SOURCE_DATA),
        ({"ticket_id": " 1", "text": "hello"}, RootCause.BAD_SOURCE_DATA),
        ({"ticket_id": "1\n", "text": "hello"}, RootCause.BAD_SOURCE_DATA),
        ({"ticket_id": "1\ud800", "text": "hello"}, RootCause.BAD_SOURCE_DATA),
        ({"ticket_id": "1" * (MAX_CONVERSATION_LENGTH + 1), "text": "hello"}, RootCause.BAD_SOURCE_DATA),
    ],
)
def test_a_body_that_cannot_be_read_proposes_a_root_cause_and_quotes_nothing(
    body: bytes | object, cause: RootCause
) -> None:
    with pytest.raises(UnreadableEvent) as refused:
        FLOW.prepare(an_event(body))
    assert refused.value.root_cause is cause
    assert refused.value.code == "UNREADABLE_EVENT"
    assert "hello" not in str(refused.value)


def test_a_form_with_too_many_fields_is_refused() -> None:
    with pytest.raises(UnreadableEvent, match="1000 fields"):
        FLOW.prepare(an_event(b"&".join([b"a=1"] * 2000), content_type=FORM))


def test_a_pointer_of_the_source_that_is_none_is_named() -> None:
    with pytest.raises(UnreadableEvent, match="field text"):
        FLOW.prepare(an_event({"ticket_id": "1", "text": "hello"}, fields={"text": "text"}))


def test_the_largest_body_that_ingress_takes_is_read_in_bounded_work() -> None:
    body = json.dumps({"ticket_id": "1", "text": "<p>a</p>\n> " * 300_000}).encode()[:MAX_BODY_BYTES]
    prepared = FLOW.prepare(an_event(body if body.endswith(b"}") else body[:-2] + b'"}'))
    assert len(prepared.text) <= 4000


_NAMES = st.sampled_from(
    [
        "ticket_id",
        "conversation",
        "ticket",
        "id",
        "message",
        "text",
        "body",
        "author",
        "is_operator",
        "customer",
        "email",
        "subject",
        "metadata",
        "comment",
        "event",
        "bot_id",
        "subtype",
        "payload",
    ]
)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=60),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_NAMES, inner, max_size=5),
    max_leaves=20,
)


@given(
    body=st.one_of(st.binary(max_size=300), _JSON.map(lambda value: json.dumps(value).encode())),
    provider=st.sampled_from([*PROVIDERS, "unheard-of"]),
    content_type=st.sampled_from(["application/json", FORM, "", "text/plain"]) | st.text(max_size=20),
    name=st.sampled_from(["", "ticket.created", "ping", "message", "delivered"]) | st.text(max_size=20),
    with_fields=st.booleans(),
)
def test_whatever_the_body_is_only_unreadable_is_raised(
    body: bytes, provider: str, content_type: str, name: str, with_fields: bool
) -> None:
    fields = dict(SAMPLE_POINTERS[provider].fields) if with_fields and provider in SAMPLE_POINTERS else {}
    event = an_event(body, provider=provider, content_type=content_type, name=name, fields=fields)
    try:
        prepared = FLOW.prepare(event)
    except UnreadableEvent:
        return
    decision = FLOW.decide(event, prepared, None, Mode.LIVE, 1)
    decision.bound(event.tenant, event.event_id, event.epoch_ms)
    decision.to_json().encode()
    assert bool(decision.actions) is not prepared.finding.calls_for_nothing


@given(ticket=_JSON, text=_JSON, author=_JSON, staff=_JSON, metadata=_JSON)
def test_whatever_stands_in_the_right_places_only_unreadable_is_raised(
    ticket: object, text: object, author: object, staff: object, metadata: object
) -> None:
    body = {"ticket_id": ticket, "message": text, "author": {"id": author, "is_operator": staff}, "metadata": metadata}
    try:
        prepared = FLOW.prepare(an_event(body))
    except UnreadableEvent:
        return
    prepared.text.encode()
    prepared.subject.encode()
    assert len(prepared.text) <= 4000


# ------------------------------------------------------------------------------------------------------------- text


def test_html_is_read_as_its_text() -> None:
    assert readable("<div>Hello&nbsp;<b>you</b><br>two &lt;3</div><style>p{}</style>", 100) == "Hello\xa0 you \ntwo <3"


def test_text_that_only_looks_a_little_like_html_stays() -> None:
    assert readable("if a < b and c > d", 100) == "if a < b and c > d"


@pytest.mark.parametrize(
    ("text", "own"),
    [
        ("Thanks!\n\nOn Mon, 3 Nov 2025 at 10:00, Support <s@example.com> wrote:\n> Hello\n> [hf:abcdef12]", "Thanks!"),
        ("On Mon, Support wrote:\n> Hello,\n> your order\n\nIt is still not here.", "It is still not here."),
        ("On Mon, Support\n<s@example.com> wrote:\n\nHello, your order", ""),
        ("Thanks!\n\n-----Original Message-----\nFrom: Support\nHello", "Thanks!"),
        ("Thanks!\n\nFrom: Support <s@example.com>\nSent: Monday\nHello", "Thanks!"),
        ("> one\nmine\n  > two", "mine"),
        ("On the whole I am happy", "On the whole I am happy"),
        ("", ""),
    ],
)
def test_what_others_wrote_is_left_out(text: str, own: str) -> None:
    assert without_quotes(text) == own


@given(st.text(max_size=500), st.integers(1, 200))
def test_readable_text_is_bounded_and_can_be_stored(text: str, limit: int) -> None:
    read = readable(text, limit)
    read.encode()
    assert len(read) <= limit
    assert not any(ord(character) < 32 and character != "\n" for character in read)


@given(st.text(alphabet=">-_On From:\nSentwrote ", max_size=200))
def test_leaving_quotes_out_ends_and_adds_nothing(text: str) -> None:
    assert len(without_quotes(text)) <= len(text)


def test_what_lies_far_beyond_the_limit_is_not_even_looked_at() -> None:
    assert readable("\x00" * 400 + "late", 100) == ""
    assert readable("\x00" * 396 + "late", 100) == "late"


def test_spelling_does_not_matter_for_comparing() -> None:
    assert plain("  Where’s\tMY\nＯＲＤＥＲ ") == "where's my order"


@pytest.mark.parametrize(
    ("text", "is_ours"),
    [
        ("Hello\n\n[hf:0123456789abcdef01234567]", True),
        ("Hello\n\n[hf:0123456789abcdef01234567]  \n", True),
        ("Hello hf-0123456789abcdef", True),
        ("[hf:0123456789abcdef01234567] said the mail, but what now?", False),
        ("I heard hf-radio is nice", False),
        ("", False),
    ],
)
def test_a_marker_counts_at_the_end(text: str, *, is_ours: bool) -> None:
    assert ends_with_marker(text) is is_ours


# -------------------------------------------------------------------------------------------------------- recipients


@pytest.mark.parametrize(
    ("one", "other"),
    [("Ann@Example.com ", "ann@example.com"), ("+1 (555) 010-9999", "+15550109999"), ("ＡＮＮ", "ann")],
)
def test_spelling_does_not_make_another_person(one: str, other: str) -> None:
    assert recipient_of("acme", one) == recipient_of("acme", other)


def test_a_person_has_another_name_at_another_tenant() -> None:
    assert recipient_of("acme", "ann@example.com") != recipient_of("globex", "ann@example.com")


def test_a_pseudonym_shows_nothing_of_the_contact() -> None:
    name = recipient_of("acme", "ann@example.com")
    assert len(name) == PSEUDONYM_LENGTH
    assert set(name) <= set("0123456789abcdef")


def test_nobody_has_no_name() -> None:
    assert recipient_of("acme", "  ") == ""


@given(st.text(max_size=40))
def test_every_contact_has_a_name_that_can_be_stored(contact: str) -> None:
    recipient_of("acme", contact).encode()
