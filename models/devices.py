"""The device that computes: which one, with which guarantees, and what its failures mean.

Knows torch and the machine, nothing of nets or data.
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

#: Multiplications a step below which one thread is faster than two: threads wait for each other.
SERIAL_WORK = 30_000_000
#: A switch of torch that its type stubs do not show.
MEMORY: Any = torch.utils.deterministic
#: What PyTorch and NumPy say when memory runs out.
GPU_ASKED = r"Tried to allocate ([\d.]+ \w+)"
GPU_FREE = r"total capacity of ([\d.]+ \w+) of which ([\d.]+ \w+) is free"
HOST_ASKED = r"allocate ([\d.]+ \w+)"
#: A fixed workspace is what makes cuBLAS repeatable; read when CUDA starts.
CUBLAS_WORKSPACE = ":4096:8"


def choose_device(name: str) -> torch.device:
    """Return the device of a run's configuration; raises `DeviceUnavailable`."""
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
    """Let torch use only algorithms that give the same bits each time; restore its threads after.

    On a CPU all that a training uses is repeatable as it is, and torch's switch would import its
    compiler, a second's work.
    """
    threads = torch.get_num_threads()
    try:
        if device.type == "cuda":
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", CUBLAS_WORKSPACE)
            torch.use_deterministic_algorithms(mode=True)
            # Filling new memory with NaN finds reads of it, and takes a third of a small step.
            MEMORY.fill_uninitialized_memory = False
        yield
    finally:
        torch.set_num_threads(threads)


def choose_threads(batch: int, parameters: int) -> int:
    """Return how many threads a step of this size is worth."""
    return 1 if batch * parameters < SERIAL_WORK else (os.cpu_count() or 1)


def describe_environment(device: torch.device) -> dict[str, Any]:
    """Return what the bits of a result depend on; resuming is exact where all of it is equal."""
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    return {
        "torch": torch.__version__,
        "numpy": np.__version__,
        "device": device.type,
        "gpu": gpu,
        "machine": platform.machine(),
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "cpu_model": _cpu_model(),
        "threads": torch.get_num_threads(),
    }


@cache
def _cpu_model() -> str | None:
    """Return the processor's name: libraries choose their kernels by it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or None
    return next((line.partition(":")[2].strip() for line in lines if "model name" in line), None)


@contextmanager
def memory_failures(need: str, device: torch.device) -> Iterator[None]:
    """Turn every way in which memory runs out into `OutOfMemory`; `need` says for what."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        found = explain_memory(error, need, str(device))
        if found is None:
            raise
        raise found from error


def explain_memory(error: Exception, need: str, device: str) -> OutOfMemory | None:
    """Say which memory ran out, how much was asked for and what helps; None for other errors."""
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
