"""An architecture: a configuration of a model, and the net that it makes of its width.

Knows the graph of a net; nothing of arrays, tensors or training.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

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

    def graph_of_run(
        self,
        inputs: int,
        outputs: int,
        epochs: int,  # noqa: ARG002
        numbers: int,  # noqa: ARG002
    ) -> Graph:
        """Return the net of a run of so many epochs; that of most architectures does not depend.

        `numbers` is how many of the inputs are numbers or times, which may have codes.
        """
        return self.graph(inputs, outputs)

    def recipe(self, rows: int) -> Mapping[str, Any]:  # noqa: ARG002
        """Return the fields of a run that a request leaves to the architecture, as JSON.

        `rows` is the count of rows with a target.
        """
        return {}

    def objection(self, config: Mapping[str, Any]) -> tuple[str, str] | None:  # noqa: ARG002
        """Return the pointer of a field that does not fit, and a sentence with the remedy.

        `config` is the run's configuration as JSON; None means that every field fits.
        """
        return None
