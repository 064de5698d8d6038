"""A loss curve in the terminal, drawn while it falls; plain lines where there is no terminal.

Knows events and characters, and nothing of HTTP.
"""

import itertools
import math
import time
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from operator import or_
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.text import Text

from descent.events import Event

HEIGHT = 12  # lines of the plot
WIDEST = 72  # characters of the plot
LABEL = 10  # characters of the numbers beside it
FRAME = 0.05  # seconds between two pictures
#: A curve that falls further than this is drawn on a logarithmic scale.
LOG_ABOVE = 20.0
#: The bit of each dot of a braille character, by row and column.
DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
BLANK = 0x2800
#: The colour of each curve.
STYLES = {"train": "cyan", "validation": "yellow"}


@dataclass
class Curve:
    """The training and validation loss of a run, as far as it is known."""

    _seqs: dict[str, list[int]] = field(default_factory=dict)
    _losses: dict[str, list[float]] = field(default_factory=dict)
    last_epoch: int = 0

    def take(self, event: Event) -> None:
        """Add the rows of an event; a rewind drops those that a new attempt replaces."""
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
        """Return one loss for each epoch; what is not finite is NaN or infinite."""
        return self._losses.get(split, [])

    @property
    def caption(self) -> str:
        known = [(split, self.values(split)) for split in STYLES]
        losses = [f"{split} loss {values[-1]:.5g}" for split, values in known if values]
        return " · ".join([f"epoch {self.last_epoch}", *losses])


@dataclass(frozen=True)
class Scale:
    """Which losses are at the bottom and at the top of a picture."""

    low: float
    high: float
    is_logarithmic: bool

    def height(self, value: float) -> float:
        """Return where a loss is, from 0 at the bottom to 1 at the top."""
        low, high = self.low, self.high
        if self.is_logarithmic:
            value, low, high = math.log(value), math.log(low), math.log(high)
        return (value - low) / (high - low) if high > low else 1.0


def scale_of(values: Sequence[float]) -> Scale:
    """Return the scale on which finite values are all seen."""
    low, high = min(values), max(values)
    return Scale(low, high, is_logarithmic=low > 0 and high / low > LOG_ABOVE)


def watch(events: Iterable[Event], console: Console, title: str) -> Curve:
    """Show the loss while the events come; return the whole curve at the end."""
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
                # A long curve takes long to draw: most of the time is left to the events.
                due_at = time.monotonic() + max(FRAME, 4 * (time.monotonic() - began))
    return curve


def draw(values: Sequence[float], width: int, height: int, scale: Scale | None = None) -> list[str]:
    """Return `height` lines of `width` braille characters that show finite values as a line.

    The axis of the epochs is logarithmic, since most happens in the first of them.
    """
    rows = [[BLANK] * width for _ in range(height)]
    levels = _levels(values, 2 * width, 4 * height, scale)
    for x, level in enumerate(levels):
        low, high = sorted((level, levels[max(0, x - 1)]))
        for y in range(low, high + 1):
            rows[y // 4][x // 2] |= DOTS[y % 4][x % 2]
    return ["".join(map(chr, row)) for row in rows]


def axis(epochs: int, width: int) -> str:
    """Return a line with 1, 10, 100, … below the places where `draw` shows these epochs."""
    line = [" "] * (width + LABEL)
    for power in range(len(str(epochs))):
        place = round(power / max(1e-9, math.log10(epochs)) * (width - 1)) if epochs > 1 else 0
        label = str(10**power)
        line[place : place + len(label)] = label
    return "".join(line).rstrip()


def _levels(values: Sequence[float], columns: int, rows: int, scale: Scale | None) -> list[int]:
    """Return the row, counted from the top, of each column of dots."""
    if not values:
        return []
    scale = scale or scale_of(values)
    places = (len(values) ** (x / (columns - 1)) - 1 for x in range(columns))
    heights = (scale.height(_between(values, place)) for place in places)
    return [round((1 - height) * (rows - 1)) for height in heights]


def _between(values: Sequence[float], place: float) -> float:
    """Return the value at a place between two indices."""
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
    """Add a line of several pictures, one over the other, each in its colour."""
    styles = list(STYLES.values())
    for which, cells in itertools.groupby(zip(*lines, strict=True), key=_first_drawn):
        characters = (chr(reduce(or_, map(ord, cell))) for cell in cells)
        text.append("".join(characters), style=f"not bold {styles[which]}")


def _first_drawn(cell: Sequence[str]) -> int:
    return next((place for place, dots in enumerate(cell) if ord(dots) > BLANK), 0)


def print_lines(events: Iterable[Event], curve: Curve, console: Console, title: str) -> None:
    """Print the epochs 1, 2, 5, 10, 20, 50, … and the last one."""
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
