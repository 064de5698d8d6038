"""The rows of an export verification: held-out rows, else training rows, else golden rows."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from descent.spec import RunConfig
from models.data import Integers, read_rows, read_table
from models.export.card import golden_rows
from models.training.scores import split_table
from service.proofs import ways
from tests.service.proofs import proved
from tests.service.proofs.proved import FEATURES, ROWS, TYPES, Proved, houses

SPLITS: dict[str, dict[str, Any]] = {
    "random": {"validation": 0.3},
    "time": {"type": "time", "column": "sold", "validation": 0.3},
    "group": {"type": "group", "column": "größe, port", "validation": 0.3},
    "column": {"type": "column", "column": "part"},
}


def held_out(model: Proved) -> Integers:
    """Return the rows that training has held out."""
    assert model.job.table is not None
    table = read_table(model.job.table.path, TYPES, list(TYPES))
    config = RunConfig.model_validate(model.job.config)
    split = split_table(config, table)
    return np.sort(np.concatenate([split.validation, split.test]))


@pytest.mark.parametrize("split", SPLITS)
def test_held_out_rows_prove_a_version(tmp_path: Path, split: str) -> None:
    columns = houses()
    for name in ("sold", "größe, port"):  # the column that splits the rows has no missing value
        known = next(cell for cell in columns[name] if cell is not None)
        columns[name] = [known if cell is None else cell for cell in columns[name]]
    columns["price"][7] = None
    features = ["size", "count"]
    model = proved.train(tmp_path, columns, split=SPLITS[split], features=features)
    sample = model.sample()
    due = held_out(model)
    assert (sample.source, sample.rows) == ("held_out", len(due))
    assert sample.places is not None
    assert sample.places.tolist() == due.tolist()
    assert sample.columns["size"] == [columns["size"][place] for place in due]


def test_training_rows_prove_a_version_where_none_were_held_out(tmp_path: Path) -> None:
    columns = houses()
    columns["price"][7] = None
    model = proved.train(tmp_path, columns, split={"type": "none"}, features=["size"])
    sample = model.sample()
    assert (sample.source, sample.rows) == ("training", ROWS - 1)
    assert 7 not in (sample.places if sample.places is not None else [7])


def test_golden_rows_prove_a_version_whose_table_is_gone(numbers: Proved) -> None:
    sample = numbers.sample(table=None)
    assert (sample.source, sample.rows) == ("golden", len(golden_rows(numbers.predictor.features)))
    assert (sample.named(0), numbers.sample().named(0)) == ("golden row 1", "row 3 of the dataset")


def test_a_sample_has_a_most_and_is_the_same_each_time(tmp_path: Path) -> None:
    columns = {name: cells * 20 for name, cells in houses().items()}
    model = proved.train(tmp_path, columns, split={"type": "none"}, features=["size"], epochs=1)
    first, again = model.sample(), model.sample()
    assert first.rows == ways.MOST_ROWS
    assert first.columns == again.columns
    assert first.places is not None
    assert len(set(first.places.tolist())) == ways.MOST_ROWS
    assert np.all(np.diff(first.places) > 0)


def test_cells_are_what_a_client_sends_and_the_table_what_training_reads(numbers: Proved) -> None:
    sample = numbers.sample()
    assert {type(cell) for cell in sample.columns["sold"]} == {str, type(None)}
    assert {type(cell) for cell in sample.columns["is new"]} == {bool, type(None)}
    assert {type(cell) for cell in sample.columns["count"]} == {int, type(None)}
    assert numbers.job.table is not None
    whole = read_table(numbers.job.table.path, TYPES, FEATURES)
    due = whole.numbers("sold")[sample.places]
    assert sample.table.numbers("sold").tolist() == pytest.approx(due.tolist(), nan_ok=True)


def test_rows_are_read_across_batches(tmp_path: Path) -> None:
    path, names = tmp_path / "table.parquet", [f"c{place}" for place in range(400)]
    columns = np.random.default_rng(0).random((len(names), 21_000))
    pq.write_table(pa.table(dict(zip(names, columns, strict=True))), path, row_group_size=7000)
    picked = np.array([0, 6999, 7000, 9_999, 10_000, 10_001, 20_000, 20_999])
    table, cells = read_rows(path, dict.fromkeys(names, "number"), names, picked)
    assert table.numbers("c7").tolist() == columns[7][picked].tolist()
    assert cells.column("c399").to_pylist() == columns[399][picked].tolist()
