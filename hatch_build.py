"""Adds the page to wheels: a build hook that hatchling calls."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class PageHook(BuildHookInterface):
    """Builds `service/page`, unless the sources contain it."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002  given by hatchling
        # An editable install serves the working tree, whose page `make` builds; NO_PAGE is for
        # machines without access to npm packages that need only the client or the API.
        if version == "editable" or os.environ.get("NO_PAGE"):
            return
        script = Path(self.root, "web", "build.py")
        if script.exists():  # an sdist contains the page instead
            subprocess.run([sys.executable, script], check=True)  # noqa: S603  our own script
