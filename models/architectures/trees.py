"""Boosted oblivious trees: `trees`."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from descent.fields import WHOLE
from models.architectures.base import Architecture
from models.nets.graph import MAX_DEPTH, Graph, GraphBuilder

Strength = Annotated[float, Field(ge=0, le=1000, allow_inf_nan=False)]

#: The shrinkage by the rows with a target: the more rows, the less a tree is noise.
RATES = ((1000, 0.05), (4000, 0.06))
MOST_RATE = 0.08
EPOCHS, PATIENCE = 1000, 60


class Trees(Architecture):
    """Boosted oblivious trees: each epoch adds a tree, a step against the slopes of the loss.

    After Friedman, "Greedy Function Approximation: A Gradient Boosting Machine" (2001), and
    Prokhorenkova et al., "CatBoost: unbiased boosting with categorical features" (2018), whose
    trees ask one question at each level. The learning rate of `sgd` is the shrinkage.
    """

    title: ClassVar[str] = "Boosted trees"

    type: Literal["trees"] = "trees"
    depth: Annotated[
        int,
        Field(ge=1, le=MAX_DEPTH, description="Questions of a tree; it has 2^depth leaves."),
        WHOLE,
    ] = 6
    l2: Annotated[
        Strength,
        Field(title="L2 of the leaves", description="Rows of slope 0 that each leaf has beside."),
    ] = 3.0
    bins: Annotated[
        int,
        Field(ge=2, le=256, description="Parts of a column between which a question may divide."),
        WHOLE,
    ] = 64
    bagging_temperature: Annotated[
        Strength,
        Field(
            le=10,
            description="Each tree gives the rows random weights: 0 gives all the same, 1 draws"
            " them from an exponential distribution.",
        ),
    ] = 1.0
    random_strength: Annotated[
        Strength,
        Field(description="Noise in the choice of the first trees' questions."),
    ] = 1.0

    def graph(self, inputs: int, outputs: int) -> Graph:
        return self.graph_of_run(inputs, outputs, EPOCHS, 0)

    def graph_of_run(self, inputs: int, outputs: int, epochs: int, numbers: int) -> Graph:  # noqa: ARG002
        net = GraphBuilder(inputs)
        net.add("trees", net.x, trees=epochs, depth=self.depth, outputs=outputs)
        return net.graph()

    def recipe(self, rows: int) -> Mapping[str, Any]:
        rate = next((rate for most, rate in RATES if rows < most), MOST_RATE)
        return {
            "optimizer": {"type": "sgd", "learning_rate": rate},
            "batch_size": "full",
            "epochs": EPOCHS,
            "early_stopping": {"patience": PATIENCE},
        }

    def objection(self, config: Mapping[str, Any]) -> tuple[str, str] | None:
        optimizer = config["optimizer"]
        if optimizer["type"] != "sgd":
            return "/optimizer/type", (
                f"Trees are grown by plain gradient descent, not by {optimizer['type']}: choose"
                " sgd, whose learning_rate is the shrinkage, or leave the optimizer out."
            )
        for name in ("momentum", "weight_decay"):
            if optimizer[name]:
                return f"/optimizer/{name}", (
                    f"Trees are grown without {name}, got {optimizer[name]:g}: leave it out."
                )
        if config["batch_size"] != "full":
            return "/batch_size", (
                f"Each tree is grown from all training rows, not from batches of"
                f" {config['batch_size']}: choose full, or leave batch_size out."
            )
        if config["lr_range"] is not None:
            return "/lr_range", (
                "A test of learning rates needs a net that takes many steps with few rows: leave"
                " lr_range out, or compare a few learning rates of trees in a sweep."
            )
        return None
