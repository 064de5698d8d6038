"""The program `descent`, also as `python -m descent`."""

import sys
from importlib import import_module

from descent.server import COMMANDS, become_server


def main() -> None:
    """Replace this process by the server for its commands, or load the command line."""
    if len(sys.argv) > 1 and sys.argv[1] in COMMANDS:
        become_server(sys.argv[1], sys.argv[2:])
    import_module("descent.cli").main()


if __name__ == "__main__":
    main()
