"""Adds the page and the kernel to wheels: a build hook that hatchling calls."""

import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from packaging.tags import platform_tags


class Hook(BuildHookInterface):
    """Builds `service/page`, unless the sources contain it, and the kernel of a wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        # An editable install uses the working tree, whose page and kernel `make` builds. NO_PAGE is
        # for machines without access to npm packages that need only the client or the API,
        # NO_KERNEL for those without a compiler: without it PyTorch does the same work.
        if version == "editable":
            return
        if not os.environ.get("NO_PAGE"):
            self._run("web/build.py")  # an sdist contains the page instead
        if self.target_name != "wheel":
            return
        if not os.environ.get("NO_KERNEL"):
            self._run("models/engine/compiled/build.py")
        if Path(self.root, "models/engine/compiled/kernel.so").exists():
            build_data["pure_python"] = False
            build_data["tag"] = f"py3-none-{_platform()}"

    def _run(self, script: str) -> None:
        path = Path(self.root, script)
        if path.exists():
            subprocess.run([sys.executable, path], check=True)  # noqa: S603  our own script


def _platform() -> str:
    """Return the platform on which the kernel runs; with glibc it needs version 2.17 or newer."""
    if platform.libc_ver()[0] == "glibc":
        return f"manylinux_2_17_{platform.machine()}"
    return next(platform_tags())
