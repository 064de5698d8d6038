"""Encoded rows and their targets, as tensors on one device."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.data import Integers, Table
from models.features.encoding import Features

#: Rows that are predicted at a time, outside of steps.
CHUNK = 16_384


@dataclass(frozen=True)
class Examples:
    """Encoded rows and their targets, on the device."""

    #: float32 (rows, width)
    x: Tensor
    #: float32 (rows, targets) for numbers, int64 (rows,) for classes
    truth: Tensor
    #: The weight of each row in the training loss, float32 (rows,); None if all rows count once.
    weights: Tensor | None = None

    @classmethod
    def load(
        cls, features: Features, table: Table, parts: Sequence[Integers], device: torch.device
    ) -> list["Examples"]:
        """Encode the rows of each part and copy them to the device; each column is read once."""
        # Encode into memory of torch, which is aligned: NumPy's alignment differs between
        # processes, and MKL's order of addition depends on it.
        encoded = [torch.empty(len(rows), features.width) for rows in parts]
        features.encode_into(
            table, [(rows, x.numpy()) for rows, x in zip(parts, encoded, strict=True)]
        )
        return [
            cls(x.to(device), aligned(features.encode_targets(table, rows)).to(device))
            for rows, x in zip(parts, encoded, strict=True)
        ]

    def __len__(self) -> int:
        return self.x.shape[0]

    def rows(self, places: Integers) -> NDArray[np.float32]:
        """Return the encoded rows at these places, (places, width)."""
        chosen = self.at(torch.from_numpy(places).to(self.x.device))
        found: NDArray[np.float32] = chosen.x.cpu().numpy()
        return found

    def at(self, places: Tensor) -> "Examples":
        """Return the rows at these places, a tensor on the same device."""
        weights = None if self.weights is None else self.weights.index_select(0, places)
        return Examples(self.x.index_select(0, places), self.truth.index_select(0, places), weights)

    def part(self, rows: slice) -> "Examples":
        """Return neighbouring rows, without copying them."""
        weights = None if self.weights is None else self.weights[rows]
        return Examples(self.x[rows], self.truth[rows], weights)

    def chunks(self) -> Iterator["Examples"]:
        """Yield the rows in parts that fit the memory of a forward pass."""
        for start in range(0, len(self), CHUNK):
            yield self.part(slice(start, start + CHUNK))


def aligned(values: NDArray[Any]) -> Tensor:
    """Copy an array into memory of torch."""
    return torch.from_numpy(values).clone()
