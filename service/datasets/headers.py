"""Tells whether the first row of a table names its columns, and gives the columns unique names."""

import math
import re
from collections.abc import Collection, Sequence
from itertools import pairwise
from typing import Any

from descent.codes import WarningCode, make_warning
from models.reading import UNITS, WHITE
from service.datasets.rejected import cell_error, free_name, shown

MAX_NAME = 256  # characters of a column's name
#: share of the cells below a word that must be numbers, dates or the like, so that it is a name
TYPED = 0.9
STEPS = 4  # numbers of the shortest scale that is taken for names

CURRENCY = f"(?:{'|'.join(map(re.escape, sorted(UNITS, key=len, reverse=True)))})"
_DIGITS = r"(?:\d[\d.,'\u2019_ \u00a0\u2009\u202f]*|[.,]\d+)(?:[eE][+-]?\d+)?"
NUMBER = re.compile(rf"[+\-\u2212]?(?:{CURRENCY} ?)?[+\-\u2212]?{_DIGITS}(?:[ \u00a0]?{CURRENCY})?")
_DATE = re.compile(
    r"\d{1,4}[-./]\d{1,2}[-./]\d{1,4}(?:[ T].*)?"
    r"|\d{4}-\d{2}|\d{1,2}:\d{2}(?::\d{2}.*)?(?: ?[AaPp]\.?[Mm]\.?)?"
    r"|\d{1,2}\.?[- ][A-Za-z]{3,9}\.?,?[- ]\d{2,4}(?: .*)?|[A-Za-z]{3,9}\.? \d{1,2},? \d{4}(?: .*)?"
)
_BOOLEANS = frozenset({"true", "false", "yes", "no"})
_YEAR = re.compile(r"(?:19|20)\d\d")
WHOLE = re.compile(r"\d{1,9}")
_PLAIN = re.compile(r"-?\d{1,9}(?:\.\d{1,9})?")


def header_level(rows: Sequence[list[str]], missing: frozenset[str]) -> int:
    """Return 2 if the first row certainly names the columns, 1 if it seems to, else 0.

    Words above numbers are names, and numbers beside them too. A date above numbers is a name. In a
    table of words only, the first row is a header if its cells are unique and do not occur below.
    """
    first = [cell.strip(WHITE) for cell in rows[0]]
    numbers = [cell for cell in first if NUMBER.fullmatch(cell)]
    is_unique = len(set(first)) == len(first)
    columns = _Columns(rows[1:], missing)
    if numbers and not (is_unique and (_are_whole(numbers) or _are_even(numbers))):
        return 0
    for index, cell in enumerate(first):
        if _DATE.fullmatch(cell) and not NUMBER.fullmatch(cell) and columns.are_numbers(index):
            return 2
        is_name = bool(cell) and cell not in missing and not is_typed(cell)
        if is_name and (is_word(cell) or not numbers) and columns.is_typed(index):
            return 2
    if numbers:
        return 1 if _are_names(first, columns) else 0
    start = 1 if not first[0] and len(first) > 1 and columns.is_typed(0) else 0
    if any(not cell or is_typed(cell) for cell in first[start:]) or not is_unique:
        return 0
    if any(columns.holds(index, cell) for index, cell in enumerate(first) if cell):
        return 0
    return 1


class _Columns:
    """The cells below the first row, by column."""

    def __init__(self, rows: Sequence[list[str]], missing: frozenset[str]) -> None:
        self._rows, self._missing = rows, missing

    def values(self, index: int) -> list[str]:
        cells = (row[index].strip(WHITE) for row in self._rows if index < len(row))
        return [cell for cell in cells if cell not in self._missing]

    def is_typed(self, index: int) -> bool:
        values = self.values(index)
        return bool(values) and sum(map(is_typed, values)) >= TYPED * len(values)

    def are_numbers(self, index: int) -> bool:
        values = self.values(index)
        return bool(values) and all(map(NUMBER.fullmatch, values))

    def are_even(self, places: list[int]) -> bool:
        """Return whether the first row below has even steps too, which then name nothing."""
        cells = self._rows[0] if self._rows else []
        return _are_even([cells[i].strip(WHITE) for i in places if i < len(cells)])

    def repeats(self, index: int) -> bool:
        """Return whether values occur more than twice on average."""
        values = self.values(index)
        return len(values) > 2 * len(set(values))

    def holds(self, index: int, cell: str) -> bool:
        return any(index < len(row) and row[index].strip(WHITE) == cell for row in self._rows)


def _are_names(first: list[str], columns: _Columns) -> bool:
    """Return whether the numbers of a first row are names, though no word stands above numbers.

    They are if they are years, the 0, 1, 2, … of a DataFrame, also beside the name of a class, or
    the steps of a scale.
    """
    places = [i for i, cell in enumerate(first) if NUMBER.fullmatch(cell)]
    numbers = [first[i] for i in places]
    others = [(i, cell) for i, cell in enumerate(first) if i not in places]
    below = [value for i in places for value in columns.values(i)]
    if not below or any(columns.holds(i, cell) for i, cell in others if cell):
        return False
    if len(numbers) >= 2 and all(map(_YEAR.fullmatch, numbers)):
        return numbers == sorted(set(numbers)) and not all(map(_YEAR.fullmatch, below))
    if others[:1] == [(0, "")] and columns.values(0)[:2] == ["0", "1"]:  # an index
        return len(others) == 1 and numbers == [str(n) for n in range(len(numbers))]
    if others and all(is_word(cell) and columns.repeats(i) for i, cell in others):
        return len(numbers) >= 2 and numbers == [str(place) for place in places]
    has_decimals = any("." in value for value in (*numbers, *below))
    return _are_even(numbers) and has_decimals and not columns.are_even(places)


def _are_whole(numbers: list[str]) -> bool:
    return all(map(WHOLE.fullmatch, numbers))


def _are_even(numbers: list[str]) -> bool:
    """Return whether numbers are the steps of a scale, such as 400, 400.5, 401, …."""
    if len(numbers) < STEPS or not all(map(_PLAIN.fullmatch, numbers)):
        return False
    values = [float(number) for number in numbers]
    steps = [after - before for before, after in pairwise(values)]
    return bool(steps[0]) and all(math.isclose(step, steps[0], rel_tol=1e-3) for step in steps)


def is_word(cell: str) -> bool:
    return not is_typed(cell.strip(WHITE)) and any(map(str.isalpha, cell))


def is_typed(cell: str) -> bool:
    cell = cell.strip(WHITE)
    return bool(NUMBER.fullmatch(cell) or _DATE.fullmatch(cell) or cell.casefold() in _BOOLEANS)


def column_names(
    cells: list[str],
    is_header: bool,  # noqa: FBT001  read from the file
    known: Collection[str] = (),
) -> tuple[list[str], list[dict[str, Any]]]:
    """Return unique names for the columns, and a warning for each invented name.

    A name is stripped unless it is `known` as it stands.
    """
    names: list[str] = []
    warnings: list[dict[str, Any]] = []
    plain = [_unquoted(cell, known) for cell in cells]
    given, taken = set(plain), set[str]()
    for number, wanted in enumerate(plain, 1):
        name = wanted
        if len(name) > MAX_NAME:
            raise cell_error(
                "column_name_too_long",
                f"The name of column {number} is longer than {MAX_NAME} characters:"
                f" {shown(name)}. Shorten it, or say header=absent.",
            )
        if not name:
            name = free_name(f"column_{number}", given if is_header else set())
        elif name in taken:
            name = free_name(name, given | taken)
        if is_header and name != wanted:
            code: WarningCode = "duplicate_column" if wanted else "unnamed_column"
            fault = f"is called {shown(wanted)} again" if wanted else "has no name"
            detail = f"Column {number} {fault}: it is read as {name!r}."
            warnings.append(make_warning(code, detail, name))
        given.add(name)
        taken.add(name)
        names.append(name)
    return names, warnings


def _unquoted(cell: str, known: Collection[str]) -> str:
    """Return a name without blanks at its ends, and without quotes that stand behind blanks."""
    if cell in known:
        return cell
    name = cell.strip(WHITE)
    if len(name) > 2 and name[0] == name[-1] == '"':
        return name[1:-1].replace('""', '"').strip(WHITE)
    return name
