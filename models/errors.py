"""The errors of training and of stored files, each with a stable code.

LearningError
├── TrainingFailed        the run ends `failed`
│   ├── Diverged          a loss or a parameter is no longer finite
│   ├── OutOfMemory       a GPU or the machine has too little memory
│   ├── StorageFull       the disk has too little space for the encoded rows
│   ├── DeviceUnavailable the worker does not have the device
│   ├── DataInvalid       the configuration does not fit the table
│   └── NotResumable      the checkpoint cannot continue this run
├── CheckpointCorrupt     `checkpoint.write` did not write this file
└── BundleInvalid         a file is no bundle, or it was changed after it was sealed
"""

from typing import ClassVar

from descent.codes import ErrorCode


class LearningError(Exception):
    """An error that ends the work; `detail` names the value and the remedy."""

    code: ClassVar[ErrorCode] = "training_failed"
    #: the memory that ran out: "host", or the name of the GPU
    where: str | None = None

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class TrainingFailed(LearningError):
    """The training ended without a result."""


class Diverged(TrainingFailed):
    code = "diverged"


class OutOfMemory(TrainingFailed):
    code = "out_of_memory"

    def __init__(self, detail: str, where: str) -> None:
        super().__init__(detail)
        self.where = where


class StorageFull(TrainingFailed):
    code = "storage_full"


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

    def __init__(self, detail: str, *, code: ErrorCode = "bundle_invalid") -> None:
        super().__init__(detail)
        #: a code for the exact fault, such as `golden_mismatch`
        self.reason = code
