"""Progress of training, uploads and downloads: bars in terminals and notebooks, else plain lines.

Everything goes to stderr, so that a program's stdout holds its own output only.
"""

import html
import itertools
import math
import sys
import time
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import reduce
from importlib import import_module
from operator import or_
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self

from rich.console import Console
from rich.live import Live
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.text import Text

from descent.frames import library
from descent.schemas import MetricColumns

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HEIGHT = 12  # lines of the plot
WIDEST = 72  # characters of the plot
LABEL = 10  # characters of the numbers on its axis
FRAME = 0.05  # seconds between two redraws
#: the ratio of the highest to the lowest loss above which the scale is logarithmic
LOG_ABOVE = 20.0
#: the bit of each dot of a braille character, by row and column
DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
BLANK = 0x2800
#: the colour of each curve
STYLES = {"train": "cyan", "validation": "yellow"}
POINTS = 2000  # of a curve in a matplotlib plot, which has fewer columns of pixels


@dataclass(frozen=True)
class Event:
    """An event of a run. For the kind `metrics`, `data` holds the new `rows` of the curves."""

    id: int
    kind: str
    data: dict[str, Any]


@dataclass
class Curve:
    """The training and validation loss of a run so far."""

    _seqs: dict[str, list[int]] = field(default_factory=dict)
    _losses: dict[str, list[float]] = field(default_factory=dict)
    last_epoch: int = 0

    def take(self, event: Event) -> None:
        """Add the rows of an event; a rewind removes the rows that a new attempt replaces."""
        if event.kind == "metrics":
            for row in event.data.get("rows", []):
                self._add(row)
        elif event.kind == "rewind":
            for split, seqs in self._seqs.items():
                kept = bisect_right(seqs, event.data["after_seq"])
                del seqs[kept:], self._losses[split][kept:]
            self.last_epoch = len(self.values("train"))

    def _add(self, row: Mapping[str, Any]) -> None:
        if row["name"] == "loss":
            self._seqs.setdefault(row["split"], []).append(row.get("seq", 0))
            self._losses.setdefault(row["split"], []).append(float(row["value"]))
            self.last_epoch = row.get("epoch", self.last_epoch)

    def values(self, split: str) -> list[float]:
        """Return one loss per epoch, which may be NaN or infinite."""
        return self._losses.get(split, [])

    @property
    def caption(self) -> str:
        known = [(split, self.values(split)) for split in STYLES]
        losses = [f"{split} loss {values[-1]:.5g}" for split, values in known if values]
        return " · ".join([f"epoch {self.last_epoch}", *losses])


@dataclass(frozen=True)
class Scale:
    """The losses at the bottom and at the top of a plot."""

    low: float
    high: float
    is_logarithmic: bool

    def height(self, value: float) -> float:
        """Return the height of a loss, from 0 at the bottom to 1 at the top."""
        low, high = self.low, self.high
        if self.is_logarithmic:
            value, low, high = math.log(value), math.log(low), math.log(high)
        return (value - low) / (high - low) if high > low else 1.0


def scale_of(values: Sequence[float]) -> Scale:
    """Return a scale that shows all of the finite values."""
    low, high = min(values), max(values)
    return Scale(low, high, is_logarithmic=low > 0 and high / low > LOG_ABOVE)


def watch(events: Iterable[Event], console: Console, title: str) -> Curve:
    """Draw the loss while events arrive; return the whole curve at the end."""
    curve = Curve()
    if not console.is_terminal:
        print_lines(events, curve, console, title)
        return curve
    with Live(console=console, auto_refresh=False) as live:
        due_at = 0.0
        for event in events:
            curve.take(event)
            began = time.monotonic()
            if curve.last_epoch and (event.kind == "end" or began > due_at):
                live.update(_picture(curve, console.width, title), refresh=True)
                # A long curve takes long to draw: spend at most a fifth of the time on drawing.
                due_at = time.monotonic() + max(FRAME, 4 * (time.monotonic() - began))
    return curve


def draw(values: Sequence[float], width: int, height: int, scale: Scale | None = None) -> list[str]:
    """Return `height` lines of `width` braille characters that plot finite values.

    The epoch axis is logarithmic, because a loss changes most in the first epochs.
    """
    rows = [[BLANK] * width for _ in range(height)]
    levels = _levels(values, 2 * width, 4 * height, scale)
    for x, level in enumerate(levels):
        low, high = sorted((level, levels[max(0, x - 1)]))
        for y in range(low, high + 1):
            rows[y // 4][x // 2] |= DOTS[y % 4][x % 2]
    return ["".join(map(chr, row)) for row in rows]


def axis(epochs: int, width: int) -> str:
    """Return the labels 1, 10, 100, … at the columns where `draw` plots these epochs."""
    line = [" "] * (width + LABEL)
    for power in range(len(str(epochs))):
        place = round(power / max(1e-9, math.log10(epochs)) * (width - 1)) if epochs > 1 else 0
        label = str(10**power)
        line[place : place + len(label)] = label
    return "".join(line).rstrip()


def _levels(values: Sequence[float], columns: int, rows: int, scale: Scale | None) -> list[int]:
    """Return for each column of dots its row, counted from the top."""
    if not values:
        return []
    scale = scale or scale_of(values)
    places = (len(values) ** (x / (columns - 1)) - 1 for x in range(columns))
    heights = (scale.height(_between(values, place)) for place in places)
    return [round((1 - height) * (rows - 1)) for height in heights]


def _between(values: Sequence[float], place: float) -> float:
    """Interpolate between the values at the two nearest indices."""
    first = min(int(place), len(values) - 1)
    second = min(first + 1, len(values) - 1)
    return values[first] + (place - first) * (values[second] - values[first])


def _picture(curve: Curve, console_width: int, title: str) -> Text:
    curves = {split: list(filter(math.isfinite, curve.values(split))) for split in STYLES}
    found = [value for values in curves.values() for value in values]
    scale = scale_of(found or [0.0])
    width = max(10, min(WIDEST, console_width - LABEL - 4))
    text = Text(title, style="bold")
    if scale.is_logarithmic:
        text.append("  both scales logarithmic", style="not bold dim")
    text.append("\n")
    labels = {0: scale.high, HEIGHT - 1: scale.low}
    drawn = [draw(values, width, HEIGHT, scale) for values in curves.values()]
    for number, (train, validation) in enumerate(zip(*drawn, strict=True)):
        label = f"{labels[number]:.4g}" if number in labels else ""
        text.append(f"{label:>{LABEL}} ┤", style="not bold dim")
        _append(text, train, validation)
        text.append("\n")
    text.append(f"{'':>{LABEL}}  {axis(curve.last_epoch, width)}\n", style="not bold dim")
    text.append(f"{'':>{LABEL}}  {curve.caption}", style="not bold")
    for split, style in STYLES.items():
        text.highlight_regex(rf"{split} loss \S+", style)
    return text


def _append(text: Text, *lines: str) -> None:
    """Append one line of several plots, drawn over each other, each in its colour."""
    styles = list(STYLES.values())
    for which, cells in itertools.groupby(zip(*lines, strict=True), key=_first_drawn):
        characters = (chr(reduce(or_, map(ord, cell))) for cell in cells)
        text.append("".join(characters), style=f"not bold {styles[which]}")


def _first_drawn(cell: Sequence[str]) -> int:
    return next((place for place, dots in enumerate(cell) if ord(dots) > BLANK), 0)


def print_lines(events: Iterable[Event], curve: Curve, console: Console, title: str) -> None:
    """Print the losses of the epochs 1, 2, 5, 10, 20, 50, … and the last losses."""
    console.print(title, highlight=False)
    printed = 0
    for event in events:
        curve.take(event)
        values = curve.values("train")
        for epoch in range(printed + 1, len(values) + 1):
            if epoch in _milestones(len(values)):
                console.print(f"  epoch {epoch:>6}  loss {values[epoch - 1]:.6g}", highlight=False)
        printed = len(values)
    console.print(f"  {curve.caption}", highlight=False)


def _milestones(last: int) -> set[int]:
    powers = range(len(str(last)))
    return {digit * 10**power for power in powers for digit in (1, 2, 5)}


# ---- matplotlib ---------------------------------------------------------------------------------


def plot(curves: MetricColumns, name: str, title: str, axes: "Axes | None" = None) -> "Axes":
    """Plot a metric by epoch, one line per split; return the axes. Loads matplotlib."""
    if axes is None:
        axes = library("matplotlib.pyplot").subplots(layout="constrained")[1]
    splits = list(dict.fromkeys(curves.split))
    values = [float(value) for value in curves.value]
    for split in splits:
        places = [place for place, each in enumerate(curves.split) if each == split]
        axes.plot([curves.epoch[i] for i in places], [values[i] for i in places], label=split)
    if values and all(value > 0 for value in values if math.isfinite(value)):
        axes.set_yscale("log")
    axes.set(xlabel="epoch", ylabel=name, title=title)
    axes.legend()
    return axes


#: `lines`: neither a terminal nor a notebook, such as a log file
Screen = Literal["terminal", "notebook", "lines", "none"]
REDRAW_S = 0.1  # seconds between two redraws
SOON = 0.5  # seconds before a transfer shows a bar
#: short names of the losses
LABELS = {"train": "loss", "validation": "val"}
TITLE = 24  # characters of a title before a bar
SPARK = (480, 80)  # width and height of the curve in a notebook, in CSS pixels
SHOWN_POINTS = 240  # of that curve


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


def _shell() -> object:
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
        in_notebook(events, training, new_output())
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
        is_due = event.kind == "end" or time.monotonic() - shown_at > REDRAW_S
        yield event, is_due
        if is_due:
            shown_at = time.monotonic()


@dataclass(frozen=True)
class Markup:
    """HTML for a notebook."""

    text: str

    def _repr_html_(self) -> str:
        return self.text


def new_output() -> Handle:
    """Return an output of this notebook that can be replaced."""
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
        step = max(1, len(values) // SHOWN_POINTS)
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
        self._shown_at = time.monotonic() + SOON - REDRAW_S

    def __call__(self, done: int, total: int | None) -> None:
        if time.monotonic() - self._shown_at < REDRAW_S and done != total:
            return
        if self._output is None:
            if done == total:
                return  # too quick for a bar
            self._output = new_output()
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
