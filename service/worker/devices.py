"""What this machine can compute on, as far as can be told without torch."""

import os
from pathlib import Path
from typing import Any


def found_devices() -> list[dict[str, Any]]:
    """Return this machine's devices, as far as the kernel's driver tells without torch."""
    found: list[dict[str, Any]] = [{"name": "cpu", "cores": os.cpu_count()}]
    for index, folder in enumerate(sorted(Path("/proc/driver/nvidia/gpus").glob("*"))):
        text = (folder / "information").read_text()
        fields = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
        model = fields.get("Model", "NVIDIA GPU").strip()
        found.append({"name": f"cuda:{index}", "model": model})
    return found
