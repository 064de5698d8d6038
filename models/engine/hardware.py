"""The device that computes: its choice, its guarantees, its environment and its failures.

Knows torch and the machine; nothing of nets or data.
"""

import os
import platform
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.utils.deterministic

from models.errors import DeviceUnavailable, OutOfMemory

#: Linux tells here how many threads of the machine run at this moment.
LOAD = Path("/proc/loadavg")
#: A module of torch whose switch is missing from torch's types.
MEMORY: Any = torch.utils.deterministic
#: Parts of the messages of PyTorch and NumPy when memory runs out.
GPU_ASKED = r"Tried to allocate ([\d.]+ \w+)"
GPU_FREE = r"total capacity of ([\d.]+ \w+) of which ([\d.]+ \w+) is free"
HOST_ASKED = r"allocate ([\d.]+ \w+)"
#: A fixed workspace makes cuBLAS repeatable; CUDA reads this variable when it starts.
CUBLAS_WORKSPACE = ":4096:8"


def choose_device(name: str) -> torch.device:
    """Return the device that a configuration names; raises `DeviceUnavailable`."""
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    device = torch.device("cuda" if name == "auto" else name)
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if (device.index or 0) >= count:
        raise DeviceUnavailable(
            f"Device {name!r} is not there: the worker has {count} GPUs. Choose auto or cpu."
        )
    return device


@contextmanager
def repeatable(device: torch.device) -> Iterator[None]:
    """Restrict torch to algorithms that give the same bits every time; restore its settings after.

    Subnormal numbers become zero: the moments of Adam decay to them where a gradient stays zero,
    and a step with them takes up to ten times as long.

    On a CPU every operation of a training is repeatable without torch's switch, and the switch
    would take a second to import torch's compiler.
    """
    threads = torch.get_num_threads()
    try:
        if device.type == "cuda":
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", CUBLAS_WORKSPACE)
            torch.use_deterministic_algorithms(mode=True)
            # The switch also fills new memory with NaN, which takes a third of a small step.
            MEMORY.fill_uninitialized_memory = False
        torch.set_flush_denormal(True)
        yield
    finally:
        torch.set_flush_denormal(False)
        torch.set_num_threads(threads)


def processors() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def idle_processors(own: int) -> int:
    """Return how many threads this process should use at this moment, at least 1.

    `own` is how many it uses now. Processes that run besides get a processor each, so two trainings
    on two processors have one each, and a training alone has both.
    """
    try:
        running = int(LOAD.read_text().split()[3].partition("/")[0])
    except (OSError, ValueError, IndexError):
        return 1  # no other system tells it so cheaply
    others = max(0, running - own)
    return max(1, min(processors(), (os.cpu_count() or 1) - others))


def describe_environment(device: torch.device) -> dict[str, Any]:
    """Return everything that the bits of a result depend on, ready for JSON.

    A resumed run is exact if all of it is equal.
    """
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    return {
        "torch": torch.__version__,
        "numpy": np.__version__,
        "device": device.type,
        "gpu": gpu,
        "machine": platform.machine(),
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "cpu_model": _cpu_model(),
        "subnormals": "flushed",
    }


@cache
def _cpu_model() -> str | None:
    """Return the processor's name, because libraries choose their kernels by it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or None
    return next((line.partition(":")[2].strip() for line in lines if "model name" in line), None)


@contextmanager
def memory_failures(need: str, device: torch.device) -> Iterator[None]:
    """Raise `OutOfMemory` for every error of exhausted memory; `need` names its purpose."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        found = explain_memory(error, need, str(device))
        if found is None:
            raise
        raise found from error


def explain_memory(error: Exception, need: str, device: str) -> OutOfMemory | None:
    """Return an error that names the memory, the size and a remedy; None for other errors."""
    text = str(error)
    if isinstance(error, torch.OutOfMemoryError):
        asked, free = re.search(GPU_ASKED, text), re.search(GPU_FREE, text)
        size = f": {asked[1]} more were asked for" if asked else ""
        size += f", {free[2]} of {free[1]} are free" if asked and free else ""
        return OutOfMemory(
            f"GPU {device} has too little memory for {need}{size}; use a smaller batch_size or"
            " model, or device 'cpu'",
            device,
        )
    # The CPU's allocator raises a plain RuntimeError.
    if isinstance(error, MemoryError) or "can't allocate memory" in text:
        asked = re.search(HOST_ASKED, text)
        size = f": {asked[1]} more were asked for" if asked else ""
        return OutOfMemory(
            f"the machine has too little memory for {need}{size}; use a smaller table, batch_size"
            " or model, or a worker with more memory",
            "host",
        )
    return None
