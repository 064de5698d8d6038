"""Turns the process of `descent serve` into the server.

This module imports little, so that the server starts without loading the client's command line.
"""

import os
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from typing import NoReturn

#: commands of the server; `keys` is not here, since with --remote it is the client's
COMMANDS = ("serve", "worker", "migrate")
#: packages that only the server extra installs
PACKAGES = ("fastapi", "sqlalchemy", "torch", "uvicorn")


def become_server(command: str, arguments: Sequence[str]) -> NoReturn:
    """Replace this process by the server. -P ignores a folder `models` in the working directory."""
    need_packages(command)
    line = [sys.executable, "-P", "-m", "service", command, *arguments]
    os.execv(sys.executable, line)  # noqa: S606  no shell: this interpreter, our module


def missing_packages() -> list[str]:
    """Return the packages of the server extra that are not installed."""
    return [name for name in PACKAGES if find_spec(name) is None]


def need_packages(command: str) -> None:
    """Exit with a message if the server extra is not installed."""
    if missing := missing_packages():
        instead = " (or ask a service: --remote)" if command == "keys" else ""
        sys.stderr.write(
            f"descent: `descent {command}` needs {', '.join(missing)}:"
            f" pip install 'descent[server]'{instead}\n"
        )
        sys.exit(1)
