"""`descent runs`: start, watch and steer training."""

import json
import sys
from itertools import islice
from typing import Annotated

import typer
from rich.console import Console

from descent.cli.arguments import AsJson, DatasetId, Limit, Preset, RunId, Set, client, settings
from descent.output import (
    print_columns,
    print_done,
    print_list,
    print_one,
    print_report,
    print_result,
    print_run,
)
from descent.progress import watch
from descent.run import Run

COLUMNS = {
    "id": "id",
    "state": "state",
    "target": "config.target",
    "best loss": "best.value",
    "model": "config.register_as",
    "created": "created_at",
    "name": "name",
}
CHECKPOINT_COLUMNS = {
    "id": "id",
    "epoch": "epoch",
    "best": "is_best",
    "bytes": "bytes",
    "created": "created_at",
}

app = typer.Typer(no_args_is_help=True, help="Training runs: start, watch and steer them.")


@app.command("list")
def list_runs(
    *,
    state: Annotated[str | None, typer.Option(help="Only runs in this state.")] = None,
    limit: Limit = 20,
    as_json: AsJson = False,
) -> None:
    """List runs."""
    with client() as service:
        filters = {"state": state} if state else {}
        found = [run.info for run in islice(service.runs(**filters), limit)]
    print_list(found, COLUMNS, as_json=as_json)


@app.command()
def start(
    dataset: DatasetId,
    target: Annotated[list[str], typer.Argument(help="The column to predict, or several of them.")],
    *,
    preset: Preset = None,
    set_: Set = None,
    wait: Annotated[bool, typer.Option("--wait", help="Watch the run until it is over.")] = False,
    as_json: AsJson = False,
) -> None:
    """Start a run: `descent runs start ds_… Final -s model.type=linear -s register_as=scores`."""
    with client() as service:
        wanted = target[0] if len(target) == 1 else target
        run = service.submit(dataset, wanted, **settings(set_ or [], preset))
        if wait:
            _watch(run, as_json=as_json)
        else:
            print_run(run.info, as_json=as_json)


@app.command()
def check(
    dataset: DatasetId,
    target: Annotated[list[str], typer.Argument(help="The column to predict.")],
    *,
    preset: Preset = None,
    set_: Set = None,
    as_json: AsJson = False,
) -> None:
    """Show the complete configuration and the estimated cost of a run; start nothing."""
    with client() as service:
        wanted = target[0] if len(target) == 1 else target
        print_one(
            service.validate(dataset, wanted, **settings(set_ or [], preset)), as_json=as_json
        )


@app.command("lr-range")
def suggest_learning_rate(
    dataset: DatasetId,
    target: Annotated[list[str], typer.Argument(help="The column to predict, or several of them.")],
    *,
    preset: Preset = None,
    set_: Set = None,
    as_json: AsJson = False,
) -> None:
    """Suggest a learning rate: test rates that rise with each batch, until the loss explodes."""
    with client() as service:
        wanted = target[0] if len(target) == 1 else target
        found = service.lr_range(dataset, wanted, **settings(set_ or [], preset)).evaluation[
            "lr_range"
        ]
    print(json.dumps(found) if as_json else found["detail"])


@app.command()
def show(run_id: RunId, *, as_json: AsJson = False) -> None:
    """Show one run."""
    with client() as service:
        print_one(service.run(run_id).info, as_json=as_json)


@app.command()
def report(run_id: RunId, *, as_json: AsJson = False) -> None:
    """Compare the model of a run with simple ones, and say what makes its scores doubtful."""
    with client() as service:
        found = service.run(run_id).report()
    if as_json:
        print_one(found, as_json=True)
    else:
        print_report(found)


@app.command("watch")
def watch_run(run_id: RunId, *, as_json: AsJson = False) -> None:
    """Draw the loss of a run during training; with --json print one event per line.

    The exit code is 3 if the run does not succeed.
    """
    with client() as service:
        _watch(service.run(run_id), as_json=as_json)


@app.command()
def metrics(
    run_id: RunId,
    *,
    names: Annotated[str, typer.Option(help="Which metrics, separated by commas.")] = "loss",
    splits: Annotated[str, typer.Option(help="train, validation or both.")] = "",
    points: Annotated[int | None, typer.Option(help="Thin each curve to this many rows.")] = None,
    as_json: AsJson = False,
) -> None:
    """Print the curves as a table, or with --json as one list per field."""
    with client() as service:
        curves = service.run(run_id).metrics(names=names, splits=splits, max_points=points)
    print_columns(curves, ("epoch", "split", "name", "value"), as_json=as_json)


@app.command()
def checkpoints(run_id: RunId, *, as_json: AsJson = False) -> None:
    """List the checkpoints of a run."""
    with client() as service:
        found = service.run(run_id).checkpoints()
    print_list(found, CHECKPOINT_COLUMNS, as_json=as_json)


@app.command("log")
def show_log(run_id: RunId, *, as_json: AsJson = False) -> None:
    """Print the log of a run."""
    with client() as service:
        text = service.run(run_id).log()
    print_done(text.rstrip("\n"), {"id": run_id, "log": text}, as_json=as_json)


@app.command()
def cancel(run_id: RunId, *, as_json: AsJson = False) -> None:
    """Cancel a run; its best checkpoint stays."""
    with client() as service:
        print_run(service.run(run_id).cancel().info, as_json=as_json)


@app.command()
def pause(run_id: RunId, *, as_json: AsJson = False) -> None:
    """Pause a run; `resume` continues it."""
    with client() as service:
        print_run(service.run(run_id).pause().info, as_json=as_json)


@app.command()
def resume(run_id: RunId, *, as_json: AsJson = False) -> None:
    """Continue a paused run exactly at the same step."""
    with client() as service:
        print_run(service.run(run_id).resume().info, as_json=as_json)


@app.command()
def retry(run_id: RunId, *, as_json: AsJson = False) -> None:
    """Start a new run from the last good checkpoint of a failed or cancelled run."""
    with client() as service:
        print_run(service.run(run_id).retry().info, as_json=as_json)


@app.command()
def delete(run_id: RunId, *, as_json: AsJson = False) -> None:
    """Delete a run that is over, with its curves; its registered models stay."""
    with client() as service:
        service.run(run_id).delete()
    print_done(f"{run_id} is deleted.", {"deleted": run_id}, as_json=as_json)


def _watch(run: Run, *, as_json: bool) -> None:
    try:
        _follow(run, as_json=as_json)
    except KeyboardInterrupt:
        sys.stderr.write(f"\n{run.id} goes on: `descent runs cancel {run.id}` stops it\n")
        raise


def _follow(run: Run, *, as_json: bool) -> None:
    if as_json:
        for event in run.follow():
            line = {"id": event.id, "event": event.kind, "data": event.data}
            print(json.dumps(line), flush=True)
    else:
        watch(run.follow(), Console(soft_wrap=True), f"Training loss of {run.id}:")
    info = run.wait().info
    if not as_json:
        print_result(info)
