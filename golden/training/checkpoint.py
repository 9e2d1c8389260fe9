"""Checkpoints: float weights with the name, width and size of their network.

A file is a dictionary written by `torch.save`: ``model``, ``width``, ``size``, ``state_dict``, and
what else its writer needs. It is read with ``weights_only=True``, so it cannot run code.
Where a checkpoint is read, the name of trained weights of this repository (``elec4848-32``) will
do, and so will the HDF5 file of a Keras model (:mod:`golden.keras`).
"""

import pickle
import struct
from pathlib import Path

import torch

from golden.errors import InputError
from golden.files import check_file
from golden.keras import is_keras, read_keras
from golden.models import load_float, shipped
from golden.names import MOST_SIZE, MOST_WIDTH
from golden.training.teacher import TRAINABLE

__all__ = ["check_state", "load_checkpoint", "read_checkpoint", "save_checkpoint"]

KEYS = ("model", "width", "size", "state_dict")
MOST = {"width": MOST_WIDTH, "size": MOST_SIZE}

# What `torch.load` raises of a file that is none of its own, or damaged.
DAMAGED = (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError, TypeError,
           AttributeError, IndexError, ImportError, AssertionError, MemoryError, OverflowError,
           struct.error)


def save_checkpoint(path, network, **more):
    """Write a network; the file appears whole or not at all."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    torch.save({**_content(network), **more}, part)
    part.replace(path)


def read_checkpoint(path, model=None, width=None):
    """The dictionary of a file, or of shipped weights; of this model and width, if given. Its
    weights are finite, and those of its network."""
    content = _stored(path)
    where = f"Checkpoint {str(path)!r}"
    for name, wanted in {"model": model, "width": width}.items():
        if wanted is not None and content[name] != wanted:
            raise InputError(f"{where} is of {content['model']} with width "
                             f"{content['width']}, not of {model or content['model']} with width "
                             f"{width or content['width']}; give {name.upper()}={content[name]}, "
                             f"or another checkpoint")
    if content["model"] not in TRAINABLE:
        raise InputError(f"{where} is of {content['model']!r}, which is not "
                         f"known; known: {', '.join(TRAINABLE)}")
    with torch.device("meta"):
        network = TRAINABLE[content["model"]](width=content["width"], size=content["size"])
    check_state(content["state_dict"], network.state_dict(), f"{where} does not fit {network.name}")
    return content


def check_state(state, wanted, problem):
    """Refuse, in a line that begins with ``problem``, weights that are not what the state
    ``wanted`` has: the same names and shapes, finite, and no variance below zero."""
    if not isinstance(state, dict):
        raise InputError(f"{problem}: it has no weights; name one that training wrote")
    for name in sorted(set(state) ^ set(wanted), key=str):
        raise InputError(f"{problem}: {name!r} is {'missing' if name in wanted else 'too much'}; "
                         f"name one that training wrote")
    for name, target in wanted.items():
        value = state[name]
        if not isinstance(value, torch.Tensor) or value.shape != target.shape:
            raise InputError(f"{problem}: {name!r} is no array of shape {tuple(target.shape)}; "
                             f"name one that training wrote")
        plain = (value.layout is torch.strided and value.device.type == "cpu"
                 and not value.is_quantized
                 and value.is_floating_point() == target.is_floating_point()
                 and not value.is_complex())
        if not plain or not value.to(target.dtype).isfinite().all():
            raise InputError(f"{problem}: {name!r} is not all finite numbers; take one from before "
                             f"training diverged")
        if name.endswith("running_var") and (value < 0).any():
            raise InputError(f"{problem}: {name!r} has a variance below zero; name one that "
                             f"training wrote")


def _stored(path):
    if str(path) in shipped():
        model, width = shipped()[str(path)]
        return _content(load_float(model, width=width))
    if is_keras(path):
        return _content(read_keras(path))
    check_file(Path(path), "a checkpoint")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise InputError(f"No checkpoint at {str(path)!r}; training writes best.pt and last.pt "
                         f"into its folder; shipped weights go by name, like elec4848-32"
                         ) from None
    except DAMAGED:
        content = None
    if not isinstance(content, dict) or any(key not in content for key in KEYS):
        raise InputError(f"File {str(path)!r} is not a checkpoint with {', '.join(KEYS)}; name "
                         f"one that training wrote")
    for name, most in MOST.items():
        if type(content[name]) is not int or not 1 <= content[name] <= most:
            raise InputError(f"Checkpoint {str(path)!r} has {name} {str(content[name])[:40]!r}, "
                             f"which must be 1 to {most}; name one that training wrote")
    if not isinstance(content["model"], str):
        raise InputError(f"Checkpoint {str(path)!r} has no name of a model; name one that training "
                         f"wrote")
    return content


def _content(network):
    return {"model": network.name, "width": network.width, "size": network.size,
            "state_dict": network.state_dict()}


def load_checkpoint(path, model=None, width=None, size=None):
    """The float network of a file, in evaluation mode."""
    content = read_checkpoint(path, model, width)
    with torch.random.fork_rng(devices=()):
        network = TRAINABLE[content["model"]](width=content["width"],
                                              size=size or content["size"])
    network.load_state_dict(content["state_dict"])
    return network.eval()
