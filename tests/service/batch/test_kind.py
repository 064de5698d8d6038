"""The inputs of a process of a batch prediction if stored bytes are damaged."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sqlalchemy import Engine

from descent.schemas import BatchPredictionRequest
from service.batch import lifecycle
from service.batch.kind import prepare
from service.batch.lifecycle import BatchPrediction, Chunk, make_order
from service.datasets.versions import DatasetUnavailable, DatasetVersion
from service.jobs import life, queue
from service.jobs.kind import Site
from service.registry import versions
from service.registry.versions import ModelUnavailable
from service.storage import references
from service.storage.blobs import LocalBlobs
from service.storage.database import reading, writing
from tests.service.rows import add_dataset

COUNTS = {"errors": 1, "warnings": {}}


@pytest.fixture
def job(
    engine: Engine, blobs: LocalBlobs, boats_without_a_worker: str, tmp_path: Path
) -> BatchPrediction:
    """Return a claimed job with three chunks of an earlier attempt."""
    table = tmp_path / "table.parquet"
    pq.write_table(pa.table({"Age": [22.0, 38.0]}), table)
    digest, _size = blobs.put(table)
    with writing(engine) as session:
        columns = [{"name": "Age", "type": "number", "role": "feature", "missing": 0}]
        dataset = add_dataset(session, columns)
        session.get_one(DatasetVersion, (dataset, 1)).table_sha256 = digest
        session.flush()
        asked = BatchPredictionRequest(model=boats_without_a_worker, dataset=dataset)
        lifecycle.submit(session, make_order(session, asked, 100))
        claimed = queue.claim(session, BatchPrediction, "w1", lease_s=20.0, now=0.0)
    assert claimed is not None
    for number in (1, 2, 3):
        path = tmp_path / f"chunk-{number}"
        path.write_text(f"chunk {number}")
        with references.stored(engine, blobs, path) as held, writing(engine) as session:
            lifecycle.add_chunk(session, claimed.id, 1, Chunk(number, 1, COUNTS), held)
            references.keep(session, held)
    with reading(engine) as session:
        return life.get(session, BatchPrediction, claimed.id)


def flip_a_bit(blobs: LocalBlobs, sha256: str, folder: Path) -> None:
    path = blobs.fetch(sha256, folder)
    content = bytearray(path.read_bytes())
    content[0] ^= 1
    path.write_bytes(content)


def test_the_next_attempt_is_given_the_chunks_that_are_done(
    site: Site, blobs: LocalBlobs, job: BatchPrediction, tmp_path: Path
) -> None:
    told = prepare(site, job, tmp_path)
    assert [path.read_text() for path in told.done] == ["chunk 1", "chunk 2", "chunk 3"]
    assert told.types == {"Age": "number"}


def test_a_damaged_chunk_is_made_again_with_those_behind_it(
    site: Site, blobs: LocalBlobs, job: BatchPrediction, tmp_path: Path
) -> None:
    with reading(site.engine) as session:
        digest = lifecycle.chunks_of(session, job.id)[1].sha256
    flip_a_bit(blobs, digest, tmp_path)
    told = prepare(site, job, tmp_path)
    assert [path.read_text() for path in told.done] == ["chunk 1"]
    with reading(site.engine) as session:
        assert len(lifecycle.chunks_of(session, job.id)) == 1
        assert life.get(session, BatchPrediction, job.id).counts["errors"] == 1


def test_a_damaged_model_predicts_nothing(
    site: Site, blobs: LocalBlobs, job: BatchPrediction, tmp_path: Path
) -> None:
    with reading(site.engine) as session:
        target = versions.target_of_version(session, job.model_name, job.model_version)
    flip_a_bit(blobs, target.sha256, tmp_path)
    with pytest.raises(ModelUnavailable) as damaged:
        prepare(site, job, tmp_path)
    assert damaged.value.code == "checkpoint_corrupt"


def test_a_damaged_table_is_no_dataset_any_more(
    site: Site, blobs: LocalBlobs, job: BatchPrediction, tmp_path: Path
) -> None:
    with reading(site.engine) as session:
        version = session.get_one(DatasetVersion, (job.dataset_id, 1))
    assert version.table_sha256 is not None
    flip_a_bit(blobs, version.table_sha256, tmp_path)
    with pytest.raises(DatasetUnavailable) as damaged:
        prepare(site, job, tmp_path)
    assert damaged.value.code == "dataset_unavailable"
