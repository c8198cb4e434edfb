"""JSON pointers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from functions.core.pointer import ABSENT, check_pointer, resolve, text_at, without

# The document of RFC 6901, section 5.
RFC = {
    "foo": ["bar", "baz"],
    "": 0,
    "a/b": 1,
    "c%d": 2,
    "e^f": 3,
    "g|h": 4,
    "i\\j": 5,
    'k"l': 6,
    " ": 7,
    "m~n": 8,
}


@pytest.mark.parametrize(
    ("pointer", "value"),
    [
        ("", RFC),
        ("/foo", ["bar", "baz"]),
        ("/foo/0", "bar"),
        ("/", 0),
        ("/a~1b", 1),
        ("/c%d", 2),
        ("/e^f", 3),
        ("/g|h", 4),
        ("/i\\j", 5),
        ('/k"l', 6),
        ("/ ", 7),
        ("/m~0n", 8),
    ],
)
def test_the_examples_of_rfc_6901_resolve_as_it_says(pointer: str, value: object) -> None:
    assert resolve(RFC, pointer) == value


@pytest.mark.parametrize(
    "pointer", ["/foo/2", "/foo/01", "/foo/-", "/foo/-1", "/foo/bar", "/nothing", "/a~1b/x", "/foo/²"]
)
def test_a_pointer_to_nothing_resolves_to_absent(pointer: str) -> None:
    assert resolve(RFC, pointer) is ABSENT
    assert text_at(RFC, pointer) == ""


def test_null_is_something_and_absent_says_its_name() -> None:
    assert resolve({"a": None}, "/a") is None
    assert repr(ABSENT) == "ABSENT"


@pytest.mark.parametrize("pointer", ["foo", "/a~", "/a~2", "/" + "x" * 256])
def test_text_that_is_no_pointer_is_refused(pointer: str) -> None:
    with pytest.raises(ValueError, match="JSON pointer"):
        check_pointer(pointer)


@pytest.mark.parametrize(
    ("value", "text"), [("x", "x"), (7, "7"), (True, ""), (None, ""), (1.5, ""), ([], ""), ({}, ""), ("", "")]
)
def test_only_texts_and_whole_numbers_read_as_text(value: object, text: str) -> None:
    assert text_at({"a": value}, "/a") == text


def test_members_can_be_left_out_and_the_document_stays_as_it_is() -> None:
    document = {"a": 1, "b": {"c": 2, "d": 3}, "e": [1]}
    assert without(document, ["/a", "/b/c", "/e/0", "/nothing", "/b/x/y", ""]) == {"b": {"d": 3}, "e": [1]}
    assert document == {"a": 1, "b": {"c": 2, "d": 3}, "e": [1]}


@given(
    st.recursive(
        st.none() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    ),
    st.lists(st.text(max_size=10), max_size=5),
)
def test_any_document_and_any_path_resolve_without_an_error(document: object, path: list[str]) -> None:
    pointer = "".join("/" + token.replace("~", "~0").replace("/", "~1") for token in path)
    expected: object = document
    for token in path:
        if isinstance(expected, dict):
            expected = expected.get(token, ABSENT)
        elif isinstance(expected, list):
            expected = next((item for index, item in enumerate(expected) if str(index) == token), ABSENT)
        else:
            expected = ABSENT
    assert resolve(document, pointer) == expected


def test_members_of_every_element_can_be_left_out() -> None:
    document = {"a": [{"x": 1, "y": 1}, {"x": 2}, 3, [{"x": 4}]], "*": {"x": 5}}
    assert without(document, ("/a/*/x",)) == {"a": [{"y": 1}, {}, 3, [{"x": 4}]], "*": {"x": 5}}
    assert without(document, ("/*/x",)) == {**document, "*": {}}
    assert without(document, ("/a/*", "/a/0/x", "/a/*/x/z")) == document
    assert document["a"][0] == {"x": 1, "y": 1}  # type: ignore[index]  # the one given stays as it is
