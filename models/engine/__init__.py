"""Optimizer steps: losses, gradients, updates, and the device that computes them.

Knows torch; nothing of runs, epochs, checkpoints or tables.
"""

from pathlib import Path
from typing import Literal

EngineName = Literal["kernel", "chunked", "autograd", "boosting"]
#: The compiled part of the kernel; it may be missing.
LIBRARY = Path(__file__).parent / "compiled" / "kernel.so"
#: The widest layers and the most inputs that the kernel computes; wider layers are as fast with
#: torch's operations.
MOST_UNITS, MOST_INPUTS = 256, 1024
