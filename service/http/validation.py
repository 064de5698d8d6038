"""Strict JSON, and the error for the faults that a schema found in a request.

Strict JSON excludes every document that two parsers could understand differently. The standard
parser accepts NaN, the last of two equal keys, lone surrogates, and any depth up to the size of the
stack. Databases and other clients fail on such values.
"""

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, NoReturn

import orjson

from descent.codes import ErrorCode
from service.errors import BadRequest, Invalid, field_error

MAX_DEPTH = 32  # nested arrays and objects; the deepest body of the API has 6
INT64 = 2**63
# A string, closed or not, or a bracket. Possessive, so that it is linear on any input.
_TOKEN = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"?|[\[\]{}]', re.DOTALL)
_MAYBE_HUGE_FLOAT = re.compile(r"[eE]\+?[0-9]{3}|[0-9]{300}")
_MAYBE_HUGE_INT = re.compile(r"[0-9]{19}")
#: turns all digits into one character, and all characters that can precede an integer into another
_SHAPE = bytes.maketrans(b"0123456789:[ \t\r\n-", b"0" * 10 + b"," * 7)
_MAYBE_HUGE = b"," + b"0" * 19
_HOLDERS = frozenset((dict, list))
#: the result of `_quick` if it cannot prove that a document is strict
_UNSURE = object()

SHOWN = 80  # characters of a wrong value that a message repeats
LISTED = 100  # errors of one request that the answer lists; a body can hold 100 000
#: our code → pydantic's names for the same fault
_MEANINGS: dict[ErrorCode, tuple[str, ...]] = {
    "missing_field": ("missing",),
    "unknown_field": ("extra_forbidden",),
    "wrong_type": (
        *("string_type", "bool_type", "bool_parsing", "datetime_type", "list_type", "dict_type"),
        *("int_type", "int_parsing", "int_from_float", "float_type", "float_parsing"),
        *("model_type", "model_attributes_type"),
    ),
    "out_of_range": (
        *("greater_than", "greater_than_equal", "less_than", "less_than_equal"),
        *("finite_number", "int_parsing_size"),
    ),
    "too_long": ("too_long", "string_too_long"),
    "too_short": ("too_short", "string_too_short"),
    "not_allowed": ("literal_error", "enum", "union_tag_invalid"),
}
#: pydantic's name → our code, so that its names may change while ours stay
CODES = {name: code for code, names in _MEANINGS.items() for name in names}
OTHER: ErrorCode = "invalid_value"  # the code of all other faults
_OBJECTS = {"model_attributes_type", "model_type", "dict_type"}
_OWN_SENTENCE = {"missing", "extra_forbidden", "union_tag_invalid", "value_error"}

#: The place of a fault: the part of the request, then the names and numbers that lead to it.
Place = tuple[Any, ...]


def strict_json(
    data: bytes,
    number: Callable[[str], object] | None = None,
    constant: Callable[[str], object] | None = None,
) -> object:
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
    # Only an escape can put NUL or a surrogate into a string, so most documents need no search.
    lowered = text.lower()
    if "\\u0000" in lowered or "\\ud" in lowered:
        _check_strings(value)
    return value


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
    """Return our converters of numbers for the decoder, if its own are not safe for this text."""
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
                    f"The key {key[:100]!r} occurs twice in one object.", code="duplicate_key"
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
            f"The number {text[:40]} is too large: the limit is 1.8e308.",
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


# ---- faults that a schema found -----------------------------------------------------------------


def to_error(errors: Sequence[Mapping[str, Any]], body: object) -> Invalid:
    """Return one error for all faults that a schema found in a request, one item for each place."""
    found: dict[Place, list[Mapping[str, Any]]] = {}
    for error in errors:
        found.setdefault(_place(error, body), []).append(error)
    # Each branch of a union reports why it does not fit. The branch with the deepest place is the
    # one that the client meant.
    above = {place[:length] for place in found for length in range(len(place))}
    places = [place for place in found if place not in above]
    items = [_item(place, found[place]) for place in places[:LISTED]]
    return _invalid(items, len(places))


def unknown_query(names: Sequence[str], known: Sequence[str]) -> Invalid:
    """Return the error for fields of a query that the route does not know."""
    items = [
        {
            "pointer": f"/query/{_escape(name[:SHOWN])}",
            "code": "unknown_field",
            "detail": _unknown(name[:SHOWN], known),
        }
        for name in names[:LISTED]
    ]
    return _invalid(items, len(names))


def _unknown(name: str, known: Sequence[str]) -> str:
    if near := get_close_matches(name, known, n=1):
        return f"{name} is not a known field of the query: did you mean {near[0]}?"
    fields = f"it can have {', '.join(known)}" if known else "this call has none"
    return f"{name} is not a known field of the query: {fields}."


def _invalid(items: list[dict[str, str]], count: int) -> Invalid:
    """Return the error whose items are the first of `count` faults."""
    detail = items[0]["detail"] if items else "The request does not fit its schema."
    if count > len(items):
        detail += f" ({count - 1} more, of which {len(items) - 1} are in `errors`)"
    elif count > 1:
        detail += f" ({count - 1} more in `errors`)"
    return Invalid(detail, errors=items)


def _place(error: Mapping[str, Any], body: object) -> Place:
    where, *path = error["loc"] or ("body",)
    if where == "body":
        path = _in_body(path, body, is_absent=error["type"] == "missing")
    return (where, *path)


def _item(place: Place, errors: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    path = place[1:] if place[0] == "body" else place
    return field_error(
        "".join(f"/{_escape(part)}" for part in path),
        CODES.get(errors[0]["type"], OTHER),
        _detail(errors, ".".join(str(part) for part in place[1:]) or "the body"),
    )


def _detail(errors: Sequence[Mapping[str, Any]], name: str) -> str:
    error, kind = errors[0], errors[0]["type"]
    if kind == "missing":
        return f"{name} is required."
    if kind == "extra_forbidden":
        return f"{name} is not a known field: remove it or check its spelling."
    if kind == "union_tag_invalid":
        tags = str(error["ctx"]["expected_tags"]).replace("'", "")
        return f"{name}: its type should be one of {tags}, got {error['ctx']['tag']!r}."
    if kind == "value_error":
        message = str(error["msg"]).removeprefix("Value error, ")
        return f"{message}." if name == "the body" else f"{name}: {message}."
    rules = dict.fromkeys(_rule(each) for each in errors if each["type"] not in _OWN_SENTENCE)
    first, *others = rules
    choices = ", or ".join([first, *(rule.removeprefix("it should ") for rule in others)])
    return f"{name}: {choices}, got {_shown(error)}."


def _rule(error: Mapping[str, Any]) -> str:
    if error["type"] in _OBJECTS:
        return "it should be an object"
    message = str(error["msg"])
    message = message[:1].lower() + message[1:].replace("Input should", "it should")
    return message.replace("input should", "it should")


def _shown(error: Mapping[str, Any]) -> str:
    try:
        text = json.dumps(error.get("input"), default=str, ensure_ascii=False)
    except (TypeError, ValueError):
        text = str(error.get("input"))
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


def _in_body(path: list[Any], body: object, *, is_absent: bool) -> list[Any]:
    """Keep the parts of pydantic's location that are in the client's document.

    The other parts name a member of a union or a validator.
    """
    kept, current = [], body
    for index, part in enumerate(path):
        if (isinstance(current, dict) and part in current) or (
            isinstance(current, list) and isinstance(part, int) and part < len(current)
        ):
            current = current[part]
            kept.append(part)
        elif is_absent and index == len(path) - 1:
            kept.append(part)
    return kept


def _escape(part: object) -> str:
    return str(part).replace("~", "~0").replace("/", "~1")
