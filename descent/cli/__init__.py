"""The command line: `descent serve`, `descent demo`, and the client's calls for shells.

Server commands replace this process, see `descent.server`; all others call the client. The exit
codes are in `descent.output`.
"""

import json
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from descent.cli import datasets, keys, models, runs, sweeps
from descent.cli.arguments import (
    Alias,
    AsJson,
    ModelName,
    Version,
    assignment,
    client,
    existing,
    read_stdin,
    table,
)
from descent.client import DEFAULT_URL
from descent.demo import demo as run_demo
from descent.doctor import ANSWER, here, there
from descent.doctor import as_json as checks_as_json
from descent.errors import DatasetRejected, DescentError, RunFailed, Unreachable
from descent.output import (
    FAILED,
    MEANINGS,
    OK,
    REFUSED,
    UNREACHABLE,
    print_answers,
    print_checks,
    print_one,
    say,
)
from descent.server import become_server, need_packages
from descent.transport import Transport

PASS_ON: dict[str, Any] = {"allow_extra_args": True, "ignore_unknown_options": True}
HERE = "this machine"

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Train neural networks on tables, with the service at DESCENT_URL and DESCENT_API_KEY.",
    epilog="Exit codes: "
    + "; ".join(f"{code} {meaning}" for code, meaning in MEANINGS.items())
    + ".",
)
app.add_typer(datasets.app, name="datasets")
app.add_typer(runs.app, name="runs")
app.command("sweep")(sweeps.start)
app.add_typer(sweeps.app, name="sweeps")
app.add_typer(models.app, name="models")
app.add_typer(keys.app, name="keys")


def main() -> None:
    """Run the command line; an error becomes one line on stderr and an exit code."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a terminal without braille shows a ?
            stream.reconfigure(errors="replace")
    try:
        app(prog_name="descent")
    except DescentError as error:
        if "--json" in sys.argv[1:]:
            problem = (
                error.problem.model_dump(mode="json", exclude_none=True) if error.problem else {}
            )
            body = problem | {"code": error.code, "detail": error.detail}
            sys.stderr.write(json.dumps({"error": body}) + "\n")
        else:
            sys.stderr.write(f"descent: {error}\n")
        sys.exit(code_of(error))


def code_of(error: DescentError) -> int:
    if isinstance(error, Unreachable):
        return UNREACHABLE
    return FAILED if isinstance(error, RunFailed | DatasetRejected) else REFUSED


# ---- the server -----------------------------------------------------------------------


@app.command(context_settings=PASS_ON, add_help_option=False)
def serve(ctx: typer.Context) -> None:
    """Run the service: the API, the database and a worker (none with `--no-worker`)."""
    become_server("serve", ctx.args)


@app.command(context_settings=PASS_ON, add_help_option=False)
def worker(ctx: typer.Context) -> None:
    """Run one more worker for the same database."""
    become_server("worker", ctx.args)


@app.command(context_settings=PASS_ON, add_help_option=False)
def migrate(ctx: typer.Context) -> None:
    """Upgrade the database to the newest schema."""
    become_server("migrate", ctx.args)


@app.command()
def demo(*, as_json: AsJson = False) -> None:
    """Train on two small tables with a temporary service, and show the results."""
    need_packages("demo")
    sys.exit(run_demo(as_json=as_json))


@app.command()
def doctor(
    url: Annotated[str | None, typer.Option(help="Check only this service.")] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Check this installation, the settings here and the service; suggest remedies."""
    chosen = url or os.environ.get("DESCENT_URL")
    address = chosen or DEFAULT_URL
    found = {} if url else {HERE: list(here(os.environ))}
    try:
        transport = Transport(address, os.environ.get("DESCENT_API_KEY", ""), 0)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    found[address] = list(there(transport, datetime.now(UTC), is_chosen=chosen is not None))
    transport.close()
    say(checks_as_json(found)) if as_json else print_checks(found)
    failed = [check for group in found.values() for check in group if check.state == "failed"]
    is_silent = [check.name for check in failed] == [ANSWER]
    sys.exit((UNREACHABLE if is_silent else FAILED) if failed else OK)


# ---- predictions ----------------------------------------------------------------------


@app.command()
def predict(
    model: ModelName,
    values: Annotated[
        list[str] | None, typer.Argument(help="One row: column=value …; else rows from stdin.")
    ] = None,
    version: Version = None,
    alias: Alias = None,
    *,
    file: Annotated[
        Path | None, typer.Option("--file", "-f", help="Rows from a CSV, Parquet, … file.")
    ] = None,
    dataset: Annotated[
        str | None, typer.Option(help="All rows of a dataset of any size; makes a new dataset.")
    ] = None,
    on_problem: Annotated[
        str, typer.Option(help="For a bad value: warn, or an error for its row.")
    ] = "warn",
    interval: Annotated[
        float | None,
        typer.Option(help="Add intervals or sets of this level, 0.5 to 0.99."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Predict one row, `descent predict scores Quiz=10`, or JSON rows from stdin.

    With --file, predict the rows of a file and print CSV. With --dataset, predict the rows of an
    uploaded table and make a new dataset. The exit code is 3 if a row has no prediction.
    """
    if sum(map(bool, (values, file, dataset))) > 1:
        raise typer.BadParameter("give one of column=value, --file and --dataset")
    with client(as_json=as_json) as service:
        chosen = service.model(model, version=version, alias=alias)
        if dataset:
            options: Any = {"on_problem": on_problem, "interval": interval}
            job = service.predict_dataset(chosen, dataset, **options).show()
            print_one(job.info, as_json=as_json)
            sys.exit(FAILED if job.info.errors else OK)
        if file:
            answers = chosen.predict(existing(file), on_problem=on_problem, interval=interval)
        else:
            rows = dict(map(assignment, values)) if values else table(read_stdin())
            answers = chosen.predict(rows, on_problem=on_problem, interval=interval)
    print_answers(answers, as_json=as_json, as_csv=file is not None)
    sys.exit(FAILED if any(answer.error for answer in answers) else OK)
