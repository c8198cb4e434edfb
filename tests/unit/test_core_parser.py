"""The parser-only mode: the same text gives the same fields, and nothing is guessed."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from functions.core.document import document_key, is_document, parsed_key
from functions.core.parser import (
    MAX_CHARS,
    MAX_DATES,
    MAX_LINES_OF_SECTION,
    MAX_SKILLS,
    WANTED,
    Parsed,
    parse,
    text_of,
)

CV = """Curriculum Vitae

Zoë O'Brien-Smith
Berlin, Germany
zoe.obrien@Example.com | +49 (30) 1234-5678

Summary
Ten years of plumbing.

Experience:
• Plumber, Pipes Ltd, March 2019 - 2021-06-30
- Apprentice, 01.09.2015 to 02/2019

Skills
Welding, soldering; Pipe fitting | welding
* First aid

Education
Vocational school, 2012-07
"""


def test_a_cv_gives_its_fields() -> None:
    """000.16"""
    found = parse(CV)
    assert (found.name, found.email, found.phone) == ("Zoë O'Brien-Smith", "zoe.obrien@example.com", "+493012345678")
    assert found.skills == ("Welding", "soldering", "Pipe fitting", "First aid")
    assert found.dates == ("2019-03", "2021-06-30", "2015-09-01", "2019-02", "2012-07")
    assert found.sections == {
        "summary": ("Ten years of plumbing.",),
        "experience": (
            "Plumber, Pipes Ltd, March 2019 - 2021-06-30",
            "Apprentice, 01.09.2015 to 02/2019",
        ),
        "skills": ("Welding, soldering; Pipe fitting | welding", "First aid"),
        "education": ("Vocational school, 2012-07",),
    }
    assert found.missing == ()
    assert not found.is_empty


def test_the_same_text_gives_the_same_bytes_and_every_field_waits_for_a_person() -> None:
    """000.17"""
    first, second = parse(CV).to_json(), parse(CV).to_json()
    assert first == second
    read = json.loads(first)
    assert (read["is_confirmed"], read["missing"], read["parser"]) == (False, [], "p1")
    assert list(read) == sorted(read)


def test_what_is_not_found_is_named_and_not_guessed() -> None:
    """000.17"""
    found = parse("Skills\nWelding")
    assert (found.name, found.email, found.phone) == ("", "", "")
    assert found.missing == ("name", "email", "phone")
    assert not found.is_empty


@pytest.mark.parametrize("text", ["", "\n\n", "lorem ipsum dolor sit amet, consectetur", "skills:\n\n\n", "1234"])
def test_a_text_without_any_field_is_empty(text: str) -> None:
    found = parse(text)
    assert found.is_empty
    assert found.missing == WANTED


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Ana Lima\nSkills\nx", "Ana Lima"),
        ("Name: Ana Lima", "Ana Lima"),
        ("CV of a plumber 2024\nFull name - Ana de la Lima", "Ana de la Lima"),
        ("Name: 12345\nAna Lima", "Ana Lima"),
        ("Résumé\nJ. R. R. Tolkien", "J. R. R. Tolkien"),
        ("Curriculum Vitae\nВера Иванова", "Вера Иванова"),
        ("Ａｎａ Ｌｉｍａ", "Ana Lima"),
        ("Ana", ""),
        ("ana lima", ""),
        ("one two three Four Five Six", ""),
        ("Skills\nAna Lima", ""),
        ("Ana L1ma", ""),
        ("\n".join(["line one 1"] * 10 + ["Ana Lima"]), ""),
    ],
)
def test_a_name_is_what_is_labelled_so_or_stands_at_the_top_alone(text: str, name: str) -> None:
    assert parse(text).name == name


@pytest.mark.parametrize(
    ("text", "phone"),
    [
        ("+1 555-000-1234", "+15550001234"),
        ("Phone: 555 0123", "5550123"),
        ("mobile 0151/2345678", "01512345678"),
        ("(030) 1234-5678", "03012345678"),
        ("555 0123", ""),
        ("2019 - 2021", ""),
        ("tel 2019 - 2021", ""),
        ("tel 01.02.2019", ""),
        ("order 12345678901234567890", ""),
        ("phone 12 34", ""),
        ("+123", ""),
    ],
)
def test_a_number_counts_as_a_phone_only_if_it_is_written_as_one(text: str, phone: str) -> None:
    assert parse(text).phone == phone


@pytest.mark.parametrize(
    ("text", "email"),
    [
        ("write to A.B+c@Mail.Example.org.", "a.b+c@mail.example.org"),
        ("a@b", ""),
        ("@example.com", ""),
        ("x" * 80 + "@example.com", ""),
        ("first@example.com second@example.com", "first@example.com"),
    ],
)
def test_an_address_needs_a_whole_domain(text: str, email: str) -> None:
    assert parse(text).email == email


@pytest.mark.parametrize(
    ("text", "dates"),
    [
        ("31.02.2020", ()),
        ("2020-02-30", ()),
        ("13/2020", ()),
        ("03/04/2020", ()),
        ("Sept. 2020, sep 2020", ("2020-09",)),
        ("Room 2020", ()),
        ("2020-13", ()),
        ("1.5.2020", ("2020-05-01",)),
        ("1899-01-01", ()),
    ],
)
def test_only_dates_that_are_and_that_read_one_way_are_given(text: str, dates: tuple[str, ...]) -> None:
    assert parse(text).dates == dates


def test_everything_is_bounded() -> None:
    skills = ", ".join(f"skill {number}" for number in range(30))
    lines = [f"{skills}, more {number}" for number in range(MAX_LINES_OF_SECTION + 50)]
    days = [f"{year}-{month:02}" for year in range(1950, 2020) for month in range(1, 13)]
    found = parse("\n".join(["Skills", *lines, *days]))
    assert len(found.skills) == MAX_SKILLS
    assert len(found.sections["skills"]) == MAX_LINES_OF_SECTION
    assert len(found.dates) == MAX_DATES
    assert parse("x" * MAX_CHARS + "\na@example.com").email == ""


def test_a_skill_is_a_short_text_that_is_there_once() -> None:
    assert parse("Skills\n,, ; .\n" + "y" * 61 + ", A, a").skills == ("A",)


@pytest.mark.parametrize(
    "text",
    ["a" * MAX_CHARS, "a@" * (MAX_CHARS // 2), "a.b@c." * 30_000, "1 " * (MAX_CHARS // 2), "((((" * 50_000,
     "\ufdfa" * MAX_CHARS, ("\ufdfa" * 400 + "\n") * 490, "'" * MAX_CHARS, "Mar  " * 40_000, "a-" * 100_000,
     "Name: " * 30_000, "\n" * MAX_CHARS, "+" * MAX_CHARS, "2019-" * 40_000],
    ids=range(14),
)  # fmt: skip
def test_no_text_takes_long(text: str) -> None:
    started = time.process_time()
    parse(text)
    assert time.process_time() - started < 5  # a fraction of a second, on a machine that is busy with something else


@given(st.text(max_size=400))
def test_whatever_the_text_the_fields_are_the_same_again_and_can_be_stored(text: str) -> None:
    found = parse(text)
    assert found == parse(text)
    assert isinstance(found, Parsed)
    if "\ud800" <= max(text, default="") <= "\udfff":
        return
    json.loads(found.to_json().encode("utf-8", "surrogatepass"))


@given(st.binary(max_size=200))
def test_bytes_are_text_or_they_are_not(content: bytes) -> None:
    text = text_of(content)
    if text is not None:
        parse(text).to_json().encode()


@pytest.mark.parametrize("content", [b"%PDF-1.7\n\xe2\xe3", b"\xff\xfea\x00", b"PK\x03\x04\x00", b"\x89PNG\x00"])
def test_a_file_that_is_no_plain_text_is_told_from_one(content: bytes) -> None:
    assert text_of(content) is None
    assert text_of("\ufeffAna".encode()) == "Ana"


@pytest.mark.parametrize("name", ["cv.pdf", "a", "A-1_b.txt", "x" * 128])
def test_a_document_lies_in_its_tenants_folder(name: str) -> None:
    assert document_key("acme", name) == f"documents/acme/{name}"
    assert parsed_key("acme", name) == f"parsed/acme/{name}.json"


@pytest.mark.parametrize(
    ("tenant", "name"),
    [("acme", each) for each in ("", ".", "..", "../x", "a/b", "a\\b", "a\n", "ü", "x" * 129, ".hidden", "a b")]
    + [("", "cv"), ("a/b", "cv"), ("..", "cv"), ("acme\n", "cv")],
)
def test_what_could_leave_its_folder_is_no_name(tenant: str, name: str) -> None:
    assert not is_document(tenant, name)
    for key in (document_key, parsed_key):
        with pytest.raises(ValueError, match="no name of a document"):
            key(tenant, name)
