"""The cache loads predictors once, verifies them, and keeps within its limits."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from models import checkpoint
from models.predict.predictor import Predictor
from service.predict.directory import Predictors
from service.registry.serving import ModelDamaged
from service.storage.blobs import LocalBlobs
from tests.service import trained

Put = Callable[[float], tuple[str, int]]


@pytest.fixture
def blobs(tmp_path: Path) -> LocalBlobs:
    return LocalBlobs(tmp_path / "blobs")


@pytest.fixture
def put(blobs: LocalBlobs, tmp_path: Path) -> Put:
    def put_one(bias: float) -> tuple[str, int]:
        saved = trained.scores()
        saved["tensors"]["net.0.bias"] += bias
        file = tmp_path / "file"
        checkpoint.write(file, saved["tensors"], saved["document"])
        return blobs.put(file)

    return put_one


def test_a_predictor_is_loaded_once(blobs: LocalBlobs, put: Put) -> None:
    predictors = Predictors(blobs)
    sha256, _ = put(0)
    assert predictors.get(sha256) is predictors.get(sha256)


def test_threads_that_ask_at_once_share_one_load(blobs: LocalBlobs, put: Put) -> None:
    loads, everyone_asked = [], threading.Event()

    def load(content: bytes) -> Predictor:
        loads.append(1)
        everyone_asked.wait(5)
        return Predictor.load(content)

    predictors = Predictors(blobs, load=load)
    sha256, _ = put(0)
    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(predictors.get, sha256) for _ in range(8)]
        everyone_asked.set()
        assert len({id(future.result()) for future in asked}) == 1
    assert len(loads) == 1


def test_the_least_recently_used_leaves_when_the_bytes_are_full(
    blobs: LocalBlobs, put: Put
) -> None:
    (first, size), (second, _), (third, _) = put(0), put(1), put(2)
    predictors = Predictors(blobs, max_bytes=2 * size + size // 2)
    kept = predictors.get(first)
    left = predictors.get(second)
    predictors.get(first)
    predictors.get(third)
    assert predictors.bytes == 2 * size
    assert predictors.get(first) is kept
    assert predictors.get(second) is not left


def test_the_number_of_predictors_is_bounded_too(blobs: LocalBlobs, put: Put) -> None:
    predictors = Predictors(blobs, max_entries=2)
    for bias in range(4):
        predictors.get(put(bias)[0])
    assert len(predictors) == 2


def test_a_predictor_beyond_the_bound_is_used_but_not_kept(blobs: LocalBlobs, put: Put) -> None:
    predictors = Predictors(blobs, max_bytes=10)
    assert predictors.get(put(0)[0]).features.width == 1
    assert (len(predictors), predictors.bytes) == (0, 0)


def test_damaged_bytes_are_never_loaded(blobs: LocalBlobs, put: Put, tmp_path: Path) -> None:
    predictors = Predictors(blobs)
    sha256, _ = put(0)
    path = blobs.fetch(sha256, tmp_path)
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(ModelDamaged):
        predictors.get(sha256)
    path.write_bytes(content)
    assert predictors.get(sha256).features.width == 1, "the failure is not remembered"


def test_missing_bytes_and_foreign_files_are_damage(blobs: LocalBlobs, tmp_path: Path) -> None:
    predictors = Predictors(blobs)
    file = tmp_path / "foreign"
    file.write_bytes(b"no checkpoint at all")
    for sha256 in ("0" * 64, blobs.put(file)[0]):
        with pytest.raises(ModelDamaged):
            predictors.get(sha256)
