"""Shared by the commands: options, completion, and the parsing of values."""

import json
import sys
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import JsonValue

from descent.client import Client
from descent.errors import DescentError
from descent.predictions import Table

#: kinds of a part of a space, with two bounds or with a list
BOUNDED = frozenset({"uniform", "log_uniform", "int"})
LISTED = frozenset({"grid", "choice"})
PATIENCE = 3.0  # seconds of repeated attempts; short, since a person waits for the result
COMPLETION_PATIENCE = 0.0  # seconds; the completion of a word must be quick

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, errors too.")]
Limit = Annotated[int, typer.Option(min=1, help="Print at most this many, newest first.")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", "-s", help="A field of the configuration: epochs=50, model.type=linear."),
]

Preset = Annotated[
    str | None,
    typer.Option(help="Settings that make a good model, in place of a model: fast or balanced."),
]


def client(*, as_json: bool = False) -> Client:
    """Return a client for the service at DESCENT_URL; with JSON it shows no progress bars."""
    try:
        return Client(patience_s=PATIENCE, progress=not as_json)
    except ValueError as error:
        raise typer.BadParameter(f"DESCENT_URL: {error}") from error


def existing(file: Path) -> Path:
    if not file.is_file():
        raise typer.BadParameter(f"there is no file {str(file)!r}")
    return file


# ---- completion -------------------------------------------------------------------------------


def _completed(names: Callable[[Client], Iterable[str]]) -> Callable[[str], list[str]]:
    """Return a completion function that gets names from the service, or none without it."""

    def complete(incomplete: str) -> list[str]:
        try:
            with Client(patience_s=COMPLETION_PATIENCE, progress=False) as found:
                return [name for name in names(found) if name.startswith(incomplete)]
        except (DescentError, ValueError):
            return []

    return complete


DatasetId = Annotated[
    str, typer.Argument(autocompletion=_completed(lambda c: (d.id for d in c.datasets())))
]
RunId = Annotated[
    str, typer.Argument(autocompletion=_completed(lambda c: (r.id for r in c.runs())))
]
SweepName = Annotated[
    str, typer.Argument(autocompletion=_completed(lambda c: (s.id for s in c.sweeps())))
]
ModelName = Annotated[
    str, typer.Argument(autocompletion=_completed(lambda c: (m.name for m in c.models())))
]
Version = Annotated[int | None, typer.Option(help="The number of a version; else the newest.")]
Alias = Annotated[str | None, typer.Option(help="Use the version that this alias points to.")]


# ---- values -----------------------------------------------------------------------------------


def table(text: str) -> Table:
    """Read rows or columns from JSON, or from the body of a prediction request."""
    if not text.strip():
        raise typer.BadParameter("give column=value, or a row or rows as JSON on stdin")
    try:
        found = _strict(text)
    except ValueError as error:
        raise typer.BadParameter(f"stdin is no JSON: {error}") from error
    match found:
        case {"rows": [{}, *_] as inner, **rest} | {"columns": {} as inner, **rest} if not rest:
            return inner
    return found


def read_stdin() -> str:
    if sys.stdin.isatty():
        sys.stderr.write("Reading JSON rows from the terminal; Ctrl-D ends them.\n")
    return sys.stdin.read()


def assignment(text: str) -> tuple[str, Any]:
    """Read `column=value`. A value that is valid JSON is read as JSON, any other is a string."""
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise typer.BadParameter(f"{text!r} is not of the form name=value")
    try:
        return name, _strict(value)
    except ValueError:
        return name, value


def settings(assignments: Iterable[str], preset: str | None = None) -> dict[str, Any]:
    """Read `a.b=c` as `{"a": {"b": "c"}}`, beside a preset."""
    config: dict[str, Any] = {} if preset is None else {"preset": preset}
    for path, value in map(assignment, assignments):
        *parents, last = path.split(".")
        place = config
        for parent in parents:
            place = place.setdefault(parent, {})
            if not isinstance(place, dict):
                raise typer.BadParameter(f"{path}: {parent} already has a value of its own")
        place[last] = value
    return config


def dimension(text: str) -> tuple[str, dict[str, Any]]:
    """Read `field=kind:values`, such as `seed=int:0:9`, or `field=a,b,c`, as a part of a space."""
    path, equals, values = text.partition("=")
    kind, colon, rest = values.partition(":")
    if not equals or not path or not values:
        raise typer.BadParameter(f"{text!r} is not of the form field=log_uniform:0.0001:0.1")
    if colon and kind in BOUNDED:
        return path, {kind: [_value(part) for part in rest.split(":")]}
    kind, listed = (kind, rest) if colon and kind in LISTED else ("grid", values)
    whole = _value(listed)
    found = whole if isinstance(whole, list) else [_value(part) for part in listed.split(",")]
    return path, {kind: found}


def _value(text: str) -> object:
    try:
        return _strict(text)
    except ValueError:
        return text


def in_days(days: float | None) -> datetime | None:
    return None if days is None else datetime.now(UTC) + timedelta(days=days)


def _strict(text: str) -> JsonValue:
    """Read JSON. Raises ValueError also for NaN and infinities."""
    value: JsonValue = json.loads(text)
    json.dumps(value, allow_nan=False)
    return value
