"""The command line: `descent serve`, `descent demo`, and the client's calls for shells.

Server commands replace this process, see `descent.server`; all others call the client.
Exit codes: 0 done, 1 refused or failed, 2 wrong usage, 3 the service cannot be reached.
"""

import json
import sys
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from descent.client import Client
from descent.curve import watch
from descent.demo import demo as run_demo
from descent.errors import DescentError, Unreachable
from descent.output import print_dataset, print_list, print_one, print_result, sentence
from descent.predictions import Table as Rows
from descent.run import Run
from descent.server import become_server, need_packages

PATIENCE = 3.0  # seconds: a person who waits wants to be told soon
UNREACHABLE = 3
PASS_ON: dict[str, Any] = {"allow_extra_args": True, "ignore_unknown_options": True}

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Limit = Annotated[int, typer.Option(help="Print at most so many, newest first.")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", "-s", help="A field of the configuration: epochs=50, model.type=linear."),
]

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Train neural networks on tables. DESCENT_URL and DESCENT_API_KEY say where and as whom.",
)
datasets = typer.Typer(no_args_is_help=True, help="Tables that were uploaded.")
runs = typer.Typer(no_args_is_help=True, help="Training: start, watch and steer it.")
models = typer.Typer(no_args_is_help=True, help="Trained models and their versions.")
app.add_typer(datasets, name="datasets")
app.add_typer(runs, name="runs")
app.add_typer(models, name="models")


def main() -> None:
    """Run the command line; problems become one line on stderr and an exit code."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a terminal that knows no braille shows a ?
            stream.reconfigure(errors="replace")
    try:
        app()
    except DescentError as error:
        sys.stderr.write(f"descent: {error}\n")
        sys.exit(UNREACHABLE if isinstance(error, Unreachable) else 1)


# ---- the server -----------------------------------------------------------------------


@app.command(context_settings=PASS_ON, add_help_option=False)
def serve(ctx: typer.Context) -> None:
    """Run the service: API, database and a worker (`--no-worker`: without)."""
    become_server("serve", ctx.args)


@app.command(context_settings=PASS_ON, add_help_option=False)
def worker(ctx: typer.Context) -> None:
    """Run one more worker on the same database."""
    become_server("worker", ctx.args)


@app.command(context_settings=PASS_ON, add_help_option=False)
def migrate(ctx: typer.Context) -> None:
    """Bring the database to the newest schema."""
    become_server("migrate", ctx.args)


@app.command(context_settings=PASS_ON, add_help_option=False)
def keys(ctx: typer.Context) -> None:
    """Make, list and delete API keys, in the database itself."""
    become_server("keys", ctx.args)


@app.command()
def demo() -> None:
    """Train on two small tables with a service of its own, and show it."""
    need_packages("demo")
    sys.exit(run_demo())


# ---- datasets -------------------------------------------------------------------------


@datasets.command("list")
def list_datasets(*, limit: Limit = 20, as_json: AsJson = False) -> None:
    """List datasets."""
    with _client() as client:
        found = list(islice(client.datasets(), limit))
    print_list(found, ("id", "state", "version", "rows", "created_at", "name"), as_json=as_json)


@datasets.command("upload")
def upload_dataset(file: Path, name: str | None = None, *, as_json: AsJson = False) -> None:
    """Upload a CSV, TSV, NDJSON, JSON, Parquet or Arrow file (or .gz) and wait until it is read."""
    if not file.is_file():
        raise typer.BadParameter(f"there is no file {str(file)!r}")
    with _client() as client:
        dataset = client.upload(file, name)
    print_dataset(dataset, as_json=as_json)


@datasets.command("show")
def show_dataset(dataset_id: str, *, as_json: AsJson = False) -> None:
    """Show one dataset with its columns."""
    with _client() as client:
        dataset = client.dataset(dataset_id)
    print_dataset(dataset, as_json=as_json)


@datasets.command("delete")
def delete_dataset(dataset_id: str) -> None:
    """Delete a dataset that no unfinished run needs."""
    with _client() as client:
        client.delete_dataset(dataset_id)


# ---- runs -----------------------------------------------------------------------------


@runs.command("list")
def list_runs(*, state: str | None = None, limit: Limit = 20, as_json: AsJson = False) -> None:
    """List runs."""
    with _client() as client:
        filters = {"state": state} if state else {}
        found = [run.info for run in islice(client.runs(**filters), limit)]
    print_list(found, ("id", "state", "device", "created_at", "name"), as_json=as_json)


@runs.command("start")
def start_run(
    dataset: str,
    target: Annotated[str, typer.Argument(help="The column to predict.")],
    *,
    settings: Set = None,
    wait: Annotated[bool, typer.Option(help="Watch the run until it is over.")] = False,
    as_json: AsJson = False,
) -> None:
    """Start a run: `descent runs start ds_… Final -s model.type=linear -s register_as=scores`."""
    with _client() as client:
        run = client.submit(dataset, target, **_settings(settings or []))
        if wait:
            _watch(run, as_json=as_json)
        else:
            print_one(run.info, as_json=as_json)


@runs.command("show")
def show_run(run_id: str, *, as_json: AsJson = False) -> None:
    """Show one run."""
    with _client() as client:
        print_one(client.run(run_id).info, as_json=as_json)


@runs.command("watch")
def watch_run(run_id: str, *, as_json: AsJson = False) -> None:
    """Draw the loss of a run while it falls; exit code 1 if the run does not succeed."""
    with _client() as client:
        _watch(client.run(run_id), as_json=as_json)


@runs.command("log")
def show_log(run_id: str) -> None:
    """Print the log of a run."""
    with _client() as client:
        print(client.run(run_id).log(), end="")


@runs.command("cancel")
def cancel_run(run_id: str, *, as_json: AsJson = False) -> None:
    """Stop a run; its best checkpoint stays."""
    with _client() as client:
        print_one(client.run(run_id).cancel().info, as_json=as_json)


@runs.command("pause")
def pause_run(run_id: str, *, as_json: AsJson = False) -> None:
    """Stop a run until it is resumed."""
    with _client() as client:
        print_one(client.run(run_id).pause().info, as_json=as_json)


@runs.command("resume")
def resume_run(run_id: str, *, as_json: AsJson = False) -> None:
    """Go on with a paused run, exactly where it was."""
    with _client() as client:
        print_one(client.run(run_id).resume().info, as_json=as_json)


@runs.command("retry")
def retry_run(run_id: str, *, as_json: AsJson = False) -> None:
    """Start a new run from the last good checkpoint of one that failed or was cancelled."""
    with _client() as client:
        print_one(client.run(run_id).retry().info, as_json=as_json)


def _watch(run: Run, *, as_json: bool) -> None:
    try:
        _follow(run, as_json=as_json)
    except KeyboardInterrupt:
        sys.stderr.write(f"\n{run.id} goes on: `descent runs cancel {run.id}` stops it\n")
        raise


def _follow(run: Run, *, as_json: bool) -> None:
    if as_json:
        for event in run.follow():
            print(json.dumps({"id": event.id, "event": event.kind, "data": event.data}))
    else:
        watch(run.follow(), Console(soft_wrap=True), f"Training loss of {run.id}:")
    info = run.wait().info
    if as_json:
        return
    print_result(info)


# ---- models ---------------------------------------------------------------------------


@models.command("list")
def list_models(*, limit: Limit = 20, as_json: AsJson = False) -> None:
    """List models."""
    with _client() as client:
        found = list(islice(client.models(), limit))
    print_list(found, ("name", "latest_version", "aliases", "created_at"), as_json=as_json)


@models.command("show")
def show_model(name: str, version: int | None = None, *, as_json: AsJson = False) -> None:
    """Show the newest version of a model, or the one that `--version` names."""
    with _client() as client:
        print_one(client.model(name, version=version).info(), as_json=as_json)


@models.command("export")
def export_model(
    name: str,
    file: Annotated[Path | None, typer.Argument(help="Where to; else NAME-VERSION.zip.")] = None,
    version: int | None = None,
    *,
    onnx: Annotated[bool, typer.Option("--onnx", help="An ONNX file, no bundle.")] = False,
) -> None:
    """Download a version to take it elsewhere, and print where it lies."""
    with _client() as client:
        model = client.model(name, version=version)
        print(model.export(file, kind="onnx" if onnx else "bundle"))


@models.command("import")
def import_model(name: str, file: Path, *, as_json: AsJson = False) -> None:
    """Import a bundle as the next version of a model."""
    if not file.is_file():
        raise typer.BadParameter(f"there is no file {str(file)!r}")
    with _client() as client:
        print_one(client.import_model(file, name), as_json=as_json)


@app.command()
def predict(
    model: str,
    values: Annotated[
        list[str] | None, typer.Argument(help="One row: column=value …; without, stdin is read.")
    ] = None,
    version: int | None = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Predict one row, `descent predict scores Quiz=10`, or the JSON rows on stdin."""
    with _client() as client:
        table = dict(map(_assignment, values)) if values else _table(sys.stdin.read())
        answers = client.model(model, version=version).predict(table)
    for answer in answers:
        print(answer.model_dump_json(exclude_none=True) if as_json else sentence(answer))
    if any(answer.error for answer in answers):
        sys.exit(1)


# ---- reading arguments ------------------------------------------------------------------


def _client() -> Client:
    try:
        return Client(patience_s=PATIENCE)
    except ValueError as error:
        raise typer.BadParameter(f"DESCENT_URL: {error}") from error


def _table(text: str) -> Rows:
    """Read rows or columns from JSON; the body of a prediction request is one of these too."""
    if not text.strip():
        raise typer.BadParameter("give column=value, or a row or rows as JSON on stdin")
    try:
        table: Rows = _strict(text)
    except ValueError as error:
        raise typer.BadParameter(f"stdin is no JSON: {error}") from error
    match table:
        case {"rows": [{}, *_] as inner, **rest} | {"columns": {} as inner, **rest} if not rest:
            table = inner
    return table


def _strict(text: str) -> Any:  # noqa: ANN401  whatever JSON can be
    """Read JSON; infinities and NaN are none."""
    value = json.loads(text)
    json.dumps(value, allow_nan=False)
    return value


def _assignment(text: str) -> tuple[str, Any]:
    """Read `column=value`; a value is JSON where it can be, else a string."""
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise typer.BadParameter(f"{text!r} is not of the form name=value")
    try:
        return name, _strict(value)
    except ValueError:
        return name, value


def _settings(assignments: Iterable[str]) -> dict[str, Any]:
    """Read `a.b=c` as `{"a": {"b": "c"}}`."""
    config: dict[str, Any] = {}
    for path, value in map(_assignment, assignments):
        *parents, last = path.split(".")
        place = config
        for parent in parents:
            place = place.setdefault(parent, {})
            if not isinstance(place, dict):
                raise typer.BadParameter(f"{path}: {parent} already has a value of its own")
        place[last] = value
    return config
