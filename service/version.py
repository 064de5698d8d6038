"""The version of this program."""

import importlib.metadata


def version() -> str:
    try:
        return importlib.metadata.version("descent")
    except importlib.metadata.PackageNotFoundError:
        return "0+unknown"  # run from a source tree that was never installed
