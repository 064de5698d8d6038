"""Saves a training to a checkpoint and restores it, also when the disk is full.

Knows the contents of a checkpoint, and whether resuming from it is exact.
"""

import errno
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from models import checkpoint
from models.checkpoint import BEST, NET, OUT_OF_FOLD, Tensors
from models.engine.hardware import describe_environment
from models.errors import NotResumable
from models.features.encoding import Features
from models.nets.graph import Graph
from models.nets.lines import line_of, parameters
from models.training.bag import Bag
from models.training.interface import Alive, Noted, Saved, StopReason, TrainingEvent
from models.training.state import Learner, Training, TrainingState

OPTIMIZER = "optimizer."
#: The sums of losses of an unfinished epoch.
REPORT = "loss.report"
#: The tensors of a member of a cross-validation, by its number.
MEMBER = "member.{}."
FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
AGAIN_S = 1.0  # seconds between two tries to write the last checkpoint on a full disk


def save(
    training: Learner,
    *,
    is_best: bool = False,
    resumable: bool = True,
    evaluation: dict[str, Any] | None = None,
) -> Saved:
    """Write the present state of the training to a new file in its scratch folder.

    Raises OSError, for example for a full disk.
    """
    given, state = training.given, training.state
    name = f"attempt-{given.attempt}-step-{state.step}{'-last' if is_best else ''}.safetensors"
    path = given.scratch / name
    own, tensors = _content(training)
    document = own | {
        "task": given.task,
        "config": given.config.model_dump(mode="json"),
        "environment": _environment(training),
        "rows_in_files": training.is_stored,
        "resumable": resumable,
        "metrics": state.best_metrics,
        "evaluation": evaluation,
        "parameters": linear_parameters(training),
        "calibration": training.calibration,
        "report": training.report,
    }
    written = checkpoint.write(path, tensors, document)
    # A training that diverged went back to its best epoch: report that epoch and step.
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


def _content(training: Learner) -> tuple[dict[str, Any], Tensors]:
    """Return the part of the document, and the tensors, that a training continues from."""
    document = {"features": training.features.to_json(), "state": training.state.to_json()}
    if isinstance(training, Training):
        document |= {"net": training.graph.to_json(), "optimizer": training.engine.scalars()}
        return document, {name: _to_numpy(each) for name, each in _tensors(training).items()}
    if not isinstance(training, Bag):
        raise TypeError(f"there is no checkpoint of {type(training).__name__}")
    graph, joined = training.joined()
    tensors: Tensors = {f"{BEST}{name}": tensor for name, tensor in joined.items()}
    members = []
    for number, member in enumerate(training.members):
        own, held = _content(member)
        members.append(own | {"diverged": training.diverged.get(number)})
        tensors |= {MEMBER.format(number) + name: tensor for name, tensor in held.items()}
    if found := training.out_of_fold:
        tensors |= {f"{OUT_OF_FOLD}{name}": each for name, each in vars(found).items()}
    return document | {"net": graph.to_json(), "members": members}, tensors


@dataclass(frozen=True)
class Snapshot:
    """A checkpoint from which a training continues."""

    tensors: Tensors
    document: dict[str, Any]

    @classmethod
    def read(cls, path: Path) -> "Snapshot":
        """Read a checkpoint; raises `CheckpointCorrupt`, and `NotResumable` if the run diverged."""
        tensors, document = checkpoint.read(path)
        if not document.get("resumable"):
            raise NotResumable(
                "the checkpoint holds parameters that predict, but no training state"
            )
        return cls(tensors, document)

    @property
    def features(self) -> Features:
        return Features.from_json(self.document["features"])

    @property
    def members(self) -> list["Snapshot"]:
        """The members of a cross-validation; raises `NotResumable` if it is none."""
        documents = self.document.get("members")
        if not isinstance(documents, list):
            raise NotResumable("the checkpoint is not that of a cross-validation")
        return [
            Snapshot(_named(self.tensors, MEMBER.format(number)), document)
            for number, document in enumerate(documents)
        ]

    @property
    def is_stored(self) -> bool:
        """Whether the rows were in files, which give them another order."""
        return bool(self.document.get("rows_in_files"))

    def restore(self, training: Learner) -> None:
        """Set the training to the state of the checkpoint; raises `NotResumable`."""
        if isinstance(training, Training):
            self._restore(training)
        elif isinstance(training, Bag):
            self._restore_members(training)

    def _restore_members(self, bag: Bag) -> None:
        members = self.members
        if len(members) != len(bag.members):
            raise NotResumable(
                f"the checkpoint has {len(members)} members, the configuration {len(bag.members)}"
            )
        for number, (snapshot, member) in enumerate(zip(members, bag.members, strict=True)):
            snapshot.restore(member)
            if why := snapshot.document.get("diverged"):
                bag.diverged[number] = str(why)
        bag.state = TrainingState.from_json(self.document["state"])
        bag.state.seq = bag.given.seq

    def _restore(self, training: Training) -> None:
        if self._graph() != training.graph:
            raise NotResumable("the checkpoint's network is not the one of this configuration")
        flat, state = training.flat, TrainingState.from_json(self.document["state"])
        try:
            self._load(NET, flat.named(flat.values), training.device)
            self._load(BEST, flat.named(training.best), training.device)
            engine = training.engine
            engine.push()
            engine.totals[:] = self.tensors[REPORT][: len(engine.totals)]
            engine.load(self._tensors(OPTIMIZER, training.device), self.document["optimizer"])
        except (KeyError, RuntimeError) as error:
            raise NotResumable(f"the checkpoint's tensors do not fit: {error}") from error
        state.seq = training.given.seq
        engine.step = state.step
        training.state = state

    def _graph(self) -> Graph:
        try:
            return Graph.from_json(self.document["net"])
        except ValueError as error:
            raise NotResumable(f"the checkpoint's network cannot be read: {error}") from error

    def inexactness(self, training: Learner) -> str | None:
        """Return why a resumed run may differ in the last bits, or None if it is exact."""
        then, now = self.document["environment"], _environment(training)
        changes = [
            f"{name} was {then.get(name)}, is {now[name]}"
            for name in now
            if now[name] != then.get(name)
        ]
        return "; ".join(changes) or None

    def _tensors(self, prefix: str, device: torch.device) -> dict[str, Tensor]:
        found = _named(self.tensors, prefix)
        return {name: torch.from_numpy(tensor).to(device) for name, tensor in found.items()}

    def _load(self, prefix: str, targets: dict[str, Tensor], device: torch.device) -> None:
        tensors = self._tensors(prefix, device)
        for name, target in targets.items():
            target.copy_(tensors[name])


def _named(tensors: Tensors, prefix: str) -> Tensors:
    """Return the tensors whose names start so, by the rest of their names."""
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }


def linear_parameters(training: Learner) -> dict[str, Any] | None:
    """Return a linear model's parameters and the closed form's; None for other models."""
    if not isinstance(training, Training):
        return None
    named = training.flat.named(training.best).items()
    line = line_of(training.graph, {name: _to_numpy(tensor) for name, tensor in named})
    if line is None:
        return None
    given = training.given
    return parameters(
        training.features,
        line,
        training.data.least_squares,
        given.table,
        training.split.train,
        training.data.weights,
    )


def _tensors(training: Training) -> dict[str, Tensor]:
    flat, engine = training.flat, training.engine
    engine.pull()
    tensors = {f"{NET}{name}": tensor for name, tensor in flat.named(flat.values).items()}
    best = flat.named(training.best)
    tensors |= {f"{BEST}{name}": tensor for name, tensor in best.items()}
    tensors |= {f"{OPTIMIZER}{name}": tensor for name, tensor in engine.tensors().items()}
    return tensors | {REPORT: torch.from_numpy(engine.totals)}


def _environment(training: Learner) -> dict[str, Any]:
    return describe_environment(training.device) | {"engine": training.engine_name}


def _to_numpy(tensor: Tensor) -> NDArray[Any]:
    return tensor.detach().cpu().numpy()


def try_to_save(training: Learner) -> Saved | Noted:
    """Save the training; on a full disk return a note instead, and the training goes on."""
    try:
        return save(training)
    except OSError as error:
        if error.errno not in FULL:
            raise
        return Noted(
            "checkpoint_skipped",
            f"The disk has no space for a checkpoint at step {training.state.step}: the training"
            " continues and will try again.",
        )


def save_at_last(
    training: Learner,
    should_stop: Callable[[], StopReason | None],
    *,
    resumable: bool = True,
    evaluation: dict[str, Any] | None = None,
) -> Generator[TrainingEvent, None, StopReason | None]:
    """Save the last checkpoint; while the disk is full, wait for space or for a stop.

    Returns the reason to stop if one came before there was space, otherwise None.
    """
    is_noted = False
    while True:
        reason = should_stop()
        try:
            saved = save(training, is_best=True, resumable=resumable, evaluation=evaluation)
        except OSError as error:
            if error.errno not in FULL:
                raise
        else:
            yield saved
            return None
        if reason is not None:
            return reason
        if not is_noted:
            is_noted = True
            detail = "The disk has no space for the last checkpoint: waiting until there is."
            yield Noted("checkpoint_waits", detail)
        yield Alive(training.progress())
        time.sleep(AGAIN_S)
