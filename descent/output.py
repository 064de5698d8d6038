"""The output of the command line: text for people, JSON with `--json`, and exit codes."""

import csv
import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel
from rich.console import Console
from rich.table import Table
from rich.text import Text

from descent.predictions import Predictions
from descent.schemas import Dataset, MetricColumns, Prediction, Report, Run
from descent.schemas.common import Check
from descent.schemas.runs import Bounded

OK = 0
REFUSED = 1
USAGE = 2
FAILED = 3
UNREACHABLE = 4
INTERRUPTED = 130
#: as `descent --help` and the README explain them
MEANINGS = {
    OK: "done",
    REFUSED: "the service said no or cannot do it now, or a package is missing",
    USAGE: "wrong usage",
    FAILED: "it was tried and failed: a run, a file, a row, a check of `doctor`",
    UNREACHABLE: "the service gave no answer",
    INTERRUPTED: "Ctrl-C",
}

WIDEST = 10_000  # characters of a line; the terminal wraps longer lines than its own
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")
SPLITS = ("train", "validation", "test")
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # the first characters of a spreadsheet formula
#: the mark and the colour of each state of a check
MARKS = {
    "ok": ("✓", "green"),
    "note": ("·", "dim"),
    "warning": ("!", "yellow"),
    "failed": ("✗", "red"),
}


def say(text: str = "") -> None:
    sys.stdout.write(f"{text}\n")


def print_done(text: str, body: Mapping[str, Any], *, as_json: bool) -> None:
    """Print that a command without other output is done."""
    say(json.dumps(body) if as_json else text)


def print_one(item: BaseModel, *, as_json: bool) -> None:
    """Print one object, one line per field, and per field of the objects in it."""
    if as_json:
        say(item.model_dump_json())
        return
    body = item.model_dump(mode="json", exclude_none=True)
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, text in _fields(body):
        table.add_row(Text(name), Text(text))
    _print(table, wraps=sys.stdout.isatty())


def _how_read(reading: Mapping[str, Any]) -> str:
    """Return how a file is read, on one line; `--json` shows the missing markers and reasons."""
    parts = [str(reading[name]) for name in ("encoding", "sheet") if name in reading]
    if "delimiter" in reading:
        parts.append(f"delimiter {reading['delimiter']!r}")
    if lines := reading.get("skip_lines"):
        parts.append(f"{lines} lines skipped")
    if "header" in reading:
        parts.append("header" if reading["header"] else "no header")
    return ", ".join(parts)


def _fields(body: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, value in body.items():
        if name == "columns" or value in ({}, [], ""):
            continue  # columns are printed as a separate table
        if name == "warnings" and isinstance(value, list):
            yield from (("warning", warning["detail"]) for warning in value)
        elif name == "reading":
            yield name, _how_read(value)
        elif isinstance(value, list):
            yield from _inner(name, value)
        elif isinstance(value, dict):
            for inner, detail in value.items():
                yield from _inner(f"{name}.{inner}", detail)
        else:
            yield name, _cell(value)


def _inner(name: str, value: object) -> Iterator[tuple[str, str]]:
    """Yield one line for each innermost object or list."""
    if isinstance(value, dict) and any(isinstance(inner, dict | list) for inner in value.values()):
        for key, inner in value.items():
            yield from _inner(f"{name}.{key}", inner)
    elif isinstance(value, list) and any(isinstance(inner, dict) for inner in value):
        for inner in value:
            label = inner.pop("name", None) or inner.pop("column", "")
            yield from _inner(f"{name}.{label}", inner)
    elif value not in ({}, [], None):
        yield name, _cell(value)


def print_list(
    items: Sequence[BaseModel], columns: Mapping[str, str], *, as_json: bool = False
) -> None:
    """Print a table. `columns` maps each heading to the path of its value in an item.

    Only the column `why` wraps: a truncated id is useless.
    """
    rows = [item.model_dump(mode="json") for item in items]
    if as_json:
        say(json.dumps(rows))
        return
    found = [{name: _at(row, path) for name, path in columns.items()} for row in rows]
    _print_table(found, list(columns))


def _at(row: object, path: str) -> object:
    for name in path.split("."):
        row = row.get(name) if isinstance(row, dict) else None
    return row


def print_rows(rows: Sequence[Mapping[str, Any]], *, as_json: bool) -> None:
    """Print rows of a dataset."""
    if as_json:
        say(json.dumps(rows))
    else:
        _print_table(rows, list(dict.fromkeys(name for row in rows for name in row)))


def print_columns(curves: MetricColumns, columns: Sequence[str], *, as_json: bool) -> None:
    """Print curves as a table, or as JSON with one list per field."""
    if as_json:
        say(curves.model_dump_json())
        return
    fields = curves.model_dump(mode="json", include=set(columns))
    found = zip(*(fields[name] for name in columns), strict=True)
    _print_table([dict(zip(columns, row, strict=True)) for row in found], columns)


def _print_table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
    table = Table(box=None, pad_edge=False)
    for name in columns:
        table.add_column(Text(name), no_wrap=name != "why")
    for row in rows:
        cells = (row.get(name) for name in columns)
        table.add_row(*(Text("" if cell is None else _cell(cell)) for cell in cells))
    _print(table, wraps="why" in columns and sys.stdout.isatty())


def _print(table: Table, *, wraps: bool) -> None:
    """Print a table, wrapped to the terminal's width or with lines of any length."""
    console = Console(soft_wrap=not wraps, width=None if wraps else WIDEST, highlight=False)
    with console.capture() as captured:
        console.print(table)
    for line in captured.get().splitlines():
        say(line.rstrip())


def _cell(value: object) -> str:
    """Format a value for people: six digits, times to the second, no brackets."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {_cell(inner)}" for name, inner in value.items())
    if isinstance(value, list) and all(isinstance(inner, str | int | float) for inner in value):
        return ", ".join(map(_cell, value))
    if isinstance(value, float):
        return f"{value:.6g}"
    text = _compact(value)
    return f"{text[:10]} {text[11:19]} UTC" if TIME.fullmatch(text) else text


def _compact(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


# ---- datasets and runs --------------------------------------------------------------------------


def print_dataset(dataset: Dataset, *, as_json: bool) -> None:
    print_one(dataset, as_json=as_json)
    if not as_json:
        say()
        names = ("name", "type", "role", "missing", "distinct", "why")
        print_list(dataset.columns, {name: name for name in names})


def print_run(info: Run, *, as_json: bool) -> None:
    """Print a run after a command changed it, and a hint for a run that waits."""
    if as_json:
        say(info.model_dump_json())
        return
    say(f"{info.id} {info.state}")
    for warning in info.warnings:
        say(f"  warning: {warning.detail}")
    if info.state in {"queued", "starting"}:
        sys.stderr.write(f"`descent runs watch {info.id}` shows how it learns.\n")


def print_result(info: Run) -> None:
    """Print the metrics, the model and the warnings of a run that is over."""
    say(f"{info.id} {info.state}" + (f": {info.state_reason}" if info.state_reason else ""))
    for split in SPLITS:
        scores = (info.evaluation or {}).get(split) or {}
        numbers = [f"{name} {value:.5g}" for name, value in scores.items() if _is_number(value)]
        if numbers:
            say(f"  {split}: {', '.join(numbers)}")
    if info.model:
        say(f"  model {info.model.name}, version {info.model.version}")
    for warning in info.warnings:
        say(f"  warning: {warning.detail}")


# ---- predictions --------------------------------------------------------------------------------


def print_answers(answers: Predictions, *, as_json: bool, as_csv: bool) -> None:
    """Print one line per row: text, CSV, or JSON with one object per line."""
    if as_json:
        for answer in answers:
            say(answer.model_dump_json(exclude_none=True))
    elif as_csv:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(answers.columns)
        rows = zip(*answers.columns.values(), strict=True)
        writer.writerows([[_inert(cell) for cell in row] for row in rows])
    else:
        for answer in answers:
            say(sentence(answer))


def _inert(cell: object) -> object:
    """Quote a cell that a spreadsheet would run as a formula."""
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(FORMULA) else cell


def sentence(answer: Prediction) -> str:
    if answer.error:
        return f"error {answer.error.code}: {answer.error.detail}"
    text = _compact(answer.value)
    if answer.interval is not None:
        text += f"  {_compact(_rounded(answer.interval))}"
    if answer.set is not None:
        text += f"  {_compact(answer.set)}"
    if answer.probabilities:
        text += f"  {_compact(_rounded(answer.probabilities))}"
    for warning in answer.warnings or []:
        is_named = warning.column is None or f"'{warning.column}'" in warning.detail
        place = "" if is_named else f"{warning.column}: "
        text += f"\n  warning: {place}{warning.detail}"
    return text


def _rounded(value: object) -> object:
    if isinstance(value, dict):
        return {name: _rounded(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [float(f"{each:.6g}") for each in value]
    return round(value, 4) if isinstance(value, float) else value


def _is_number(value: object) -> bool:
    return isinstance(value, int | float)


# ---- reports ------------------------------------------------------------------------------------


def print_report(found: Report) -> None:
    """Print the score of a run's model and of the baselines, then a line for each finding."""
    say(f"{found.metric} of {found.rows} {found.split} rows, less is better:")
    say(f"  model     {_bounded(found.score)}")
    for each in found.baselines:
        verdict = each.verdict.replace("_", " ")
        say(f"  {each.name:<8}  {_bounded(each.score)}  the model is {verdict}")
    for finding in found.findings:
        say(f"{finding.code}: {finding.detail}")


def _bounded(score: Bounded) -> str:
    if score.low is None or score.high is None:
        return f"{score.value:.4g}"
    return f"{score.value:.4g}  [{score.low:.4g}, {score.high:.4g}]"


# ---- checks -------------------------------------------------------------------------------------


def print_checks(found: Mapping[str, Sequence[Check]]) -> None:
    """Print the checks of each place, with the remedies."""
    console = Console(highlight=False)
    for place, checks in found.items():
        console.print(Text(place, style="bold"))
        table = Table(box=None, pad_edge=False, show_header=False)
        for check in checks:
            mark, colour = MARKS[check.state]
            table.add_row(Text(f" {mark}", style=colour), Text(check.name), Text(check.detail))
            if check.remedy:
                table.add_row("", "", Text(f"→ {check.remedy}", style=colour))
        console.print(table)
    counted = [check.state for checks in found.values() for check in checks]
    bad, poor = counted.count("failed"), counted.count("warning")
    console.print(f"\n{bad} failed, {poor} to look at" if bad or poor else "\nAll is well.")
