"""A client's values, read into columns, with a problem noted for each value that does not fit.

Text is read as the training table was, by the reading of its column; a model of an earlier version
has no readings, and its text is read by fixed rules. A value that cannot be read counts as missing,
and is encoded as in training. Knows NumPy only.
"""

import difflib
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property, lru_cache, partial
from types import NoneType
from typing import Any, Literal, TypeAlias

import numpy as np

from models.data import Categories, ColumnValues, Floats
from models.features.encoding import Features
from models.features.inputs import Choice, Input, Moment, Numeric
from models.reading import WHITE, Reading, category_key, category_text

Code = Literal[
    "missing",
    "unknown_category",
    "rare_category",
    "wrong_type",
    "coerced",
    "out_of_range",
    "clipped",
    "unknown_column",
    "non_finite",
]
#: Everything that JSON can hold in a cell. A list or an object is never a valid value.
RawValue: TypeAlias = str | int | float | bool | list[Any] | dict[str, Any] | None
#: The value that was read, None if missing, and its problem.
ReadValue: TypeAlias = "tuple[float | str | None, ValueProblem | None]"

#: Words for true and false in models without readings.
YES, NO = {"true", "t", "yes", "y", "1"}, {"false", "f", "no", "n", "0"}
#: Characters of a client's value that a message repeats, at most.
SHOWN = 60
#: Distinct unknown categories, and unknown columns, of a request that are compared with the known
#: ones, because that is slow.
COMPARED = 50


@dataclass(frozen=True)
class ValueProblem:
    """One unusual value of a row."""

    column: str
    code: Code
    fact: str
    #: How the value was treated, if the row has a prediction.
    effect: str = ""

    @property
    def detail(self) -> str:
        return f"{self.fact}; {self.effect}" if self.effect else self.fact

    @cached_property
    def cause(self) -> "ValueProblem":
        """The same problem without its effect, for a row that has no prediction."""
        return ValueProblem(self.column, self.code, self.fact)

    def to_json(self) -> dict[str, str]:
        return {"column": self.column, "code": self.code, "detail": self.detail}


@dataclass
class Problems:
    """The problems of a request, by row number."""

    rows: dict[int, list[ValueProblem]] = field(default_factory=dict)

    def add(self, rows: Iterable[int], problem: ValueProblem) -> None:
        for row in rows:
            self.rows.setdefault(row, []).append(problem)


def read_column(
    column: Input, values: Sequence[RawValue], problems: Problems, *, from_text: bool
) -> ColumnValues:
    """Read one column of a request, (rows,), and add its problems to `problems`.

    `from_text` means that numbers arrive as text, as in CSV, which is then no problem; nor is it
    for a column with a reading.
    """
    if isinstance(column, Choice):
        return _read_choice(column, values, problems)
    numbers = _read_numbers(column, values, problems, from_text=from_text)
    if column.type != "boolean":
        _check_range(column, numbers, problems)
    return numbers


def note_unknown(
    columns: Iterable[tuple[str, Sequence[RawValue]]], features: Features, problems: Problems
) -> None:
    """Note that columns are ignored, in each row that has a value for them.

    A column that the training table had needs no note.
    """
    comparisons = iter(range(COMPARED))
    for name, values in columns:
        if name in features.expected:
            continue
        near = None
        if next(comparisons, None) is not None:
            near = _nearest(name[:SHOWN], features.names)
        why = "is no input of the model"
        if name in features.targets:
            why = "is what the model predicts"
        elif near is not None:
            why += f", perhaps {_show(near)}"
        fact = f"column {_show(name)} {why}; it is ignored"
        problem = ValueProblem(name, "unknown_column", fact)
        problems.add((row for row, value in enumerate(values) if value is not None), problem)


@lru_cache(maxsize=512)  # a client sends the same columns in each request
def _nearest(name: str, names: frozenset[str]) -> str | None:
    """Return the name that is most like another one, without regard to case."""
    folded = {each.casefold(): each for each in sorted(names)}
    near = difflib.get_close_matches(name.casefold(), folded, 1)
    return folded[near[0]] if near else None


# ---- numbers, booleans, datetimes -------------------------------------------------------------


def _read_numbers(
    column: Numeric | Moment, values: Sequence[RawValue], problems: Problems, *, from_text: bool
) -> Floats:
    numbers = _all_at_once(column, values, from_text=from_text)
    if numbers is None:
        numbers = np.full(len(values), np.nan)
    odd = (~np.isfinite(numbers)).nonzero()[0].tolist()
    if not odd:
        return numbers
    read = _remember(partial(_read_one, column, _reader(column), from_text=from_text))
    for row in odd:
        number, problem = read(values[row])
        numbers[row] = number if isinstance(number, float) else np.nan
        if problem:
            problems.add([row], problem)
    return numbers


def _all_at_once(
    column: Numeric | Moment, values: Sequence[RawValue], *, from_text: bool
) -> Floats | None:
    """Read a column of simple values in one call, or return None if that is not possible.

    Numbers of the result that are not finite must then be read one by one.
    """
    kinds = set(map(type, values))
    plain = {bool} if column.type == "boolean" else {int, float}
    try:
        if column.type != "datetime" and kinds <= plain | {NoneType}:
            numbers = np.array(values, dtype=np.float64)
            if column.gaps:
                numbers[np.isin(numbers, list(column.gaps))] = np.nan
            return numbers
        is_text = from_text or column.reading is not None
        if column.type in {"number", "integer"} and is_text and kinds <= {str, NoneType}:
            return _text_numbers(column.reading, values)  # type: ignore[arg-type]
    except (ValueError, OverflowError):  # not a number, or an integer beyond float64
        pass
    return None


def _text_numbers(reading: Reading | None, texts: Sequence[str | None]) -> Floats:
    if reading is None:
        return np.array([_text_number(text) for text in texts])
    read, is_missing = _number_reader(reading, texts), reading.is_missing
    stripped = (text and text.strip(WHITE) for text in texts)
    return np.array([math.nan if not text or is_missing(text) else read(text) for text in stripped])


def _number_reader(reading: Reading, texts: Sequence[str | None]) -> Callable[[str], float]:
    """Return the reader of the numbers in these texts: a fast one if they are simple."""
    whole = "".join(filter(None, texts))
    if "_" in whole or not whole.isascii():  # float() would read such numbers
        return reading.number
    if reading.is_plain:
        return float
    if reading.decimal == "," and not reading.thousands and not reading.unit and "." not in whole:
        return lambda text: float(text.replace(",", "."))
    return reading.number


def _text_number(text: str | None) -> float:
    if not text or "_" in text:  # which float() would skip
        return math.nan
    return float(text)


def _read_one(
    column: Numeric | Moment,
    reader: Callable[[RawValue], tuple[float | None, bool]],
    value: RawValue,
    *,
    from_text: bool,
) -> ReadValue:
    if value is None or value == "":
        return None, missing(column)
    try:
        number, exact = reader(value)
    except (ValueError, OverflowError):
        return None, _wrong_type(column, value)
    if number is None or (number in column.gaps and not isinstance(value, str | bool)):
        return None, missing(column)
    if not math.isfinite(number):
        fact = f"{_show(value)} is not finite"
        return None, ValueProblem(column.name, "non_finite", fact, "it is taken as missing")
    if exact or (from_text and isinstance(value, str)):
        return number, None
    detail = f"{_show(value)} was read as the {column.type} {number:g}"
    return number, ValueProblem(column.name, "coerced", detail)


def _reader(column: Numeric | Moment) -> Callable[[RawValue], tuple[float | None, bool]]:
    """Return the reader of one value: its number, and whether that is what the client sent.

    None is a missing value. Text that the reading of the column reads is what the client sent.
    """
    read = {"boolean": _boolean, "datetime": _moment}.get(column.type, _number)
    reading = column.reading
    if reading is None:
        return read

    def by_reading(value: RawValue) -> tuple[float | None, bool]:
        if not isinstance(value, str):
            return read(value)
        text = value.strip(WHITE)
        if reading.is_missing(text):
            return None, True
        if column.type == "datetime":
            return _moment_of_text(reading, text), True
        if column.type == "boolean":
            return float(reading.truth(text)), True
        return reading.number(text), True

    return by_reading


def _moment_of_text(reading: Reading, text: str) -> float:
    """Read a date in the form of the column, or else in ISO 8601."""
    try:
        return reading.moment(text) / 1e6
    except ValueError:
        return _moment(text)[0]


def _number(value: RawValue) -> tuple[float, bool]:
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
    """Read ISO 8601, in UTC unless it names a zone, or seconds since 1970."""
    if isinstance(value, str):
        moment = datetime.fromisoformat(value.strip())
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp(), True
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value), False
    raise ValueError(value)


def _check_range(column: Numeric | Moment, numbers: Floats, problems: Problems) -> None:
    if column.min is None or column.max is None:
        return
    outside = ((numbers < column.min) | (numbers > column.max)).nonzero()[0]
    if len(outside) == 0:
        return
    for row, number in zip(outside.tolist(), numbers[outside].tolist(), strict=True):
        for problem in range_problems(column, number):
            problems.add([row], problem)


def range_problems(column: Numeric | Moment, number: float) -> Iterator[ValueProblem]:
    """Yield a problem if a number is outside the training rows' range, another if it is clipped."""
    if column.min is None or column.max is None or column.min <= number <= column.max:
        return
    told = moment_text if column.type == "datetime" else "{:g}".format
    seen = f"{told(column.min)} to {told(column.max)}"
    fact = f"{told(number)} is outside the training rows' range, {seen}"
    yield ValueProblem(column.name, "out_of_range", fact)
    used = min(max(number, column.least), column.most)
    if used != number:
        fact = f"{told(number)} is too far outside that range to compute with"
        yield ValueProblem(column.name, "clipped", fact, f"{told(used)} is used")


def moment_text(seconds: float) -> str:
    """Return seconds since 1970 as ISO 8601, or as seconds beyond the years 1 to 9999."""
    try:
        return datetime.fromtimestamp(seconds, UTC).isoformat()
    except (OverflowError, ValueError, OSError):  # beyond the years 1 to 9999
        return f"{seconds:g} s since 1970"


# ---- categories ---------------------------------------------------------------------------------


def _read_choice(column: Choice, values: Sequence[RawValue], problems: Problems) -> Categories:
    places = column.index
    read = _remember(partial(_read_category, column, comparisons=iter(range(COMPARED))))
    # Only text can equal a category.
    found = (places.get(value, -1) if type(value) is str else -1 for value in values)
    codes = np.fromiter(found, dtype=np.int32, count=len(values))
    for row in np.flatnonzero(codes < 0).tolist():
        word, problem = read(values[row])
        if isinstance(word, str):
            codes[row] = places[word]
        if problem:
            problems.add([row], problem)
    return Categories(codes, column.categories)


def _read_category(column: Choice, value: RawValue, *, comparisons: Iterator[int]) -> ReadValue:
    if value is None or value == "":
        return None, missing(column)
    if isinstance(value, list | dict):
        return None, _wrong_type(column, value)
    word = _word(value)
    if column.reading is not None:
        word, is_missing = _category(column, column.reading, value)
        if is_missing:
            return None, missing(column)
        if word in column.index:
            return word, None
    elif word in column.index:
        detail = f"{_show(value)} was read as the category {_show(word)}"
        return word, ValueProblem(column.name, "coerced", detail)
    if column.is_rare(word):
        fact = f"{_show(word)} is rare in the training rows"
        return None, ValueProblem(column.name, "rare_category", fact, _stand_in(column))
    known = sorted(column.categories)
    compare = next(comparisons, None) is not None
    near = difflib.get_close_matches(word[:SHOWN], known, 1) if compare else []
    hint = f"the nearest known one is {_show(near[0])}" if near else _list(known)
    detail = f"{_show(word)} was in no training row; {hint}"
    return None, ValueProblem(column.name, "unknown_category", detail)


def _category(column: Choice, reading: Reading, value: str | float) -> tuple[str, bool]:
    """Return the category that a value stands for, as the table spells it if it is known.

    Also return whether the value means missing.
    """
    word = value.strip(WHITE) if isinstance(value, str) else category_text(value)
    if isinstance(value, bool):  # a table may spell it like Python does
        spelled = (word, word.title(), word.upper())
        word = next((each for each in spelled if each in column.index), word)
    if word in column.index:
        return word, False
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if reading.is_missing(word) or (is_number and value in reading.missing_numbers):
        return word, True
    return column.keys.get(category_key(word), word), False


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


def missing(column: Input) -> ValueProblem:
    """Return the problem of a row without a value in this column."""
    return ValueProblem(column.name, "missing", "no value", _stand_in(column))


def _wrong_type(column: Input, value: RawValue) -> ValueProblem:
    fact = f"{_show(value)} is no {column.type}"
    return ValueProblem(column.name, "wrong_type", fact, "it is taken as missing")


def _stand_in(column: Input) -> str:
    if isinstance(column, Choice):
        if column.has_other:
            return "it is treated like missing and rare values of the training rows"
        return "the training rows' mix of categories is used"
    if column.type == "datetime":
        return f"the training rows' mean, {moment_text(column.mean)}, is used"
    return f"the training rows' mean, {column.mean:.4g}, is used"


def _remember(read: Callable[[RawValue], ReadValue]) -> Callable[[RawValue], ReadValue]:
    """Return a reader that reads equal values of a request only once."""
    known: dict[tuple[type, str | float | None], ReadValue] = {}

    def look_up(value: RawValue) -> ReadValue:
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
