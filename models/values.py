"""Scalars as a client sends them, read into columns, with a problem for each that does not fit.

What cannot be read becomes missing, exactly as a missing value was in training. Knows NumPy only.
"""

import difflib
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property, partial
from types import NoneType
from typing import Any, Literal, TypeAlias

import numpy as np

from models.data import Categories, Column, Floats
from models.inputs import Choice, Input, Moment, Scalar

Code = Literal[
    "missing",
    "unknown_category",
    "wrong_type",
    "coerced",
    "out_of_range",
    "clipped",
    "unknown_column",
    "non_finite",
]
#: What a JSON document can hold in a cell; of these a list and an object are no value at all.
RawValue: TypeAlias = str | int | float | bool | list[Any] | dict[str, Any] | None
#: A value read, and what was wrong with it.
Read: TypeAlias = "tuple[float | str | None, Problem | None]"

YES, NO = {"true", "t", "yes", "y", "1"}, {"false", "f", "no", "n", "0"}
#: Characters of a client's value that a message repeats.
SHOWN = 60
#: Distinct unknown categories of one request that are compared with the known ones: it is slow.
COMPARED = 50


@dataclass(frozen=True)
class Problem:
    """What is unusual about one value of a row."""

    column: str
    code: Code
    fact: str
    #: What was done about it, for a row that is answered all the same.
    effect: str = ""

    @property
    def detail(self) -> str:
        return f"{self.fact}; {self.effect}" if self.effect else self.fact

    @cached_property
    def cause(self) -> "Problem":
        """The problem in a row that has no answer, where nothing was done about it."""
        return Problem(self.column, self.code, self.fact)

    def to_json(self) -> dict[str, str]:
        return {"column": self.column, "code": self.code, "detail": self.detail}


@dataclass
class Problems:
    """The problems of each row that has some."""

    rows: dict[int, list[Problem]] = field(default_factory=dict)

    def add(self, rows: Iterable[int], problem: Problem) -> None:
        for row in rows:
            self.rows.setdefault(row, []).append(problem)


def read_column(
    column: Input, values: Sequence[RawValue], problems: Problems, *, from_text: bool
) -> Column:
    """Read one column of a request; `from_text` means that even numbers come as text, as in CSV."""
    if isinstance(column, Choice):
        return _read_choice(column, values, problems)
    numbers = _read_numbers(column, values, problems, from_text=from_text)
    if column.type != "boolean":
        _check_range(column, numbers, problems)
    return numbers


def unknown_column(
    name: str, values: Sequence[RawValue], targets: Iterable[str], problems: Problems
) -> None:
    """Note in the rows that have a value for it that a column is ignored."""
    why = "is what the model predicts" if name in targets else "is no input of the model"
    problem = Problem(name, "unknown_column", f"column {_show(name)} {why}; it is ignored")
    problems.add((row for row, value in enumerate(values) if value is not None), problem)


# ---- numbers, booleans, datetimes -------------------------------------------------------------


def _read_numbers(
    column: Scalar | Moment, values: Sequence[RawValue], problems: Problems, *, from_text: bool
) -> Floats:
    numbers = _all_at_once(column, values, from_text=from_text)
    if numbers is None:
        numbers = np.full(len(values), np.nan)
    odd = (~np.isfinite(numbers)).nonzero()[0].tolist()
    if not odd:
        return numbers
    reader = {"boolean": _boolean, "datetime": _moment}.get(column.type, _number)
    read = _remember(partial(_read_one, column, reader, from_text=from_text))
    for row in odd:
        number, problem = read(values[row])
        numbers[row] = number if isinstance(number, float) else np.nan
        if problem:
            problems.add([row], problem)
    return numbers


def _all_at_once(
    column: Scalar | Moment, values: Sequence[RawValue], *, from_text: bool
) -> Floats | None:
    """Read a column of plain values; what is not finite then must be looked at one by one.

    None where the values need to be looked at one by one from the start.
    """
    kinds = set(map(type, values))
    plain = {bool} if column.type == "boolean" else {int, float}
    try:
        if column.type != "datetime" and kinds <= plain | {NoneType}:
            return np.array(values, dtype=np.float64)
        if column.type in {"number", "integer"} and from_text and kinds <= {str, NoneType}:
            return np.array([_text_number(value) for value in values])  # type: ignore[arg-type]
    except (ValueError, OverflowError):  # no number, or an integer beyond float64
        pass
    return None


def _text_number(text: str | None) -> float:
    if not text or "_" in text:  # which float() would skip
        return math.nan
    return float(text)


def _read_one(
    column: Scalar | Moment,
    reader: Callable[[RawValue], tuple[float, bool]],
    value: RawValue,
    *,
    from_text: bool,
) -> Read:
    if value is None or value == "":
        return None, missing(column)
    try:
        number, exact = reader(value)
    except (ValueError, OverflowError):
        return None, _wrong_type(column, value)
    if not math.isfinite(number):
        fact = f"{_show(value)} is not finite"
        return None, Problem(column.name, "non_finite", fact, "it is taken as missing")
    if exact or (from_text and isinstance(value, str)):
        return number, None
    detail = f"{_show(value)} was read as the {column.type} {number:g}"
    return number, Problem(column.name, "coerced", detail)


def _number(value: RawValue) -> tuple[float, bool]:
    """Return the number and whether it was given as one."""
    if isinstance(value, str) and "_" not in value:  # which float() would skip
        return float(value), False
    if isinstance(value, int | float):
        return float(value), not isinstance(value, bool)
    raise ValueError(value)


def _boolean(value: RawValue) -> tuple[float, bool]:
    if isinstance(value, str):
        word = value.strip().lower()
        if word not in YES | NO:
            raise ValueError(value)
        return float(word in YES), False
    if isinstance(value, int | float) and value in {0, 1}:
        return float(value), isinstance(value, bool)
    raise ValueError(value)


def _moment(value: RawValue) -> tuple[float, bool]:
    """Read ISO 8601, in UTC where it names no zone; a number counts seconds since 1970."""
    if isinstance(value, str):
        moment = datetime.fromisoformat(value.strip())
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp(), True
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value), False
    raise ValueError(value)


def _check_range(column: Scalar | Moment, numbers: Floats, problems: Problems) -> None:
    if column.min is None or column.max is None:
        return
    outside = ((numbers < column.min) | (numbers > column.max)).nonzero()[0]
    if len(outside) == 0:
        return
    for row, number in zip(outside.tolist(), numbers[outside].tolist(), strict=True):
        for problem in range_problems(column, number):
            problems.add([row], problem)


def range_problems(column: Scalar | Moment, number: float) -> Iterator[Problem]:
    """Yield what there is to say of a number that may be outside of the training rows' range."""
    if column.min is None or column.max is None or column.min <= number <= column.max:
        return
    told = moment_text if column.type == "datetime" else "{:g}".format
    seen = f"{told(column.min)} to {told(column.max)}"
    fact = f"{told(number)} is outside the training rows' range, {seen}"
    yield Problem(column.name, "out_of_range", fact)
    used = min(max(number, column.least), column.most)
    if used != number:
        fact = f"{told(number)} is too far outside of it to compute with"
        yield Problem(column.name, "clipped", fact, f"{told(used)} is used")


def moment_text(seconds: float) -> str:
    """Return seconds since 1970 as a datetime, where there is one."""
    try:
        return datetime.fromtimestamp(seconds, UTC).isoformat()
    except (OverflowError, ValueError, OSError):  # beyond the years 1 to 9999
        return f"{seconds:g} s since 1970"


# ---- categories ---------------------------------------------------------------------------------


def _read_choice(column: Choice, values: Sequence[RawValue], problems: Problems) -> Categories:
    places = column.index
    read = _remember(partial(_read_category, column, comparisons=iter(range(COMPARED))))
    # No value but text equals a category.
    found = (places.get(value, -1) if type(value) is str else -1 for value in values)
    codes = np.fromiter(found, dtype=np.int32, count=len(values))
    for row in np.flatnonzero(codes < 0).tolist():
        word, problem = read(values[row])
        if isinstance(word, str):
            codes[row] = places[word]
        if problem:
            problems.add([row], problem)
    return Categories(codes, column.categories)


def _read_category(column: Choice, value: RawValue, *, comparisons: Iterator[int]) -> Read:
    if value is None or value == "":
        return None, missing(column)
    if isinstance(value, list | dict):
        return None, _wrong_type(column, value)
    word = _word(value)
    if word in column.index:
        detail = f"{_show(value)} was read as the category {_show(word)}"
        return word, Problem(column.name, "coerced", detail)
    known = sorted(column.categories)
    compare = next(comparisons, None) is not None
    near = difflib.get_close_matches(word[:SHOWN], known, 1) if compare else []
    hint = f"the nearest known one is {_show(near[0])}" if near else _list(known)
    detail = f"{_show(word)} was in no training row; {hint}"
    return None, Problem(column.name, "unknown_category", detail)


def _word(value: RawValue) -> str:
    if isinstance(value, bool):
        return ("false", "true")[value]
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def _list(known: list[str]) -> str:
    shown = ", ".join(_show(value) for value in known[:5])
    return f"known are {shown}" + (" and others" if len(known) > 5 else "")


# ---- shared -------------------------------------------------------------------------------------


def missing(column: Input) -> Problem:
    """Return what there is to say where a row has no value."""
    return Problem(column.name, "missing", "no value", _stand_in(column))


def _wrong_type(column: Input, value: RawValue) -> Problem:
    fact = f"{_show(value)} is no {column.type}"
    return Problem(column.name, "wrong_type", fact, "it is taken as missing")


def _stand_in(column: Input) -> str:
    if isinstance(column, Choice):
        if column.has_other:
            return "it is treated like the missing and rare ones of the training rows"
        return "the training rows' mix of categories is used"
    if column.type == "datetime":
        return f"the training rows' mean, {moment_text(column.mean)}, is used"
    return f"the training rows' mean, {column.mean:.4g}, is used"


def _remember(read: Callable[[RawValue], Read]) -> Callable[[RawValue], Read]:
    """Read equal values of a request once."""
    known: dict[tuple[type, str | float | None], Read] = {}

    def look_up(value: RawValue) -> Read:
        if isinstance(value, list | dict):
            return read(value)
        key = (type(value), value)
        if key not in known:
            known[key] = read(value)
        return known[key]

    return look_up


def _show(value: RawValue) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN else text[:SHOWN] + "…'"
