"""What the command line prints for people, or with `--json` for programs."""

import json
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel
from rich.console import Console
from rich.table import Table
from rich.text import Text

from descent.schemas import Dataset, Prediction, Run

NAME_WIDTH = 24  # characters of the names in front of values
WIDEST = 10_000  # characters of a line that the terminal itself wraps
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")
SPLITS = ("train", "validation", "test")


def print_one(item: BaseModel, *, as_json: bool) -> None:
    if as_json:
        _say(item.model_dump_json())
        return
    for name, value in item.model_dump(mode="json", exclude_none=True).items():
        if name == "warnings":
            for warning in value:
                _say(f"{'warning':<{NAME_WIDTH}} {warning['detail']}")
        elif isinstance(value, dict):
            for inner, detail in value.items():
                if detail is not None:
                    _say(f"{f'{name}.{inner}':<{NAME_WIDTH}} {_compact(detail)}")
        elif name != "columns":
            _say(f"{name:<{NAME_WIDTH}} {_cell(value)}")


def print_list(
    items: Sequence[BaseModel], columns: Sequence[str], *, as_json: bool = False
) -> None:
    """Print a table. Only reasons are wrapped: an id that is cut off is of no use."""
    if as_json:
        _say(json.dumps([item.model_dump(mode="json") for item in items]))
        return
    table = Table(box=None, pad_edge=False)
    for name in columns:
        table.add_column(name, no_wrap=name != "why")
    for item in items:
        row: Mapping[str, Any] = item.model_dump(mode="json")
        table.add_row(*(Text("" if row[name] is None else _cell(row[name])) for name in columns))
    wraps = "why" in columns and sys.stdout.isatty()
    Console(soft_wrap=True, width=None if wraps else WIDEST).print(table)


def _cell(value: object) -> str:
    """Write a value for people: times to the second."""
    text = _compact(value)
    return f"{text[:10]} {text[11:19]} UTC" if TIME.fullmatch(text) else text


def _compact(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def print_dataset(dataset: Dataset, *, as_json: bool) -> None:
    print_one(dataset, as_json=as_json)
    if not as_json:
        _say()
        print_list(dataset.columns, ("name", "type", "role", "missing", "distinct", "why"))


def print_result(info: Run) -> None:
    """Print what came out of a run that has ended."""
    _say(f"{info.id} {info.state}" + (f": {info.state_reason}" if info.state_reason else ""))
    for split in SPLITS:
        scores = (info.evaluation or {}).get(split) or {}
        numbers = [f"{name} {value:.5g}" for name, value in scores.items() if _is_number(value)]
        if numbers:
            _say(f"  {split}: {', '.join(numbers)}")
    if info.model:
        _say(f"  model {info.model.name}, version {info.model.version}")
    for warning in info.warnings:
        _say(f"  warning: {warning.detail}")


def sentence(answer: Prediction) -> str:
    if answer.error:
        return f"error {answer.error.code}: {answer.error.detail}"
    text = _compact(answer.value)
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
    return round(value, 4) if isinstance(value, float) else value


def _is_number(value: object) -> bool:
    return isinstance(value, int | float)


def _say(text: str = "") -> None:
    sys.stdout.write(f"{text}\n")
