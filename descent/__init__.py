"""Train neural networks on tables through a service: `from descent import Client`.

Importing this package is cheap: the client's modules load at the first use of a name below.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from descent.client import Client
    from descent.errors import DescentError
    from descent.model import Model
    from descent.run import Run

__all__ = ["Client", "DescentError", "Model", "Run"]

_HOMES = {
    "Client": "descent.client",
    "DescentError": "descent.errors",
    "Model": "descent.model",
    "Run": "descent.run",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        msg = f"module 'descent' has no attribute {name!r}"
        raise AttributeError(msg)
    return getattr(import_module(_HOMES[name]), name)
