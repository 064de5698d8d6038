"""The kernel beyond what every engine must do: its builds, its checks, and its source in C++."""

import math
import platform
import shutil
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import torch

from models.engine import compiled
from models.engine.compiled import build
from models.engine.engine import Engine
from models.engine.examples import Examples
from models.engine.kernel import Kernel, is_there, name_build
from tests.models.engine.test_engines import MODELS, Case, advance

pytestmark = pytest.mark.skipif(not is_there(), reason="no kernel is built")
SOURCE = Path(compiled.__file__).parent
DRIVER = Path(__file__).parent / "kernel_driver.cc"
#: The bits of 40 random trainings. They change with the source alone, never with the processor.
RECORDED = "5f12a856443ba020b6395f056efb34a36b3cfecda2a89e78635c4074d7fe660d"


def kernel(case: Case, *, narrow: bool = False) -> Kernel:
    return Kernel(case.setup(), narrow=narrow)


@pytest.mark.skipif(
    name_build() == name_build(narrow=True),
    reason="this processor has one width of vectors",
)
def test_the_width_of_vectors_does_not_change_the_bits() -> None:
    for seed in range(200):
        case = Case(seed)
        assert advance(case, kernel(case)) == advance(case, kernel(case, narrow=True)), seed


def test_a_training_has_the_recorded_bits() -> None:
    bits = sha256()
    for seed in range(40):
        case = Case(seed)
        # No number is from torch, whose random numbers may change.
        draw = np.random.default_rng(seed)
        engine = kernel(case)
        values = draw.normal(size=len(engine.flat.values)) * 0.3
        engine.flat.values.copy_(torch.from_numpy(values))
        engine.push()
        x = torch.from_numpy(draw.normal(size=case.examples.x.shape).astype(np.float32))
        truth = case.examples.truth
        if not case.is_class:
            truth = torch.from_numpy(draw.normal(size=truth.shape).astype(np.float32))
        else:
            truth = torch.from_numpy(draw.integers(0, case.outputs, len(truth)))
        case.examples = Examples(x, truth)
        bits.update(advance(case, engine))
    assert bits.hexdigest() == RECORDED


def test_more_rows_than_a_tile_agree_with_autograd() -> None:
    case = Case(5)
    case.rows = case.batch = 10_000
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(case.rows, case.inputs, generator=rng)
    truth = torch.randn(case.rows, case.outputs, generator=rng)
    if case.is_class:
        truth = torch.randint(0, case.outputs, (case.rows,), generator=rng)
    case.examples = Examples(x, truth)
    fast, slow = kernel(case), case.engine("autograd")
    advance(case, fast)
    advance(case, slow)
    np.testing.assert_allclose(fast.flat.values, slow.flat.values, rtol=1e-3, atol=2e-5)


def test_an_evaluation_agrees_with_that_of_the_net() -> None:
    for seed in range(60):
        case = Case(seed)
        engine = kernel(case)
        advance(case, engine)
        sums, hits = engine.evaluate(case.examples)
        expected, expected_hits = Engine.evaluate(engine, case.examples)
        np.testing.assert_allclose(sums, expected, rtol=1e-5)
        assert hits == expected_hits


def test_an_evaluation_uses_the_parameters_of_the_net_and_keeps_its_own() -> None:
    case = Case(5)
    engine = kernel(case)
    advance(case, engine)
    own = engine.flat.values.clone()
    engine.flat.values.zero_()
    sums, _ = engine.evaluate(case.examples)
    np.testing.assert_allclose(sums, Engine.evaluate(engine, case.examples)[0], rtol=1e-5)
    engine.pull()
    assert torch.equal(engine.flat.values, own)


@pytest.mark.parametrize("row", [-1, 10**6, 2**62])
def test_an_order_beyond_the_table_is_refused_and_changes_nothing(row: int) -> None:
    case = Case(5)
    engine = kernel(case)
    before = engine.flat.values.clone()
    order = np.full(case.batch, row)
    with pytest.raises(ValueError, match="the order names a row that the table does not have"):
        engine.advance(case.examples, order, 0, 1, 1e-3, math.inf)
    engine.pull()
    assert torch.equal(engine.flat.values, before)
    assert engine.step == 0


def test_a_class_beyond_the_outputs_is_refused() -> None:
    case = next(case for case in map(Case, range(20)) if case.is_class)
    case.examples.truth[0] = case.outputs
    with pytest.raises(ValueError, match="a class is not among the outputs"):
        kernel(case).advance(case.examples, None, 0, case.steps, 1e-3, math.inf)


def test_batches_beyond_the_epoch_are_refused() -> None:
    case = Case(5)
    with pytest.raises(ValueError, match="arrays of a wrong size"):
        kernel(case).advance(case.examples, None, 0, case.steps + 1, 1e-3, math.inf)


def test_subnormal_numbers_are_flushed_inside_alone() -> None:
    case = Case(5)
    small = np.array([1e-39], np.float32)
    kernel(case).advance(case.examples, None, 0, 1, 1e-3, math.inf)
    assert (small * np.float32(1.0))[0] > 0


def test_wide_nets_are_left_to_other_engines() -> None:
    case = Case(5)
    assert Kernel.covers(case.setup())
    case.model = MODELS.validate_python({"type": "mlp", "hidden": [2000]})
    assert not Kernel.covers(case.setup())


# ---- The source, without Python ----


def compile_driver(folder: Path, *flags: str) -> Path:
    """Compile the kernel and its driver with gcc, which has the sanitizers."""
    common = ("-std=c++17", "-g", "-O1", "-ffp-contract=off", "-Wno-psabi", *flags)
    objects = []
    for name, march in build.STEPS["x86_64"].items():
        objects.append(str(folder / f"{name}.o"))
        level = march[0].replace("x86_64_", "x86-64-")
        run(
            "g++",
            *common,
            level,
            f"-DSTEPS={name}",
            "-c",
            str(SOURCE / "step.cc"),
            "-o",
            objects[-1],
        )
    driver = folder / "driver"
    sources = [str(SOURCE / "entry.cc"), str(SOURCE / "pool.cc"), str(DRIVER)]
    run("g++", *common, f"-I{SOURCE}", *sources, *objects, "-lpthread", "-o", str(driver))
    return driver


def run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


needs_gcc = pytest.mark.skipif(
    shutil.which("g++") is None or platform.machine() != "x86_64",
    reason="the sanitizers need g++ on x86-64",
)


@pytest.mark.nightly
@needs_gcc
def test_no_argument_makes_the_kernel_read_or_write_beyond_its_memory(tmp_path: Path) -> None:
    flags = "-fsanitize=address,undefined", "-fno-sanitize-recover=all"
    driver = compile_driver(tmp_path, *flags)
    for seed in range(5):
        assert "refused" in run(str(driver), "fuzz", "400", str(seed))


@pytest.mark.nightly
@needs_gcc
def test_the_threads_of_the_kernel_have_no_data_races(tmp_path: Path) -> None:
    driver = compile_driver(tmp_path, "-fsanitize=thread")
    assert "refused" in run(str(driver), "fuzz", "100", "0")


@pytest.mark.nightly
@needs_gcc
def test_another_compiler_gives_the_same_bits(tmp_path: Path) -> None:
    other = run(str(compile_driver(tmp_path)), "digest", "200").split()[1]
    assert (
        other
        == run(str(zig_driver(tmp_path, build.own_target() or "")), "digest", "200").split()[1]
    )


@pytest.mark.nightly
@pytest.mark.skipif(
    shutil.which("qemu-aarch64") is None or platform.machine() != "x86_64",
    reason="an ARM processor is emulated by qemu-aarch64",
)
def test_arm_has_the_same_bits(tmp_path: Path) -> None:
    own = run(str(zig_driver(tmp_path, build.own_target() or "")), "digest", "100")
    arm = zig_driver(tmp_path, "aarch64-linux-musl")
    assert run("qemu-aarch64", str(arm), "digest", "100").split()[1] == own.split()[1]


def zig_driver(folder: Path, target: str) -> Path:
    machine = target.partition("-")[0]
    objects = []
    for name, flags in build.STEPS[machine].items():
        objects.append(folder / f"{name}-{machine}.o")
        build.compile_one("step.cc", (f"-DSTEPS={name}", *flags), target, objects[-1])
    for name in ("entry.cc", "pool.cc"):
        objects.append(folder / f"{name}-{machine}.o")
        build.compile_one(name, build.REST[machine], target, objects[-1])
    driver = folder / f"driver-{machine}"
    zig = sys.executable, "-m", "ziglang", "c++", "-target", target, "-nostdlib++"
    static = ("-static",) if target.endswith("musl") else ()
    run(
        *zig,
        "-std=c++17",
        "-O1",
        f"-I{SOURCE}",
        str(DRIVER),
        *map(str, objects),
        *static,
        "-lpthread",
        "-o",
        str(driver),
    )
    return driver
