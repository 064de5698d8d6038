"""Writes the typed table of a stage in one pass, and counts the cells that do not fit.

If the sample was wrong about a column, the pass is repeated with a better reading.
"""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq

from models.data import release
from models.reading import Reading
from service.datasets.cells import STORED, Cells, ColumnReader
from service.datasets.infer import EXACT, LABELS, Counts, InferredColumn, text_of
from service.datasets.profile import TextCounter, TypedTable
from service.datasets.staging import WIDE, Stage

pc: Any = pyarrow.compute  # its stubs know no arrays of any type
ROW_GROUP = 100_000  # rows
GROUP_BYTES = 32 * 1024 * 1024  # after which a row group ends
CONVERTED = 4_000  # rows, or so many bytes of texts, that are converted at a time
FEW_ROWS = 1000  # up to which columns that are read alike are read together
TEXTUAL = frozenset({"text", "category"})  # kinds of columns of texts
CONVERTED_BYTES = 16 * 1024 * 1024
EXAMPLES = 200  # different cells that did not fit, which may join the sample
LONGEST = 200  # characters of these: no number or date is longer


def write_typed(stage: Stage, columns: list[InferredColumn], target: Path) -> TypedTable:
    """Write the table, and count what its cells show.

    The table is incomplete if some column needs another reading: see `InferredColumn.is_wrong`.
    """
    table = TypedTable(target, held=[])
    passes = [_Pass(column, frozenset(stage.missing)) for column in columns]
    schema = pa.schema([(c.name, STORED.get(c.type, pa.string())) for c in columns])
    # A context of zstd for each of many columns takes longer than their bytes.
    compression: Any = "lz4" if len(columns) > WIDE else "zstd"
    coded: Any = [c.name for c in columns if c.type not in {"number", "integer"}]
    file = pq.ParquetWriter(
        target,
        schema,
        compression=compression,
        compression_level=1 if compression == "zstd" else None,
        use_dictionary=coded,
        write_statistics=False,
    )
    with file as writer, closing(_Groups(writer, is_wide=len(columns) > WIDE)) as groups:
        for batches in _together(_typed(stage, passes, schema), ROW_GROUP, GROUP_BYTES):
            if not any(column.is_wrong for column in columns):
                groups.write(batches)
            table.keep(batches)
    counters = enumerate(each.texts for each in passes)
    table.texts = {place: each.summary() for place, each in counters if each is not None}
    return table


class _Groups:
    """Writes row groups, each in a thread while the next one is converted.

    The only group of a small table needs no thread, and those of a wide one take much memory.
    """

    def __init__(self, writer: pq.ParquetWriter, *, is_wide: bool) -> None:
        self._writer, self._is_wide = writer, is_wide
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="write")
        self._last: Future[None] | None = None
        self._next: list[pa.RecordBatch] | None = None

    def write(self, batches: list[pa.RecordBatch]) -> None:
        """Write the group before this one, or this one if the table is wide."""
        if self._is_wide:
            self._write(batches)
            return
        self._wait()
        if self._next is not None:
            release()  # of the group before the last; else the freed memory of each would be kept
            self._last = self._thread.submit(self._write, self._next)
        self._next = batches

    def close(self) -> None:
        """Write the last group. No thread writes afterwards."""
        self._wait()
        if self._next is not None:
            self._write(self._next)
        self._thread.shutdown()

    def _wait(self) -> None:
        last, self._last = self._last, None
        if last is not None:
            last.result()

    def _write(self, batches: list[pa.RecordBatch]) -> None:
        self._writer.write_table(pa.Table.from_batches(batches), ROW_GROUP)


def _typed(stage: Stage, passes: list["_Pass"], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    # The conversion of each column has a fixed cost too.
    for batches in _together(stage.batches(), CONVERTED, CONVERTED_BYTES):
        arrays = _joined(batches)
        if len(arrays[0]) <= FEW_ROWS:
            found = _read_alike(passes, arrays)
        else:
            found = [each.take(cells) for each, cells in zip(passes, arrays, strict=True)]
        yield pa.RecordBatch.from_arrays(found, schema=schema)


def _read_alike(passes: list["_Pass"], arrays: list["pa.Array[Any]"]) -> list["pa.Array[Any]"]:
    """Return the values of columns of few cells: those with the same reading are read together."""
    rows = len(arrays[0])
    groups: dict[tuple[str, Reading], list[int]] = {}
    for place, each in enumerate(passes):
        groups.setdefault(each.alike, []).append(place)
    found = list(arrays)
    for places in groups.values():
        whole = passes[places[0]].read(pa.concat_arrays([arrays[place] for place in places]))
        for start, place in enumerate(places):
            part = whole.part(start * rows, rows)
            # How many of these cells are not finite is known of the whole only.
            again = passes[place].read(arrays[place]) if whole.not_finite else part
            found[place] = passes[place].note(arrays[place], again)
    return found


def _joined(batches: list[pa.RecordBatch]) -> list["pa.Array[Any]"]:
    if len(batches) == 1:
        return list(batches[0].columns)
    whole = pa.Table.from_batches(batches).combine_chunks()
    return [column.chunks[0] for column in whole.columns]


def _together(
    batches: Iterator[pa.RecordBatch], most_rows: int, most_bytes: int
) -> Iterator[list[pa.RecordBatch]]:
    """Yield batches together that have so many rows or bytes."""
    held: list[pa.RecordBatch] = []
    rows = size = 0
    for batch in batches:
        held.append(batch)
        rows += batch.num_rows
        size += batch.get_total_buffer_size()  # `nbytes` visits each column
        if rows >= most_rows or size >= most_bytes:
            yield held
            held, rows, size = [], 0, 0
    if rows:
        yield held


class _Pass:
    """Reads the batches of one column, and counts."""

    def __init__(self, column: InferredColumn, nulled: frozenset[str]) -> None:
        self._column = column
        self._rows = 0
        column.counts = Counts()
        reader = partial(ColumnReader, nulled=nulled)
        self._reader = reader(column.reading)
        self._near = reader(column.near) if column.near else None
        self._rival = reader(column.rival) if column.rival else None
        self._expected = reader(column.expected) if column.expected else None
        self.texts = TextCounter(column.type) if column.type in LABELS else None

    @property
    def alike(self) -> tuple[str, Reading]:
        """The kind and the reading, which columns share that are read together."""
        return self._column.kind, self._column.reading

    def take(self, cells: "pa.Array[Any]") -> "pa.Array[Any]":
        """Return the values of the next batch."""
        return self.note(cells, self.read(cells))

    def read(self, cells: "pa.Array[Any]") -> Cells:
        """Return the cells of a batch as values."""
        column = self._column
        if column.kind in TEXTUAL:
            return self._reader.read(cells)
        return _converted(cells, column.kind, column.reading, self._reader)

    def note(self, cells: "pa.Array[Any]", found: Cells) -> "pa.Array[Any]":
        """Count what the next batch shows; return its values."""
        column, counts = self._column, self._column.counts
        if column.kind in TEXTUAL:
            self._count_texts(found.texts)
        if found.unfit is not None:
            self._note_unfit(found.texts, found.unfit)
        unfit = 0 if found.unfit is None else pc.sum(found.unfit).as_py() or 0
        counts.present += len(cells) - found.values.null_count + unfit + found.not_finite
        counts.not_finite += found.not_finite
        if column.is_whole and pa.types.is_integer(cells.type):
            _count_integers(counts, cells)
        elif column.is_whole and column.type == "integer":
            _count_integers(counts, found.values)
        if self.texts is not None:
            self.texts.add(found.values)
        self._rows += len(cells)
        return found.values

    def _count_texts(self, cells: "pa.Array[Any]") -> None:
        column, counts = self._column, self._column.counts
        if column.is_unseen:
            self._add_examples(cells)
        if column.is_whole:
            is_long = pc.greater(pc.binary_length(cells), 1)
            counts.zeros += _count(pc.and_(pc.starts_with(cells, "0"), is_long))
        if self._expected is not None:
            fits = self._expected.fits(cells)
            self._note_unfit(cells, pc.and_not(pc.is_valid(cells), fits))
            _count_codes(counts, pc.filter(cells, fits), column.reading)
        if self._rival is not None:
            counts.not_rival += _count(pc.and_not(pc.is_valid(cells), self._rival.fits(cells)))
        if self._near is not None:
            misses = pc.and_not(pc.is_valid(cells), self._near.fits(cells))
            counts.not_near += _count(misses)
            if counts.first_not_near is None:
                counts.first_not_near = self._first(cells, misses)

    def _note_unfit(self, cells: "pa.Array[Any]", unfit: "pa.Array[Any]") -> None:
        counts = self._column.counts
        found = _count(unfit)
        if not found:
            return
        counts.unfit += found
        if counts.first_unfit is None:
            counts.first_unfit = self._first(cells, unfit)
        self._add_examples(pc.filter(cells, unfit))

    def _add_examples(self, cells: "pa.Array[Any]") -> None:
        examples = self._column.counts.examples
        if len(examples) < EXAMPLES and len(cells) > cells.null_count:
            found = pc.unique(cells.drop_null()).slice(0, EXAMPLES)
            found = pc.utf8_slice_codeunits(found, 0, LONGEST)
            examples.update(dict.fromkeys(map(str, found.to_pylist())))

    def _first(self, cells: "pa.Array[Any]", where: "pa.Array[Any]") -> tuple[int, str] | None:
        place = pc.index(where, value=True).as_py()
        return None if place < 0 else (self._rows + place + 1, cells[place].as_py())


def _count(where: "pa.Array[Any]") -> int:
    found: int | None = pc.sum(where).as_py()
    return found or 0


def _count_integers(counts: Counts, values: "pa.Array[Any]") -> None:
    ends = pc.min_max(values)
    least, most = ends["min"].as_py(), ends["max"].as_py()
    if least is None:
        return
    counts.has_signs |= least < 0
    if least <= -EXACT or most >= EXACT:
        inside = pc.and_(pc.greater(values, -EXACT), pc.less(values, EXACT))
        counts.beyond += _count(pc.invert(inside))


def _count_codes(counts: Counts, cells: "pa.Array[Any]", reading: Reading) -> None:
    """Count what whole numbers show that are stored as texts."""
    found = ColumnReader(replace(reading, type="number")).read(cells)
    values = np.abs(found.values.to_numpy(zero_copy_only=False))
    counts.beyond += found.not_finite + int(np.count_nonzero(values >= EXACT))
    counts.fits_int64 &= not found.not_finite and not np.any(values >= 2.0**63)
    counts.has_signs |= bool(_count(pc.match_substring_regex(cells, "^-")))


# ---- columns that have a type in the file -------------------------------------------------------


def _converted(cells: "pa.Array[Any]", kind: str, reading: Reading, reader: ColumnReader) -> Cells:
    """Return the values of a column of numbers, booleans or moments as another type."""
    if kind == "number":
        cells = _without(cells, pc.invert(pc.is_finite(cells)))
    if kind in {"number", "integer"} and (marks := sorted(reading.missing_numbers)):
        markers = pa.array(marks, pa.float64()).cast(cells.type, safe=False)
        cells = _without(cells, pc.is_in(cells, value_set=markers))
    if kind == reading.type:
        return Cells(cells, cells)
    if kind in {"integer", "boolean"} and reading.type == "number":
        return Cells(cells, cells.cast(pa.float64(), safe=False))
    return reader.read(_as_texts(cells))


def _without(cells: "pa.Array[Any]", absent: "pa.Array[Any]") -> "pa.Array[Any]":
    found: pa.Array[Any] = pc.if_else(absent, pa.scalar(None, cells.type), cells)
    return found


def _as_texts(cells: "pa.Array[Any]") -> "pa.Array[Any]":
    """Return the values as the texts of categories."""
    if pa.types.is_string(cells.type):
        return cells
    if pa.types.is_integer(cells.type):
        return cells.cast(pa.string())
    coded = cells.dictionary_encode()
    texts = pa.array([text_of(value) for value in coded.dictionary.to_pylist()], pa.string())
    return texts.take(coded.indices)
