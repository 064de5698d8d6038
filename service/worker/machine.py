"""This machine: its GPUs and their assignment to attempts, and the locks of its supervisors.

The GPUs are those that the driver reports, because a supervisor never loads torch. A file lock
shows that a supervisor is alive: the kernel frees it, so its death is noticed at once, not only
when its leases expire. Its attempts inherit the lock, so it is free only when the last of them has
ended too, and no successor trains beside an attempt that lingers.
"""

import fcntl
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from service.jobs.pipe import OWN_DEVICE

DRIVER = Path("/proc/driver/nvidia/gpus")
VISIBLE = "CUDA_VISIBLE_DEVICES"
ORDER = "CUDA_DEVICE_ORDER"
UNKNOWN = "NVIDIA GPU"


@dataclass(frozen=True)
class Gpu:
    """A GPU of this machine that attempts may use."""

    #: cuda:0, cuda:1, … as PyTorch would count them in this process
    name: str
    model: str
    #: variables of a process that must see only this GPU
    environment: Mapping[str, str]


def found_gpus(driver: Path = DRIVER, variables: Mapping[str, str] = os.environ) -> tuple[Gpu, ...]:
    """Return the GPUs that the driver reports; `CUDA_VISIBLE_DEVICES` may select some of them."""
    models = [_model(folder / "information") for folder in sorted(driver.glob("*"))]
    visible = variables.get(VISIBLE)
    if visible is None:
        # The driver's folders are in the order of the bus, which is not CUDA's default.
        by_bus = {ORDER: "PCI_BUS_ID"}
        return tuple(_gpu(i, str(i), model, by_bus) for i, model in enumerate(models))
    numbers = [number.strip() for number in visible.split(",")] if models else []
    model = models[0] if len(set(models)) == 1 else UNKNOWN
    shown = (number for number in numbers if number not in {"", "-1"})
    return tuple(_gpu(i, number, model, {}) for i, number in enumerate(shown))


def _gpu(index: int, number: str, model: str, order: Mapping[str, str]) -> Gpu:
    name = f"cuda:{index}"
    return Gpu(name, model, {VISIBLE: number, OWN_DEVICE: name, **order})


def _model(information: Path) -> str:
    lines = information.read_text().splitlines()
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    return fields.get("Model", UNKNOWN).strip()


def found_devices() -> list[dict[str, Any]]:
    """Return the devices of this machine as the API shows them."""
    gpus = [{"name": gpu.name, "model": gpu.model} for gpu in found_gpus()]
    return [{"name": "cpu", "cores": os.cpu_count()}, *gpus]


def choose_gpu(asked: str | None, gpus: Sequence[Gpu], held: Iterable[str]) -> Gpu | None:
    """Return the GPU for the next attempt, or None if it needs none.

    `asked` is the device in the job's configuration: the name of a GPU, or `auto` or `cuda` for the
    GPU that the fewest attempts hold. `held` names the GPU of each attempt that has one. A missing
    GPU is not replaced by another: the attempt itself fails with the reason.
    """
    if asked in {"auto", "cuda"}:
        counts = Counter(held)
        return min(gpus, key=lambda gpu: counts[gpu.name], default=None)
    return next((gpu for gpu in gpus if gpu.name == asked), None)


# ---- locks of supervisors -----------------------------------------------------------------------


@contextmanager
def alive(folder: Path, owner: str) -> Iterator[int]:
    """Hold the lock of `owner` during the block; give its descriptor, which children inherit."""
    folder.mkdir(parents=True, exist_ok=True)
    unseen = folder / f".{owner}"  # its name until it is locked: without a lock we seem dead
    with unseen.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        unseen.rename(folder / owner)
        yield file.fileno()


def dead(folder: Path) -> list[str]:
    """Return the owners whose lock is free, because they and all their attempts have ended."""
    found = (path for path in folder.iterdir() if not path.name.startswith("."))
    return [path.name for path in found if _is_free(path)]


def forget(folder: Path, owner: str) -> None:
    """Remove the lock of an owner that has ended and holds no job."""
    (folder / owner).unlink(missing_ok=True)


def _is_free(path: Path) -> bool:
    try:
        with path.open("r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return False
    return True
