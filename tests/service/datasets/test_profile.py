"""The summaries of typed columns, from memory and from a file, of one column and of many."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from service.datasets.profile import BINS, FEW_ROWS, Summary, TypedTable, summarize

DRAW = np.random.default_rng(15)


def columns(rows: int) -> dict[str, tuple[str, Any]]:
    numbers = DRAW.normal(size=rows)
    days = DRAW.integers(0, 10**15, rows)
    return {
        "normal": ("number", numbers),
        "few": ("number", DRAW.integers(0, 5, rows) / 4),
        "constant": ("number", np.full(rows, 1.5)),
        "zeros": ("number", np.where(np.arange(rows) % 2, 0.0, -0.0)),
        "largest": ("number", np.where(np.arange(rows) % 2, 1.7e308, -1.7e308)),
        "smallest": ("number", np.where(np.arange(rows) % 3, 5e-324, 0.0)),
        "with missing": ("number", pa.array([None, *numbers[1:].tolist()])),
        "missing": ("number", pa.nulls(rows, pa.float64())),
        "whole": ("integer", DRAW.integers(-50, 50, rows)),
        "large": ("integer", DRAW.integers(2**62, 2**63 - 1, rows)),
        "moments": ("datetime", pa.array(days, pa.timestamp("us"))),
        "words": ("boolean", DRAW.random(rows) < 0.3),
        "texts": ("text", [f"{number:x}" for number in days.tolist()]),
        "classes": ("category", np.array(["a", "b", "ö"])[DRAW.integers(0, 3, rows)]),
    }


def summaries(folder: Path, rows: int) -> tuple[dict[str, Summary], dict[str, Summary], pa.Table]:
    made = columns(rows)
    table = pa.table({name: values for name, (_kind, values) in made.items()})
    path = folder / "table.parquet"
    pq.write_table(table, path, row_group_size=700)
    types = [kind for kind, _values in made.values()]
    held = TypedTable(path, rows, table.combine_chunks().to_batches())
    both = [summarize(each, types) for each in (held, TypedTable(path, rows))]
    first, second = (dict(zip(made, found, strict=True)) for found in both)
    return first, second, table


@pytest.mark.parametrize("rows", [2, 40, FEW_ROWS, FEW_ROWS + 500])
def test_a_table_in_memory_has_the_summaries_of_its_file(tmp_path: Path, rows: int) -> None:
    held, stored, _table = summaries(tmp_path, rows)
    for name, summary in held.items():
        other = stored[name]
        for moment in ("mean", "std"):
            one, two = getattr(summary, moment), getattr(other, moment)
            assert one == two or one == pytest.approx(two, rel=1e-12), name
            setattr(summary, moment, two)
        assert summary == other, name


@pytest.mark.parametrize("rows", [40, FEW_ROWS + 500])
def test_numbers_are_summarized_as_numpy_does(tmp_path: Path, rows: int) -> None:
    held, _stored, table = summaries(tmp_path, rows)
    for name in ("normal", "few", "whole", "with missing"):
        values, summary = table[name].drop_null().to_numpy(), held[name]
        assert summary.missing == table[name].null_count
        assert summary.distinct == len(set(values.tolist()))
        assert (summary.min, summary.max) == (values.min(), values.max())
        assert summary.mean == pytest.approx(values.mean())
        assert summary.std == pytest.approx(values.std(ddof=1))
        assert len(summary.bins) == min(BINS, summary.distinct)
        assert summary.bins == np.histogram(values, summary.edges)[0].tolist()


def test_nothing_in_a_summary_is_infinite(tmp_path: Path) -> None:
    held, stored, _table = summaries(tmp_path, 40)
    for summary in (*held.values(), *stored.values()):
        numbers = [summary.mean, summary.std, *summary.edges]
        assert all(math.isfinite(each) for each in numbers if each is not None)
