"""Finds the readings that the texts of a column fit: as numbers, dates or words for true and false.

It knows texts with their counts, and nothing of tables. `Reading.read` decides whether a text fits.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import islice

from models.reading import DATE_FORMS, DAY_FIRST, MONTH_FIRST, SIGNS, UNITS, Reading

Texts = Mapping[str, int]  # text → how many cells have it

MANY = 0.5  # the share of numbers from which a column of texts is mostly numbers
MOST_DATES = 0.9  # the share of dates from which the other values become missing
FEWEST_DATES = 10  # values of a column that may have others beside its dates
FIRST = 10  # texts of which one must fit a candidate for numbers
FEW = 3  # texts of which one must fit a candidate for dates
BOOLEAN_PAIRS = (("true", "false"), ("yes", "no"), ("t", "f"), ("y", "n"), ("on", "off"))
#: decimal and thousands marks besides the plain ones, those with a decimal comma first
_WITH_COMMA = ((",", ""), (",", "."), (",", " "), (",", "'"))
_WITH_POINT = ((".", ","), (".", " "), (".", "'"), (".", "_"))
_PLAIN = (".", "")
_DIGIT = re.compile(r"[0-9]")
_MARKED = re.compile(r"[^0-9eE+.-]|\..*\.")  # what no plain number has
_WHOLE = re.compile(r"[+-]?[0-9]+")
#: units, the longest first: US$ before $
_UNITS = sorted(UNITS, key=len, reverse=True)


@dataclass(frozen=True)
class Fit:
    """A reading, and how many cells fit it."""

    reading: Reading
    cells: int


@dataclass(frozen=True)
class Marks:
    """The marks of numbers and dates that a client has given; None if they are to be found."""

    decimal: str | None = None
    thousands: str | None = None
    unit: str | None = None
    form: str | None = None
    day_first: bool | None = None

    @property
    def are_of_numbers(self) -> bool:
        return not self.decimal is self.thousands is self.unit is None

    @property
    def are_of_dates(self) -> bool:
        return self.form is not None or self.day_first is not None

    def as_number(self, base: Reading) -> Reading:
        """Return a reading of numbers with these marks."""
        decimal = self.decimal or ("," if self.thousands == "." else ".")
        return replace(
            base,
            type="number",
            decimal=decimal,
            thousands=self.thousands or "",
            unit=self.unit or "",
        )


def count_fitting(texts: Texts, read: Callable[[str], object], least: float = 0) -> int:
    """Return how many cells are read; 0 if fewer than `least` are."""
    may_fail = sum(texts.values()) - least
    cells = 0
    for text, count in texts.items():
        try:
            read(text)
        except ValueError:
            may_fail -= count
            if may_fail < 0:
                return 0
        else:
            cells += count
    return cells


def present(texts: Texts) -> int:
    return sum(texts.values())


# ---- numbers ------------------------------------------------------------------------------------


def number_fits(texts: Texts, base: Reading, marks: Marks, *, prefers_comma: bool) -> list[Fit]:
    """Return the readings as numbers that at least MANY cells fit, the best first.

    Of two that fit equally many cells, the plainer is better; then the one with the preferred mark.
    """
    first = list(islice(texts, FIRST))
    if not any(map(_DIGIT.search, first)):
        return []
    least = MANY * present(texts)
    found = []
    for reading in _number_candidates(first, base, marks, prefers_comma=prefers_comma):
        if _fits_one(reading.number, first):
            cells = count_fitting(texts, reading.number, least)
            found += [Fit(reading, cells)] if cells else []
            if cells == present(texts) and reading.is_plain:
                break
    return sorted(found, key=lambda fit: -fit.cells)


def _number_candidates(
    first: list[str], base: Reading, marks: Marks, *, prefers_comma: bool
) -> Iterator[Reading]:
    pairs: tuple[tuple[str, str], ...] = ()
    if any(map(_MARKED.search, first)):
        pairs = _WITH_COMMA + _WITH_POINT if prefers_comma else _WITH_POINT + _WITH_COMMA
    unit = _unit(first) if marks.unit is None and pairs else marks.unit or ""
    for decimal, thousands in (_PLAIN, *pairs):
        if marks.decimal in {None, decimal} and marks.thousands in {None, thousands}:
            yield _number(base, decimal, thousands, unit)


@lru_cache(maxsize=256)
def _number(base: Reading, decimal: str, thousands: str, unit: str) -> Reading:
    return replace(base, type="number", decimal=decimal, thousands=thousands, unit=unit)


def _unit(first: list[str]) -> str:
    """Return the unit that stands beside most of the numbers; an empty text if there is none."""
    counts: Counter[str] = Counter()
    for text in first:
        bare = text.translate(SIGNS).lstrip("+-")
        unit = next((u for u in _UNITS if bare.startswith(u) or bare.endswith(u)), None)
        counts.update([unit] if unit else [])
    if not counts:
        return ""
    unit, count = counts.most_common(1)[0]
    return unit if count >= MANY * len(first) else ""


def _fits_one(read: Callable[[str], object], texts: Iterable[str]) -> bool:
    for text in texts:
        try:
            read(text)
        except ValueError:
            continue
        return True
    return False


def rival_number(texts: Texts, chosen: Reading, others: Iterable[Reading]) -> Reading | None:
    """Return another reading that fits the same cells and that gives other numbers."""
    return next((other for other in others if _is_rival(texts, chosen, other)), None)


def _is_rival(texts: Texts, chosen: Reading, other: Reading) -> bool:
    differs = False
    for text in texts:
        one, two = number_or_none(text, chosen), number_or_none(text, other)
        if one is not None and two is None:
            return False
        differs |= one is not None and one != two
    return differs


def number_or_none(text: str, reading: Reading) -> float | None:
    """Return the number of a text; None if it is none."""
    try:
        return reading.number(text)
    except ValueError:
        return None


def are_whole(texts: Iterable[str], reading: Reading) -> bool:
    """Return whether all numbers are written without decimals."""
    marks = [mark for mark in (reading.unit, reading.thousands) if mark]
    for text in texts:
        plain = text.translate(SIGNS)
        for mark in marks:
            plain = plain.replace(mark, "")
        if _WHOLE.fullmatch(plain) is None:
            return False
    return True


# ---- dates --------------------------------------------------------------------------------------


def date_fits(texts: Texts, base: Reading, marks: Marks, least: float) -> list[Fit]:
    """Return the readings as dates that a share of the cells fits, the best first.

    Of two forms that fit equally many cells, the first in DATE_FORMS is better, so a day before
    dots and dashes and a month before slashes.
    """
    first = list(islice(texts, FEW))
    found = []
    if not any(map(_DIGIT.search, first)):
        return []
    for form in _date_forms(marks):
        reading = _dates(base, form)
        if _fits_one(reading.moment, first):
            cells = count_fitting(texts, reading.moment, least * present(texts))
            found += [Fit(reading, cells)] if cells else []
    return sorted(found, key=lambda fit: (-fit.cells, _is_unusual(fit.reading.form)))


@lru_cache(maxsize=256)
def _dates(base: Reading, form: str) -> Reading:
    return replace(base, type="datetime", form=form)


def _date_forms(marks: Marks) -> list[str]:
    if marks.form is not None:
        return [marks.form]
    unwanted = {True: DAY_FIRST, False: MONTH_FIRST, None: {}}[marks.day_first]
    return [form for form in DATE_FORMS if form not in unwanted]


def _is_unusual(form: str) -> bool:
    """Return whether a form has the month first, and dots or dashes."""
    return form in {"%m.%d.%Y", "%m-%d-%Y"}


def other_order(form: str) -> str | None:
    """Return the form with day and month exchanged, if there is one."""
    return MONTH_FIRST.get(form) or DAY_FIRST.get(form)


# ---- true and false -----------------------------------------------------------------------------


def boolean_reading(texts: Texts, base: Reading) -> Reading | None:
    """Return the reading of words for true and false; None if they are others."""
    words = {text.lower() for text in texts}
    for true, false in BOOLEAN_PAIRS:
        if words <= {true, false}:
            if true == "true":
                return replace(base, type="boolean")
            return _spelled(texts, replace(base, type="boolean"), true, false)
    return None


def given_boolean(texts: Texts, base: Reading) -> Reading:
    """Return the reading of a column that the client calls a boolean, with its own spellings."""
    base = replace(base, type="boolean")
    truths: dict[bool, str] = {}
    for text in texts:
        try:
            truths.setdefault(base.truth(text), text)
        except ValueError:
            continue
    return _spelled(texts, base, truths.get(True, ""), truths.get(False, ""))


def _spelled(texts: Texts, base: Reading, true: str, false: str) -> Reading:
    """Return the reading with the most frequent spelling of each word."""
    true_text, false_text = _spelling(texts, true), _spelling(texts, false)
    # A word that does not occur is written like the other.
    known = true_text or false_text or ""
    true = true_text or _like(known, true) or "true"
    false = false_text or _like(known, false) or "false"
    if {true.lower(), false.lower()} == {"true", "false"}:
        return base
    return replace(base, true=true, false=false)


def _spelling(texts: Texts, word: str) -> str | None:
    same = [text for text in texts if text.lower() == word.lower()]
    return max(same, key=lambda text: texts[text], default=None)


def _like(known: str, word: str) -> str:
    if known.isupper():
        return word.upper()
    return word.title() if known.istitle() else word
