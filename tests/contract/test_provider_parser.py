"""The parser-only mode as a provider: no network, the same fields in the same place however often it is done."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from functions.adapters.parser import PARSE, ParserProvider
from functions.catalog.loader import load
from functions.core.decision import Action, Repeat
from functions.core.document import MAX_DOCUMENT_BYTES
from functions.core.failure import Done, Failure, FailureClass, StorageUnavailable
from functions.core.ports import Call, Provider
from tests.contract.provider_world import about
from tests.fakes import FakeDocuments

READ = Action("parse", PARSE, "parser", Repeat.IDEMPOTENT, "cv.txt").bound("acme", "app:m-1", 0)
CV = b"Ana Lima\nana@example.com\n+1 555 000 1234\nSkills\nWelding"


@pytest.fixture
def documents() -> FakeDocuments:
    made = FakeDocuments()
    made.objects["documents/acme/cv.txt"] = CV
    return made


@pytest.fixture
def parser(documents: FakeDocuments) -> Provider:
    return ParserProvider(documents)


def call(tenant: str = "acme") -> Call:
    return replace(about(), tenant=tenant)


def failed(outcome: object) -> Failure:
    assert isinstance(outcome, Failure), outcome
    return outcome


async def test_a_document_is_read_and_its_fields_wait_for_a_person(documents: FakeDocuments, parser: Provider) -> None:
    """000.16, 000.17"""
    assert await parser.send(READ, call()) == Done("parsed/acme/cv.txt.json")
    stored = json.loads(documents.objects["parsed/acme/cv.txt.json"])
    assert (stored["name"], stored["email"], stored["skills"]) == ("Ana Lima", "ana@example.com", ["Welding"])
    assert stored["is_confirmed"] is False


async def test_doing_it_again_changes_nothing(documents: FakeDocuments, parser: Provider) -> None:
    first = await parser.send(READ, call())
    before = dict(documents.objects)
    assert await parser.send(READ, call()) == first
    assert documents.objects == before


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "DOCUMENT_MISSING"),
        (None, "DOCUMENT_MISSING"),
        (b"%PDF-1.7 \xff", "DOCUMENT_NOT_TEXT"),
        (b"lorem ipsum", "NO_FIELDS"),
        (b" " * (MAX_DOCUMENT_BYTES + 1), "DOCUMENT_TOO_LARGE"),
    ],
)
async def test_what_cannot_be_read_by_rules_is_for_a_person_at_once(
    documents: FakeDocuments, parser: Provider, content: bytes | None, code: str
) -> None:
    """000.17"""
    documents.objects.clear()
    if content is not None:
        documents.objects["documents/acme/cv.txt"] = content
    failure = failed(await parser.send(READ, call()))
    assert (failure.code, failure.failure_class) == (code, FailureClass.DATA_ERROR)
    assert (failure.is_retryable, failure.may_have_happened) == (False, False)
    assert not any(key.startswith("parsed/") for key in documents.objects)


@pytest.mark.parametrize("operation", ["read", "store_parsed"])
@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_bucket_in_trouble_is_tried_again(
    documents: FakeDocuments, parser: Provider, operation: str, when: str
) -> None:
    documents.faults.fail(f"documents.{operation}", StorageUnavailable("secret detail"), when=when)
    failure = failed(await parser.send(READ, call()))
    assert (failure.code, failure.failure_class, failure.is_retryable) == (
        "DOCUMENT_UNREADABLE",
        FailureClass.TRANSIENT,
        True,
    )
    assert "secret" not in failure.detail
    assert await parser.send(READ, call()) == Done("parsed/acme/cv.txt.json")


@pytest.mark.parametrize(("tenant", "target"), [("acme", "../else/cv.txt"), ("", "cv.txt"), ("acme", ""), ("a/b", "c")])
async def test_a_name_that_leaves_its_folder_is_refused(
    documents: FakeDocuments, parser: Provider, tenant: str, target: str
) -> None:
    failure = failed(await parser.send(replace(READ, target=target), call(tenant)))
    assert (failure.code, failure.is_retryable) == ("TARGET_INVALID", False)
    assert documents.faults.calls == []


async def test_one_tenants_document_is_never_read_for_another(parser: Provider) -> None:
    assert failed(await parser.send(READ, call("else"))).code == "DOCUMENT_MISSING"


async def test_it_has_one_kind_and_neither_lookup_nor_credential(parser: Provider) -> None:
    kinds = load().integrations["parser"].kinds
    assert {kind: rules.repeat for kind, rules in kinds.items()} == {PARSE: Repeat.IDEMPOTENT}
    assert failed(await parser.send(replace(READ, kind="parser.guess"), call())).code == "KIND_UNKNOWN"
    assert isinstance(await parser.look_up(READ, call()), Failure)
    assert isinstance(await parser.read_setting(READ, call()), Failure)
    assert (parser.wanted(READ), parser.refresh_credential()) == ("", "")
