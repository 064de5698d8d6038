"""Describes each fault that a schema found in a request with a place, a code and a sentence."""

import json
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from descent.codes import ErrorCode
from service.errors import Invalid, field_error

SHOWN = 80  # characters of a wrong value that a message repeats
LISTED = 100  # errors of one request that are spelled out; a body can hold 100 000
#: our code → pydantic's names for the same faults of a field
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
