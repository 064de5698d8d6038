"""The live leaderboard of a sweep: a table in terminals and notebooks, else plain lines."""

import html
import json
from collections.abc import Iterable

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from descent.progress import Markup, Screen, new_output
from descent.schemas import Sweep, SweepTrial
from descent.schemas.common import TERMINAL_STATES

SHOWN = 16  # rows of a live table
MARKS = {"succeeded": "green", "failed": "red", "cancelled": "dim", "running": "cyan"}


def show_sweep(looks: Iterable[Sweep], where: Screen) -> None:
    """Show a sweep as often as it is looked at; return after the last look."""
    if where == "terminal":
        watch_sweep(looks, Console(stderr=True))
    elif where == "lines":
        watch_sweep(looks, Console(stderr=True, soft_wrap=True, force_terminal=False))
    elif where == "notebook":
        output = new_output()
        for sweep in looks:
            output.update(Markup(_markup(sweep)))
    else:
        for _ in looks:
            pass


def watch_sweep(looks: Iterable[Sweep], console: Console) -> None:
    """Draw the leaderboard, or print a line for each trial that has ended."""
    if not console.is_terminal:
        _print_lines(looks, console)
        return
    with Live(console=console, auto_refresh=False) as live:
        for sweep in looks:
            live.update(table_of(sweep, SHOWN), refresh=True)


def _print_lines(looks: Iterable[Sweep], console: Console) -> None:
    told: set[int] = set()
    for sweep in looks:
        for trial in sorted(sweep.leaderboard or [], key=lambda each: each.trial):
            if trial.state in TERMINAL_STATES and trial.trial not in told:
                told.add(trial.trial)
                chosen = ", ".join(f"{k} {_text(v)}" for k, v in trial.parameters.items())
                value = "" if trial.value is None else f" {sweep.metric.name} {_text(trial.value)}"
                outcome = trial.state_reason if trial.state == "cancelled" else trial.state
                console.print(
                    f"  trial {trial.trial}: {outcome}{value} ({chosen})", highlight=False
                )


def table_of(sweep: Sweep, most: int | None = None) -> Table:
    """Return the leaderboard as a table with at most so many rows, best first."""
    trials = sweep.leaderboard or []
    shown = trials if most is None else trials[:most]
    table = Table(box=None, pad_edge=False, title=_title(sweep), title_justify="left")
    for name in ("trial", _metric(sweep), "epochs", "state", *sweep.space):
        table.add_column(Text(name), no_wrap=True)
    for trial in shown:
        table.add_row(*(Text(cell, style=MARKS.get(trial.state, "")) for cell in _cells(trial)))
    if len(shown) < len(trials):
        table.caption = f"and {len(trials) - len(shown)} more"
    return table


def _title(sweep: Sweep) -> str:
    counts = sweep.trials
    done = counts.succeeded + counts.failed + counts.cancelled + counts.pruned
    return f"{sweep.name or sweep.id} {sweep.state}: {done} of {counts.total} trials have ended"


def _metric(sweep: Sweep) -> str:
    return f"{sweep.metric.split} {sweep.metric.name}"


def _cells(trial: SweepTrial) -> list[str]:
    state = trial.state_reason if trial.state_reason == "pruned" else trial.state
    value = "" if trial.value is None else _text(trial.value)
    parameters = map(_text, trial.parameters.values())
    return [str(trial.trial), value, str(trial.epochs), state, *parameters]


def _text(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.5g}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _markup(sweep: Sweep) -> str:
    names = ["trial", _metric(sweep), "epochs", "state", *sweep.space]
    head = "".join(f"<th>{html.escape(name)}</th>" for name in names)
    rows = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in _cells(trial)) + "</tr>"
        for trial in (sweep.leaderboard or [])[:SHOWN]
    )
    title = html.escape(_title(sweep))
    return f'<div role="status">{title}<table><tr>{head}</tr>{rows}</table></div>'
