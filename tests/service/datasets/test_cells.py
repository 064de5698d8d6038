"""Columns of texts have the values that `Reading.read` gives to each cell alone."""

import math
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from models.reading import DATE_FORMS, MISSING, THOUSANDS, UNITS, WHITE, Reading
from service.datasets.cells import ColumnReader

CELLS = 300  # of each reading
ODD = [
    *MISSING, "inf", "-Infinity", "+inf", "NAN", "nan(1)", "0x10", "0b11", "1_000", "1e999", "-0",
    "1e-999", "٣", "½", "--1", "+-1", "1.", ".5", "+.5", "-.5e-3", ".", "-", "+", "e5", "1e",
    "1e+", "007", "00", "9007199254740993", "9223372036854775807", "9223372036854775808",
    "-9223372036854775808", "123456789012345678901234567890", "1.0", "1e3", "1,5", "1.5", "1,234",
    "1.234", "1,234.5", "1.234,5", "12,34,567", "1'234", "1 234", "1\u00a0234,5", "1\u202f234",
    "\u22125", "\u2212 5", "1234,567", "0,5", "5 %", "5%", "% 5", "-5%", "%-5", "$5", "-$5",
    "$-5", "5 $ ", "US$ 5", "5 kr", "€ 1.234,50", "true", "TRUE", "True", "yes", "No", "t", "F",
    "on", "0", "1", "maybe", "", " ", "\ufeff7", "a,b", "2024-01-31", "2024-1-5", "2024-02-30",
    "0000-01-01", "9999-12-31", "2024-01-31T10", "2024-01-31t10:30", "2024-01-31 24:00",
    "2024-01-31 10:60", "2024-01-31T10:30:00Z", "2024-01-31T10:30:00z",
    "2024-01-31 10:30:00.123456789", "2024-01-31 10:30:00,5", "2024-01-31 10:30 PM",
    "2024-01-31 0:30 am", "2024-01-31T10:30:00+02:00", "2024-01-31T10:30:00-0530",
    "0001-01-01T00:00:00+05:00", "31.12.2024", "12/31/2024", "31/12/24", "31-Dec-2024",
    "Dec 31, 2024", "Tue, 31 Dec 2024", "1.2.2024", "20240131", "20241331", "2024-01", "2024-13",
    "09:30", "9:30 pm", "25:00", "10-1-1", "29/02/2023",
]  # fmt: skip


def readings() -> Iterator[Reading]:
    for kind in ("number", "integer"):
        yield Reading(kind)
        yield Reading(kind, decimal=",")
        for thousands in THOUSANDS:
            yield Reading(kind, decimal="." if thousands == "," else ",", thousands=thousands)
            if thousands != ".":
                yield Reading(kind, thousands=thousands)
        for unit in UNITS:
            yield Reading(kind, unit=unit)
        yield Reading(kind, decimal=",", thousands=".", unit="€")
        yield Reading(kind, missing=("", "-999", "-"))
    for form in DATE_FORMS:
        yield Reading("datetime", form=form)
    yield Reading("boolean")
    yield Reading("boolean", true="Yes", false="No")
    yield Reading("boolean", true="0", false="1")
    for kind in ("text", "category", "id"):
        yield Reading(kind)
    yield Reading("category", merges_numbers=True, missing=("", "1.0"))


READINGS = list(readings())


def pick(draw: np.random.Generator, choices: Sequence[str]) -> str:
    chosen: str = choices[int(draw.integers(len(choices)))]
    return chosen


def cells_of(reading: Reading, draw: np.random.Generator) -> list[str | None]:
    """Return cells of all kinds, many of them written as the reading expects them."""
    return [_padded(_cell(reading, draw), draw) for _ in range(CELLS)]


def _cell(reading: Reading, draw: np.random.Generator) -> str | None:
    if draw.random() < 0.4:
        return pick(draw, [*ODD, *reading.missing])
    if reading.type == "datetime":
        return _moment(reading.form, draw)
    if reading.type in {"number", "integer"}:
        return _number(reading, draw)
    return pick(
        draw, ["a", "b", "yes", "no", "1", "1.0", "1.00", "01", "x y", "groß", reading.true]
    )


def _number(reading: Reading, draw: np.random.Generator) -> str:
    digits = 0 if reading.type == "integer" or draw.random() < 0.3 else int(draw.integers(5))
    size = 10.0 ** int(draw.integers(1, 20))
    number = int(draw.uniform(-size, size))
    text = f"{abs(number) / 10**digits:,.{digits}f}" if draw.random() < 0.8 else f"{abs(number):e}"
    text = text.replace(",", "T").replace(".", reading.decimal)
    text = text.replace("T", reading.thousands if draw.random() < 0.8 else "")
    sign = pick(draw, ["", "", "+", "-", "\u2212"]) if number >= 0 else "-"
    blank = pick(draw, ["", " ", "\u00a0"])
    unit = reading.unit if draw.random() < 0.8 else ""
    return pick(
        draw, [f"{sign}{unit}{text}", f"{sign}{text}{blank}{unit}", f"{unit}{blank}{sign}{text}"]
    )


def _moment(form: str, draw: np.random.Generator) -> str:
    moment = datetime(1900, 1, 1, tzinfo=UTC) + timedelta(seconds=int(draw.integers(7 * 10**9)))
    clock = pick(
        draw, ["", "", "%H:%M", "%H:%M:%S", "%H:%M:%SZ", "%I:%M %p", "%H:%M:%S.%f", "%H:%M:%S%z"]
    )
    text = moment.strftime(pick(draw, [" ", "T"]).join(filter(None, [form, clock])))
    if draw.random() < 0.2:
        place = int(draw.integers(len(text)))
        return text[:place] + pick(draw, "0123456789-/. T") + text[place + 1 :]
    return text


def _padded(text: str | None, draw: np.random.Generator) -> str | None:
    if text is None or draw.random() < 0.02:
        return None
    if draw.random() < 0.1:
        return pick(draw, WHITE) + text + pick(draw, WHITE) * int(draw.integers(2))
    return text


def alone(reading: Reading, cell: str | None) -> tuple[Any, bool]:
    """Return the stored value of one cell, and whether it fits."""
    if cell is None:
        return None, True
    try:
        value = reading.read(cell)
    except ValueError:
        return None, False
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        return None, False
    if isinstance(value, float) and not math.isfinite(value):
        return None, True
    return value, True


@pytest.mark.parametrize("reading", READINGS, ids=lambda each: str(each.to_json()))
def test_a_column_has_the_values_of_its_cells(reading: Reading) -> None:
    cells = cells_of(reading, np.random.default_rng(15))
    for part in (cells, cells[7:8], [], [c for c in cells if alone(reading, c)[1]]):
        column = pa.array(["x", *part], pa.string()).slice(1)
        found = ColumnReader(reading).read(column)
        values = found.values.cast(pa.int64()) if reading.type == "datetime" else found.values
        unfit = [False] * len(part) if found.unfit is None else found.unfit.to_pylist()
        due = [alone(reading, cell) for cell in part]
        assert values.to_pylist() == [value for value, _fits in due]
        assert unfit == [not fits for _value, fits in due]


def test_markers_that_are_null_already_are_found_between_blanks() -> None:
    reading = Reading("number", missing=("", "-999", "-1"))
    cells = pa.array([None, " -999", "-1", "5", "-999 "])
    found = ColumnReader(reading, nulled=frozenset({"", "-999"})).read(cells)
    assert found.values.to_pylist() == [None, None, None, 5.0, None]


@pytest.mark.parametrize("kind", ["number", "integer"])
def test_numbers_in_texts_are_counted_as_they_are_read(kind: str) -> None:
    for reading in (each for each in READINGS if each.type == kind):
        reader = ColumnReader(reading)
        cells = reader.clean(pa.array(cells_of(reading, np.random.default_rng(5)), pa.string()))
        for cell, fits in zip(cells.to_pylist(), reader.fits(cells).to_pylist(), strict=True):
            if cell is None:
                assert not fits
            elif fits or kind == "number":
                assert fits == _is_read(reading, cell), cell


def _is_read(reading: Reading, cell: str) -> bool:
    try:
        reading.read(cell)
    except ValueError:
        return False
    return True
