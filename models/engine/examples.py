"""Encoded rows and their targets, as tensors on one device."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.data import Integers, Table
from models.engine import CHUNK
from models.features.encoding import Features
from models.features.targets import ClassTarget


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
    def empty(cls, features: Features, rows: int) -> "Examples":
        """Return memory for so many rows. That of torch is aligned alike in every process."""
        # NumPy's alignment differs between processes, and MKL's order of addition depends on it.
        outputs = features.outputs
        is_class = isinstance(features.target, ClassTarget)
        truth = torch.empty(rows, dtype=torch.int64) if is_class else torch.empty(rows, outputs)
        return cls(torch.empty(rows, features.width), truth)

    @classmethod
    def load(
        cls, features: Features, table: Table, parts: Sequence[Integers], device: torch.device
    ) -> list["Examples"]:
        """Encode the rows of each part and copy them to the device; each column is read once."""
        loaded = [cls.empty(features, len(rows)) for rows in parts]
        done = [0] * len(parts)
        for blocks in features.encode_parts(table, parts):
            for place, (x, truth) in enumerate(blocks):
                here = slice(done[place], done[place] + len(x))
                loaded[place].x.numpy()[here] = x
                loaded[place].truth.numpy()[here] = truth
                done[place] = here.stop
        return [cls(rows.x.to(device), rows.truth.to(device)) for rows in loaded]

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

    def pieces(self) -> Iterator["Examples"]:
        """Yield all rows at once; rows in files come in several parts."""
        yield self

    def chunks(self) -> Iterator["Examples"]:
        """Yield the rows in parts that fit the memory of a forward pass."""
        for start in range(0, len(self), CHUNK):
            yield self.part(slice(start, start + CHUNK))


def aligned(values: NDArray[Any]) -> Tensor:
    """Copy an array into memory of torch."""
    return torch.from_numpy(values).clone()
