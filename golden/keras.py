"""Weights of ELEC4848's Keras model into :func:`golden.networks.elec4848`, by layer name.

Training, evaluation, export and explanation take such a file where they take a checkpoint. Read are
the HDF5 files of ``model.save("x.h5")``, with layers under ``model_weights``, and of
``model.save_weights("x.h5")``, with layers at the top; Keras itself is not needed. The names of
the layers are one of these:

* the source's blocks, ``Encoder1..4``, ``Encoding``, ``Attention1..4``, ``Decoder1..4``, and one
  more convolution of any name for the output. Within a block, convolutions are named ``c1 c2`` or
  ``normal down learn``, or count in the order of their numbers (``conv2d_7``, ``conv2d_10``).
  The batch normalisation of a gate has any name;
* the tensors in README.md, ``e1a c1 .. encoding g1_normal g1_down g1_logit gated1 d1a d1 ..
  logit``, where ``gated1`` is the batch normalisation of gate 1;
* Keras' own ``conv2d``, ``conv2d_1`` .. and ``batch_normalization`` .., which count in the order
  in which the model was built: encoder, gate 1, decoder 1, gate 2 and so on, output.
"""

import re
from itertools import chain
from pathlib import Path

import h5py
import numpy as np
import torch

from golden.errors import InputError
from golden.networks import elec4848

__all__ = ["BLOCKS", "MODULES", "NORMS", "is_keras", "read_keras"]

SUFFIXES = (".h5", ".hdf5", ".keras")       # the last is refused, with a line that says what to do

ENCODERS = {f"Encoder{i}": {"c1": f"e{i}a", "c2": f"c{i}"} for i in range(1, 5)} | {
    "Encoding": {"c1": "e5a", "c2": "encoding"}}
GATES = {f"Attention{i}": {"normal": f"g{i}_normal", "down": f"g{i}_down", "learn": f"g{i}_logit"}
         for i in range(1, 5)}
DECODERS = {f"Decoder{i}": {"c1": f"d{i}a", "c2": f"d{i}"} for i in range(1, 5)}
STAGES = dict(chain.from_iterable(zip(GATES.items(), DECODERS.items(), strict=True)))

# Block of the source -> its convolutions by name within it -> the tensors that they make; in the
# order in which the source builds them.
BLOCKS = ENCODERS | STAGES

# Batch normalisation, by the tensor it makes -> block of the source.
NORMS = {f"gated{i}": f"Attention{i}" for i in range(1, 5)}

CONV_ARRAYS = {"kernel": "weight", "bias": "bias"}
NORM_ARRAYS = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean",
               "moving_variance": "running_var"}
NUMBERED = re.compile(r"(conv2d|batch_normalization)(_\d+)?")
MOST_VALUES = 1 << 28           # of all arrays together: 31 times the source's model
# What h5py raises of files that HDF5 cannot make sense of.
DAMAGED = (OSError, RuntimeError, KeyError, ValueError, TypeError, NotImplementedError,
           AttributeError, UnicodeError, SystemError)
SAVE = "save the model with model.save('x.h5') or model.save_weights('x.h5')"


def _modules():
    """Module of the network by the tensor it makes."""
    modules = {}
    for part, blocks, inner in (("encoder", ENCODERS, ("a", "b")),
                                ("gates", GATES, ("normal", "down", "learn")),
                                ("decoder", DECODERS, ("a", "b"))):
        for index, tensors in enumerate(blocks.values()):
            for place, name in zip(inner, tensors.values(), strict=True):
                modules[name] = f"{part}.{index}.{place}"
    modules["logit"] = "final"
    return modules | {name: f"gates.{index}.norm" for index, name in enumerate(NORMS)}


MODULES = _modules()


def is_keras(path):
    """Whether a file, by its name, comes from Keras."""
    return Path(path).suffix.lower() in SUFFIXES


def read_keras(path, *, size=256):
    """The network with the weights of an HDF5 file, in evaluation mode; its width is the file's."""
    layers = _layers(path)
    places = _places(path, layers)
    arrays = {name: _checked(path, places[name], layers[places[name]],
                             NORM_ARRAYS if name in NORMS else CONV_ARRAYS) for name in MODULES}
    first = arrays["e1a"]["weight"]
    width = max(1, first.shape[-1] if first.ndim else 1)
    with torch.device("meta"):          # before memory is taken for a width that cannot be
        _fill(path, elec4848(size=size, width=width), arrays, places)
    return _fill(path, elec4848(size=size, width=width), arrays, places).eval()


def _fill(path, network, arrays, places):
    """Set the weights of a network, which it returns."""
    state = network.state_dict()
    for name, module in MODULES.items():
        for part, array in arrays[name].items():
            target = state[f"{module}.{part}"]
            # Keras' kernels are rows x columns x inputs x outputs.
            theirs = target.permute(2, 3, 1, 0) if target.dim() == 4 else target
            if array.shape != tuple(theirs.shape):
                raise InputError(
                    f"{str(path)!r}: layer {places[name]!r} has an array of shape {array.shape} "
                    f"where {name!r} of a network of width {network.width} has "
                    f"{tuple(theirs.shape)}; is it ELEC4848's model?")
            if not theirs.is_meta:
                theirs.copy_(torch.from_numpy(array))      # a view of the network's own
    return network


def _layers(path):
    """Arrays by place and name: ``{"Encoder1/conv2d": {"kernel": .., "bias": ..}, ..}``."""
    if not Path(path).is_file():
        raise InputError(f"No file {str(path)!r}; name an HDF5 file of a Keras model")
    layers, left = {}, MOST_VALUES

    def collect(top):
        def visit(name, item):
            nonlocal left
            if isinstance(item, h5py.Dataset):
                # Nothing is read that has no numbers, or more of them than a file can be taken for.
                left -= item.size or 0
                if item.dtype.kind not in "fiub" or item.shape is None or left < 0:
                    raise InputError(f"{str(path)!r}: {name!r} of {top!r} is no array of numbers "
                                     f"of a network; {SAVE}")
                *parts, array = name.split("/")
                place = "/".join([top, *(parts[1:] if parts[:1] == [top] else parts)])
                layers.setdefault(place, {})[array.removesuffix(":0")] = item[()]
        return visit

    try:
        with h5py.File(path, "r") as file:
            for top, group in file.get("model_weights", file).items():
                if isinstance(group, h5py.Group):
                    group.visititems(collect(top))
    except InputError:
        raise
    except DAMAGED as error:
        raise InputError(f"{str(path)!r} is not an HDF5 file, or is damaged; {SAVE}") from error
    if any("vars" in place.split("/") for place in layers):
        raise InputError(f"{str(path)!r} is a '.weights.h5' file of Keras 3, which has no layer "
                         f"names; {SAVE} of another name")
    return layers


def _places(path, layers):
    """Where the arrays of each tensor are; every layer of the file is used."""
    tops = {place.split("/")[0] for place in layers}
    if tops & set(BLOCKS):
        places = _places_of_blocks(path, layers)
    elif tops & set(MODULES):
        places = {name: name for name in MODULES}
    elif tops and all(NUMBERED.fullmatch(top) for top in tops):
        places = _places_by_number(path, layers)
    else:
        raise InputError(f"{str(path)!r} has no layer of ELEC4848 ({_listed(tops)}); "
                         "golden/keras.py has the names")
    if missing := [place for place in places.values() if place not in layers]:
        raise InputError(f"{str(path)!r} lacks {_listed(missing)}; is it ELEC4848's model?")
    if unknown := set(layers) - set(places.values()):
        raise InputError(f"{str(path)!r} has layers that ELEC4848 has not: {_listed(unknown)}")
    return places


def _places_of_blocks(path, layers):
    places = {}
    for block, tensors in BLOCKS.items():
        inside = [place for place in layers if place.startswith(f"{block}/")]
        if not inside:
            raise InputError(f"{str(path)!r} lacks {block!r}; is it ELEC4848's model?")
        norms = [place for place in inside if set(NORM_ARRAYS) & set(layers[place])]
        convolutions = sorted(set(inside) - set(norms), key=_number)
        if (len(convolutions), len(norms)) != (len(tensors), block in GATES):
            raise InputError(
                f"{str(path)!r}: {block!r} has {len(convolutions)} convolutions and {len(norms)} "
                f"batch normalisations, not {len(tensors)} and {int(block in GATES)}")
        named = {place.split("/")[-1]: place for place in convolutions}
        if set(named) == set(tensors):
            convolutions = [named[name] for name in tensors]
        places |= dict(zip(tensors.values(), convolutions, strict=True))
        places |= {name: norms[0] for name, owner in NORMS.items() if owner == block}
    rest = [place for place in layers if place.split("/")[0] not in BLOCKS]
    if len(rest) != 1:
        raise InputError(f"{str(path)!r} has {_listed(rest)} beside the blocks, "
                         "not one output convolution")
    return places | {"logit": rest[0]}


def _places_by_number(path, layers):
    convolutions = sorted((p for p in layers if p.startswith("conv2d")), key=_number)
    norms = sorted((p for p in layers if p.startswith("batch")), key=_number)
    tensors = [*chain.from_iterable(block.values() for block in BLOCKS.values()), "logit"]
    if (len(convolutions), len(norms)) != (len(tensors), len(NORMS)):
        raise InputError(f"{str(path)!r} has {len(convolutions)} convolutions and {len(norms)} "
                         f"batch normalisations, not {len(tensors)} and {len(NORMS)}")
    return dict(zip([*tensors, *NORMS], [*convolutions, *norms], strict=True))


def _checked(path, place, arrays, names):
    """The arrays of one layer by our names, in float32."""
    for name in sorted(set(names) - set(arrays)):
        raise InputError(f"{str(path)!r}: layer {place!r} has no {name!r}, but "
                         f"{_listed(arrays)}; separable models are not read")
    for name in sorted(set(arrays) - set(names)):
        raise InputError(f"{str(path)!r}: layer {place!r} has {name!r}, which ELEC4848 has not")
    taken = {}
    for name, array in arrays.items():
        with np.errstate(over="ignore"):
            taken[names[name]] = array.astype(np.float32)
        if array.dtype.kind != "f" or not np.isfinite(taken[names[name]]).all():
            raise InputError(f"{str(path)!r}: {name!r} of layer {place!r} is not all finite "
                             "numbers; take a file from before training diverged")
        if name == "moving_variance" and (array < 0).any():
            raise InputError(f"{str(path)!r}: {name!r} of layer {place!r} goes below zero; {SAVE}")
    return taken


def _number(place):
    """Keras' counter at the end of a name; the first layer of a kind has none."""
    digits = re.search(r"_([0-9]{1,9})$", place)
    return int(digits[1]) if digits else 0


def _listed(names):
    names = sorted(names, key=lambda name: (_number(name), name))
    more = f" and {len(names) - 4} more" if len(names) > 4 else ""
    return (", ".join(repr(name) for name in names[:4]) or "nothing") + more
