"""Every version predicts with the checkpoints of earlier versions, and goes on from them.

`checkpoint-1-layers.safetensors` is of format 1, in which a net was a list of layers. Never make it
again: when the format grows, add a file.
"""

from pathlib import Path
from typing import Any

import numpy as np

from models.predict.predictor import Predictor
from models.training.snapshots import Snapshot
from tests.models.samples import SURVIVAL, learn, passengers

FILE = Path(__file__).parent / "checkpoints" / "checkpoint-1-layers.safetensors"
LAYERS: list[Any] = [{"linear": 4}, "tanh", {"dropout": 0.5}, {"linear": 3}, "gelu"]
CONFIG = SURVIVAL | {
    "model": {"type": "layers", "layers": LAYERS},
    "batch_size": 40,
    "epochs": 4,
}
#: the probabilities of the first three passengers, as that version computed them
SHARES = [
    [0.37495047932343983, 0.62504952067656],
    [0.41246630739817136, 0.5875336926018286],
    [0.41828489382963846, 0.5817151061703615],
]


def test_an_old_checkpoint_predicts_as_its_version_did() -> None:
    predictor = Predictor.load(FILE)
    encoded = predictor.features.encode(passengers(), np.arange(3))
    shares = predictor.features.decode(predictor.outputs(encoded))
    np.testing.assert_allclose(shares, SHARES, rtol=1e-6)


def test_an_old_checkpoint_is_resumed_to_the_end(tmp_path: Path) -> None:
    state = Snapshot.read(FILE).document["state"]
    assert (state["step"], state["seq"]) == (5, 6)
    rest = learn(passengers(), tmp_path, CONFIG, resume=FILE, seq=state["seq"], attempt=2)
    assert rest.error is None
    assert [row.seq for row in rest.rows] == list(range(7, 7 + len(rest.rows)))
    assert rest.rows[-1].epoch == 4
