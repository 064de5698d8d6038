"""Dropout whose masks are a function of the seed and the place of each activation.

No state is kept, so a resumed training has the same masks, and every engine has them too. The hash
is "lowbias32" by Chris Wellons ("Prospecting for Hash Functions", 2018) with a key added before and
in its middle; the key comes from the finalizer of SplitMix64 (Steele, Lea and Flood, 2014).
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

#: Odd multipliers that keep seeds, steps and layers apart.
SEED, STEP, LAYER = 0x9E3779B97F4A7C15, 0xD1B54A32D192ED03, 0x8CB92BA72F3D8DD7
PLACE = np.uint32(0x9E3779B9)
WORD = 2**64 - 1


def keys(seed: int, step: int, layer: int) -> tuple[int, int]:
    """Return the two 32-bit keys of the masks of a layer in a step."""
    z = (seed * SEED + step * STEP + layer * LAYER) & WORD
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & WORD
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & WORD
    z ^= z >> 31
    return z & 0xFFFFFFFF, z >> 32


def is_kept(
    seed: int, steps: Sequence[int], layer: int, rows: range, units: int, share: float
) -> NDArray[np.bool_]:
    """Return which activations dropout keeps, (units, steps, rows).

    `rows` are the places of the rows in their batch; `share` is the share that is set to zero.
    """
    both = np.array([keys(seed, step, layer) for step in steps], np.uint32).reshape(-1, 2)
    place = np.arange(units, dtype=np.uint32)[:, None]
    place = place + np.arange(rows.start, rows.stop, dtype=np.uint32) * np.uint32(units)
    x = (place * PLACE)[:, None, :] + both[None, :, :1]
    x ^= x >> np.uint32(16)
    x *= np.uint32(0x21F0AAAD)
    x ^= x >> np.uint32(15)
    x ^= both[None, :, 1:]
    x *= np.uint32(0x735A2D97)
    x ^= x >> np.uint32(15)
    kept: NDArray[np.bool_] = x >= np.uint32(int(share * 2**32))
    return kept


class Dropout(nn.Module):
    """Sets a share of the activations, (rows, units), to zero during training."""

    def __init__(self, share: float, layer: int) -> None:
        super().__init__()
        self.share, self.layer = share, layer

    def forward(self, x: Tensor) -> Tensor:
        """Apply the mask that `draw` told; outside of training return the activations."""
        if not self.training:
            return x
        seed, step = self.place
        kept = is_kept(seed, [step], self.layer, range(len(x)), x.shape[1], self.share)[:, 0].T
        mask = torch.from_numpy(kept).to(x.device, x.dtype)
        return x * mask.mul_(1 / (1 - self.share))

    def draw(self, seed: int, step: int) -> None:
        """Set the masks to those of a step."""
        self.place = seed, step
