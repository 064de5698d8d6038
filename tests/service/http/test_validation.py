"""Strict JSON: the fast reader accepts and refuses the same documents as the careful one."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.errors import BadRequest
from service.http.validation import MAX_DEPTH, strict_json

NUMBERS = ("1", "-0", "1.5", "1e400", "0.1234567890123456789", "01", "NaN")
HUGE = ("9223372036854775807", "9223372036854775808", "-9223372036854775809")
STRINGS = ('"a:b"', '"[{"', '"\\u003a"', '"\\ud800"', '"\\u0000"', '"a\x00"', '"\\""', '"é"')
VALUES = st.sampled_from((*NUMBERS, *HUGE, *STRINGS, "null", "true", "", "é"))
KEYS = st.sampled_from(("a", "b", "c:", "[", "\\u0061"))


def listed(inner: list[str]) -> str:
    return f"[{','.join(inner)}]"


def paired(inner: list[tuple[str, str]]) -> str:
    return "{" + " , ".join(f'"{key}" : {value}' for key, value in inner) + "}"


#: texts that are often JSON, often with equal keys, and with the counted characters in strings
TEXTS = st.recursive(
    VALUES,
    lambda inner: (
        st.lists(inner, max_size=3).map(listed)
        | st.lists(st.tuples(KEYS, inner), max_size=3).map(paired)
    ),
    max_leaves=8,
)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
DOCUMENTS = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def carefully(text: str) -> Any:
    """Read a document in an array with an escape, which the fast reader does not handle."""
    document = strict_json(f'["\\u0061",{text}]'.encode())
    assert isinstance(document, list)
    return document[1]


def outcome(read: Any, argument: Any) -> tuple[str, Any]:
    try:
        value = read(argument)
    except BadRequest as error:
        return "refused", error.code
    return "read", repr(value)  # distinguishes 1, 1.0 and True


@settings(max_examples=500)
@given(TEXTS)
def test_any_text_is_read_or_refused_as_the_careful_way_does(text: str) -> None:
    found = outcome(strict_json, text.encode())
    try:
        json.loads(text)
    except json.JSONDecodeError:
        assert found[0] == "refused"
    else:
        assert found == outcome(carefully, text)


@given(DOCUMENTS, st.sampled_from([None, 2]))
def test_every_document_is_read_as_it_was_written(document: Any, indent: int | None) -> None:
    for is_ascii in (True, False):
        try:
            data = json.dumps(document, ensure_ascii=is_ascii, indent=indent).encode()
        except UnicodeEncodeError:
            continue
        assert outcome(strict_json, data) == outcome(carefully, data.decode())


@pytest.mark.parametrize("wrap", ['{{"a":{}}}', "[{}]", '[{{"a":1}},{}]'])
def test_depth_is_limited_whatever_is_nested(wrap: str) -> None:
    text = "[]"
    for _ in range(MAX_DEPTH - 1):
        text = wrap.format(text)
    assert outcome(strict_json, text.encode())[0] == "read"
    assert outcome(strict_json, f"[{text}]".encode()) == ("refused", "too_deep")
