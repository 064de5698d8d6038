"""Decides the reading and the role of every column, and gives the reason in a sentence.

A sample of the first rows decides; the pass over the whole file (`typed`) then counts the cells
that do not fit. If the sample was wrong about a column, some of these cells join it and it decides
again.
"""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from typing import Any

import pyarrow as pa

from models.reading import (
    DATE_FORMS,
    DECIMALS,
    THOUSANDS,
    UNITS,
    WHITE,
    Reading,
    category_key,
    category_text,
)
from service.datasets.candidates import (
    FEWEST_DATES,
    MANY,
    MOST_DATES,
    Fit,
    Marks,
    Texts,
    are_whole,
    boolean_reading,
    count_fitting,
    date_fits,
    given_boolean,
    number_fits,
    other_order,
    rival_number,
)
from service.datasets.cells import plain_decimals
from service.datasets.messages import ColumnOptions
from service.datasets.rejected import Rejected, cell_error, listed, shown
from service.datasets.staging import Kind, Stage

SAMPLE_ROWS = 10_000
SAMPLE_CELLS = 300_000  # which limits the rows of wide tables
SAMPLE_BYTES = 16 * 1024 * 1024  # which limits the rows of long texts
FEW_CATEGORIES = 20  # up to this many different values are categories, however few rows there are
MOST_CATEGORIES = 1000  # more different values are free text
SEEN = 5  # how often a category occurs on average, if there are more than FEW_CATEGORIES
LONGEST_CATEGORY = 200  # characters of a category
EXACT = 2**53  # whole numbers from here on are not exact as floats
_INT64, _DIGITS = 2**63, 20  # of which no number fits into 64 bits
BARE_DATE = "%Y%m%d"
_ID_NAME = re.compile(r"(?i:id|uuid|index|.*_id)|.*[a-z0-9]I[dD]")
_UNNAMED = re.compile(r"Unnamed: [0-9]+([._][0-9]+)*")  # pandas calls a column without a name so
_NO_OPTIONS = ColumnOptions()
_NO_CELLS: "pa.ChunkedArray[Any]" = pa.chunked_array([], pa.string())
LABELS = frozenset({"id", "category", "text"})  # types that are stored as texts


@dataclass
class Counts:
    """Counts of the cells of a column."""

    present: int = 0
    distinct: int = 0
    #: characters of the longest text
    longest: int = 0
    #: present cells that do not fit the reading, and the first of them: row and text
    unfit: int = 0
    first_unfit: tuple[int, str] | None = None
    not_finite: int = 0
    #: digits with a leading zero
    zeros: int = 0
    #: whole numbers that a float cannot hold exactly, and whether 64 bits can hold all
    beyond: int = 0
    fits_int64: bool = True
    has_signs: bool = False
    #: cells that do not fit the reading `near`, and the first of them
    not_near: int = 0
    first_not_near: tuple[int, str] | None = None
    #: cells that do not fit the reading `rival`
    not_rival: int = 0
    #: some of the texts that do not fit, or of all texts if the sample has none
    examples: dict[str, None] = field(default_factory=dict)


@dataclass
class InferredColumn:
    """A column: its reading, its role, the reason for both, and its counts."""

    name: str
    kind: Kind
    reading: Reading
    role: str = "feature"
    why: str = ""
    #: whether the client has given the type
    is_given: bool = False
    #: the reading that most cells of a column of texts fit
    near: Reading | None = None
    #: another reading that every cell fits and that gives other values
    rival: Reading | None = None
    #: whether the cells are whole numbers, also where they are stored as texts
    is_whole: bool = False
    #: whether whole numbers that all differ are an id, by the name or for lack of one
    is_named_id: bool = False
    #: whether it comes first and has no name, as the index of a DataFrame; a table that was written
    #: several times has several
    is_unnamed: bool = False
    counts: Counts = field(default_factory=Counts)
    #: whether the sample has no present cell
    is_unseen: bool = False
    #: the cells of the sample
    cells: "pa.ChunkedArray[Any]" = field(default_factory=lambda: _NO_CELLS, repr=False)

    @cached_property
    def sample(self) -> dict[str, int]:
        """Text → count in the sample, with some cells that did not fit."""
        return _texts(self.cells, self)

    @property
    def type(self) -> str:
        return self.reading.type

    @property
    def expected(self) -> Reading | None:
        """The reading of whole numbers that are stored as texts."""
        is_code = self.is_whole and self.type in LABELS
        return replace(self.reading, type="integer") if is_code else None

    @property
    def is_found(self) -> bool:
        """Whether the type was found, neither given nor in the file."""
        return not self.is_given and self.kind == "text"

    @property
    def is_wrong(self) -> bool:
        """Whether cells certainly do not fit the type that was found."""
        is_strict = self.type in {"number", "integer", "boolean"}
        return self.counts.unfit > 0 and is_strict and self.is_found

    def profile(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "type": self.type,
            "role": self.role,
            "why": self.why,
            "reading": self.reading.to_json(),
        }

    def retype(self, wanted: str) -> None:
        self.reading = replace(self.reading, type=wanted)
        self.is_whole = self.is_whole and wanted != "number"


class Inference:
    """Decides the readings of the columns of one table."""

    def __init__(self, stage: Stage, options: Mapping[str, ColumnOptions]) -> None:
        """Raises Rejected if there is no such column, or if an option means nothing."""
        if unknown := sorted(set(options) - set(stage.names)):
            raise Rejected("unknown_column", f"There is no column {shown(unknown[0])}.")
        self._stage, self._options = stage, options
        self._unnamed = {w["column"] for w in stage.warnings if w["code"] == "unnamed_column"}

    def columns(self) -> list[InferredColumn]:
        """Return the columns, with readings that the sample fits."""
        found = []
        sample = _sample(self._stage)
        read = zip(
            self._stage.names, self._stage.kinds, sample, plain_decimals(sample), strict=True
        )
        is_unnamed = True
        base = Reading("text", missing=self._stage.missing)
        number = replace(base, type="number")
        for name, kind, cells, is_decimal in read:
            options = self._options.get(name, _NO_OPTIONS)
            column = InferredColumn(name, kind, base, cells=cells)
            if options.missing:
                missing = dict.fromkeys([*base.missing, *options.missing])
                column.reading = replace(base, missing=tuple(missing))
            has_no_name = name in self._unnamed or _UNNAMED.fullmatch(name) is not None
            column.is_unnamed = is_unnamed = is_unnamed and has_no_name
            column.is_named_id = column.is_unnamed or _ID_NAME.fullmatch(name) is not None
            if options is _NO_OPTIONS and is_decimal:
                column.reading = number
            else:
                self.decide(column)
            found.append(column)
        self._heed_others(found)
        return found

    def decide(self, column: InferredColumn) -> None:
        """Give a column the reading that its sample fits."""
        options = self._options.get(column.name, _NO_OPTIONS)
        marks = _marks(column.name, options)
        base = Reading("text", missing=column.reading.missing)
        column.near = column.rival = None
        column.is_whole = False
        wanted = options.type or ("datetime" if marks.are_of_dates else None)
        column.is_given = wanted is not None
        if wanted is not None:
            column.reading = self._given(column, base, wanted, marks)
        elif column.kind != "text":
            column.reading = replace(base, type=column.kind)
            column.is_whole = column.kind == "integer"
        else:
            self._find(column, base, marks)
        if column.is_whole:
            column.retype(whole_type(column, _counts_of(column.sample)))
        if column.type == "category":
            column.reading = replace(column.reading, merges_numbers=_are_merged(column.sample))

    # ---- one column ----

    def _given(self, column: InferredColumn, base: Reading, wanted: str, marks: Marks) -> Reading:
        """Return the reading of this type that most cells fit."""
        texts = column.sample
        if wanted == column.kind != "text":
            return replace(base, type=wanted)
        if wanted in {"number", "integer"}:
            fits = self._number_fits(texts, base, marks)
            if wanted == "integer":
                fits.sort(key=lambda fit: -count_fitting(texts, fit.reading.whole_number))
            reading = _best(fits, marks.as_number(base))
            if not marks.are_of_numbers:
                column.rival = rival_number(texts, reading, _equals(fits))
            return replace(reading, type=wanted)
        if wanted == "datetime":
            fits = date_fits(texts, base, marks, 0)
            form = marks.form or (fits[0].reading.form if fits else base.form)
            if not marks.are_of_dates:
                column.rival = _other_order(form, _equals(fits))
            return replace(base, type="datetime", form=form)
        if wanted == "boolean":
            return boolean_reading(texts, base) or given_boolean(texts, base)
        return replace(base, type=wanted)

    def _find(self, column: InferredColumn, base: Reading, marks: Marks) -> None:
        texts = column.sample
        present = sum(texts.values())
        column.is_unseen = not present
        if not present:
            column.reading = base
            return
        fits = self._number_fits(texts, base, marks)
        every = [fit.reading for fit in fits if fit.cells == present]
        if marks.are_of_numbers:
            column.reading = _best(fits, marks.as_number(base))
            column.is_given = not every
            column.is_whole = bool(every) and _are_whole(texts, column.reading)
            return
        if every:
            column.reading = every[0]
            column.is_whole = _are_whole(texts, column.reading)
            column.rival = rival_number(texts, column.reading, every[1:])
            if dates := self._digits_as_dates(column, base):
                column.reading, column.is_whole = dates, False
            return
        if booleans := boolean_reading(texts, base):
            column.reading = booleans
            return
        dates_found = date_fits(texts, base, marks, MOST_DATES)
        if dates_found and _are_dates(dates_found[0], present):
            column.reading = dates_found[0].reading
            if dates_found[0].cells == present:
                column.rival = _other_order(column.reading.form, _equals(dates_found))
            return
        column.reading = base
        fits = fits or date_fits(texts, base, marks, MANY)
        column.near = fits[0].reading if fits else None

    def _number_fits(self, texts: Texts, base: Reading, marks: Marks) -> list[Fit]:
        return number_fits(texts, base, marks, prefers_comma=self._stage.prefers_decimal_comma)

    def _digits_as_dates(self, column: InferredColumn, base: Reading) -> Reading | None:
        if not column.is_whole or column.is_named_id:
            return None
        if any(len(text) != len("20240131") for text in column.sample):
            return None
        marks = Marks(form=BARE_DATE)
        fits = date_fits(column.sample, base, marks, 1)
        return fits[0].reading if fits else None

    # ---- after a pass over the whole file ----

    def revise(self, columns: list[InferredColumn], *, makes_texts: bool) -> bool:
        """Decide again about columns with cells that do not fit; return whether one changed.

        `makes_texts` gives up: such columns become texts, which every cell fits.
        """
        changed = False
        for column in columns:
            before = _stored(column)
            self._heed_misfits(column)
            is_changed = _stored(column) != before
            if is_changed if makes_texts else column.is_wrong and not is_changed:
                column.near, column.is_whole = None, False
                column.retype("text")
            changed |= _stored(column) != before
        return changed

    def _heed_misfits(self, column: InferredColumn) -> None:
        counts = column.counts
        if counts.not_rival == 0 < counts.unfit and column.rival is not None:
            kept = column.type if column.is_given else column.rival.type
            column.reading, column.rival = replace(column.rival, type=kept), None
        elif column.type == "datetime" and counts.unfit and column.is_found:
            if column.reading.form == BARE_DATE or not are_mostly_dates(counts):
                # So many others that the dates are few.
                weight = sum(column.sample.values())
                column.sample |= dict.fromkeys(counts.examples, weight)
                self.decide(column)
        elif counts.examples and column.is_found:
            column.sample |= {t: column.sample.get(t, 1) for t in counts.examples}
            self.decide(column)
        if counts.not_rival > (counts.unfit if column.is_given else 0):
            column.rival = None

    def refine(self, columns: list[InferredColumn], values: Sequence[Collection[str]]) -> bool:
        """Decide with all counts and the most frequent values of each column.

        Returns whether a column must be stored in another way.
        """
        changed = False
        for column, frequent in zip(columns, values, strict=True):
            before = _stored(column)
            if column.is_whole and not column.is_given:
                column.retype(whole_type(column, column.counts))
            elif column.is_found and (column.type in LABELS or _is_one_letter(column)):
                column.retype(text_type(column.counts))
            if column.type == "category" and not column.reading.merges_numbers:
                is_merged = _are_merged(frequent)
                column.reading = replace(column.reading, merges_numbers=is_merged)
            changed |= _stored(column) != before
        return changed

    def _heed_others(self, columns: list[InferredColumn]) -> None:
        """Doubt a column of cells like 1.137 if the table seems to have decimal commas.

        It seems so if another column certainly has them, or if semicolons separate the cells and no
        column certainly has decimal points.
        """
        has_commas = any(c.reading.decimal == "," and c.rival is None for c in columns)
        if not has_commas and self._stage.reading.get("delimiter") != ";":
            return
        rivals: list[tuple[InferredColumn, Reading | None]] = []
        for column in columns:
            is_plain = column.type == "number" and column.reading.is_plain
            if column.is_found and is_plain and column.name not in self._options:
                thousands = replace(column.reading, decimal=",", thousands=".")
                rival = rival_number(column.sample, column.reading, [thousands])
                rivals.append((column, rival))
        if has_commas or all(rival for _column, rival in rivals):
            for column, rival in rivals:
                column.rival = rival


# ---- the sample ---------------------------------------------------------------------------------


def _sample(stage: Stage) -> list["pa.ChunkedArray[Any]"]:
    wanted = max(1, min(SAMPLE_ROWS, SAMPLE_CELLS // len(stage.names)))
    held: list[pa.RecordBatch] = []
    rows = size = 0
    for batch in stage.batches():
        held.append(batch.slice(0, wanted - rows))
        rows, size = rows + held[-1].num_rows, size + held[-1].get_total_buffer_size()
        if rows >= wanted or size >= SAMPLE_BYTES:
            break
    if not held:
        return [_NO_CELLS] * len(stage.names)
    return pa.Table.from_batches(held).columns


def _texts(cells: "pa.ChunkedArray[Any]", column: InferredColumn) -> dict[str, int]:
    """Return the present texts of a sample with their counts, in the order of the table."""
    if column.kind in {"text", "category"}:
        found = cells.to_numpy().tolist()
        texts: Iterable[str] = [text.strip(WHITE) for text in found if text is not None]
    else:
        texts = [text_of(value) for value in cells.to_pylist() if value is not None]
    counts = Counter(texts)
    for marker in column.reading.missing:
        counts.pop(marker, None)
    return counts


def text_of(value: Any) -> str:  # noqa: ANN401  a value of any type
    """Return the text of a value of a file with types."""
    return value.isoformat(" ") if isinstance(value, datetime) else category_text(value)


def _counts_of(texts: Texts) -> Counts:
    """Return what the whole numbers of a sample show."""
    counts = Counts(present=sum(texts.values()), distinct=len(texts))
    for text, count in texts.items():
        counts.has_signs |= text.startswith("-")
        if text[0] == "0" and len(text) > 1:
            counts.zeros += count
        elif len(text) > 15:
            digits = "".join(character for character in text if character.isdigit())
            number = int(digits) if len(digits) < _DIGITS else _INT64
            counts.beyond += count * (number >= EXACT)
            counts.fits_int64 &= number < _INT64
    return counts


# ---- deciding -----------------------------------------------------------------------------------


def whole_type(column: InferredColumn, counts: Counts) -> str:
    """Return the type of a column of whole numbers."""
    differ = counts.present > 0 and counts.distinct == counts.present
    if counts.zeros and not counts.has_signs and column.reading.is_plain:
        return "category" if _are_few(counts) else "id"
    if counts.beyond and _are_few(counts):
        return "category"
    if counts.beyond >= MANY * counts.present > 0:
        return "id"
    if not counts.fits_int64:
        return "number"
    return "id" if differ and column.is_named_id else "integer"


def _are_few(counts: Counts) -> bool:
    """Return whether digits are labels of categories rather than ids."""
    few = min(FEW_CATEGORIES, counts.present // 2)
    return counts.distinct <= max(few, min(MOST_CATEGORIES, counts.present // SEEN))


def text_type(counts: Counts) -> str:
    """Return the type of a column of texts: they may be ids, categories or free text."""
    if not counts.present:
        return "text"
    if counts.distinct == counts.present:
        return "id"
    is_category = counts.longest <= LONGEST_CATEGORY and (
        counts.distinct <= FEW_CATEGORIES
        or counts.distinct <= min(MOST_CATEGORIES, counts.present // SEEN)
    )
    return "category" if is_category else "text"


def _are_dates(fit: Fit, present: int) -> bool:
    if fit.reading.form == BARE_DATE:
        return False  # eight digits are dates only where every value is one
    counts = Counts(present=present, unfit=present - fit.cells)
    return fit.cells == present or are_mostly_dates(counts)


def are_mostly_dates(counts: Counts) -> bool:
    """Return whether a column may have a few values beside its dates."""
    dates = counts.present - counts.unfit
    return counts.present >= FEWEST_DATES and dates >= MOST_DATES * counts.present


def _is_one_letter(column: InferredColumn) -> bool:
    """Return whether the only word of a boolean is one letter, which may mean anything."""
    if column.type != "boolean" or column.counts.distinct > 1:
        return False
    return max(map(len, column.sample), default=0) == 1


def _stored(column: InferredColumn) -> tuple[Any, ...]:
    """Return all that the stored values and the counts of a column depend on."""
    reading = column.reading
    if column.type in LABELS:
        found: tuple[Any, ...] = (reading.merges_numbers, column.is_whole)
    else:
        found = (reading,)
    return *found, reading.missing, column.near


def _are_merged(texts: Collection[str]) -> bool:
    return len({category_key(text) for text in texts}) < len(texts)


def _are_whole(texts: Texts, reading: Reading) -> bool:
    return not reading.unit and are_whole(texts, reading)


def _marks(name: str, options: ColumnOptions) -> Marks:
    """Return the marks that the client has given. Raises Rejected if they mean nothing."""
    allowed = (
        ("decimal", options.decimal, DECIMALS),
        ("thousands", options.thousands, ("", *THOUSANDS)),
        ("unit", options.unit, ("", *UNITS)),
        ("form", options.form, tuple(DATE_FORMS)),
    )
    for what, given, known in allowed:
        if given is not None and given not in known:
            detail = f"The {what} of column {shown(name)} must be one of {listed(known)}."
            raise cell_error("invalid_value", detail, column=name)
    if options.decimal is not None and options.decimal == options.thousands:
        detail = f"Column {shown(name)} cannot have one mark for decimals and thousands."
        raise cell_error("invalid_value", detail, column=name)
    return Marks(options.decimal, options.thousands, options.unit, options.form, options.day_first)


def _best(fits: list[Fit], otherwise: Reading) -> Reading:
    return fits[0].reading if fits else otherwise


def _equals(fits: list[Fit]) -> list[Reading]:
    """Return the other readings that as many cells fit as the first."""
    return [fit.reading for fit in fits[1:] if fit.cells == fits[0].cells]


def _other_order(form: str, readings: list[Reading]) -> Reading | None:
    other = other_order(form)
    return next((reading for reading in readings if reading.form == other), None)
