"""An architecture: a configuration of a model, and the net that it makes of its width.

Knows the graph of a net; nothing of arrays, tensors or training.
"""

from abc import ABC, abstractmethod
from typing import ClassVar

from descent.fields import Strict
from models.nets.graph import Graph


class Architecture(Strict, ABC):
    """A type of model. Its fields, with their limits and titles, are its form and its schema."""

    #: for people
    title: ClassVar[str]
    #: the word for it in a configuration; each architecture has its own
    type: str

    @abstractmethod
    def graph(self, inputs: int, outputs: int) -> Graph:
        """Return the net from encoded rows, (rows, inputs), to (rows, outputs).

        The outputs are numbers in the scale of the targets, or classes before the softmax.
        """
