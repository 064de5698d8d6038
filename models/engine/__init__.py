"""Optimizer steps: losses, gradients, updates, and the device that computes them.

Knows torch; nothing of runs, epochs, checkpoints or tables.
"""

from typing import Literal

EngineName = Literal["kernel", "chunked", "autograd"]
