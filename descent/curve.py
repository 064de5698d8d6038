"""A loss curve in the terminal, drawn while it falls; plain lines where there is no terminal.

Knows events and characters, and nothing of HTTP.
"""

import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from rich.console import Console
from rich.live import Live
from rich.text import Text

from descent.run import Event

HEIGHT = 12  # lines of the plot
WIDEST = 72  # characters of the plot
LABEL = 10  # characters of the numbers beside it
FRAME = 0.05  # seconds between two pictures
#: A curve that falls further than this is drawn on a logarithmic scale.
LOG_ABOVE = 20.0
#: The bit of each dot of a braille character, by row and column.
DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
BLANK = 0x2800


@dataclass
class Curve:
    """The training and validation loss of a run, as far as it is known."""

    rows: list[dict[str, object]] = field(default_factory=list)

    def take(self, event: Event) -> None:
        """Add the rows of an event; a rewind drops those that a new attempt replaces."""
        if event.kind == "metrics":
            self.rows += [row for row in event.data.get("rows", []) if row["name"] == "loss"]
        elif event.kind == "rewind":
            last = event.data["after_seq"]
            self.rows = [row for row in self.rows if int(str(row["seq"])) <= last]

    def values(self, split: str) -> list[float]:
        """Return one loss for each epoch; what is not finite is NaN or infinite."""
        return [float(str(row["value"])) for row in self.rows if row["split"] == split]

    @property
    def caption(self) -> str:
        known = [(split, self.values(split)) for split in ("train", "validation")]
        losses = [f"{split} loss {values[-1]:.5g}" for split, values in known if values]
        return " · ".join([f"epoch {len(known[0][1])}", *losses])


def watch(events: Iterable[Event], console: Console, title: str) -> Curve:
    """Show the loss while the events come; return the whole curve at the end."""
    curve = Curve()
    if not console.is_terminal:
        _print_lines(events, curve, console, title)
        return curve
    with Live(console=console, auto_refresh=False) as live:
        shown_at = 0.0
        for event in events:
            curve.take(event)
            is_due = event.kind == "end" or time.monotonic() - shown_at > FRAME
            if curve.rows and is_due:
                live.update(_picture(curve, console.width, title), refresh=True)
                shown_at = time.monotonic()
    return curve


def draw(values: Sequence[float], width: int, height: int) -> list[str]:
    """Return `height` lines of `width` braille characters that show finite values as a line.

    The axis of the epochs is logarithmic, since most happens in the first of them.
    """
    rows = [[BLANK] * width for _ in range(height)]
    levels = _levels(values, 2 * width, 4 * height)
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


def _levels(values: Sequence[float], columns: int, rows: int) -> list[int]:
    """Return the row, counted from the top, of each column of dots."""
    if not values:
        return []
    low, high = min(values), max(values)
    if is_logarithmic(values):
        values, low, high = [math.log(v) for v in values], math.log(low), math.log(high)
    scale = (rows - 1) / (high - low) if high > low else 0.0
    places = (len(values) ** (x / (columns - 1)) - 1 for x in range(columns))
    return [round((high - _between(values, place)) * scale) for place in places]


def _between(values: Sequence[float], place: float) -> float:
    """Return the value at a place between two indices."""
    first = min(int(place), len(values) - 1)
    second = min(first + 1, len(values) - 1)
    return values[first] + (place - first) * (values[second] - values[first])


def is_logarithmic(values: Sequence[float]) -> bool:
    return min(values) > 0 and max(values) / min(values) > LOG_ABOVE


def _picture(curve: Curve, console_width: int, title: str) -> Text:
    values = [value for value in curve.values("train") if math.isfinite(value)]
    width = max(10, min(WIDEST, console_width - LABEL - 4))
    text = Text(f"{title}\n", style="bold")
    labels = {0: max(values, default=0.0), HEIGHT - 1: min(values, default=0.0)}
    for number, line in enumerate(draw(values, width, HEIGHT)):
        label = f"{labels[number]:.4g}" if number in labels else ""
        text.append(f"{label:>{LABEL}} ┤", style="not bold dim")
        text.append(f"{line}\n", style="not bold cyan")
    scale = " · both scales logarithmic" if values and is_logarithmic(values) else ""
    text.append(f"{'':>{LABEL}}  {axis(len(values), width)}\n", style="not bold dim")
    text.append(f"{'':>{LABEL}}  {curve.caption}{scale}", style="not bold")
    return text


def _print_lines(events: Iterable[Event], curve: Curve, console: Console, title: str) -> None:
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
