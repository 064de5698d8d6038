"""Generated text tables as people write them, with the values that their cells have.

Each value is drawn first and then written as text, so the expected values do not depend on the
code under test. A file is a pure function of the seed and its number.
"""

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Literal, TypeAlias

import numpy as np

from service.datasets.messages import CSV, TSV

Random: TypeAlias = np.random.Generator
#: A number, a truth value, seconds since 1970, a text, or None for a missing cell.
CellValue: TypeAlias = float | bool | str | None

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
NAMES = ["a", "Größe", "price per unit", "x.1", "Straße", "naïve", "col", "w", "été", "B2"]
WORDS = ["red", "blue", "groß", "O'Neil", "été", 'said "no"', "a,b;c", "two words", "x|y", "L-1"]
PAIRS = [("true", "false"), ("TRUE", "FALSE"), ("Yes", "No"), ("y", "n"), ("T", "F"), ("on", "off")]
MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
CLOCKS = ["", "%H:%M", "%H:%M:%S", "%I:%M %p"]
#: texts that mean missing without an option, and with one
MARKERS = ["", "NA", "null", "?"]
OWN_MARKERS = ["-", "-999", "missing", "."]


@dataclass(frozen=True)
class MadeColumn:
    """A column: its kind, its cells as text, and their values."""

    name: str
    kind: str
    texts: list[str]
    values: list[CellValue]


@dataclass(frozen=True)
class MadeFile:
    """A file: its bytes, how it is sent, and its columns."""

    number: int
    content: bytes
    content_type: str
    #: options of the upload
    params: dict[str, Any]
    columns: list[MadeColumn]
    #: the choices, for the message of a failure
    made: dict[str, Any] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        return len(self.columns[0].texts)


def make_file(seed: int, number: int) -> MadeFile:
    """Return the file of this number; its last column, `y`, holds plain numbers."""
    random = np.random.Generator(np.random.Philox(key=[seed, number]))
    rows = int(random.integers(25, 60))
    own = bool(random.random() < 0.2)
    markers = OWN_MARKERS if own else MARKERS
    count = int(random.integers(2, 6))
    names = [str(name) for name in random.permutation(NAMES)[:count]]
    columns = [_column(name, rows, markers, random) for name in names]
    y = [round(float(number), 3) for number in random.normal(50, 20, rows)]
    columns.append(MadeColumn("y", "number", [repr(each) for each in y], list(y)))
    return _written(number, columns, random, OWN_MARKERS if own else None)


def _column(name: str, rows: int, markers: Sequence[str], random: Random) -> MadeColumn:
    kind = _pick(random, list(KINDS))
    texts, values = KINDS[kind](rows, random)
    if random.random() < 0.4:
        for row in random.choice(rows, max(1, rows // 10), replace=False).tolist():
            texts[row], values[row] = _pick(random, markers), None
    if random.random() < 0.2:
        texts = [
            f"{' ' * int(random.integers(3))}{text}{' ' * int(random.integers(2))}"
            for text in texts
        ]
    return MadeColumn(name, kind, texts, values)


def _pick(random: Random, options: Sequence[Any]) -> Any:
    return options[int(random.integers(len(options)))]


# ---- kinds of columns ---------------------------------------------------------------------------


def _number(decimal: str, thousands: str, digits: int, size: int) -> Callable[..., Any]:
    def make(rows: int, random: Random) -> tuple[list[str], list[CellValue]]:
        wholes = random.integers(-size, size, rows).tolist()
        wholes[0] = size  # large enough for two marks, so that the marks are certain
        numbers = [Decimal(each).scaleb(-digits) for each in wholes]
        blank = _pick(random, [" ", "\u00a0", "\u202f"]) if thousands == " " else thousands
        minus = _pick(random, ["-", "-", "\u2212"])
        texts = []
        for each in numbers:
            text = f"{abs(each):,.{digits}f}".replace(",", "T").replace(".", decimal)
            texts.append((minus if each < 0 else "") + text.replace("T", blank))
        return texts, [float(each) for each in numbers]

    return make


def _with_unit(unit: str, where: str, make: Callable[..., Any]) -> Callable[..., Any]:
    def made(rows: int, random: Random) -> tuple[list[str], list[CellValue]]:
        texts, values = make(rows, random)
        texts = [text.replace("\u2212", "-") for text in texts]
        if where == "before":
            return [
                f"-{unit}{text[1:]}" if text.startswith("-") else f"{unit}{text}" for text in texts
            ], values
        blank = _pick(random, ["", " ", "\u00a0"])
        return [f"{text}{blank}{unit}" for text in texts], values

    return made


def _plain(rows: int, random: Random) -> tuple[list[str], list[CellValue]]:
    form = _pick(random, ["{!r}", "{:.3f}", "{:e}", "{:+.2f}"])
    texts = [form.format(float(each)) for each in random.normal(0, 1e3, rows)]
    return texts, [float(text) for text in texts]


def _integers(rows: int, random: Random) -> tuple[list[str], list[CellValue]]:
    numbers = random.integers(-50, 1000, rows).tolist()
    return [str(each) for each in numbers], [float(each) for each in numbers]


def _dates(form: str) -> Callable[..., Any]:
    def make(rows: int, random: Random) -> tuple[list[str], list[CellValue]]:
        clock = _pick(random, CLOCKS) if form not in {"%Y%m%d", "%Y-%m"} else ""
        zone = _pick(random, ["", "Z", "+02:00", "-0530"]) if form == "iso" and clock else ""
        first = datetime(2019, 1, 25, tzinfo=UTC)
        texts: list[str] = []
        values: list[CellValue] = []
        for _ in range(rows):
            days = int(random.integers(0, 1500))
            moment = first + timedelta(days=days, seconds=int(random.integers(86_400)))
            moment = _cut(moment, clock)
            if not texts:
                moment = moment.replace(day=25)  # no month, so the order is certain
            if form == "%Y-%m":
                moment = moment.replace(day=1)
            date = moment.strftime("%Y-%m-%d" if form == "iso" else form)
            joint = "T" if zone else " "
            texts.append(date + (joint + moment.strftime(clock) if clock else "") + zone)
            values.append((moment - EPOCH).total_seconds() - _shift(zone))
        return texts, values

    return make


def _cut(moment: datetime, clock: str) -> datetime:
    if not clock:
        return moment.replace(hour=0, minute=0, second=0)
    return moment if "%S" in clock else moment.replace(second=0)


def _shift(zone: str) -> float:
    return {"+02:00": 7200.0, "-0530": -19_800.0}.get(zone, 0.0)


def _booleans(rows: int, random: Random) -> tuple[list[str], list[CellValue]]:
    yes, no = _pick(random, PAIRS)
    truths = [bool(each) for each in random.random(rows) < 0.5]
    truths[:4] = [True, False, True, False]
    return [yes if each else no for each in truths], list(truths)


def _categories(rows: int, random: Random) -> tuple[list[str], list[CellValue]]:
    words = [str(word) for word in random.permutation(WORDS)[: int(random.integers(3, 6))]]
    drawn = [words[row % len(words)] if row < 20 else _pick(random, words) for row in range(rows)]
    return drawn, list(drawn)


def _codes(rows: int, random: Random) -> tuple[list[str], list[CellValue]]:
    drawn = [f"{row % 9 if row < 20 else int(random.integers(9)):02d}" for row in range(rows)]
    return drawn, list(drawn)


def _huge(rows: int, random: Random) -> tuple[list[str], list[CellValue]]:
    drawn = [str(2**53 + (row % 4 if row < 20 else int(random.integers(4)))) for row in range(rows)]
    return drawn, list(drawn)


_euro = _number(",", "", 2, 10**6)
KINDS: dict[str, Callable[..., Any]] = {
    "number plain": _plain,
    "number comma": _euro,
    "number us": _number(".", ",", 2, 10**9),
    "number eu": _number(",", ".", 2, 10**9),
    "number blanks": _number(",", " ", 2, 10**9),
    "number blanks point": _number(".", " ", 1, 10**9),
    "number apostrophes": _number(".", "'", 2, 10**9),
    "number thousands": _number(".", ",", 0, 10**8),
    "number percent": _with_unit("%", "after", _number(".", "", 1, 10**4)),
    "number percent comma": _with_unit("%", "after", _euro),
    "number dollars": _with_unit("$", "before", _number(".", ",", 2, 10**9)),
    "number euros": _with_unit("€", "after", _number(",", ".", 2, 10**9)),
    "number integers": _integers,
    "boolean": _booleans,
    "category": _categories,
    "category codes": _codes,
    "category huge": _huge,
    **{
        f"datetime {form}": _dates(form)
        for form in (
            "iso", "%Y/%m/%d", "%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y", "%d-%m-%Y", "%d/%m/%y",
            "%m/%d/%y", "%d-%b-%Y", "%b %d, %Y", "%d %B %Y", "%Y%m%d", "%Y-%m",
        )
    },
}  # fmt: skip


# ---- files --------------------------------------------------------------------------------------


def _written(
    number: int, columns: list[MadeColumn], random: Random, markers: list[str] | None
) -> MadeFile:
    delimiter = _pick(random, [",", ";", "\t", "|"])
    end = _pick(random, ["\n", "\n", "\r\n"])
    has_header = bool(random.random() < 0.85)
    out = io.StringIO()
    if has_header and random.random() < 0.1:
        out.write(f"sep={delimiter}{end}")
    elif has_header and random.random() < 0.1:
        out.write(f"# an export{end}# of two lines{end}")
    quoting: Literal[0, 1] = csv.QUOTE_ALL if random.random() < 0.2 else csv.QUOTE_MINIMAL
    writer = csv.writer(out, delimiter=delimiter, quoting=quoting, lineterminator=end)
    if has_header:
        writer.writerow([column.name for column in columns])
    else:
        columns = [
            MadeColumn(f"column_{place}", column.kind, column.texts, column.values)
            for place, column in enumerate(columns, 1)
        ]
    # The csv module quotes a lone empty cell only.
    for row in zip(*(column.texts for column in columns), strict=True):
        writer.writerow(row)
    text = out.getvalue()
    if random.random() < 0.1:
        text += end
    encoding = _encoding(text, random)
    media_type = TSV if delimiter == "\t" and random.random() < 0.5 else CSV
    params: dict[str, Any] = {}
    if markers is not None:
        params["missing_values"] = markers
    content = text.encode(encoding)
    charset = f"; charset={encoding}" if encoding in {"cp1252", "latin-1"} else ""
    made = {"delimiter": delimiter, "encoding": encoding, "header": has_header, "end": end}
    return MadeFile(number, content, media_type + charset, params, columns, made)


def _encoding(text: str, random: Random) -> str:
    encoding: str = _pick(random, ["utf-8"] * 5 + ["utf-8-sig", "utf-16", "cp1252", "latin-1"])
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return "utf-8"
    return encoding
