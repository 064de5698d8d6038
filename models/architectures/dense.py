"""Stacks of linear layers, activations and dropout: `linear`, `mlp`, `layers`."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Discriminator, Field, Tag

from descent.fields import (
    MAX_LAYERS,
    WHOLE,
    Fraction,
    Strict,
    Width,
    name_object_defaults,
    with_type,
)
from models.architectures.base import Architecture
from models.nets.graph import MAX_BINS, MAX_SIZE, Activation, Graph, GraphBuilder, chain


class Linear(Architecture):
    """`y = Wx + b`: no hidden layer."""

    title: ClassVar[str] = "Linear model"

    type: Literal["linear"] = "linear"

    def graph(self, inputs: int, outputs: int) -> Graph:
        return chain(inputs, [{"linear": outputs}])


class NoEmbedding(Strict):
    """Each number is one input of the net."""

    type: Literal["none"] = "none"


class PiecewiseLinearEmbedding(Strict):
    """Beside each number, small linear maps of its shares of bins between quantiles, with ReLU.

    After Gorishniy, Rubachev and Babenko, "On Embeddings for Numerical Features in Tabular Deep
    Learning" (2022).
    """

    type: Literal["piecewise_linear"] = "piecewise_linear"
    bins: Annotated[
        int,
        Field(
            ge=1,
            le=MAX_BINS,
            description="Parts of a column with equally many training rows; fewer where values"
            " repeat.",
        ),
        WHOLE,
    ] = 16
    size: Annotated[
        int, Field(ge=1, le=MAX_SIZE, description="Numbers that each column becomes."), WHOLE
    ] = 8


Embedding = Annotated[
    Annotated[NoEmbedding | PiecewiseLinearEmbedding, Field(discriminator="type")],
    with_type("piecewise_linear"),
]


class Mlp(Architecture):
    """Hidden layers of the given widths, each followed by the activation and dropout."""

    model_config = ConfigDict(json_schema_extra=name_object_defaults)
    title: ClassVar[str] = "Multilayer perceptron"

    type: Literal["mlp"] = "mlp"
    hidden: Annotated[
        list[Width],
        Field(
            min_length=1,
            max_length=MAX_LAYERS,
            title="Hidden layers",
            description="Units per hidden layer.",
        ),
    ] = [64, 64]  # noqa: RUF012  pydantic copies it
    activation: Activation = "relu"
    dropout: Fraction = 0.0
    embedding: Annotated[
        Embedding,
        Field(
            title="Embedding of numbers",
            description="How the net reads columns of numbers and times.",
        ),
    ] = NoEmbedding()

    def graph(self, inputs: int, outputs: int) -> Graph:
        return self.graph_of_run(inputs, outputs, 0, inputs)

    def graph_of_run(self, inputs: int, outputs: int, epochs: int, numbers: int) -> Graph:  # noqa: ARG002
        layers: list[Any] = []
        for width in self.hidden:
            layers += [{"linear": width}, self.activation]
            if self.dropout:
                layers.append({"dropout": self.dropout})
        net = GraphBuilder(inputs)
        x = net.x
        if isinstance(self.embedding, PiecewiseLinearEmbedding) and numbers:
            bins, size = self.embedding.bins, self.embedding.size
            x = net.add("piecewise_linear", x, numbers=numbers, bins=bins, size=size)
        net.stack(x, [*layers, {"linear": outputs}])
        return net.graph()


class LinearLayer(Strict):
    """A fully connected layer with this number of units."""

    linear: Annotated[Width, Field(examples=[16])]


class DropoutLayer(Strict):
    """Sets this share of the activations to zero during training."""

    dropout: Annotated[Fraction, Field(examples=[0.1])]


def _layer_kind(value: object) -> str | None:
    if isinstance(value, str):
        return "activation"
    if isinstance(value, LinearLayer) or (isinstance(value, dict) and "linear" in value):
        return "linear"
    if isinstance(value, DropoutLayer) or (isinstance(value, dict) and "dropout" in value):
        return "dropout"
    return None


# The discriminator lets a wrong layer cause one error, not one for each kind of layer.
Layer = Annotated[
    Annotated[LinearLayer, Tag("linear")]
    | Annotated[DropoutLayer, Tag("dropout")]
    | Annotated[Activation, Tag("activation")],
    Discriminator(
        _layer_kind,
        custom_error_type="layer",
        custom_error_message=(
            'a layer is {"linear": 32}, {"dropout": 0.1} or an activation such as "relu"'
        ),
    ),
]


class Layers(Architecture):
    """Hidden layers, listed one by one; the output layer is added."""

    title: ClassVar[str] = "Custom layers"

    type: Literal["layers"] = "layers"
    layers: Annotated[
        list[Layer],
        Field(
            min_length=1,
            max_length=4 * MAX_LAYERS,
            examples=[[{"linear": 16}, "relu"]],
        ),
    ]

    def graph(self, inputs: int, outputs: int) -> Graph:
        hidden = [layer if isinstance(layer, str) else layer.model_dump() for layer in self.layers]
        return chain(inputs, [*hidden, {"linear": outputs}])
