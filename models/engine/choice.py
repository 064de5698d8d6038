"""Chooses the engine of a training by its shape."""

from models.architectures.trees import Trees
from models.engine import EngineName
from models.engine.autograd import Autograd
from models.engine.boosting import Boosting
from models.engine.chunked import Chunked
from models.engine.engine import Engine, Setup
from models.engine.kernel import Kernel


def make_engine(setup: Setup, name: EngineName | None = None) -> Engine:
    """Return the fastest engine that can do the training.

    With a name it is that engine, or if that cannot do the training the next slower one.
    """
    if isinstance(setup.architecture, Trees):
        return Boosting(setup, setup.architecture)
    if name in {None, "kernel"} and Kernel.covers(setup):
        return Kernel(setup)
    if name != "autograd" and Chunked.covers(setup):
        return Chunked(setup)
    return Autograd(setup)
