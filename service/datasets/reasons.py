"""Tells why each column has its type, and warns where a value may be read wrongly.

Each warning names the remedy: the body of a PATCH of the dataset.
"""

import json

from descent.codes import WarningCode, make_warning
from models.reading import Reading
from service.datasets.candidates import number_or_none, other_order
from service.datasets.infer import EXACT, LABELS, Counts, InferredColumn
from service.datasets.rejected import shown
from service.datasets.staging import Kind

Warnings = list[dict[str, str]]


def explain(columns: list[InferredColumn], warnings: Warnings) -> None:
    """Give each column its role and its reason, and add the warnings."""
    for column in columns:
        column.why = _reason(column)
        _warn(column, warnings)
    _give_roles(columns, warnings)


# ---- reasons ------------------------------------------------------------------------------------


def _reason(column: InferredColumn) -> str:
    counts = column.counts
    if column.is_given:
        return "the type was given"
    if column.kind not in {"text", column.type}:
        return f"the file stores it as {_article(column.kind)}; {_of_values(column)}"
    if column.kind != "text":
        return f"the file stores it as {_article(column.kind)}"
    if not counts.present:
        return "every value is missing"
    if column.near is not None and column.type in LABELS:
        return f"{_not_near(column, column.near)}; {_of_values(column)}"
    return _of_values(column) + _not_finite(counts)


def _of_values(column: InferredColumn) -> str:
    counts, reading = column.counts, column.reading
    match column.type:
        case "integer":
            return f"every value is a whole number{_marks(reading)}"
        case "number":
            if reading.is_plain:
                return "every value parses as a number"
            return f"every value is a number{_marks(reading)}"
        case "boolean":
            return f"every value is {reading.true} or {reading.false}"
        case "datetime":
            if reading.form == "%Y-%m-%d":
                return "every value is an ISO 8601 date or time"
            return f"every value is a date of the form {reading.form}"
    return _of_codes(column) if column.is_whole else _of_texts(column.type, counts)


def _marks(reading: Reading) -> str:
    marks = []
    if reading.decimal != ".":
        marks.append("a decimal comma")
    if reading.thousands:
        marks.append(f"{reading.thousands!r} between thousands")
    if reading.unit:
        marks.append(f"the unit {reading.unit}")
    return f" with {' and '.join(marks)}" if marks else ""


def _of_codes(column: InferredColumn) -> str:
    counts = column.counts
    if counts.zeros and not counts.has_signs:
        reason = f"{counts.zeros} values are digits with leading zeros"
    elif counts.beyond:
        reason = f"{counts.beyond} whole numbers from {EXACT} on are kept exactly, as labels"
    else:
        named = "has no name" if column.is_unnamed else f"is called {shown(column.name)}"
        return f"all {counts.present} whole numbers differ and the column {named}"
    if column.type == "category":
        reason += f"; {counts.present} values are {counts.distinct} different ones"
    return reason


def _of_texts(kind: str, counts: Counts) -> str:
    if kind == "id":
        return f"all {counts.present} values are texts that differ"
    if kind == "category":
        return f"{counts.present} values are {counts.distinct} different texts"
    return f"{counts.distinct} of {counts.present} values are different texts"


def _article(kind: Kind) -> str:
    names = {"number": "a number", "integer": "an integer", "boolean": "a boolean"}
    return names.get(kind, "a category" if kind == "category" else "a date or time")


def _not_finite(counts: Counts) -> str:
    if not counts.not_finite:
        return ""
    verb = "is not finite and becomes" if counts.not_finite == 1 else "are not finite and become"
    return f"; {counts.not_finite} of {counts.present} values {verb} missing"


def _not_near(column: InferredColumn, near: Reading) -> str:
    counts = column.counts
    if near.type == "datetime":
        verb = "is no date" if counts.not_near == 1 else "are no dates"
        verb += f" of the form {near.form}"
    else:
        verb = "is not a number" if counts.not_near == 1 else "are not numbers"
    row, text = counts.first_not_near or (0, "")
    return f"{counts.not_near} of {counts.present} values {verb}, first in row {row}: {shown(text)}"


# ---- warnings -----------------------------------------------------------------------------------


def _warn(column: InferredColumn, warnings: Warnings) -> None:
    counts, name = column.counts, column.name
    if not counts.present and column.kind == "text" and not column.is_given:
        detail = f"Every value of {shown(name)} is missing."
        warnings.append(make_warning("all_missing", detail, name))
    if column.near is not None and column.type in LABELS and counts.not_near:
        near = column.near
        noun = "it" if counts.not_near == 1 else "them"
        detail = (
            f"{_not_near(column, near)}. Give {shown(name)} the type {near.type} to treat {noun} as"
            f" missing: {remedy(name, type=near.type)}."
        )
        code: WarningCode = "mostly_dates" if near.type == "datetime" else "mostly_numbers"
        warnings.append(make_warning(code, detail, name))
    if column.rival is not None:
        warnings.append(_ambiguous(column, column.rival))
    lost = counts.unfit if column.type not in LABELS else 0
    if column.type == "datetime" and lost and not column.is_given:
        warnings.append(_mostly_dates(column))
        lost = 0
    if lost + counts.not_finite:
        warnings.append(_lost(column, lost + counts.not_finite))
    if column.type == "id" and column.is_named_id:
        for warning in warnings:
            if warning["code"] == "unnamed_column" and warning["column"] == name:
                warning["detail"] += (
                    " Its whole numbers all differ, so it is an id and left out:"
                    f" {remedy(name, type='integer')} makes it a feature."
                    if column.is_whole
                    else " Its texts all differ, so it is an id and left out."
                )


def remedy(column: str, **options: object) -> str:
    """Return the request that reads a column in another way."""
    return f"PATCH {json.dumps({'columns': {column: options}}, ensure_ascii=False)}"


def _ambiguous(column: InferredColumn, rival: Reading) -> dict[str, str]:
    name = column.name
    if column.type == "datetime":
        is_day_first = other_order(rival.form) is not None and rival.form.startswith("%d")
        detail = (
            f"The dates of {shown(name)} can be read as month/day or as day/month: they are read"
            f" as {column.reading.form}. Send ISO 8601 dates (2024-12-31) to be sure, or read them"
            f" in the other order: {remedy(name, day_first=is_day_first)}."
        )
        return make_warning("ambiguous_date", detail, name)
    example = next(
        text
        for text in column.sample
        if number_or_none(text, column.reading) != number_or_none(text, rival)
    )
    change = (
        remedy(name, thousands=rival.thousands)
        if rival.thousands
        else remedy(name, decimal=rival.decimal)
    )
    detail = (
        f"The numbers of {shown(name)} can be read in two ways: {shown(example)} is read as"
        f" {column.reading.number(example):.15g} and could be {rival.number(example):.15g}. Read"
        f" them in the other way: {change}."
    )
    return make_warning("ambiguous_number", detail, name)


def _mostly_dates(column: InferredColumn) -> dict[str, str]:
    counts, name = column.counts, column.name
    verb = "is no date" if counts.unfit == 1 else "are no dates"
    noun = "it is" if counts.unfit == 1 else "they are"
    row, text = counts.first_unfit or (0, "")
    detail = (
        f"{counts.unfit} of {counts.present} values of {shown(name)} {verb} of the form"
        f" {column.reading.form}, first in row {row}: {shown(text)}; {noun} missing now. Keep them"
        f" as texts: {remedy(name, type='text')}."
    )
    return make_warning("mostly_dates", detail, name)


def _lost(column: InferredColumn, lost: int) -> dict[str, str]:
    noun = "value is" if lost == 1 else "values are"
    detail = f"{lost} {noun} not a valid {column.type}, and missing now, in {shown(column.name)}."
    return make_warning("values_lost", detail, column.name)


# ---- roles --------------------------------------------------------------------------------------


def _give_roles(columns: list[InferredColumn], warnings: Warnings) -> None:
    reason = "; an id or a free text is not a feature by default"
    ignored = [column for column in columns if column.type in {"id", "text"}]
    if len(ignored) < len(columns):
        for column in ignored:
            column.role = "ignored"
            column.why += reason
        return
    detail = "Every column is an id or a free text: all stay features, because no other is left."
    warnings.append(make_warning("only_ids_and_text", detail))
