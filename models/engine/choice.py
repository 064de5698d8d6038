"""Chooses the engine of a training by its shape."""

from models.engine.autograd import Autograd
from models.engine.chunked import Chunked
from models.engine.engine import Engine, EngineName, Setup


def make_engine(setup: Setup, name: EngineName | None = None) -> Engine:
    """Return the fastest engine that can do the training, or the named one if it can."""
    if name != "autograd" and Chunked.covers(setup):
        return Chunked(setup)
    return Autograd(setup)
