"""Encoded rows in files, for tables that are larger than the memory.

The rows are written once, in the order of the table. An epoch visits them in windows: its order of
blocks of neighbouring rows is random, so is the order of the rows in each window, and both are pure
functions of the seed and the epoch. A window begins with a batch, so a training resumes at any
batch with one window read again. Rows are read into buffers: pages of a mapped file would count as
memory of the process.
"""

import errno
import os
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO, Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.data import Integers, Table, generator
from models.engine import CHUNK
from models.engine.examples import Examples
from models.errors import StorageFull
from models.features.encoding import Features

T = TypeVar("T")
#: Neighbouring rows that stay together in the order of an epoch, up to the window.
BLOCK = 2048
#: Bytes of the rows of a window, unless a batch has more. Two windows are in memory.
WINDOW_BYTES = 64 * 1024 * 1024
#: Bytes of the disk that the rows leave free, for checkpoints.
RESERVE_BYTES = 64 * 1024 * 1024
#: The random streams of the windows; epochs have those below.
STREAM, WINDOWS = 2**62, 2**30


class StoredExamples:
    """Encoded rows and their targets in files without a name, which end with the process."""

    def __init__(self, folder: Path, like: Examples, device: torch.device) -> None:
        """Make empty files in the folder; `like` shows the shape of a row."""
        self.device = device
        self._like = like
        self._files = [tempfile.TemporaryFile(dir=folder) for _ in _arrays(like)]  # noqa: SIM115  `_end` closes them
        self._end = weakref.finalize(self, _close, self._files)
        self._rows = 0

    @classmethod
    def load(
        cls,
        features: Features,
        table: Table,
        parts: Sequence[Integers],
        weights: NDArray[np.float32] | None,
        folder: Path,
        device: torch.device,
    ) -> list["StoredExamples"]:
        """Encode the rows of each part into files; `weights` are those of the first part.

        Raises `StorageFull`.
        """
        likes = [Examples.empty(features, 0) for _ in parts]
        if weights is not None:
            likes[0] = replace(likes[0], weights=torch.empty(0))
        stored = [cls(folder, like, device) for like in likes]
        with _full_disk():
            pairs = zip(stored, parts, strict=True)
            _check_space(folder, sum(each.row_bytes * len(rows) for each, rows in pairs))
            for blocks in features.encode_parts(table, parts):
                for place, (x, truth) in enumerate(blocks):
                    own = None
                    if weights is not None and not place:
                        own = torch.from_numpy(weights[len(stored[0]) :][: len(x)])
                    rows = Examples(torch.from_numpy(x), torch.from_numpy(truth), own)
                    stored[place].append(rows)
            for each in stored:
                each.seal()
        return stored

    def append(self, rows: Examples) -> None:
        """Write more rows. Raises OSError, for example for a full disk."""
        if not len(rows):  # an empty array has no bytes to view
            return
        for file, array in zip(self._files, _arrays(rows), strict=True):
            file.write(np.ascontiguousarray(array).data.cast("B"))
        self._rows += len(rows)

    def seal(self) -> None:
        """Make the rows readable, once all are written."""
        for file in self._files:
            file.flush()

    def close(self) -> None:
        """Remove the files. They also end with the last use of this object."""
        self._end()

    def __len__(self) -> int:
        return self._rows

    @property
    def row_bytes(self) -> int:
        """The bytes of a row with its target and its weight."""
        return sum(_bytes_of(array) for array in _arrays(self._like))

    def rows(self, places: Integers) -> NDArray[np.float32]:
        """Return the encoded rows at these places, (places, width)."""
        found = self._buffer(len(places))
        for at, place in enumerate(places.tolist()):
            self._read(place, place + 1, found, at)
        x: NDArray[np.float32] = found.x.numpy()
        return x

    def pieces(self) -> Iterator[Examples]:
        """Yield all rows in their order, in parts that take little memory.

        A part is overwritten when the next one is asked for.
        """
        size = max(1, WINDOW_BYTES // self.row_bytes)
        size = max(size - size % CHUNK, min(size, CHUNK))
        starts = range(0, self._rows, size)
        buffers = self._buffers(min(size, self._rows))

        def read(start: int) -> Examples:
            end = min(start + size, self._rows)
            part = _part(next(buffers), end - start)
            self._read(start, end, part, 0)
            return part

        for part in _ahead(read, starts):
            yield self._on_device(part)

    def windows(
        self, seed: int, epoch: int, size: int, begin: int
    ) -> Iterator[tuple[Examples, NDArray[np.int64], int]]:
        """Yield the rows of each window of an epoch, their order and the window's first place.

        A window has `size` rows, the last one may have fewer. `begin` is the number of the first
        window. The rows of a window are overwritten when the next one is asked for.
        """
        blocks = -(-self._rows // BLOCK)
        order = generator(seed, epoch).permutation(blocks)
        sizes = np.minimum(BLOCK, self._rows - order * BLOCK)
        buffers = self._buffers(min(size, self._rows))

        def read(number: int) -> tuple[Examples, NDArray[np.int64], int]:
            first, last = number * size, min((number + 1) * size, self._rows)
            part, at = _part(next(buffers), last - first), 0
            # In the order of the file, so that the disk reads forward.
            for start, end in sorted(_runs(order, sizes, first, last)):
                self._read(start, end, part, at)
                at += end - start
            stream = STREAM + epoch * WINDOWS + number
            return part, generator(seed, stream).permutation(last - first), first

        for part, places, first in _ahead(read, range(begin, -(-self._rows // size))):
            yield self._on_device(part), places, first

    def _buffers(self, rows: int) -> Iterator[Examples]:
        """Yield two buffers in turn."""
        pair = [self._buffer(rows), self._buffer(rows)]
        while True:
            yield from pair

    def _buffer(self, rows: int) -> Examples:
        """Return memory of torch for so many rows; its alignment is that of all trainings."""
        like = self._like

        def empty(tensor: Tensor) -> Tensor:
            return torch.empty((rows, *tensor.shape[1:]), dtype=tensor.dtype)

        weights = None if like.weights is None else empty(like.weights)
        return Examples(empty(like.x), empty(like.truth), weights)

    def _read(self, start: int, end: int, into: Examples, at: int) -> None:
        """Read neighbouring rows to the place `at` of a buffer."""
        for file, array in zip(self._files, _arrays(into), strict=True):
            part = array[at : at + end - start].data.cast("B")
            place, done = start * _bytes_of(array), 0
            while done < len(part):  # a call reads 2 GiB at most
                read = os.preadv(file.fileno(), [part[done:]], place + done)
                if not read:
                    raise OSError(f"a scratch file ends before row {end}")
                done += read

    def _on_device(self, rows: Examples) -> Examples:
        if self.device.type == "cpu":
            return rows
        weights = None if rows.weights is None else rows.weights.to(self.device)
        return Examples(rows.x.to(self.device), rows.truth.to(self.device), weights)


@contextmanager
def _full_disk() -> Iterator[None]:
    """Raise `StorageFull` if the disk is full."""
    try:
        yield
    except OSError as error:
        if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
            raise
        detail = "the worker's disk became full while the rows were encoded: free space on it"
        raise StorageFull(detail) from error


def _check_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free - RESERVE_BYTES:
        raise StorageFull(
            f"the encoded rows need {needed:,} bytes on the worker's disk, which has {free:,} free:"
            " free space, or use a worker with more memory or disk"
        )


def _close(files: Sequence[IO[bytes]]) -> None:
    for file in files:
        file.close()


def window_rows(batch: int, row_bytes: int, window_bytes: int = WINDOW_BYTES) -> int:
    """Return the rows of a window: a multiple of the batch, at least one batch."""
    return max(1, window_bytes // (row_bytes * batch)) * batch


def _runs(order: Integers, sizes: Integers, first: int, last: int) -> Iterator[tuple[int, int]]:
    """Yield the first row and the end of each piece of a block between two places of the order."""
    ends = np.cumsum(sizes)
    at = int(np.searchsorted(ends, first, "right"))
    while first < last:
        begin, stop = int(ends[at] - sizes[at]), min(int(ends[at]), last)
        row = int(order[at]) * BLOCK
        yield row + first - begin, row + stop - begin
        first, at = stop, at + 1


def _ahead(read: Callable[[int], T], numbers: Sequence[int]) -> Iterator[T]:
    """Yield what `read` returns for each number; a thread reads the next one meanwhile."""
    with ThreadPoolExecutor(1, thread_name_prefix="read") as thread:
        waiting = [thread.submit(read, number) for number in numbers[:1]]
        for number in numbers[1:]:
            found = waiting.pop().result()
            waiting.append(thread.submit(read, number))
            yield found
        for last in waiting:
            yield last.result()


def _arrays(rows: Examples) -> list[NDArray[Any]]:
    tensors = [rows.x, rows.truth, *([] if rows.weights is None else [rows.weights])]
    return [tensor.numpy() for tensor in tensors]


def _bytes_of(array: NDArray[Any]) -> int:
    """Return the bytes of a row of an array."""
    return int(np.prod(array.shape[1:])) * array.itemsize


def _part(rows: Examples, count: int) -> Examples:
    """Return the first rows of a buffer."""
    weights = None if rows.weights is None else rows.weights[:count]
    return Examples(rows.x[:count], rows.truth[:count], weights)
