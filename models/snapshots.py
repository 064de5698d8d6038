"""A training as a checkpoint and back: what is stored, and when resuming from it is exact."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from models import checkpoint
from models.checkpoint import BEST, NET, Tensors
from models.closed_form import Line, parameters
from models.devices import describe_environment
from models.errors import NotResumable
from models.events import Saved
from models.features import Features
from models.nets import describe
from models.state import State
from models.training import Training

OPTIMIZER = "optimizer."
RANDOM = "random."
#: The losses summed up so far of an unfinished epoch.
REPORT = "loss.report"


def save(
    training: Training,
    *,
    is_best: bool = False,
    resumable: bool = True,
    evaluation: dict[str, Any] | None = None,
) -> Saved:
    """Write the training as it stands into a new file of its job's scratch folder."""
    job, state = training.job, training.state
    name = f"attempt-{job.attempt}-step-{state.step}{'-last' if is_best else ''}.safetensors"
    path = job.scratch / name
    document = {
        "net": describe(job.config.model, training.features.width, training.features.outputs),
        "features": training.features.to_json(),
        "task": job.task,
        "config": job.config.model_dump(mode="json"),
        "state": state.to_json(),
        "optimizer": training.optimizer.scalars(),
        "environment": describe_environment(training.device),
        "resumable": resumable,
        "metrics": state.best_metrics,
        "evaluation": evaluation,
        "parameters": linear_parameters(training),
    }
    tensors = {name: _to_numpy(tensor) for name, tensor in _tensors(training).items()}
    written = checkpoint.write(path, tensors, document)
    # A training that diverged has gone back to its best epoch: that is the state it leaves.
    epoch, step = (state.epoch, state.step) if resumable else training.best_place()
    return Saved(
        path=path,
        sha256=written.sha256,
        bytes=written.bytes,
        epoch=epoch,
        step=step,
        seq=state.seq,
        metrics=state.best_metrics,
        metrics_epoch=state.best.epoch if state.best else None,
        is_best=is_best,
        resumable=resumable,
        progress=training.progress(),
    )


@dataclass(frozen=True)
class Snapshot:
    """A checkpoint that a training is to go on from."""

    tensors: Tensors
    document: dict[str, Any]

    @classmethod
    def read(cls, path: Path) -> "Snapshot":
        """Raises `NotResumable` for the checkpoint of a run that had diverged."""
        tensors, document = checkpoint.read(path)
        if not document.get("resumable"):
            raise NotResumable("the checkpoint holds parameters to predict with, no state")
        return cls(tensors, document)

    @property
    def features(self) -> Features:
        return Features.from_json(self.document["features"])

    def restore(self, training: Training) -> None:
        """Bring the training to where the checkpoint stands; raises `NotResumable`."""
        net = describe(training.config.model, training.features.width, training.features.outputs)
        if self.document["net"] != net:
            raise NotResumable("the checkpoint's network is not the one of this configuration")
        flat, state = training.flat, State.from_json(self.document["state"])
        try:
            self._load(NET, flat.named(flat.values), training.device)
            self._load(BEST, flat.named(training.best), training.device)
            training.report.copy_(torch.from_numpy(self.tensors[REPORT]))
            training.optimizer.load(
                self._tensors(OPTIMIZER, training.device), self.document["optimizer"]
            )
            _restore_random(training, self._tensors(RANDOM, torch.device("cpu")))
        except (KeyError, RuntimeError) as error:
            raise NotResumable(f"the checkpoint's tensors do not fit: {error}") from error
        state.seq = training.job.seq
        training.state = state

    def inexactness(self, device: torch.device) -> str | None:
        """Return why resuming here may differ in the last bits, None where it does not."""
        then, now = self.document["environment"], describe_environment(device)
        changes = [
            f"{name} was {then.get(name)}, is {now[name]}"
            for name in now
            if now[name] != then.get(name)
        ]
        return "; ".join(changes) or None

    def _tensors(self, prefix: str, device: torch.device) -> dict[str, Tensor]:
        return {
            name.removeprefix(prefix): torch.from_numpy(tensor).to(device)
            for name, tensor in self.tensors.items()
            if name.startswith(prefix)
        }

    def _load(self, prefix: str, targets: dict[str, Tensor], device: torch.device) -> None:
        tensors = self._tensors(prefix, device)
        for name, target in targets.items():
            target.copy_(tensors[name])


def linear_parameters(training: Training) -> dict[str, Any] | None:
    """Return a linear model's numbers beside the closed form's; None for other models."""
    if training.config.model.hidden_layers():
        return None
    named = training.flat.named(training.best)
    weight, bias = (_to_numpy(named[name]).astype("float64") for name in ("0.weight", "0.bias"))
    job = training.job
    return parameters(
        training.features,
        Line(weight, bias),
        training.least_squares,
        job.table,
        training.split.train,
    )


def _tensors(training: Training) -> dict[str, Tensor]:
    flat = training.flat
    tensors = {f"{NET}{name}": tensor for name, tensor in flat.named(flat.values).items()}
    best = flat.named(training.best)
    tensors |= {f"{BEST}{name}": tensor for name, tensor in best.items()}
    state = training.optimizer.tensors()
    tensors |= {f"{OPTIMIZER}{name}": tensor for name, tensor in state.items()}
    if training.has_dropout:
        tensors[f"{RANDOM}cpu"] = torch.get_rng_state()
        if training.device.type == "cuda":
            tensors[f"{RANDOM}cuda"] = torch.cuda.get_rng_state(training.device)
    return tensors | {REPORT: training.report}


def _restore_random(training: Training, states: dict[str, Tensor]) -> None:
    if "cpu" in states:
        torch.set_rng_state(states["cpu"])
    if "cuda" in states and training.device.type == "cuda":
        torch.cuda.set_rng_state(states["cuda"], training.device)


def _to_numpy(tensor: Tensor) -> Any:  # noqa: ANN401  of the tensor's type
    return tensor.detach().cpu().numpy()
