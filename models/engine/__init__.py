"""Optimizer steps: losses, gradients, updates, and the device that computes them.

Knows torch; nothing of runs, epochs, checkpoints or tables.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from models.nets.graph import DenseLayer

EngineName = Literal["kernel", "chunked", "autograd", "boosting"]
#: Rows that are predicted at a time, outside of steps: few enough for a cache.
CHUNK = 4_096
#: The compiled part of the kernel; it may be missing.
LIBRARY = Path(__file__).parent / "compiled" / "kernel.so"
#: The widest layers and the most inputs that the kernel computes; wider layers are as fast with
#: torch's operations. And the most layers.
MOST_UNITS, MOST_INPUTS, MOST_LAYERS = 256, 1024, 65


def suits_kernel(layers: Sequence[DenseLayer]) -> bool:
    """Return whether the kernel computes a stack of this shape."""
    return (
        len(layers) <= MOST_LAYERS
        and layers[0].inputs <= MOST_INPUTS
        and max(layer.outputs for layer in layers) <= MOST_UNITS
    )
