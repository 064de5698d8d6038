"""Reads strict JSON: it refuses every document that two parsers could understand differently.

The standard parser accepts NaN, the last of two equal keys, lone surrogates, and any depth up to
the size of the stack. Databases and other clients fail on such values.
"""

import json
import math
import re
from collections.abc import Callable
from typing import Any, NoReturn

import orjson

from service.errors import BadRequest

MAX_DEPTH = 32  # nested arrays and objects; the deepest body of the API has 6
INT64 = 2**63
# A string, closed or not, or a bracket. Possessive, so that it is linear on any input.
_TOKEN = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"?|[\[\]{}]', re.DOTALL)
_MAYBE_HUGE_FLOAT = re.compile(r"[eE]\+?[0-9]{3}|[0-9]{300}")
_MAYBE_HUGE_INT = re.compile(r"[0-9]{19}")
#: turns all digits into one character, and all characters that can precede an integer into another
_SHAPE = bytes.maketrans(b"0123456789:[ \t\r\n-", b"0" * 10 + b"," * 7)
_MAYBE_HUGE = b"," + b"0" * 19


def strict_json(
    data: bytes,
    number: Callable[[str], Any] | None = None,
    constant: Callable[[str], Any] | None = None,
) -> Any:  # noqa: ANN401  JSON may hold anything
    """Return the value of a JSON document; raise BadRequest with a code if it is not strict.

    `number` converts the digits of each number; without it, numbers become floats and 64-bit
    integers. `constant` converts `NaN`, `Infinity` and `-Infinity`; without it they are refused.
    """
    if number is None and (quick := _quick(data)) is not _UNSURE:
        return quick
    text = _decode(data)
    del data  # a table may be as large as the remaining memory
    _check_depth(text)
    hooks: dict[str, Any] = (
        _hooks(text) if number is None else {"parse_int": number, "parse_float": number}
    )
    try:
        value = json.loads(
            text, object_pairs_hook=_object, parse_constant=constant or refuse_constant, **hooks
        )
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise BadRequest(
            f"The body is not JSON: {error.msg.lower()} at {where}.", code="malformed_json"
        ) from error
    # Only an escape can put these two into a string, so most documents need no search.
    lowered = text.lower()
    if "\\u0000" in lowered or "\\ud" in lowered:
        _check_strings(value)
    return value


_HOLDERS = frozenset((dict, list))
#: the result of `_quick` if it cannot prove that a document is strict
_UNSURE = object()


def _quick(data: bytes) -> object:
    """Return the value of a document that is provably strict, else `_UNSURE`: ten times faster.

    orjson refuses NaN, infinite numbers, lone surrogates and invalid UTF-8, but it accepts the last
    of two equal keys, deeper nesting and larger integers than we do.
    """
    # These escapes can stand for NUL, half surrogates, and the characters that
    # `_is_flat_and_distinct` counts.
    if b"\\u" in data or _MAYBE_HUGE in data.translate(_SHAPE):
        return _UNSURE
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError:
        return _UNSURE
    is_sure = isinstance(value, dict | list) and _is_flat_and_distinct(value, data)
    return value if is_sure else _UNSURE


def _is_flat_and_distinct(value: dict[str, Any] | list[Any], data: bytes) -> bool:
    """Return whether no key occurs twice and nothing nests too deep; False if in doubt.

    The text has at least one colon for each key of the value, and one opening bracket for each
    array and object. A repeated key is a colon without a key in the value. So equal counts prove
    that no key got lost and that all levels were seen. Colons inside strings, as in times, are
    counted too; brackets inside strings make the result False.
    """
    colons = data.count(b":")
    brackets = data.count(b"[") + data.count(b"{")
    level = [value]
    for _depth in range(MAX_DEPTH):
        brackets -= len(level)
        for item in level:
            if type(item) is dict:
                colons -= len(item)
        if not brackets:
            return colons == 0 or colons == _colons(value)
        below: list[Any] = []
        for item in level:
            values = item.values() if type(item) is dict else item
            below += [each for each in values if type(each) in _HOLDERS]
        level = below
    return False


def _colons(value: object) -> int:
    if isinstance(value, str):
        return value.count(":")
    if isinstance(value, list):
        return sum(map(_colons, value))
    if isinstance(value, dict):
        return sum(map(_colons, value)) + sum(map(_colons, value.values()))
    return 0


def _hooks(text: str) -> dict[str, Any]:
    """Return the converters of numbers for the decoder: its own, where they are safe."""
    hooks: dict[str, Any] = {}
    if _MAYBE_HUGE_INT.search(text):
        hooks["parse_int"] = _integer
    if _MAYBE_HUGE_FLOAT.search(text):
        hooks["parse_float"] = _float
    return hooks


def _decode(data: bytes) -> str:
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadRequest(
            f"The body is not UTF-8: byte {error.start} cannot be decoded.", code="malformed_json"
        ) from error
    if text.startswith("\ufeff"):
        raise BadRequest(
            "The body begins with a byte order mark: remove it.", code="malformed_json"
        )
    return text


def _check_depth(text: str) -> None:
    if text.count("[") + text.count("{") <= MAX_DEPTH:
        return
    depth = 0
    for match in _TOKEN.finditer(text):
        first = text[match.start()]
        if first in "[{":
            depth += 1
            if depth > MAX_DEPTH:
                raise BadRequest(
                    f"The body nests arrays and objects deeper than {MAX_DEPTH} levels.",
                    code="too_deep",
                )
        elif first in "]}":
            depth -= 1


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        for key, _value in pairs:
            if key in seen:
                raise BadRequest(
                    f"The key {key[:100]!r} is given twice in one object.", code="duplicate_key"
                )
            seen.add(key)
    return found


def refuse_constant(name: str) -> NoReturn:
    """Raise BadRequest for NaN, Infinity or -Infinity."""
    raise BadRequest(
        f"{name} is not JSON: send null where a value is missing.", code="non_finite_number"
    )


def _float(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise BadRequest(
            f"The number {text[:40]} is too large: at most 1.8e308 can be held.",
            code="number_too_large",
        )
    return value


def _integer(text: str) -> int | float:
    # A larger integer becomes a float. `int` of thousands of digits would be slow, or the
    # interpreter would refuse it.
    if len(text) <= 20 and -INT64 <= (value := int(text)) < INT64:
        return value
    return _float(text)


def _check_strings(value: object) -> None:
    if isinstance(value, str):
        _check_string(value)
    elif isinstance(value, list):
        for item in value:
            _check_strings(item)
    elif isinstance(value, dict):
        for key, item in value.items():
            _check_string(key)
            _check_strings(item)


def _check_string(text: str) -> None:
    if "\x00" in text:
        raise BadRequest("A string holds the NUL character (\\u0000): remove it.", code="nul")
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise BadRequest(
            "A string holds half of a surrogate pair: send whole characters.",
            code="lone_surrogate",
        )
