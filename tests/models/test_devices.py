import pytest
import torch

from models.devices import choose_device, choose_threads, memory_failures, repeatable
from models.errors import DeviceUnavailable, OutOfMemory


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 byte"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_every_way_to_run_out_of_memory_is_told_with_a_remedy(error: Exception) -> None:
    with pytest.raises(OutOfMemory, match="for a million rows; use a smaller batch_size"):
        raise_inside(error)


def test_other_errors_stay_what_they_are() -> None:
    with pytest.raises(RuntimeError, match="shapes"):
        raise_inside(RuntimeError("shapes do not match"))


def raise_inside(error: Exception) -> None:
    with memory_failures("a million rows"):
        raise error


def test_the_threads_are_as_before_after_a_training() -> None:
    before = torch.get_num_threads()
    with repeatable(torch.device("cpu")):
        torch.set_num_threads(before + 1)
    assert torch.get_num_threads() == before


def test_a_small_step_gets_one_thread() -> None:
    assert choose_threads(batch=32, parameters=5_000) == 1


def test_auto_is_a_device_that_is_there() -> None:
    assert choose_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


def test_a_missing_gpu_is_an_error() -> None:
    with pytest.raises(DeviceUnavailable, match="'cuda:99' is not there"):
        choose_device("cuda:99")
