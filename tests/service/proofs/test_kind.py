"""The inputs of the process of an export verification if stored bytes are damaged or gone."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sqlalchemy import Engine, update

from service.datasets.versions import DatasetVersion
from service.jobs import queue
from service.jobs.kind import Site
from service.proofs.kind import prepare
from service.registry import versions
from service.registry.tables import ModelVersion, Proof
from service.registry.versions import ModelUnavailable
from service.storage.blobs import LocalBlobs
from service.storage.database import reading, writing
from tests.service import trained
from tests.service.batch.test_kind import flip_a_bit
from tests.service.trained import Trained

Given = tuple[Proof, ModelVersion, str]


@pytest.fixture
def given(engine: Engine, blobs: LocalBlobs, scores: Trained, tmp_path: Path) -> Given:
    """Return a claimed export verification, its version, and the digest of its table."""
    path = tmp_path / "table.parquet"
    pq.write_table(pa.table({"Quiz": [1.0, 2.0], "Final": [1.75, 3.0]}), path)
    digest, _size = blobs.put(path)
    number = trained.publish(engine, scores, "scores", is_proved=False)
    with writing(engine) as session:
        session.execute(update(DatasetVersion).values(table_sha256=digest))
        proof = queue.claim(session, Proof, "w1", lease_s=20.0, now=0.0)
        version = versions.find_version(session, "scores", number)
    assert proof is not None
    return proof, version, digest


def test_a_proof_is_given_the_table_of_its_version(
    site: Site, blobs: LocalBlobs, given: Given, tmp_path: Path
) -> None:
    proof, version, digest = given
    told = prepare(site, proof, tmp_path)
    assert (told.run_id, told.attempt) == (proof.id, 1)
    assert told.table is not None
    assert told.table.types == {"Quiz": "number", "Final": "number"}
    assert told.table.path.read_bytes() == b"".join(blobs.open(digest))
    assert told.model.read_bytes() == b"".join(blobs.open(version.sha256))
    assert told.config == version.config
    assert told.training["version"] == version.version


@pytest.mark.parametrize("is_damaged", [True, False])
def test_golden_rows_do_where_the_table_is_damaged_or_gone(
    site: Site,
    engine: Engine,
    blobs: LocalBlobs,
    given: Given,
    tmp_path: Path,
    *,
    is_damaged: bool,
) -> None:
    proof, version, digest = given
    if is_damaged:
        flip_a_bit(blobs, digest, tmp_path)
    else:
        with writing(engine) as session:
            session.merge(version).dataset_id = "ds_gone"
    assert prepare(site, proof, tmp_path).table is None


def test_a_damaged_model_is_not_proved(
    site: Site, engine: Engine, blobs: LocalBlobs, given: Given, tmp_path: Path
) -> None:
    proof, version, _digest = given
    flip_a_bit(blobs, version.sha256, tmp_path)
    with pytest.raises(ModelUnavailable) as damaged:
        prepare(site, proof, tmp_path)
    assert damaged.value.code == "checkpoint_corrupt"
    with reading(engine) as session:
        assert session.get_one(Proof, proof.id).state == "starting"
