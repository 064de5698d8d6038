"""One lane: the histories of a seed on one database and one store, in a separate process.

    python -m tests.chaos lane ORDER     (JSON, the fields of `Order`)

`DESCENT_FAILPOINTS` must name a folder that no other process uses when this one starts.
"""

import json
import os
import time
import traceback
from dataclasses import asdict
from itertools import count
from pathlib import Path

from tests.chaos import histories
from tests.chaos.stage import Stage
from tests.postgres import database, execute
from tests.warm import Order, Warm, until

QUIET_S = 10.0  # seconds after which no process or file may be left


def main(text: str) -> None:
    """Carry out an order; ends the process."""
    play(text, Warm())
    os._exit(0)


def play(text: str, warm: Warm) -> None:
    """Play an order's histories, in processes forked from this one, and write the report."""
    order = Order(**json.loads(text))
    folder = Path(order.folder)
    stage = Stage(warm, folder, _database(order, folder), _store(order, folder))
    try:
        stage.open()
        _play(stage, order)
        if not until(lambda: not stage.leftovers(), QUIET_S):
            stage.figures.wrong.append(f"I7: left over: {stage.leftovers()}")
        stage.close()
    except Exception:  # noqa: BLE001  the lane's report says so
        stage.figures.wrong.append(f"the lane ended early: {traceback.format_exc()}")
    report = asdict(stage.figures)
    report |= {name: sorted(report[name]) for name in ("reached", "engines")}
    (folder / "report.json").write_text(json.dumps(report))


def _play(stage: Stage, order: Order) -> None:
    played = 0
    for turn in count():
        for history in histories.plan(order.seed + turn):
            is_enough = turn > 0 and stage.figures.kills >= order.kills
            if is_enough or played >= order.histories:
                return
            if order.only in str(history):
                began = time.monotonic()
                histories.play(stage, history)
                print(f"{time.monotonic() - began:.1f} s: {history}", flush=True)
                played += 1


def _database(order: Order, folder: Path) -> str:
    if order.database == "sqlite":
        return f"sqlite:///{folder / 'descent.sqlite3'}"
    name = f"chaos_{order.store}"
    execute(order.server, f"CREATE DATABASE {name}")
    return database(order.server, name)


def _store(order: Order, folder: Path) -> str:
    return (
        (folder / "blobs").as_uri() if order.store == "local" else f"{order.bucket}/{folder.name}"
    )
