"""Checkpoints: float weights with the name, width and size of their network.

A file is a dictionary written by `torch.save`: ``model``, ``width``, ``size``, ``state_dict``, and
what else its writer needs. It is read with ``weights_only=True``, so it cannot run code.
Where a checkpoint is read, the name of trained weights of this repository (``elec4848-32``) will
do, and so will the HDF5 file of a Keras model (:mod:`golden.keras`).
"""

import pickle
from pathlib import Path

import torch

from golden.errors import InputError
from golden.keras import is_keras, read_keras
from golden.models import load_float, shipped
from golden.networks import MODELS

__all__ = ["load_checkpoint", "read_checkpoint", "save_checkpoint"]

KEYS = ("model", "width", "size", "state_dict")


def save_checkpoint(path, network, **more):
    """Write a network; the file appears whole or not at all."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    torch.save({**_content(network), **more}, part)
    part.replace(path)


def read_checkpoint(path, model=None, width=None):
    """The dictionary of a file, or of shipped weights; of this model and width, if given."""
    content = _stored(path)
    for name, wanted in {"model": model, "width": width}.items():
        if wanted is not None and content[name] != wanted:
            raise InputError(f"Checkpoint {str(path)!r} is of {content['model']} with width "
                             f"{content['width']}, not of {model or content['model']} with width "
                             f"{width or content['width']}; give {name.upper()}={content[name]}, "
                             f"or another checkpoint")
    if content["model"] not in MODELS:
        raise InputError(f"Checkpoint {str(path)!r} is of {content['model']!r}, which is not "
                         f"known; known: {', '.join(MODELS)}")
    return content


def _stored(path):
    if str(path) in shipped():
        model, width = shipped()[str(path)]
        return _content(load_float(model, width=width))
    if is_keras(path):
        return _content(read_keras(path))
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise InputError(f"No checkpoint at {str(path)!r}; training writes best.pt and last.pt "
                         f"into its folder; shipped weights go by name, like elec4848-32"
                         ) from None
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError):
        content = None
    if not isinstance(content, dict) or any(key not in content for key in KEYS):
        raise InputError(f"File {str(path)!r} is not a checkpoint with {', '.join(KEYS)}; name "
                         f"one that training wrote")
    return content


def _content(network):
    return {"model": network.name, "width": network.width, "size": network.size,
            "state_dict": network.state_dict()}


def load_checkpoint(path, model=None, width=None, size=None):
    """The float network of a file, in evaluation mode."""
    content = read_checkpoint(path, model, width)
    network = MODELS[content["model"]](width=content["width"], size=size or content["size"])
    try:
        network.load_state_dict(content["state_dict"])
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"Checkpoint {str(path)!r} does not fit {content['model']}: "
                         f"{reason}") from None
    return network.eval()
