"""`descent sweeps`: search over settings, and watch and steer a search."""

import json
import sys
from collections.abc import Iterator
from itertools import islice
from typing import Annotated, Any

import typer
from rich.console import Console

from descent import schemas
from descent.cli.arguments import (
    AsJson,
    DatasetId,
    Limit,
    Preset,
    Set,
    SweepName,
    client,
    dimension,
    settings,
)
from descent.leaderboard import table_of, watch_sweep
from descent.output import print_done, print_list, print_one, say
from descent.sweep import Sweep

COLUMNS = {
    "id": "id",
    "state": "state",
    "target": "base.target",
    "metric": "metric.name",
    "best": "best.value",
    "trials": "trials.total",
    "created": "created_at",
    "name": "name",
}

Space = Annotated[
    list[str] | None,
    typer.Option(
        "--parameter",
        "-p",
        help="A field in which trials differ: optimizer.learning_rate=log_uniform:1e-4:0.1,"
        " seed=int:0:9, model.hidden=choice:[[32],[64,64]], batch_size=16,32.",
    ),
]
Trials = Annotated[
    int | None, typer.Option(min=1, help="How many trials; else 16, or the whole grid.")
]
Strategy = Annotated[
    str | None, typer.Option(help="grid, random, tpe or halving; else grid or random.")
]
Register = Annotated[
    str | None, typer.Option("--register", help="The model that the best trial becomes.")
]

app = typer.Typer(no_args_is_help=True, help="Searches over settings: watch and steer them.")


def start(
    dataset: DatasetId,
    target: Annotated[list[str], typer.Argument(help="The column to predict, or several of them.")],
    *,
    parameter: Space = None,
    trials: Trials = None,
    strategy: Strategy = None,
    register: Register = None,
    preset: Preset = None,
    set_: Set = None,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Return at once.")] = False,
    as_json: AsJson = False,
) -> None:
    """Search over settings: `descent sweep ds_… Final -p optimizer.learning_rate=0.1,0.01`.

    Shows the leaderboard until the search is over. The exit code is 3 if no trial succeeds.
    """
    options: dict[str, Any] = {
        "trials": trials,
        "strategy": strategy,
        "register_best_as": register,
    }
    options = {name: value for name, value in options.items() if value is not None}
    with client() as service:
        sweep = service.submit_sweep(
            dataset,
            target[0] if len(target) == 1 else target,
            dict(map(dimension, parameter or [])),
            **options,
            **settings(set_ or [], preset),
        )
        if no_wait:
            _print(sweep.info, as_json=as_json)
        else:
            _watch(sweep, as_json=as_json)


@app.command("list")
def list_sweeps(
    *,
    state: Annotated[str | None, typer.Option(help="Only sweeps in this state.")] = None,
    limit: Limit = 20,
    as_json: AsJson = False,
) -> None:
    """List sweeps."""
    with client() as service:
        filters = {"state": state} if state else {}
        found = [sweep.info for sweep in islice(service.sweeps(**filters), limit)]
    print_list(found, COLUMNS, as_json=as_json)


@app.command()
def show(sweep_id: SweepName, *, as_json: AsJson = False) -> None:
    """Show the leaderboard of a sweep."""
    with client() as service:
        info = service.get_sweep(sweep_id).info
    if as_json:
        print_one(info, as_json=True)
    else:
        _print_table(info)


@app.command("watch")
def watch(sweep_id: SweepName, *, as_json: AsJson = False) -> None:
    """Show the leaderboard until the sweep is over; with --json print one event per line.

    The exit code is 3 if no trial succeeds.
    """
    with client() as service:
        _watch(service.get_sweep(sweep_id), as_json=as_json)


@app.command()
def cancel(sweep_id: SweepName, *, as_json: AsJson = False) -> None:
    """Cancel the trials that have not ended."""
    with client() as service:
        _print(service.get_sweep(sweep_id).cancel().info, as_json=as_json)


@app.command()
def pause(sweep_id: SweepName, *, as_json: AsJson = False) -> None:
    """Pause the trials that have not ended; `resume` continues them."""
    with client() as service:
        _print(service.get_sweep(sweep_id).pause().info, as_json=as_json)


@app.command()
def resume(sweep_id: SweepName, *, as_json: AsJson = False) -> None:
    """Continue a paused sweep exactly where it paused."""
    with client() as service:
        _print(service.get_sweep(sweep_id).resume().info, as_json=as_json)


@app.command()
def delete(sweep_id: SweepName, *, as_json: AsJson = False) -> None:
    """Delete a sweep that is over, with its runs; its registered model stays."""
    with client() as service:
        service.get_sweep(sweep_id).delete()
    print_done(f"{sweep_id} is deleted.", {"deleted": sweep_id}, as_json=as_json)


def _print(info: schemas.Sweep, *, as_json: bool) -> None:
    if as_json:
        say(info.model_dump_json())
        return
    say(f"{info.id} {info.state}")
    for warning in info.warnings:
        say(f"  warning: {warning.detail}")
    if info.state in {"queued", "starting", "running"}:
        sys.stderr.write(f"`descent sweeps watch {info.id}` shows its leaderboard.\n")


def _watch(sweep: Sweep, *, as_json: bool) -> None:
    try:
        if as_json:
            for event in sweep.follow():
                line = {"id": event.id, "event": event.kind, "data": event.data}
                print(json.dumps(line), flush=True)
        else:
            watch_sweep(_looks(sweep), Console(stderr=True, soft_wrap=True))
    except KeyboardInterrupt:
        sys.stderr.write(f"\n{sweep.id} goes on: `descent sweeps cancel {sweep.id}` stops it\n")
        raise
    info = sweep.wait().info
    if not as_json:
        _print_table(info)


def _looks(sweep: Sweep) -> Iterator[schemas.Sweep]:
    while not sweep.is_over:
        yield sweep.info
        sweep.refresh(wait_s=1)
    yield sweep.info


def _print_table(info: schemas.Sweep) -> None:
    console = Console(highlight=False, soft_wrap=True)
    with console.capture() as captured:
        console.print(table_of(info))
    for line in captured.get().splitlines():
        say(line.rstrip())
    if info.model:
        say(f"model {info.model.name}, version {info.model.version}")
