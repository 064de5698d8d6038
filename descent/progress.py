"""Progress of training, uploads and downloads: bars in terminals and notebooks, else plain lines.

Everything goes to stderr, so that a program's stdout holds its own output only.
"""

import html
import math
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Literal, Protocol, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from descent.curve import Curve, Event, print_lines

#: `lines`: neither a terminal nor a notebook, such as a log file
Screen = Literal["terminal", "notebook", "lines", "none"]
FRAME = 0.1  # seconds between two redraws
SOON = 0.5  # seconds before a transfer shows a bar
#: short names of the losses
LABELS = {"train": "loss", "validation": "val"}
TITLE = 24  # characters of a title before a bar
SPARK = (480, 80)  # width and height of the curve in a notebook, in CSS pixels
POINTS = 240  # of that curve


class Handle(Protocol):
    """An output of a notebook that can be replaced, such as IPython's DisplayHandle."""

    def update(self, shown: object, /) -> None: ...


def screen(*, wanted: bool) -> Screen:
    """Return where to show progress."""
    if not wanted:
        return "none"
    if _shell() is not None:
        return "notebook"
    return "terminal" if Console(stderr=True).is_terminal else "lines"


def _shell() -> Any:  # noqa: ANN401  IPython's
    """Return the shell of the notebook that runs this code, or None outside a notebook."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell if hasattr(shell, "kernel") else None


# ---- training ---------------------------------------------------------------------------------


@dataclass
class TrainingProgress:
    """The progress of a run, from its events."""

    title: str
    epochs: int
    state: str = "queued"
    curve: Curve = field(default_factory=Curve)

    def take(self, event: Event) -> None:
        self.curve.take(event)
        self.state = event.data.get("state", self.state) if event.kind == "state" else self.state

    @property
    def losses(self) -> str:
        """The latest losses as text; before the first one, the run's state."""
        found = {split: self.curve.values(split)[-1:] for split in LABELS}
        known = [f"{LABELS[split]} {values[0]:.4g}" for split, values in found.items() if values]
        return ", ".join(known) if known else self.state


def show_training(events: Iterable[Event], title: str, epochs: int, where: Screen) -> None:
    """Show a run while its events arrive; return when it is over."""
    if where == "lines":
        console = Console(stderr=True, soft_wrap=True)
        print_lines(events, Curve(), console, f"{title}, up to {epochs} epochs:")
        return
    training = TrainingProgress(title, epochs)
    if where == "terminal":
        in_terminal(events, training, Console(stderr=True))
    elif where == "notebook":
        in_notebook(events, training, _new_output())
    else:
        for _ in events:
            pass


def in_terminal(events: Iterable[Event], training: TrainingProgress, console: Console) -> None:
    """Show a run as a bar that is full at the end."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TimeRemainingColumn(compact=True),
        TextColumn("{task.fields[losses]}"),
    )
    with Progress(*columns, console=console, expand=True) as progress:
        task = progress.add_task(_short(training.title), total=training.epochs, losses="")
        for event, is_due in _paced(events):
            training.take(event)
            if is_due:
                done = training.curve.last_epoch
                # A run that stopped early is complete too.
                total = done if event.kind == "end" else training.epochs
                progress.update(task, completed=done, total=total, losses=training.losses)


def _short(title: str) -> str:
    return title if len(title) <= TITLE else f"{title[: TITLE - 1]}…"


def in_notebook(events: Iterable[Event], training: TrainingProgress, output: Handle) -> None:
    """Show a run as a bar and a curve in a notebook's output."""
    for event, is_due in _paced(events):
        training.take(event)
        if is_due:
            output.update(Markup(_markup(training, is_over=event.kind == "end")))


def _paced(events: Iterable[Event]) -> Iterator[tuple[Event, bool]]:
    """Yield each event and whether to redraw now."""
    shown_at = 0.0
    for event in events:
        is_due = event.kind == "end" or time.monotonic() - shown_at > FRAME
        yield event, is_due
        if is_due:
            shown_at = time.monotonic()


@dataclass(frozen=True)
class Markup:
    """HTML for a notebook."""

    text: str

    def _repr_html_(self) -> str:
        return self.text


def _new_output() -> Handle:
    handle: Handle = import_module("IPython.display").display(Markup("…"), display_id=True)
    return handle


def _markup(training: TrainingProgress, *, is_over: bool) -> str:
    done = training.curve.last_epoch
    title, losses = html.escape(training.title), html.escape(training.losses)
    most = done if is_over else training.epochs
    bar = f'<progress value="{done}" max="{max(1, most)}"></progress>'
    return (
        f'<div role="status">{title} {bar} epoch {done} of {training.epochs} · {losses}'
        f"<br>{_spark(training.curve)}</div>"
    )


def _spark(curve: Curve) -> str:
    """Return the losses as a small SVG, on a logarithmic scale if all are positive."""
    lines = [
        (colour, [value for value in curve.values(split) if math.isfinite(value)])
        for split, colour in (("train", "#0891b2"), ("validation", "#d97706"))
    ]
    found = [value for _, values in lines for value in values]
    if len(found) < 2:
        return ""
    is_log = min(found) > 0
    low, high = (math.log(edge) if is_log else edge for edge in (min(found), max(found)))
    width, height = SPARK
    drawn = ""
    for colour, values in lines:
        step = max(1, len(values) // POINTS)
        levels = [math.log(value) if is_log else value for value in values[::step]]
        points = " ".join(
            f"{x / max(1, len(levels) - 1) * width:.1f},"
            f"{height - (level - low) / ((high - low) or 1) * height:.1f}"
            for x, level in enumerate(levels)
        )
        drawn += f'<polyline fill="none" stroke="{colour}" stroke-width="1.5" points="{points}"/>'
    size = f'width="{width}" height="{height}"'
    return f'<svg {size} role="img" aria-label="loss by epoch">{drawn}</svg>'


# ---- bytes and rows ---------------------------------------------------------------------------


@contextmanager
def transfer(
    title: str, where: Screen, unit: Literal["bytes", "rows"] = "bytes"
) -> Iterator[Callable[[int, int | None], None]]:
    """Yield a function that takes the amounts done and in total; a bar appears after a while."""
    if where in {"none", "lines"}:
        yield lambda _done, _total: None
    elif where == "notebook":
        yield _NotebookBar(title, unit)
    else:
        with _TerminalBar(title, unit) as bar:
            yield bar


class _NotebookBar:
    def __init__(self, title: str, unit: str) -> None:
        self._title = title
        self._unit = unit
        self._output: Handle | None = None
        self._shown_at = time.monotonic() + SOON - FRAME

    def __call__(self, done: int, total: int | None) -> None:
        if time.monotonic() - self._shown_at < FRAME and done != total:
            return
        if self._output is None:
            if done == total:
                return  # too quick for a bar
            self._output = _new_output()
        self._shown_at = time.monotonic()
        most = f' max="{total}"' if total else ""
        text = f'{html.escape(self._title)} <progress value="{done}"{most}></progress>'
        self._output.update(Markup(f"{text} {done:,} {self._unit}"))


class _TerminalBar:
    def __init__(self, title: str, unit: str) -> None:
        amounts = (
            (DownloadColumn(), TransferSpeedColumn())
            if unit == "bytes"
            else (MofNCompleteColumn(),)
        )
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            *amounts,
            TimeRemainingColumn(compact=True),
        )
        self._progress = Progress(
            *columns, console=Console(stderr=True), transient=True, expand=True
        )
        self._task = self._progress.add_task(_short(title), total=None)
        self._from = time.monotonic() + SOON
        self._is_shown = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._is_shown:
            self._progress.stop()

    def __call__(self, done: int, total: int | None) -> None:
        self._progress.update(self._task, completed=done, total=total)
        if not self._is_shown and time.monotonic() > self._from:
            self._is_shown = True
            self._progress.start()
