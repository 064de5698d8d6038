"""An architecture that exists only in tests: its declaration, and its place in the list.

A process that imports this module knows it. `tests/service/test_toy_architecture.py` uses it.
"""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from descent.fields import Fraction, Width
from models.architectures import ARCHITECTURES
from models.architectures.base import Architecture
from models.nets.graph import Graph, GraphBuilder


class Gated(Architecture):
    """A layer, and beside it a block that a gate opens and closes."""

    title: ClassVar[str] = "Gated block"

    type: Literal["gated"] = "gated"
    units: Annotated[Width, Field(title="Units of the block", examples=[8])]
    dropout: Fraction = 0.0

    def graph(self, inputs: int, outputs: int) -> Graph:
        net = GraphBuilder(inputs)
        begun = net.linear(net.x, self.units)
        gate = net.add("sigmoid", net.linear(begun, self.units))
        value = net.add("dropout", net.add("tanh", begun), share=self.dropout)
        net.linear(net.add("add", begun, net.add("multiply", gate, value)), outputs)
        return net.graph()


ARCHITECTURES["gated"] = Gated
