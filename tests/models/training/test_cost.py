"""The overhead of training beside its steps; `test_steps` compares the steps with PyTorch's."""

import subprocess
import sys
from pathlib import Path

from tests.serving import ROOT


def test_no_training_loads_compilers(tmp_path: Path) -> None:
    """They take longer to load than many trainings; PyTorch's optimizers would load them.

    Autograd would too: nets with dropout use it, and with slopes it imports SymPy.
    """
    script = f"""
import sys
from pathlib import Path
from tests.models.samples import SURVIVAL, learn, passengers

for kind in ("sgd", "adam", "adamw", "rmsprop", "lbfgs"):
    for dropout in (0.0, 0.1):
        folder = Path({str(tmp_path)!r}) / f"{{kind}} {{dropout}}"
        folder.mkdir()
        choice = {{"optimizer": {{"type": kind}}, "batch_size": "full", "epochs": 2}}
        net = {{"type": "mlp", "hidden": [4], "dropout": dropout}}
        learn(passengers(), folder, SURVIVAL | choice | {{"model": net}})
print(sorted({{"torch._dynamo", "sympy"}} & sys.modules.keys()))
"""
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
