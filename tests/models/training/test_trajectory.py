"""The frames of a small net: complete, bounded, equal after a resume, sufficient to predict."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from models.checkpoint import NET, read
from models.errors import Diverged
from models.nets.graph import Graph
from models.nets.numeric import compiled
from models.predict.predictor import Predictor
from models.training.interface import Frame
from models.training.outcome import MAX_FRAMES, MAX_NUMBERS
from tests.models.samples import LINE, SURVIVAL, Outcome, learn, passengers, scores
from tests.models.training.test_resume import stop_at

STEPS: dict[str, Any] = LINE | {"epochs": 12, "batch_size": 5, "early_stopping": None}


def frames(outcome: Outcome) -> list[Frame]:
    assert outcome.started is not None
    first = [outcome.started.frame, *(event.frame for event in outcome.metrics)]
    return [frame for frame in first if frame is not None]


def numbers(frame: Frame) -> NDArray[np.float32]:
    return np.frombuffer(frame.values, dtype="<f4")


def subject(outcome: Outcome) -> dict[str, Any]:
    assert outcome.started is not None
    assert outcome.started.subject is not None
    return outcome.started.subject


def test_every_epoch_of_a_short_run_has_a_frame(tmp_path: Path) -> None:
    found = frames(learn(scores(), tmp_path, STEPS))
    assert [frame.epoch for frame in found] == list(range(13))
    assert [frame.step for frame in found] == [3 * epoch for epoch in range(13)]


def test_the_last_frame_is_what_the_checkpoint_holds(tmp_path: Path) -> None:
    outcome = learn(passengers(), tmp_path, SURVIVAL)
    tensors, _document = read(outcome.saved[-1].path, NET)
    names = [parameter["name"] for parameter in subject(outcome)["parameters"]]
    flat = np.concatenate([tensors[NET + name].ravel() for name in names])
    assert numbers(frames(outcome)[-1]).tolist() == flat.tolist()


def test_a_resumed_training_gives_the_frames_that_are_missing(tmp_path: Path) -> None:
    whole = frames(learn(scores(), tmp_path / "whole", STEPS))
    first = learn(scores(), tmp_path / "part", STEPS, stop_at(17, "handback"), poll_s=0.0)
    saved = first.saved[-1]
    rest = learn(scores(), tmp_path / "part", STEPS, resume=saved.path, seq=saved.seq, attempt=2)
    kept = [frame for frame in frames(first) if frame.step <= saved.step]
    assert kept + frames(rest) == whole


def test_a_long_run_has_evenly_spread_frames_of_bounded_size(tmp_path: Path) -> None:
    config = STEPS | {"epochs": 2500, "batch_size": "full"}
    epochs = [frame.epoch for frame in frames(learn(scores(), tmp_path, config))]
    assert epochs[:13] == [*range(11), 12, 15]
    assert epochs[-2:] == [2499, 2500]
    assert len(epochs) <= MAX_FRAMES + 10


def test_the_frames_of_a_wider_net_take_no_more_room(tmp_path: Path) -> None:
    wide = {"type": "mlp", "hidden": [64, 64]}
    config = STEPS | {"model": wide, "epochs": 300, "batch_size": "full"}
    found = frames(learn(scores(), tmp_path, config))
    assert sum(numbers(frame).size for frame in found) <= 1.2 * MAX_NUMBERS
    assert len(found) > 50


def test_a_large_net_has_no_trajectory(tmp_path: Path) -> None:
    outcome = learn(scores(), tmp_path, STEPS | {"model": {"type": "mlp", "hidden": [128, 64]}})
    assert outcome.started is not None
    assert (outcome.started.subject, frames(outcome)) == (None, [])


def test_what_is_not_finite_is_no_frame(tmp_path: Path) -> None:
    optimizer = {"type": "sgd", "learning_rate": 1e6}
    outcome = learn(scores(), tmp_path, STEPS | {"optimizer": optimizer, "epochs": 50})
    assert isinstance(outcome.error, Diverged)
    found = frames(outcome)
    assert len(found) > 1
    assert all(np.isfinite(numbers(frame)).all() for frame in found)


@pytest.mark.parametrize(
    ("config", "table"),
    [(STEPS | {"model": {"type": "mlp", "hidden": [3]}}, scores()), (SURVIVAL, passengers())],
)
def test_subject_and_frame_predict_what_the_model_predicts(
    tmp_path: Path, config: dict[str, Any], table: Any
) -> None:
    outcome = learn(table, tmp_path, config | {"split": {"type": "none"}})
    about, flat = subject(outcome), numbers(frames(outcome)[-1])
    parameters, start = {}, 0
    for parameter in about["parameters"]:
        size = int(np.prod(parameter["shape"]))
        values = flat[start : start + size].reshape(parameter["shape"])
        parameters[parameter["name"]] = values
        start += size
    x = np.array(about["sample"]["x"], dtype=np.float32)
    outputs = compiled(Graph.from_json(about["net"]), parameters).forward(x)
    predictor = Predictor.load(outcome.saved[-1].path)
    rows = np.flatnonzero(table.present([config["target"]]))
    expected = predictor.outputs(predictor.features.encode(table, rows))
    np.testing.assert_allclose(outputs, expected, rtol=1e-5, atol=1e-6)
    truth = predictor.features.truth(table, rows)
    assert about["sample"]["truth"] == truth.tolist()


def test_a_line_knows_its_end_and_the_longest_step(tmp_path: Path) -> None:
    config = LINE | {"standardize": False, "batch_size": "full", "loss": "sse"}
    line = subject(learn(scores(), tmp_path, config))["line"]
    closed = line["closed_form"]["Final"]
    assert closed["weights"]["Quiz"] == pytest.approx(1.31197, abs=1e-5)
    assert closed["bias"] == pytest.approx(0.64804, abs=1e-5)
    assert line["largest_learning_rate"] == pytest.approx(0.000502, rel=1e-2)
