"""A trainer that has rehearsed differs from a new one in nothing but its memory."""

import tempfile
from pathlib import Path

import pytest
import torch

from service.runs import train
from tests.models.samples import SURVIVAL, learn, passengers

DROPOUT = SURVIVAL | {"model": {"type": "mlp", "hidden": [8], "dropout": 0.3}}


def test_a_training_after_a_rehearsal_is_the_same_to_the_last_bit(tmp_path: Path) -> None:
    before = learn(passengers(), tmp_path / "before", DROPOUT)
    threads = torch.get_num_threads()
    train.rehearse()
    assert torch.get_num_threads() == threads
    after = learn(passengers(), tmp_path / "after", DROPOUT)
    assert [each.sha256 for each in after.saved] == [each.sha256 for each in before.saved]


def test_a_rehearsal_leaves_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    train.rehearse()
    assert list(tmp_path.iterdir()) == []
