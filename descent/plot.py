"""The curves of a run as a picture of matplotlib, which is loaded when it is asked for."""

import math
from typing import Any

from descent.frames import library
from descent.schemas import MetricColumns

POINTS = 2000  # of a curve: more than a picture has columns


def plot(curves: MetricColumns, name: str, title: str, axes: Any = None) -> Any:  # noqa: ANN401  matplotlib's
    """Draw a metric by epoch, one line for each split; return the axes."""
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
