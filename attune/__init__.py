"""Attune from Python::

    from attune import Session, explore
    session = Session("unet.onnx", machine="reference", engine="model")
    mask, = session.run(None, {"image": pictures})      # uint8, frames x channels x rows x columns
    table = explore("tiny")                             # a machine a row
"""

from importlib import import_module

__all__ = ["Session", "explore"]

HOMES = {"Session": "sim.session", "explore": "sim.explore.from_python"}


def __getattr__(name):
    """What is imported when it is asked for: the command must answer before PyTorch is there."""
    if name not in HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(HOMES[name]), name)
