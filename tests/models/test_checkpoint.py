import math
from pathlib import Path

import numpy as np
import pytest

from models import checkpoint
from models.errors import CheckpointCorrupt

TENSORS = {
    "net.0.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
    "best.0.weight": np.ones((2, 3), dtype=np.float32),
    "loss.report": np.array([1e-300, 2.0]),
    "random.cpu": np.arange(5, dtype=np.uint8),
    "optimizer.steps": np.array(3.0, dtype=np.float32),
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "a.safetensors"
    checkpoint.write(path, TENSORS, {"value": 0.1})
    return path


def test_tensors_come_back_bit_for_bit(file: Path) -> None:
    tensors, _ = checkpoint.read(file)
    assert tensors.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert tensors[name].dtype == tensor.dtype
        assert tensors[name].shape == tensor.shape
        assert tensors[name].tobytes() == tensor.tobytes()


def test_bytes_are_read_like_a_file(file: Path) -> None:
    assert checkpoint.read(file.read_bytes())[1] == checkpoint.read(file)[1]


def test_a_prefix_chooses_tensors(file: Path) -> None:
    assert list(checkpoint.read(file, "best.")[0]) == ["best.0.weight"]


def test_the_best_parameters_are_those_to_predict_with(file: Path) -> None:
    parameters, _ = checkpoint.read_parameters(file)
    assert parameters["0.weight"].tolist() == [[1, 1, 1], [1, 1, 1]]


def test_floats_of_the_document_come_back_exactly(tmp_path: Path) -> None:
    values = [0.1, 1 / 3, 5e-324, math.pi * 1e300, -0.0]
    path = tmp_path / "a"
    checkpoint.write(path, {}, {"values": values, "odd": [math.nan, math.inf, -math.inf]})
    document = checkpoint.read(path)[1]
    assert [value.hex() for value in document["values"]] == [value.hex() for value in values]
    assert document["odd"] == ["NaN", "Infinity", "-Infinity"]


def test_the_digest_is_the_files(file: Path, tmp_path: Path) -> None:
    again = checkpoint.write(tmp_path / "b", TENSORS, {"value": 0.1})
    assert again.bytes == file.stat().st_size
    assert (tmp_path / "b").read_bytes() == file.read_bytes()


def test_nothing_is_left_beside_the_file(file: Path) -> None:
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_any_truncation_is_found(file: Path) -> None:
    content = file.read_bytes()
    for length in range(0, len(content), 7):
        with pytest.raises(CheckpointCorrupt):
            checkpoint.read(content[:length])


def test_an_appended_byte_is_found(file: Path) -> None:
    with pytest.raises(CheckpointCorrupt, match="the file holds"):
        checkpoint.read(file.read_bytes() + b"x")


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"[]",
        b'{"a": 1}',
        b"{" * 2000,
        b'{"__metadata__": {"descent": "{}"}}',
        b'{"__metadata__": {"descent": "{\\"schema\\": 99}"}}',
        b'{"a": {}, "a": {}}',
        b'{"__metadata__": {"descent": "{\\"schema\\": 1}"}, "a": 5}',
        (
            b'{"__metadata__": {"descent": "{\\"schema\\": 1}"}, '
            b'"a": {"dtype": "F32", "shape": [1099511627776], "data_offsets": [0, 4]}}'
        ),
        (
            b'{"__metadata__": {"descent": "{\\"schema\\": 1}"}, '
            b'"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}'
        ),
        (
            b'{"__metadata__": {"descent": "{\\"schema\\": 1}"}, '
            b'"a": {"dtype": "O", "shape": [1], "data_offsets": [0, 8]}}'
        ),
    ],
)
def test_a_foreign_header_is_refused(header: bytes) -> None:
    with pytest.raises(CheckpointCorrupt):
        checkpoint.read(len(header).to_bytes(8, "little") + header)


def test_a_header_larger_than_the_file_is_refused() -> None:
    with pytest.raises(CheckpointCorrupt, match="does not fit"):
        checkpoint.read((2**63).to_bytes(8, "little") + b"{}")
