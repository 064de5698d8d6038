"""How the program `descent` becomes the server: the same process, another program.

Light on purpose: a server should not wait for the command line of the client to load.
"""

import os
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from typing import NoReturn

#: What needs nothing of the command line. `keys` may ask a service instead, see `descent.cli`.
COMMANDS = ("serve", "worker", "migrate")
#: What only the server extra installs.
PACKAGES = ("fastapi", "sqlalchemy", "torch", "uvicorn")


def become_server(command: str, arguments: Sequence[str]) -> NoReturn:
    """Replace this process. With -P a folder `models` where the user stands shadows nothing."""
    need_packages(command)
    line = [sys.executable, "-P", "-m", "service", command, *arguments]
    os.execv(sys.executable, line)  # noqa: S606  no shell is wanted: this interpreter, our module


def missing_packages() -> list[str]:
    """Return what of the server extra is not installed."""
    return [name for name in PACKAGES if find_spec(name) is None]


def need_packages(command: str) -> None:
    """Exit with a sentence where the server extra is not installed."""
    if missing := missing_packages():
        instead = " (or ask a service: --remote)" if command == "keys" else ""
        sys.stderr.write(
            f"descent: `descent {command}` needs {', '.join(missing)}:"
            f" pip install 'descent[server]'{instead}\n"
        )
        sys.exit(1)
