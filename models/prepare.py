"""From a job to a training that is ready for its next step: rows, split, features, checkpoint."""

from typing import Any

import torch

from descent.spec import Lbfgs
from models.data import Split
from models.devices import choose_threads
from models.events import Job
from models.features import Features
from models.snapshots import Snapshot
from models.split import split_table
from models.training import Training

#: A warning for the run: `{"code", "column"?, "detail"}`.
Warning_ = dict[str, Any]


def prepare(job: Job, device: torch.device) -> tuple[Training, list[Warning_]]:
    """Build the training, resumed where the job says so; raises `TrainingFailed`."""
    snapshot = Snapshot.read(job.resume) if job.resume else None
    split = split_table(job.config, job.table)
    features = snapshot.features if snapshot else _fit(job, split)
    training = Training(job, features, split, device)
    torch.set_num_threads(choose_threads(training.batch_size, training.parameters))
    warnings = [*features.warnings(), *_warn(job, training)]
    if snapshot:
        snapshot.restore(training)
        if reason := snapshot.inexactness(device):
            detail = f"the resumed run may differ in the last digits: {reason}"
            warnings.append({"code": "resume_inexact", "detail": detail})
    return training, warnings


def _fit(job: Job, split: Split) -> Features:
    return Features.fit(
        job.table,
        split.train,
        features=job.features,
        targets=job.config.targets,
        task=job.task,
        standardize=job.config.standardize,
    )


def _warn(job: Job, training: Training) -> list[Warning_]:
    warnings = []
    split, targets = training.split, job.config.targets
    left_out = job.table.rows - len(split.train) - len(split.validation) - len(split.test)
    if left_out:
        detail = f"{left_out} of {job.table.rows} rows have no value in {targets} and are left out"
        warnings.append({"code": "target_missing", "column": targets[0], "detail": detail})
    if isinstance(job.config.optimizer, Lbfgs) and training.steps_per_epoch > 1:
        detail = "lbfgs compares losses from step to step; batch_size 'full' makes them comparable"
        warnings.append({"code": "lbfgs_minibatch", "detail": detail})
    return warnings
