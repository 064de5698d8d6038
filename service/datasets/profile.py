"""Describes typed columns: range, mean, spread, histogram, most frequent and distinct values.

The values come from the typed table, so no text is read again. NumPy sorts the numbers of a column:
their distinct values and the histogram follow. Of texts only the distinct ones of a row group are
looked at. Counts of distinct values are exact up to MOST_KEPT of them.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq
from numpy.typing import NDArray

pc: Any = pyarrow.compute  # its stubs know no arrays of any type
BINS = 20  # of a histogram
MOST_TOP = 1000  # most frequent values of a column
TOP_OF_ALL = 200_000  # most frequent values of all columns, which bounds the size of a profile
LONGEST_TOP = 200  # characters of a frequent value; longer values are omitted
MOST_COUNTED = 100_000  # different texts whose occurrences are counted; then the rarest are omitted
MANY = 0.5  # share of different texts from which equal ones are not looked for
MOST_KEPT = 16_000_000  # distinct values up to which their number is exact
PIECE = 4_000_000  # values of a column that are sorted at a time
HELD = 16 * 1024 * 1024  # bytes of the largest typed table that stays in memory
FEW_ROWS = 1000  # up to which the columns of a table are summarized together
CELLS = 4_000_000  # numbers of the columns that are read together
MOST_CODED = 2 * 1024 * 1024  # bytes of a row group of texts that a file stores as codes
NUMERIC = frozenset({"number", "integer"})
TEXTS = frozenset({"text", "id", "category"})
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


Chunks = Callable[[], Iterator["pa.Array[Any]"]]


@dataclass
class Summary:
    """The summary of the values of a column."""

    missing: int = 0
    distinct: int = 0
    #: characters of the longest text, unless there are too many different ones to count them
    longest: int = 0
    min: Any = None
    max: Any = None
    mean: float | None = None
    std: float | None = None
    edges: list[float] = field(default_factory=list)
    bins: list[int] = field(default_factory=list)
    #: the most frequent values, None if they are too many to count
    top: list[tuple[Any, int]] | None = None

    def profile(self, kind: str, most: int) -> dict[str, Any]:
        """Return the fields of a column of this type, with so many frequent values at most."""
        found: dict[str, Any] = {"missing": self.missing, "distinct": self.distinct}
        if kind in {*NUMERIC, "datetime"}:
            found |= {"min": self.min, "max": self.max}
        if kind in NUMERIC:
            found |= {"mean": self.mean, "std": self.std}
            if self.bins:
                found["histogram"] = {"edges": self.edges, "counts": self.bins}
        is_many = kind != "category" and self.distinct > MOST_TOP
        if kind in TEXTS | {"integer", "boolean"} and self.top and not is_many:
            found["top"] = [{"value": v, "count": n} for v, n in self.top[:most]]
        return found


@dataclass
class TypedTable:
    """A typed table in its file."""

    path: Path
    rows: int = 0
    #: the table itself if it is small
    held: list[pa.RecordBatch] | None = None
    #: number of a column → the summary of its texts, if it was made while they were written
    texts: dict[int, Summary] = field(default_factory=dict)

    def keep(self, batches: list[pa.RecordBatch]) -> None:
        """Count the rows, and hold them while they are few."""
        self.rows += sum(batch.num_rows for batch in batches)
        if self.held is not None:
            held = [*self.held, *batches]
            self.held = held if sum(b.get_total_buffer_size() for b in held) <= HELD else None


def most_top(columns: int) -> int:
    """Return how many frequent values a column of a table may have."""
    return max(10, min(MOST_TOP, TOP_OF_ALL // columns))


def summarize(table: TypedTable, types: list[str], first: int = 0) -> Iterator[Summary]:
    """Yield the summary of each column of a table, from column `first` on."""
    read: dict[str, Callable[[Chunks, str], Summary]] = {
        **dict.fromkeys(["number", "integer", "datetime"], _of_numbers),
        "boolean": _of_booleans,
    }
    known_of = table.texts | _of_few(table, types)
    with _open(table, types, first) as chunks_of:
        for place, kind in enumerate(types, first):
            known = known_of.get(place)
            yield known or read.get(kind, _of_texts)(partial(chunks_of, place), kind)


@contextmanager
def _open(
    table: TypedTable, types: list[str], first: int
) -> Iterator[Callable[[int], Iterator["pa.Array[Any]"]]]:
    """Give a function that yields a column in chunks."""
    if table.held is not None:
        held = table.held
        yield lambda place: (batch.column(place) for batch in held)
        return
    kinds = dict(enumerate(types, first))
    with pq.ParquetFile(table.path) as file:
        coded = [
            file.schema_arrow.names[i] for i in kinds if kinds[i] in TEXTS and _is_coded(file, i)
        ]
    with pq.ParquetFile(table.path, read_dictionary=coded) as file:
        yield _Stored(file, kinds).chunks


def _is_coded(file: pq.ParquetFile, place: int) -> bool:
    """Return whether a column is stored as codes of its texts, which are then not too many."""
    return file.metadata.row_group(0).column(place).total_uncompressed_size <= MOST_CODED


class _Stored:
    """Reads the columns of a file, and some of numbers together: each reading has a fixed cost."""

    def __init__(self, file: pq.ParquetFile, kinds: dict[int, str]) -> None:
        self._file = file
        #: the columns of numbers, and the position of each among them
        self._numbers = [place for place, kind in kinds.items() if kind not in TEXTS]
        self._positions = {place: position for position, place in enumerate(self._numbers)}
        self._together = CELLS // max(1, file.metadata.num_rows)
        self._held: dict[int, list[pa.Array[Any]]] = {}

    def chunks(self, place: int) -> Iterator["pa.Array[Any]"]:
        if place not in self._positions or self._together < 2:
            for found in self._groups([place]):
                yield from found.column(0).chunks
            return
        if place not in self._held:
            start = self._positions[place]
            places = self._numbers[start : start + self._together]
            self._held = {each: [] for each in places}
            for found in self._groups(places):
                for each, column in zip(places, found.columns, strict=True):
                    self._held[each] += column.chunks
        yield from self._held[place]

    def _groups(self, places: list[int]) -> Iterator[pa.Table]:
        for group in range(self._file.num_row_groups):
            # By number, because a dot in a name would mean a path into a nested column.
            yield self._file.reader.read_row_group(group, column_indices=places, use_threads=False)


# ---- numbers and moments ------------------------------------------------------------------------


@dataclass
class _Spread:
    """The mean and the spread of numbers that come in pieces."""

    count: int = 0
    mean: float = 0.0
    #: sum of the squares of the differences from the mean
    squares: float = 0.0

    def add(self, values: "NDArray[Any]") -> None:
        """Chan, Golub and LeVeque, Algorithms for computing the sample variance, 1983."""
        mean = float(np.add.reduce(values, dtype=np.float64)) / len(values)
        away = values - mean
        apart, total = mean - self.mean, self.count + len(values)
        # Not `dot`, which may start threads.
        squares = float(np.add.reduce(np.square(away, out=away)))
        self.squares += squares + apart * apart * self.count * len(values) / total
        self.mean += apart * len(values) / total
        self.count = total

    def std(self) -> float | None:
        if self.count < 2:
            return 0.0 if self.count else None
        return _finite(math.sqrt(self.squares / (self.count - 1)))


@np.errstate(all="ignore")
def _of_numbers(chunks: Chunks, kind: str) -> Summary:
    summary, spread, distinct = Summary(), _Spread(), _Distinct()
    counts: Counter[Any] = Counter()
    ordered: NDArray[Any] = np.zeros(0)
    pieces = 0
    for piece in _pieces(chunks, summary):
        ordered, pieces = np.sort(piece), pieces + 1
        starts = _firsts(ordered)
        distinct.add(ordered[starts])
        if kind == "integer" and len(starts) <= MOST_TOP and len(counts) <= MOST_TOP:
            times = np.diff(np.append(starts, len(ordered)))
            counts.update(dict(zip(ordered[starts].tolist(), times.tolist(), strict=True)))
        if kind in NUMERIC:
            spread.add(piece)
        least, most = ordered[0].item(), ordered[-1].item()
        summary.min = least if summary.min is None else min(summary.min, least)
        summary.max = most if summary.max is None else max(summary.max, most)
    summary.distinct = distinct.count()
    if kind in NUMERIC and pieces:
        summary.mean, summary.std = _finite(spread.mean), spread.std()
        again = [ordered] if pieces == 1 else map(np.sort, _pieces(chunks, Summary()))
        _histogram(summary, again)
    if kind == "integer" and summary.distinct <= MOST_TOP:
        summary.top = _most_common(counts)
    if kind == "datetime":
        summary.min, summary.max = _moment(summary.min), _moment(summary.max)
    return summary


@np.errstate(all="ignore")
def _of_few(table: TypedTable, types: list[str]) -> dict[int, Summary]:
    """Return the summaries of columns of few numbers that are all present, made together.

    Otherwise each column of a wide table has a fixed cost.
    """
    if len(table.held or []) != 1 or not 1 < table.rows <= FEW_ROWS:
        return {}
    (batch,) = table.held or []
    places = [
        place
        for place, kind in enumerate(types)
        if kind == "number" and not batch.column(place).null_count
    ]
    if not places:
        return {}
    ordered = np.sort([batch.column(place).to_numpy() for place in places], axis=1)
    distinct = np.count_nonzero(ordered[:, 1:] != ordered[:, :-1], axis=1) + 1
    means = np.add.reduce(ordered, axis=1) / table.rows
    squares = np.add.reduce(np.square(ordered - means[:, None]), axis=1)
    stds = np.sqrt(squares / (table.rows - 1))
    width = (ordered[:, -1] - ordered[:, 0]) / BINS
    inner = ordered[:, :1] + width[:, None] * np.arange(1, BINS)
    below = np.array(
        [values.searchsorted(ends) for values, ends in zip(ordered, inner, strict=True)]
    )
    bins = np.diff(below, axis=1, prepend=0, append=table.rows)
    edges = np.concatenate([ordered[:, :1], inner, ordered[:, -1:]], axis=1)
    found = {}
    for number, place in enumerate(places):
        summary = found[place] = Summary(
            distinct=int(distinct[number]),
            min=ordered[number, 0].item(),
            max=ordered[number, -1].item(),
            mean=_finite(means[number].item()),
            std=_finite(stds[number].item()),
        )
        if summary.distinct >= BINS and 0 < width[number] < math.inf:
            summary.edges, summary.bins = edges[number].tolist(), bins[number].tolist()
        else:
            _histogram(summary, [ordered[number]])
    return found


def _pieces(chunks: Chunks, summary: Summary) -> Iterator["NDArray[Any]"]:
    """Yield the present numbers, and count the missing ones."""
    held: list[NDArray[Any]] = []
    size = 0
    for chunk in chunks():
        summary.missing += chunk.null_count
        values = chunk.drop_null() if chunk.null_count else chunk
        if pa.types.is_timestamp(values.type):
            values = values.cast(pa.int64())
        numbers = values.to_numpy()
        is_finite = np.isfinite(numbers)
        if not is_finite.all():
            summary.missing += int(np.count_nonzero(~is_finite))
            numbers = numbers[is_finite]
        held.append(numbers)
        size += len(numbers)
        if size >= PIECE:
            piece = np.concatenate(held)
            held, size = [], 0  # before the piece is used, which takes memory too
            yield piece
    if size:
        yield held[0] if len(held) == 1 else np.concatenate(held)


def _histogram(summary: Summary, ordered: Iterable["NDArray[Any]"]) -> None:
    least, most = float(summary.min), float(summary.max)
    bins = max(1, min(BINS, summary.distinct))
    width = (most - least) / bins
    if width <= 0 or not math.isfinite(width):
        bins, width = 1, 1.0
    inner = [least + width * step for step in range(1, bins)]
    summary.edges = [least, *inner, most]
    total = [0] * bins
    for values in ordered:
        ends = [0, *values.searchsorted(inner).tolist(), len(values)]
        total = [
            sum_ + after - before
            for sum_, (before, after) in zip(total, pairwise(ends), strict=True)
        ]
    summary.bins = total


def _moment(microseconds: int | None) -> str | None:
    if microseconds is None:
        return None
    moment = _EPOCH + timedelta(microseconds=microseconds)
    return f"{moment.replace(tzinfo=None).isoformat()}Z"


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


# ---- texts and words ----------------------------------------------------------------------------


class TextCounter:
    """Summarizes the texts of a column, which come in chunks."""

    def __init__(self, kind: str) -> None:
        """`kind` is the type of the column; of categories the most frequent are always known."""
        self._summary, self._distinct = Summary(), _Distinct()
        self._keeps_all = kind == "category"
        self._counts: Counter[Any] | None = Counter()
        #: whether most texts of a chunk differ, so that finding equal ones saves nothing
        self._are_many = False

    def add(self, chunk: "pa.Array[Any]") -> None:
        summary = self._summary
        summary.missing += chunk.null_count
        if chunk.null_count == len(chunk):
            return
        is_plain = self._are_many and not isinstance(chunk, pa.DictionaryArray)
        coded = None if is_plain else chunk.dictionary_encode()
        texts = chunk.drop_null() if coded is None else coded.dictionary
        each = texts.cast(pa.binary()).to_numpy(zero_copy_only=False).tolist()
        self._distinct.add_hashes(np.fromiter(map(hash, each), np.int64, len(each)))
        if coded is None:
            return
        self._are_many = self._counts is None and len(each) > MANY * len(chunk)
        if self._counts is not None:
            self._count(coded)

    def _count(self, coded: "pa.DictionaryArray[Any, Any]") -> None:
        """Count the occurrences of each text, while there are not too many."""
        summary, texts = self._summary, coded.dictionary
        summary.longest = max(summary.longest, pc.max(pc.utf8_length(texts)).as_py())
        each = texts.to_numpy(zero_copy_only=False).tolist()
        times = np.bincount(coded.indices.drop_null().to_numpy(), minlength=len(each))
        known: Counter[Any] = self._counts or Counter()
        for text, count in zip(each, times.tolist(), strict=True):
            if len(text) <= LONGEST_TOP:
                known[text] += count
        self._counts = known
        if not self._keeps_all and len(known) > MOST_TOP:
            self._counts = None  # they are not shown
        elif len(known) > MOST_COUNTED:
            self._counts = Counter(dict(known.most_common(MOST_COUNTED // 2)))

    def summary(self) -> Summary:
        self._summary.distinct = self._distinct.count()
        if self._counts is not None:
            self._summary.top = _most_common(self._counts)
        return self._summary


def _of_texts(chunks: Chunks, kind: str) -> Summary:
    counter = TextCounter(kind)
    for chunk in chunks():
        counter.add(chunk)
    return counter.summary()


def _of_booleans(chunks: Chunks, _kind: str) -> Summary:
    summary = Summary()
    counts: Counter[bool] = Counter()
    for chunk in chunks():
        present = len(chunk) - chunk.null_count
        true = pc.sum(chunk).as_py() or 0
        summary.missing += chunk.null_count
        counts.update({True: true, False: present - true})
    counts = +counts
    summary.distinct, summary.top = len(counts), _most_common(counts)
    return summary


def _most_common(counts: Mapping[Any, int]) -> list[tuple[Any, int]]:
    """Return the most frequent values; of equally frequent ones, by their texts."""
    items = [item for item in counts.items() if len(str(item[0])) <= LONGEST_TOP]
    return sorted(items, key=lambda item: (-item[1], str(item[0])))[:MOST_TOP]


# ---- distinct values ----------------------------------------------------------------------------


class _Distinct:
    """Counts distinct values by their hashes.

    It keeps the hashes below a limit, and halves the limit whenever they are too many: then the
    count is an estimate, with a standard error of 0.04 %.
    """

    def __init__(self) -> None:
        self._kept: list[NDArray[np.uint64]] = []
        self._size = self._halved = 0
        self._values: NDArray[Any] | None = None

    def add(self, values: "NDArray[Any]") -> None:
        """Add numbers that differ from each other."""
        if self._values is None and not self._kept:
            self._values = values  # if no others follow, they need no hashes
            return
        if self._values is not None:
            self.add_hashes(_hashes(self._values))
            self._values = None
        self.add_hashes(_hashes(values))

    def add_hashes(self, hashes: "NDArray[Any]") -> None:
        """Add hashes of 64 bits, which may repeat."""
        self._kept.append(self._low(hashes.view(np.uint64)))
        self._size += len(self._kept[-1])
        if self._size > MOST_KEPT:
            self._unite()
            while self._size > MOST_KEPT // 2:
                self._halved += 1
                self._kept = [self._low(self._kept[0])]
                self._size = len(self._kept[0])

    def count(self) -> int:
        if self._values is not None:
            return len(self._values)
        if not self._kept:
            return 0
        self._unite()
        return self._size << self._halved

    def _low(self, hashes: "NDArray[np.uint64]") -> "NDArray[np.uint64]":
        return hashes[hashes < np.uint64(2**64 - 1 >> self._halved)] if self._halved else hashes

    def _unite(self) -> None:
        ordered = np.concatenate(self._kept)
        self._kept = []
        ordered.sort()  # np.unique would hash, which is slower
        self._kept = [ordered[_are_first(ordered)]]
        self._size = len(self._kept[0])


def _firsts(ordered: "NDArray[Any]") -> "NDArray[np.int64]":
    """Return where each value of a sorted array occurs first."""
    return np.flatnonzero(_are_first(ordered))


def _are_first(ordered: "NDArray[Any]") -> "NDArray[np.bool_]":
    """Return whether each value of a sorted array differs from the one before it."""
    differs = np.ones(len(ordered), bool)
    np.not_equal(ordered[1:], ordered[:-1], out=differs[1:])
    return differs


def _hashes(values: "NDArray[Any]") -> "NDArray[np.uint64]":
    """Return well mixed bits of numbers (the finalizer of SplitMix64)."""
    bits = (values + 0).view(np.uint64)  # minus zero becomes zero
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))
