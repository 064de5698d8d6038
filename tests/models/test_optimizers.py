"""What the optimizers cost beside their steps; that they step as PyTorch's is `test_steps`'."""

import subprocess
import sys
from pathlib import Path

from tests.serving import ROOT


def test_no_training_loads_compilers(tmp_path: Path) -> None:
    """They take longer to load than many a training; PyTorch's optimizers would do it."""
    script = f"""
import sys
from pathlib import Path
from tests.models.samples import SURVIVAL, learn, passengers

for kind in ("sgd", "adam", "adamw", "rmsprop", "lbfgs"):
    folder = Path({str(tmp_path)!r}) / kind
    folder.mkdir()
    choice = {{"optimizer": {{"type": kind}}, "batch_size": "full", "epochs": 2}}
    learn(passengers(), folder, SURVIVAL | choice)
print("torch._dynamo" in sys.modules)
"""
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
