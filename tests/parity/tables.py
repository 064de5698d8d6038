"""Generated tables to predict: the cells as a client sends them, and their meaning to the model.

Separate rules here state the meaning; the code under test does not compute it. A table is a pure
function of the seed and its number.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeAlias

import numpy as np

from models.data import Categories, ColumnValues, Table
from models.features.inputs import Choice, Input, Moment, Numeric
from models.features.targets import ClassTarget
from tests.parity.models import WORDS, Known

#: stands for a key that a row does not have
ABSENT = object()
#: Spellings of a missing value in CSV; see the README.
MISSING = {"", "NA", "N/A", "NaN", "null", "?"}
EXTREME = [1e300, -1e300, 1.7976931348623157e308, 5e-324, 1e30, -1e18, 1e15, 0.0, -0.0, 1e-320]
STRANGE = ["zebra", "SS", "é́", "💥💥", "ß", "x" * 3000, "<script>", "'; --", "0.1", "False"]
NO_NUMBERS = ["ten", "1_0", "0x10", "💥", "12,5", "--", "1e", "1 000", "½", "1.2.3"]
NO_DATES = ["yesterday", "2020-02-30", "10:00", "2020-13-01", "💥", "20-1-1", "1e9"]

Random: TypeAlias = np.random.Generator


@dataclass(frozen=True)
class Cell:
    """A value as a client sends it, and its meaning."""

    #: the value in JSON
    value: Any
    #: a number, a category, or None if it counts as missing
    means: float | str | None
    #: the expected warnings of the model, except for those about its range
    code: str | None = None
    #: the same value in CSV; None if CSV cannot express it
    text: str | None = None


@dataclass(frozen=True)
class Sample:
    """A table to predict with a model."""

    number: int
    known: Known
    rows: int
    #: the model's inputs, and perhaps other columns
    columns: dict[str, list[Cell]]
    on_problem: str

    def table(self) -> Table:
        """Return the inputs as training would read them."""
        inputs = self.known.features.inputs
        columns = {column.name: _column(column, self._cells(column)) for column in inputs}
        return Table({column.name: column.type for column in inputs}, columns, self.rows)

    def codes(self) -> list[set[tuple[str, str]]]:
        """Return the expected warnings of each row: columns and codes."""
        found: list[set[tuple[str, str]]] = [set() for _ in range(self.rows)]
        inputs = {column.name: column for column in self.known.features.inputs}
        for column in inputs.values():
            for row, cell in enumerate(self._cells(column)):
                found[row] |= {(column.name, code) for code in _codes(column, cell)}
        for name in self.columns.keys() - self.known.features.expected:
            for row, cell in enumerate(self.columns[name]):
                if cell.value not in (None, ABSENT):
                    found[row].add((name, "unknown_column"))
        return found

    def _cells(self, column: Input) -> list[Cell]:
        return self.columns.get(column.name, [GAP] * self.rows)


GAP = Cell(ABSENT, None, "missing", "")
NULL = Cell(None, None, "missing", "")
EMPTY = Cell("", None, "missing", "")


def make_sample(seed: int, number: int, models: list[Known]) -> Sample:
    """Return the table of this number."""
    random = np.random.Generator(np.random.Philox(key=[seed, number]))
    known = models[number % len(models)]
    rows = int(random.choice([0, 1, 1, 1, 2, 3, 5, 8, 20, 150], p=[0.03] + [0.12] * 8 + [0.01]))
    tameness = random.choice([1.0, 0.95, 0.6, 0.0], p=[0.2, 0.2, 0.4, 0.2])
    columns = {}
    for column in known.features.inputs:
        if random.random() < 0.05:
            continue
        columns[column.name] = _cells_of(column, rows, random, tameness)
    if random.random() < 0.2:
        columns |= _others(known, rows, random)
    names = list(columns)
    random.shuffle(names)
    on_problem = "error" if random.random() < 0.2 else "warn"
    return Sample(number, known, rows, {name: columns[name] for name in names}, on_problem)


def _cells_of(column: Input, rows: int, random: Random, tameness: float) -> list[Cell]:
    # A file has one type for a column: half of the columns keep to one.
    family = random.choice([0, 1, 2, 3]) if random.random() < 0.7 else None
    wild, tame = WILD[type(column)], TAME[type(column)]
    if column.reading is not None:
        wild, tame = SPELLED[type(column)], SPELLED[type(column)]
    cells: list[Cell] = []
    while len(cells) < rows:
        cell = (tame if random.random() < tameness else wild)(column, random)
        if family is None or _family(cell) in {None, family} or random.random() < 0.02:
            cells.append(cell)
        elif random.random() < 0.1:
            cells.append(NULL)
    return cells


def _family(cell: Cell) -> int | None:
    if cell.value is None or cell.value is ABSENT:
        return None
    if isinstance(cell.value, bool):
        return 0
    if isinstance(cell.value, int | float):
        return 1
    return 2 if isinstance(cell.value, str) else 3


def _others(known: Known, rows: int, random: Random) -> dict[str, list[Cell]]:
    """Return columns that are no inputs; one may be a target of the model."""
    target = known.features.target
    names = ["extra", "日本 2", target.name if isinstance(target, ClassTarget) else target.names[0]]
    values = [(None, ""), (1, "1"), (2.5, "2.5"), ("x", "x"), (True, "true")]
    picked = [_pick(random, values) for _ in range(rows)]
    return {_pick(random, names): [Cell(value, None, text=text) for value, text in picked]}


# ---- the meaning of a value ----------------------------------------------------------------------


def _column(column: Input, cells: list[Cell]) -> ColumnValues:
    if isinstance(column, Choice):
        places = {value: place for place, value in enumerate(column.categories)}
        codes = [-1 if cell.means is None else places[str(cell.means)] for cell in cells]
        return Categories(np.array(codes, dtype=np.int32), column.categories)
    return np.array([np.nan if cell.means is None else float(cell.means) for cell in cells])


def _codes(column: Input, cell: Cell) -> set[str]:
    codes = {cell.code} if cell.code else set()
    if isinstance(column, Choice) or column.type == "boolean" or cell.means is None:
        return codes
    number = float(cell.means)
    assert column.min is not None
    assert column.max is not None
    if not column.min <= number <= column.max:
        codes.add("out_of_range")
    if not column.least <= number <= column.most:
        codes.add("clipped")
    return codes


# ---- cells ---------------------------------------------------------------------------------------


def _pick(random: Random, values: Any) -> Any:
    return values[int(random.integers(len(values)))]


def _tame_scalar(column: Numeric, random: Random) -> Cell:
    if column.type == "boolean":
        value = bool(random.random() < 0.5)
        return Cell(value, float(value), text="true" if value else "false")
    assert column.min is not None
    assert column.max is not None
    number: float = float(random.uniform(column.min, column.max))
    if column.type == "integer" or random.random() < 0.1:
        number = int(np.ceil(column.min)) if random.random() < 0.5 else int(column.max)
    return Cell(number, float(number), text=repr(number))


def _wild_scalar(column: Numeric, random: Random) -> Cell:
    if column.type == "boolean":
        return _wild_boolean(random)
    kind = int(random.integers(11))
    size = (column.std or 1.0) * 10.0 ** int(random.integers(4))
    number = column.mean + size * float(random.normal())
    if kind == 0:
        return Cell(number, number, text=repr(number))
    if kind == 1:
        extreme = _pick(random, EXTREME)
        return Cell(extreme, extreme, text=repr(extreme))
    if kind == 2:
        whole = _pick(random, [2**53 + 1, 2**63, -(2**63), 10**300, 0, -1, int(number)])
        return Cell(whole, float(whole), text=str(whole))
    if kind == 3:
        text = _pick(random, [repr(number), f" {number!r} ", f"{number:e}", f"{number:+.3f}"])
        return Cell(text, float(text), "coerced", text)
    if kind == 4:
        text = _pick(random, NO_NUMBERS)
        return Cell(text, None, "wrong_type", text)
    if kind == 5:
        text = _pick(random, ["inf", "-Infinity", "nan", "1e999"])
        return Cell(text, None, "non_finite", text)
    if kind == 6:
        return Cell(value := bool(random.random() < 0.5), float(value), "coerced")
    if kind == 7:
        return Cell(_pick(random, [[], [1], {"a": 1}]), None, "wrong_type")
    return _pick(random, [GAP, NULL, EMPTY])  # type: ignore[no-any-return]


def _wild_boolean(random: Random) -> Cell:
    spelled = [("yes", 1), ("F", 0), ("TRUE", 1), ("0", 0), (" no ", 0), ("1", 1), ("T", 1)]
    wrong = ["maybe", "2", "tru", "💥"]
    word, means = _pick(random, spelled)
    cells = [
        Cell(word, float(means), "coerced", word),
        Cell(bit := int(random.integers(2)), float(bit), "coerced", str(bit)),
        Cell(float(bit), float(bit), "coerced"),
        Cell(text := _pick(random, wrong), None, "wrong_type", text),
        Cell(2, None, "wrong_type", "2"),
        Cell(0.5, None, "wrong_type", "0.5"),
        Cell(1e300, None, "wrong_type", "1e300"),
        Cell([True], None, "wrong_type"),
        GAP,
        NULL,
        EMPTY,
    ]
    return _pick(random, cells)  # type: ignore[no-any-return]


def _tame_moment(column: Moment, random: Random) -> Cell:
    assert column.min is not None
    assert column.max is not None
    seconds = int(random.uniform(column.min, column.max))
    text = datetime.fromtimestamp(max(seconds, int(column.min) + 1), UTC).isoformat()
    return _moment_cell(text)


def _wild_moment(column: Moment, random: Random) -> Cell:
    written = [
        "2021-03-04",
        "2021-03-04 05:06",
        "2021-03-04T05:06:07Z",
        "2021-03-04T05:06:07.123456+02:00",
        " 2021-03-04 ",
        "0001-01-01",
        "9999-12-31T23:59:59",
        "1969-12-31T23:59:59.5Z",
        "20210304",
        "2021-W09-4",
    ]
    seconds = _pick(random, [1.6e9, 1_600_000_000, 0, -1e10, 1e300, -1.5, 2**62])
    cells = [
        _moment_cell(_pick(random, written)),
        _moment_cell(_pick(random, written)),
        Cell(seconds, float(seconds), "coerced"),
        Cell(text := _pick(random, NO_DATES), None, "wrong_type", text),
        Cell(True, None, "wrong_type", "true"),
        Cell({}, None, "wrong_type"),
        GAP,
        NULL,
        EMPTY,
    ]
    return _pick(random, cells)  # type: ignore[no-any-return]


def _moment_cell(text: str) -> Cell:
    moment = datetime.fromisoformat(text.strip())
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return Cell(text, (aware - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds(), None, text)


def _tame_choice(column: Choice, random: Random) -> Cell:
    word = _pick(random, column.categories)
    return Cell(word, word, text=word)


def _wild_choice(column: Choice, random: Random) -> Cell:
    kind = int(random.integers(7))
    if kind == 0:
        word = _pick(random, [*STRANGE, *WORDS])
        known = word in column.categories
        text = None if word in MISSING and not known else word
        return Cell(word, word if known else None, None if known else "unknown_category", text)
    if kind == 1:
        return _as_word(column, _pick(random, [3, 3.0, 7, 0.5, True, False, -1, 1e22]))
    if kind == 2:
        return Cell(_pick(random, [[], ["S"], {"a": "S"}]), None, "wrong_type")
    if kind == 3:
        return Cell(_pick(random, ["NA ", "  ", "\t"]), None, "unknown_category")
    return _pick(random, [GAP, NULL, EMPTY])  # type: ignore[no-any-return]


def _as_word(column: Choice, value: float) -> Cell:
    """Return a number or boolean in a column of categories: its text is the category."""
    word = str(value).lower() if isinstance(value, bool) else str(value)
    if isinstance(value, float) and value.is_integer():
        word = str(int(value))
    known = word in column.categories
    return Cell(value, word if known else None, "coerced" if known else "unknown_category", word)


# ---- cells in the spelling of a text table -------------------------------------------------------


def _number_text(number: float, decimals: int, decimal: str, thousands: str, unit: str) -> str:
    """Write a number with the marks of a column."""
    digits = f"{abs(number):,.{decimals}f}"
    marks = {",": thousands, ".": decimal}
    text = "".join(marks.get(character, character) for character in digits)
    return ("-" if number < 0 else "") + text + (f" {unit}" if unit else "")


def _spelled_scalar(column: Numeric, random: Random) -> Cell:
    if column.type == "boolean":
        return _spelled_boolean(random)
    assert column.reading is not None
    reading, kind = column.reading, int(random.integers(9))
    decimals = 0 if column.type == "integer" else int(random.integers(1, 5))
    size = (column.std or 1.0) * 10.0 ** int(random.integers(4))
    number = round(column.mean + size * float(random.normal()), decimals)
    text = _number_text(number, decimals, reading.decimal, reading.thousands, reading.unit)
    if kind == 0:
        return _pick(random, [GAP, NULL, EMPTY])  # type: ignore[no-any-return]
    if kind == 1:
        return _marker(random)
    if kind == 2:
        return Cell(-999, None, "missing", "-999")
    if kind == 3:
        wrong = ["ten", "1_0", "1;5", "--", "1e", "12 $", "1.2.3.4", "1,2,3,4", "½"]
        text = _pick(random, wrong)
        return Cell(text, None, "wrong_type", text)
    if kind == 4:
        return Cell(text, number, None, f" {text}\u00a0")
    # -0 is written as 0 by JSON's integers.
    return Cell(number, number, None, text) if kind == 5 else Cell(text, number, None, text)


def _marker(random: Random) -> Cell:
    text = _pick(random, ["NA", "n/a", "?", "-999", "-", " - ", "NULL", " "])
    return Cell(text, None, "missing", text)


def _spelled_boolean(random: Random) -> Cell:
    words = [("Ja", 1), ("nein", 0), (" NEIN ", 0), ("true", 1), ("No", 0), ("1", 1), ("off", 0)]
    word, means = _pick(random, words)
    cells = [
        Cell(word, float(means), None, word),
        Cell(word, float(means), None, word),
        Cell(bool(means), float(means), None, word),
        Cell("maybe", None, "wrong_type", "maybe"),
        _marker(random),
        NULL,
    ]
    return _pick(random, cells)  # type: ignore[no-any-return]


def _spelled_moment(column: Moment, random: Random) -> Cell:
    assert column.reading is not None
    assert column.min is not None
    assert column.max is not None
    seconds = int(random.uniform(column.min, column.max))
    moment = datetime.fromtimestamp(seconds, UTC)
    form = column.reading.form
    texts = [
        moment.strftime(f"{form} %H:%M:%S"),
        moment.strftime(f"{form}T%H:%M:%SZ"),
        moment.strftime(f"{form} %I:%M:%S %p"),
        f" {moment.isoformat()} ",
    ]
    text = _pick(random, texts)
    wrong = _pick(random, ["yesterday", "30.30.2020", "1/2", "2020-02-30"])
    cells = [
        Cell(text, float(seconds), None, text),
        Cell(text, float(seconds), None, text),
        Cell(seconds, float(seconds), "coerced"),
        Cell(wrong, None, "wrong_type", wrong),
        Cell(-999, None, "missing", "-999"),
        _marker(random),
        NULL,
    ]
    return _pick(random, cells)  # type: ignore[no-any-return]


def _spelled_choice(column: Choice, random: Random) -> Cell:
    word = _pick(random, column.categories)
    odd = _pick(random, ["zebra", "03", "3.5", "Ja"])
    cells = [
        Cell(word, word, None, word),
        Cell(f" {word}", word, None, f"{word} "),
        Cell(odd, None, "unknown_category", odd),
        Cell(-999, None, "missing", "-999"),
        _marker(random),
        EMPTY,
    ]
    if "3" in column.categories:
        three = _pick(random, [3, 3.0, "3.0", "3.00", " 3"])
        cells.append(Cell(three, "3", None, str(three)))
    return _pick(random, cells)  # type: ignore[no-any-return]


SPELLED: dict[type, Callable[[Any, Random], Cell]] = {
    Numeric: _spelled_scalar,
    Moment: _spelled_moment,
    Choice: _spelled_choice,
}
TAME: dict[type, Callable[[Any, Random], Cell]] = {
    Numeric: _tame_scalar,
    Moment: _tame_moment,
    Choice: _tame_choice,
}
WILD: dict[type, Callable[[Any, Random], Cell]] = {
    Numeric: _wild_scalar,
    Moment: _wild_moment,
    Choice: _wild_choice,
}
