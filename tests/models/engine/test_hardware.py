import os

import pytest
import torch

from models.engine.hardware import choose_device, idle_processors, memory_failures, repeatable
from models.errors import DeviceUnavailable, OutOfMemory


@pytest.mark.parametrize(
    ("error", "where", "size"),
    [
        (MemoryError(), "host", ""),
        (MemoryError("Unable to allocate 7.45 GiB for an array"), "host", "7.45 GiB more"),
        (
            RuntimeError(
                "DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"
            ),
            "host",
            "9 bytes more",
        ),
        (torch.OutOfMemoryError("CUDA out of memory."), "cuda:0", ""),
        (
            torch.OutOfMemoryError(
                "CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of"
                " 79.10 GiB of which 12.50 GiB is free. Of the allocated memory 66 GiB is …"
            ),
            "cuda:0",
            "20.00 GiB more were asked for, 12.50 GiB of 79.10 GiB are free",
        ),
    ],
)
def test_running_out_of_memory_says_which_and_what_helps(
    error: Exception, where: str, size: str
) -> None:
    with pytest.raises(OutOfMemory, match=r"for a million rows.*; use a smaller") as caught:
        raise_inside(error)
    assert (caught.value.where, size in caught.value.detail) == (where, True)


def test_other_errors_stay_what_they_are() -> None:
    with pytest.raises(RuntimeError, match="shapes"):
        raise_inside(RuntimeError("shapes do not match"))


def raise_inside(error: Exception) -> None:
    with memory_failures("a million rows", torch.device("cuda:0")):
        raise error


def test_the_threads_are_as_before_after_a_training() -> None:
    before = torch.get_num_threads()
    with repeatable(torch.device("cpu")):
        torch.set_num_threads(before + 1)
    assert torch.get_num_threads() == before


def test_a_training_has_at_least_one_thread_and_at_most_all_processors() -> None:
    assert 1 <= idle_processors(own=1) <= (os.cpu_count() or 1)


def test_auto_is_a_device_that_is_there() -> None:
    assert choose_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


def test_a_missing_gpu_is_an_error() -> None:
    with pytest.raises(DeviceUnavailable, match="'cuda:99' is not there"):
        choose_device("cuda:99")
