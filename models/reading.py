"""How the text of a cell becomes a value: one reader for uploads, predictions and exported models.

A `Reading` is decided once, when a table is uploaded. It is stored with the dataset version and
travels with the features into the model, its bundle and the exported script, which contains this
module as it stands. It knows the standard library only.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any

#: Characters that are removed at both ends of a cell: blanks of several kinds, and line ends.
WHITE = " \t\n\r\f\v\u00a0\u2007\u2009\u202f\ufeff"
#: Cells that mean missing, unless the upload names others.
MISSING = (
    "", "NA", "na", "N/A", "n/a", "NaN", "nan", "NAN", "null", "NULL", "Null", "?",
    "#N/A", "<NA>", "NaT", "\\N",
)  # fmt: skip
TRUE = frozenset({"true", "t", "yes", "y", "on", "1", "1.0"})
FALSE = frozenset({"false", "f", "no", "n", "off", "0", "0.0"})
#: Units of numbers, which may stand before or after the digits.
UNITS = (
    "%", "‰", "$", "€", "£", "¥", "₹", "₽", "₩", "₺", "₴", "₪", "₫", "฿", "₦", "₱", "US$",
    "USD", "EUR", "GBP", "JPY", "CNY", "INR", "CHF", "CAD", "AUD", "SEK", "NOK", "DKK", "PLN",
    "NZD", "SGD", "HKD", "MXN", "BRL", "ZAR", "Fr.", "kr", "zł", "Kč", "R$", "Rs.", "Rs",
)  # fmt: skip
#: Marks that separate thousands; a blank stands for every kind of blank.
THOUSANDS = (",", ".", " ", "'", "_")
DECIMALS = (".", ",")
#: Signs that some programs write, and the ones that they stand for.
SIGNS = str.maketrans({"\u2212": "-", "\u2019": "'", "\u00a0": " ", "\u2009": " ", "\u202f": " "})

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
#: The first and the last moment, in microseconds since 1970, that dates of Python can hold.
_FIRST = (datetime(1, 1, 1, tzinfo=UTC) - _EPOCH) // _MICROSECOND
_LAST = (datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC) - _EPOCH) // _MICROSECOND
_MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
_NOT_FINITE = re.compile(r"[+-]?(?:inf|infinity|nan)", re.IGNORECASE)
_WHOLE = re.compile(r"[+-]?[0-9]+")
#: A number as a category: it has no leading zeros, which would make it a code.
_CATEGORY = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?")

_DAY, _MONTH = "(?P<d>[0-9]{1,2})", "(?P<m>[0-9]{1,2})"
_YEAR, _SHORT_YEAR = "(?P<y>[0-9]{4})", "(?P<y>[0-9]{2})"
_NAME = (
    "(?P<b>Jan(?:uary)?|Feb(?:ruary)?|Mar(?:ch)?|Apr(?:il)?|May|June?|July?|Aug(?:ust)?"
    "|Sept?(?:ember)?|Oct(?:ober)?|Nov(?:ember)?|Dec(?:ember)?)[.]?"
)
_WEEKDAY = "(?:(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)[a-z]*,? )?"
#: a time of day, which has no zone: 12:30-13:30 is a range
_TIME = (
    "(?P<H>[0-9]{1,2}):(?P<M>[0-9]{2})(?::(?P<S>[0-9]{2})(?:[.,](?P<f>[0-9]{1,9}))?)?"
    "(?: ?(?P<p>[AaPp])[.]?[Mm][.]?)?"
)
_CLOCK = (
    f"{_TIME}(?: ?(?P<z>Z|(?:UTC|GMT)[+-][0-9]{{1,2}}(?::?[0-9]{{2}})?|UTC|GMT"
    "|[+-][0-9]{2}(?::?[0-9]{2})?))?"
)
#: The form of a date → its pattern; a time of day may follow each. The names are those of
#: `strptime`, with `%b` for a month's name, short or whole. Days and months may have one digit.
DATE_FORMS: dict[str, str] = {
    "%Y-%m-%d": f"{_YEAR}-{_MONTH}-{_DAY}",
    "%Y/%m/%d": f"{_YEAR}/{_MONTH}/{_DAY}",
    "%Y.%m.%d": rf"{_YEAR}\.{_MONTH}\.{_DAY}",
    "%d.%m.%Y": rf"{_DAY}\.{_MONTH}\.{_YEAR}",
    "%m.%d.%Y": rf"{_MONTH}\.{_DAY}\.{_YEAR}",
    "%m/%d/%Y": f"{_MONTH}/{_DAY}/{_YEAR}",
    "%d/%m/%Y": f"{_DAY}/{_MONTH}/{_YEAR}",
    "%m-%d-%Y": f"{_MONTH}-{_DAY}-{_YEAR}",
    "%d-%m-%Y": f"{_DAY}-{_MONTH}-{_YEAR}",
    "%m/%d/%y": f"{_MONTH}/{_DAY}/{_SHORT_YEAR}",
    "%d/%m/%y": f"{_DAY}/{_MONTH}/{_SHORT_YEAR}",
    "%d.%m.%y": rf"(?P<d>[0-9]{{2}})\.(?P<m>[0-9]{{2}})\.{_SHORT_YEAR}",
    "%d-%b-%Y": f"{_DAY}[-/]?{_NAME}[-/]?{_YEAR}",
    "%d-%b-%y": f"{_DAY}[-/]?{_NAME}[-/]?{_SHORT_YEAR}",
    "%d %b %Y": rf"{_WEEKDAY}{_DAY}\.? {_NAME},? {_YEAR}",
    "%b %d, %Y": f"{_WEEKDAY}{_NAME} {_DAY},? {_YEAR}",
    "%Y%m%d": "(?P<y>(?:19|20)[0-9]{2})(?P<m>[0-9]{2})(?P<d>[0-9]{2})",
    "%Y-%m": f"{_YEAR}-(?P<m>[0-9]{{2}})",
    "%m/%Y": f"{_MONTH}/{_YEAR}",
    "%b %Y": f"{_NAME}[- ]{_YEAR}",
    "%H:%M": "",
}
ISO = "%Y-%m-%d"
#: The form with the day first → the same form with the month first.
MONTH_FIRST = {
    "%d/%m/%Y": "%m/%d/%Y",
    "%d.%m.%Y": "%m.%d.%Y",
    "%d-%m-%Y": "%m-%d-%Y",
    "%d/%m/%y": "%m/%d/%y",
}
DAY_FIRST = {month: day for day, month in MONTH_FIRST.items()}


def date_pattern(form: str) -> "re.Pattern[str]":
    """Return the pattern of a whole cell of this form; its groups are those of `strptime`."""
    date = DATE_FORMS[form]
    pattern = f"{date}(?:(?:,? |T){_CLOCK})?" if date else _TIME
    return re.compile(pattern, re.IGNORECASE | re.ASCII)


@dataclass(frozen=True)
class Reading:
    """How the text of the cells of one column is read."""

    #: The type of the column; see `descent.spec.ColumnType`.
    type: str
    #: Texts that mean missing, without blanks at their ends.
    missing: tuple[str, ...] = MISSING
    #: The mark before the decimals of a number: one of DECIMALS.
    decimal: str = "."
    #: The mark between thousands: one of THOUSANDS; empty if there is none.
    thousands: str = ""
    #: The unit beside each number: one of UNITS; empty if there is none. 12 % is the number 12.
    unit: str = ""
    #: The form of dates: a key of DATE_FORMS.
    form: str = ISO
    #: The texts of true and false in the table, as answers repeat them.
    true: str = "true"
    false: str = "false"
    #: Whether 1.0 is stored as the category 1, since the table writes one number in several ways.
    merges_numbers: bool = False

    # ---- stored ----

    def to_json(self) -> dict[str, Any]:
        """Return the fields that differ from their defaults, and the type."""
        found: dict[str, Any] = {"type": self.type}
        for name, default in _DEFAULTS:
            value = getattr(self, name)
            if value != default:
                found[name] = list(value) if isinstance(value, tuple) else value
        return found

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "Reading":
        """Return a stored reading. Raises TypeError, KeyError or ValueError if it is not one."""
        known = {field.name for field in fields(cls)}
        found = {name: each for name, each in document.items() if name in known}
        if "missing" in found:
            found["missing"] = tuple(found["missing"])
        reading = cls(**found)
        if (
            reading.form not in DATE_FORMS
            or reading.decimal not in DECIMALS
            or reading.thousands not in {"", *THOUSANDS}
            or reading.thousands == reading.decimal
            or reading.unit not in {"", *UNITS}
        ):
            raise ValueError(f"not a reading: {document}")
        return reading

    def describe(self) -> str:
        """Return in words how text differs from the usual spelling; empty if it does not."""
        said = []
        if self.type in {"number", "integer"}:
            said += [f"decimal mark {self.decimal!r}"] if self.decimal != "." else []
            said += [f"thousands mark {self.thousands!r}"] if self.thousands else []
            said += [f"unit {self.unit!r}"] if self.unit else []
        if self.type == "datetime" and self.form != ISO:
            said.append(f"form {self.form}")
        if self.type == "boolean" and (self.true, self.false) != ("true", "false"):
            said.append(f"{self.true!r} and {self.false!r}")
        if further := [text for text in self.missing if text not in MISSING]:
            said.append(f"missing as {', '.join(map(repr, further[:5]))}")
        return "; ".join(said)

    # ---- cells ----

    def is_missing(self, text: str) -> bool:
        """Return whether a text, without blanks at its ends, means missing."""
        return text in self._missing

    def read(self, text: str) -> float | int | bool | str | None:
        """Return the value of a cell: None if it is missing; raise ValueError if it does not fit.

        A number is a float, which may be infinite or NaN; an integer is an int of any size; a
        boolean is a bool; a date is an int, microseconds since 1970 in UTC; all others are text.
        """
        text = text.strip(WHITE)
        if text in self._missing:
            return None
        match self.type:
            case "number":
                return self.number(text)
            case "integer":
                return self.whole_number(text)
            case "boolean":
                return self.truth(text)
            case "datetime":
                return self.moment(text)
        return category_key(text) if self.merges_numbers else text

    def number(self, text: str) -> float:
        """Return the number of a cell without blanks at its ends. Raises ValueError."""
        if self.is_plain and text.isascii() and "_" not in text:
            return float(text)
        plain = text.translate(SIGNS)
        if self._number.fullmatch(plain) is None:
            if _NOT_FINITE.fullmatch(plain):
                return float(plain)
            raise ValueError(text)
        return float(self._without_marks(plain))

    def whole_number(self, text: str) -> int:
        """Return the whole number of a cell without blanks at its ends, exactly.

        Raises ValueError.
        """
        plain = text.translate(SIGNS)
        if self._number.fullmatch(plain) is None:
            raise ValueError(text)
        digits = self._without_marks(plain)
        if _WHOLE.fullmatch(digits):
            return int(digits)
        number = float(digits)
        if not number.is_integer():  # also for an infinity
            raise ValueError(text)
        return int(number)

    def truth(self, text: str) -> bool:
        """Return the truth value of a cell without blanks at its ends. Raises ValueError."""
        word = text.lower()
        if word == self.true.lower() or (word in TRUE and word != self.false.lower()):
            return True
        if word == self.false.lower() or word in FALSE:
            return False
        raise ValueError(text)

    def moment(self, text: str) -> int:
        """Return microseconds since 1970 in UTC; a text without a zone is in UTC.

        Raises ValueError.
        """
        found = self._date.fullmatch(text.translate(SIGNS))
        if found is None:
            raise ValueError(text)
        return _microseconds(found.groupdict())

    @cached_property
    def missing_numbers(self) -> frozenset[float]:
        """The numbers that mean missing, such as -999."""
        found = set()
        for text in self.missing:
            try:
                found.add(self.number(text))
            except ValueError:
                continue
        return frozenset(filter(math.isfinite, found))

    @cached_property
    def is_plain(self) -> bool:
        """Whether numbers are written like -1.5e3, without any other mark."""
        return self.decimal == "." and not self.thousands and not self.unit

    @cached_property
    def number_pattern(self) -> str:
        """The pattern of a whole cell with a number, for `re` and for RE2, after SIGNS."""
        point = re.escape(self.decimal)
        whole = "[0-9]+"
        if self.thousands:
            mark = re.escape(self.thousands)
            # Groups of two are Indian: 12,34,567.
            whole = f"(?:[1-9][0-9]{{0,2}}(?:{mark}[0-9]{{2,3}})*{mark}[0-9]{{3}}|[0-9]+)"
        digits = f"(?:{whole}(?:{point}[0-9]*)?|{point}[0-9]+)(?:[eE][+-]?[0-9]+)?"
        if not self.unit:
            return f"[+-]?{digits}"
        unit = re.escape(self.unit)
        return f"(?:[+-]?(?:{unit} ?)?{digits}|[+-]?{digits} ?{unit}|{unit} ?[+-]{digits})"

    @cached_property
    def _number(self) -> "re.Pattern[str]":
        return re.compile(self.number_pattern, re.ASCII)

    @cached_property
    def _date(self) -> "re.Pattern[str]":
        return date_pattern(self.form)

    @cached_property
    def _missing(self) -> frozenset[str]:
        return frozenset(self.missing)

    def _without_marks(self, text: str) -> str:
        for mark in (self.unit, self.thousands, " "):
            if mark:
                text = text.replace(mark, "")
        return text.replace(self.decimal, ".")


_DEFAULTS = [(field.name, field.default) for field in fields(Reading) if field.name != "type"]


@dataclass(frozen=True)
class TableReading:
    """How a whole table was read, as far as its rows can be sent again."""

    #: the columns of the table, in order
    names: tuple[str, ...]
    #: texts that mean missing, without blanks at their ends
    missing: tuple[str, ...] = MISSING
    #: the character between the cells of a row; None if the table was no CSV
    delimiter: str | None = None
    #: whether the first row named the columns
    header: bool = True

    def to_json(self) -> dict[str, Any]:
        """Return the fields, ready for JSON."""
        return asdict(self) | {"names": list(self.names), "missing": list(self.missing)}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "TableReading":
        """Return a stored reading. Raises KeyError or TypeError if it is not one."""
        return cls(
            names=tuple(map(str, document["names"])),
            missing=tuple(map(str, document.get("missing", MISSING))),
            delimiter=document.get("delimiter"),
            header=document.get("header") is not False,
        )


def category_key(text: str) -> str:
    """Return the text that stands for a category: 1, 1.0 and 1.00 are one, 01 is another."""
    if "." not in text or _CATEGORY.fullmatch(text) is None:
        return text
    short = text.rstrip("0").rstrip(".")
    return "0" if short == "-0" else short


def category_text(value: str | float) -> str:
    """Return the category that a value of JSON stands for, before `category_key`."""
    if isinstance(value, bool):
        return ("false", "true")[value]
    if isinstance(value, float) and math.isfinite(value) and value.is_integer():
        return str(int(value))
    return str(value)


def _microseconds(parts: Mapping[str, str | None]) -> int:
    """Return microseconds since 1970 for the groups of a date. Raises ValueError."""
    year, month, day = 1970, 1, 1
    if written := parts.get("y"):
        year = int(written)
        if len(written) == 2:  # as POSIX reads them
            year += 1900 if year >= 69 else 2000
    if name := parts.get("b"):
        month = _MONTHS.index(name[:3].lower()) + 1
    elif number := parts.get("m"):
        month = int(number)
    if number := parts.get("d"):
        day = int(number)
    hour, minute, second = (int(parts.get(part) or 0) for part in "HMS")
    if half := parts.get("p"):
        if not 1 <= hour <= 12:
            raise ValueError(hour)
        hour = hour % 12 + (12 if half in "pP" else 0)
    fraction = int((parts.get("f") or "").ljust(6, "0")[:6])
    moment = datetime(year, month, day, hour, minute, second, fraction, UTC)
    found = (moment - _EPOCH) // _MICROSECOND - _offset(parts.get("z")) * 60_000_000
    if not _FIRST <= found <= _LAST:
        raise ValueError(found)
    return found


def _offset(zone: str | None) -> int:
    """Return the minutes of a zone, such as +02:00."""
    offset = (zone or "").lstrip("UTCGMZutcgmz")
    if not offset:
        return 0
    digits = offset[1:].replace(":", "")
    if len(digits) % 2:  # GMT+2
        digits = f"0{digits}"
    hours, minutes = int(digits[:2]), int(digits[2:] or 0)
    if hours > 23 or minutes > 59:
        raise ValueError(zone)
    return (60 * hours + minutes) * (-1 if offset[0] == "-" else 1)
