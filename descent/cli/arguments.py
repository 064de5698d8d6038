"""What the commands share: options, completion, and how values are read from words."""

import json
import sys
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import typer

from descent.client import Client
from descent.errors import DescentError
from descent.predictions import Table

PATIENCE = 3.0  # seconds: a person who waits wants to be told soon
COMPLETION_PATIENCE = 0.0  # a shell that completes words does not wait

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, errors too.")]
Limit = Annotated[int, typer.Option(min=1, help="Print at most so many, newest first.")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", "-s", help="A field of the configuration: epochs=50, model.type=linear."),
]


def client(*, as_json: bool = False) -> Client:
    """Return a client of the service that the environment names; with JSON it shows no bars."""
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
    """Return what completes a word by asking the service; where it does not answer, nothing."""

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
ModelName = Annotated[
    str, typer.Argument(autocompletion=_completed(lambda c: (m.name for m in c.models())))
]
Version = Annotated[int | None, typer.Option(help="A version by its number, not the newest.")]
Alias = Annotated[str | None, typer.Option(help="The version that this alias points to.")]


# ---- values -----------------------------------------------------------------------------------


def table(text: str) -> Table:
    """Read rows or columns from JSON; the body of a prediction request is one of these too."""
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
    """Read `column=value`; a value is JSON where it can be, else a string."""
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise typer.BadParameter(f"{text!r} is not of the form name=value")
    try:
        return name, _strict(value)
    except ValueError:
        return name, value


def settings(assignments: Iterable[str]) -> dict[str, Any]:
    """Read `a.b=c` as `{"a": {"b": "c"}}`."""
    config: dict[str, Any] = {}
    for path, value in map(assignment, assignments):
        *parents, last = path.split(".")
        place = config
        for parent in parents:
            place = place.setdefault(parent, {})
            if not isinstance(place, dict):
                raise typer.BadParameter(f"{path}: {parent} already has a value of its own")
        place[last] = value
    return config


def in_days(days: float | None) -> datetime | None:
    return None if days is None else datetime.now(UTC) + timedelta(days=days)


def _strict(text: str) -> Any:  # noqa: ANN401  whatever JSON can be
    """Read JSON; infinities and NaN are none."""
    value = json.loads(text)
    json.dumps(value, allow_nan=False)
    return value
