"""Train neural networks on tables through a service: `from descent import Client`.

Importing this package is cheap: the client is loaded when it is first asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

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


def __getattr__(name: str) -> Any:  # noqa: ANN401  what a module may hold
    if name not in _HOMES:
        msg = f"module 'descent' has no attribute {name!r}"
        raise AttributeError(msg)
    return getattr(import_module(_HOMES[name]), name)
