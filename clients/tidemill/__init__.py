"""Tidemill's client: ask a model from one line of code, pay for the time between start and stop.

    import tidemill

    with tidemill.Client() as client, client.session("tide-nano"):
        client.print_prompt(client.complete_prompt("What is a tide mill?"))

`AsyncClient` is the same with asyncio, `OneLine` the same with the key first and nothing to keep.
"""

import importlib
import importlib.util
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tidemill.public_names import *  # noqa: F403 -- whatever is public there

# gRPC reads it once, when it is imported; else it writes of every handshake that fails, beside the error that we raise.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")

__version__ = "0.1.0"  # as in pyproject.toml, which a test compares; asking the installation takes longer than all else


def __getattr__(name: str) -> Any:
    """A public name. They are loaded together, when one is asked for first: a replica only wants the messages below."""
    if name.startswith("__") and name != "__all__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if importlib.util.find_spec(f"tidemill.{name}") is not None:  # as `from tidemill import receipt` asks first
        raise AttributeError(f"the module tidemill.{name} is not imported yet")
    public = importlib.import_module("tidemill.public_names")
    value = [*public.__all__, "__version__"] if name == "__all__" else getattr(public, name)
    globals()[name] = value  # so that it is asked for once
    return value


def __dir__() -> list[str]:
    """The public names alone; what lies beside them is how they are made."""
    return sorted(__getattr__("__all__"))
