"""Compiles the kernel with Zig's C++ compiler, from the package ziglang.

    python models/engine/compiled/build.py [target] [library]

Called by `make` and by the build hook. Without arguments it compiles for this machine, into
`kernel.so` beside this file; a target such as `aarch64-linux-gnu.2.17` is for another.
"""

import platform
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

SOURCE = Path(__file__).resolve().parent
LIBRARY = SOURCE / "kernel.so"
#: No contraction: the source says which multiplications and additions are fused, so that every
#: processor gives the same bits.
FLAGS = (
    *("-std=c++17", "-O3", "-fPIC", "-fvisibility=hidden", "-Wall", "-Wextra", "-Werror"),
    *("-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math"),
    *("-fno-exceptions", "-fno-rtti", "-fno-sanitize=all"),
)
#: By processor: the builds of step.cc, each with the name of its table, and the other sources'
#: flags. On x86-64 entry.cc chooses between them when an engine is made.
STEPS: dict[str, dict[str, tuple[str, ...]]] = {
    "x86_64": {
        "avx512_steps": ("-march=x86_64_v4", "-mprefer-vector-width=512"),
        "avx2_steps": ("-march=x86_64_v3",),
    },
    "aarch64": {"plain_steps": ()},
}
REST: dict[str, tuple[str, ...]] = {"x86_64": ("-march=x86_64_v2",), "aarch64": ()}
NAMES = {"amd64": "x86_64", "arm64": "aarch64"}


def own_target() -> str | None:
    """Return Zig's name of this machine, or None if the kernel does not know it.

    With glibc, the library runs on every system since 2014 (glibc 2.17).
    """
    machine = platform.machine().lower()
    machine = NAMES.get(machine, machine)
    if machine not in STEPS:
        return None
    if sys.platform == "darwin":
        return f"{machine}-macos"
    if sys.platform != "linux":
        return None
    return f"{machine}-linux-{'gnu.2.17' if platform.libc_ver()[0] == 'glibc' else 'musl'}"


def build(target: str, library: Path) -> None:
    """Compile the library; raises `CalledProcessError`."""
    machine = target.partition("-")[0]
    with tempfile.TemporaryDirectory() as folder:
        objects = []
        for name, flags in STEPS[machine].items():
            objects.append(Path(folder, f"{name}.o"))
            compile_one("step.cc", (f"-DSTEPS={name}", *flags), target, objects[-1])
        for name in ("entry.cc", "pool.cc"):
            objects.append(Path(folder, f"{name}.o"))
            compile_one(name, REST[machine], target, objects[-1])
        new = Path(folder, "kernel.so")
        run(("-target", target, "-shared", "-s", "-nostdlib++", "-lpthread", *objects, "-o", new))
        # A process that has the old library loaded keeps it.
        temporary = library.with_suffix(".new")
        temporary.write_bytes(new.read_bytes())
        temporary.replace(library)


def compile_one(source: str, flags: Sequence[str], target: str, to: Path) -> None:
    run(("-target", target, *FLAGS, *flags, "-c", SOURCE / source, "-o", to))


def run(arguments: Sequence[str | Path]) -> None:
    subprocess.run([sys.executable, "-m", "ziglang", "c++", *arguments], check=True)  # noqa: S603  our own arguments


def main() -> None:
    target = sys.argv[1] if len(sys.argv) > 1 else own_target()
    if target is None:
        print(f"There is no kernel for {platform.machine()} with {sys.platform}.")  # noqa: T201
        return
    try:
        build(target, Path(sys.argv[2]) if len(sys.argv) > 2 else LIBRARY)
    except subprocess.CalledProcessError as error:
        sys.exit(f"The kernel could not be compiled: the compiler exited with {error.returncode}.")


if __name__ == "__main__":
    main()
