"""What can be wrong with a training or with a stored file, each with its stable code.

LearningError
├── TrainingFailed        the run ends `failed`
│   ├── Diverged          a loss or a parameter is no longer finite
│   ├── OutOfMemory       a GPU or the machine has too little memory
│   ├── DeviceUnavailable the worker does not have the device
│   ├── DataInvalid       the table cannot be trained on as asked
│   └── NotResumable      the checkpoint cannot continue this run
├── CheckpointCorrupt     a file is not what `checkpoint.write` wrote
└── BundleInvalid         a file is no bundle of a model, or was changed since it was sealed
"""

from typing import ClassVar


class LearningError(Exception):
    """Something that learning cannot go on with; `detail` names the value and the remedy."""

    code: ClassVar[str] = "learning_failed"
    #: which memory ran out: "host", or the GPU
    where: str | None = None

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class TrainingFailed(LearningError):
    """The training ended without a result."""

    code = "training_failed"


class Diverged(TrainingFailed):
    code = "diverged"


class OutOfMemory(TrainingFailed):
    code = "out_of_memory"

    def __init__(self, detail: str, where: str) -> None:
        super().__init__(detail)
        self.where = where


class DataInvalid(TrainingFailed):
    code = "dataset_invalid"


class DeviceUnavailable(TrainingFailed):
    code = "device_unavailable"


class NotResumable(TrainingFailed):
    code = "not_resumable"


class CheckpointCorrupt(LearningError):
    code = "checkpoint_corrupt"


class BundleInvalid(LearningError):
    code = "bundle_invalid"

    def __init__(self, detail: str, *, code: str = "bundle_invalid") -> None:
        super().__init__(detail)
        #: more exactly: what of the bundle is wrong
        self.reason = code
