"""The GPUs of a worker and the GPU of each attempt, tested without a GPU."""

from pathlib import Path

import pytest

from service.worker.machine import Gpu, choose_gpu, found_gpus

TWO = [Gpu("cuda:0", "A", {}), Gpu("cuda:1", "A", {})]


def driver(folder: Path, *models: str) -> Path:
    """Write the files of NVIDIA's driver about a machine's GPUs."""
    for number, model in enumerate(models):
        place = folder / f"0000:0{number}:00.0"
        place.mkdir()
        (place / "information").write_text(f"Model: \t\t {model}\nIRQ:   {number}\n")
    return folder


def test_each_gpu_of_the_driver_is_seen_alone_in_the_order_of_the_bus(tmp_path: Path) -> None:
    found = found_gpus(driver(tmp_path, "NVIDIA A100", "NVIDIA T4"), {})
    assert [(gpu.name, gpu.model) for gpu in found] == [
        ("cuda:0", "NVIDIA A100"),
        ("cuda:1", "NVIDIA T4"),
    ]
    assert found[1].environment == {
        "CUDA_VISIBLE_DEVICES": "1",
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "DESCENT_OWN_DEVICE": "cuda:1",
    }


def test_a_worker_that_may_see_some_gpus_only_gives_away_those(tmp_path: Path) -> None:
    place = driver(tmp_path, "NVIDIA A100", "NVIDIA A100", "NVIDIA A100")
    found = found_gpus(place, {"CUDA_VISIBLE_DEVICES": "2, GPU-1f"})
    assert [(gpu.name, gpu.model) for gpu in found] == [
        ("cuda:0", "NVIDIA A100"),
        ("cuda:1", "NVIDIA A100"),
    ]
    assert [dict(gpu.environment) for gpu in found] == [
        {"CUDA_VISIBLE_DEVICES": "2", "DESCENT_OWN_DEVICE": "cuda:0"},
        {"CUDA_VISIBLE_DEVICES": "GPU-1f", "DESCENT_OWN_DEVICE": "cuda:1"},
    ]


@pytest.mark.parametrize("visible", ["", "-1"])
def test_a_worker_that_may_see_no_gpu_has_none(tmp_path: Path, visible: str) -> None:
    place = driver(tmp_path, "NVIDIA A100")
    assert found_gpus(place, {"CUDA_VISIBLE_DEVICES": visible}) == ()


def test_a_machine_without_the_driver_has_no_gpu(tmp_path: Path) -> None:
    assert found_gpus(tmp_path / "gpus", {"CUDA_VISIBLE_DEVICES": "0"}) == ()


@pytest.mark.parametrize(
    ("asked", "held", "given"),
    [
        ("auto", [], "cuda:0"),
        ("auto", ["cuda:0"], "cuda:1"),
        ("cuda", ["cuda:1"], "cuda:0"),
        ("auto", ["cuda:0", "cuda:1"], "cuda:0"),
        ("auto", ["cuda:0", "cuda:1", "cuda:0"], "cuda:1"),
        ("cuda:1", ["cuda:1"], "cuda:1"),
        ("cuda:7", [], None),
        ("cpu", [], None),
        (None, [], None),
    ],
)
def test_an_attempt_gets_the_gpu_that_it_asks_for_or_that_the_fewest_hold(
    asked: str | None, held: list[str], given: str | None
) -> None:
    gpu = choose_gpu(asked, TWO, held)
    assert (gpu.name if gpu else None) == given


def test_without_gpus_no_attempt_gets_one() -> None:
    assert choose_gpu("auto", [], []) is None
