"""A network as a person names it: by name, as an ONNX file, or as a float one with pictures; and a
PyTorch module as such a file."""

import contextlib
import io
import warnings
from dataclasses import replace

import torch
from torch import nn

from golden.errors import InputError
from golden.models import load_graph
from golden.names import POOLINGS, is_file, whole_side
from hw.compiler.importer import import_onnx
from hw.compiler.importer.check import told
from hw.quantise import load_calibrated

__all__ = ["export_module", "load_network", "padding"]

HALVINGS = 7        # of a frame by a network, at most, for which the host pads
OPSET    = 17


def load_network(model, size=None, width=None, *, pad=False, calibration=None, freeze=False,
                 console=None):
    """The integer graph of a network, and its :class:`hw.compiler.importer.Imported` if it is a
    file, else None.

    Parameters
    ----------
    model : str
        A name of :data:`golden.names.POOLINGS`, or the path of an ONNX file.
    size, width : int, optional
        Side of a picture; filters of the first level, which files bring along.
    pad : bool
        Whether the frame may be larger than a picture, where the network does not run on one of
        ``size``: the next multiple of a power of two on which it does.
    calibration : str, optional
        Pictures with which a float file is quantised (:mod:`hw.quantise`), which ``freeze`` and
        ``console`` are for.

    Raises
    ------
    Refused
        If nodes of the file cannot run; it lists all of them.
    InputError
        If there is no such network.
    """
    if freeze and calibration is None:
        raise InputError("FREEZE takes statistics of the pictures of CALIBRATION; give that, too")
    if not is_file(model):
        if calibration is not None:
            raise InputError(f"CALIBRATION is for float ONNX files; {model!r} is a network of this "
                             "project, and is quantised already")
        side = whole_side(model, size) if pad and size is not None and model in POOLINGS else size
        return load_graph(model, side, width), None
    if width is not None:
        raise InputError(f"{model} has the width that it was exported with; leave WIDTH out")
    picture = None if size is None else (size, size)
    for side in _sides(size) if pad else (size,):
        try:
            imported = import_onnx(model, size=side) if calibration is None else load_calibrated(
                model, calibration, size=side, picture=picture, freeze=freeze, console=console)
            break
        except InputError as error:
            refused = error         # the last side is the most even one
    else:
        raise refused
    rows, columns = imported.picture
    if (rows, columns) != (side or rows, side or columns):
        raise InputError(f"{model} is for frames of {rows} x {columns}; leave SIZE out, or export "
                         "it for others")
    return imported.graph, replace(imported, picture=picture or imported.picture)


def _sides(size):
    """``size``, and the next multiples of powers of two."""
    return (None,) if size is None else sorted({-(-size >> power << power)
                                                for power in range(HALVINGS + 1)})


def padding(picture, frame):
    """What the host does to a picture of so many rows and columns that is not of the frame's, in
    words; None where it is."""
    if tuple(picture) == tuple(frame):
        return None
    sides = [f"{rows} x {columns}" for rows, columns in (picture, frame)]
    return (f"the network takes no pictures of {sides[0]}: the host pads them to {sides[1]}, "
            "repeating their last row and column, and crops the mask")


def export_module(module, path, channels, sides):
    """Write a PyTorch module, in evaluation mode, as a float ONNX file for frames of ``channels``
    and ``sides``: the first of its results, where it has several. The module stays as it is.

    Raises
    ------
    InputError
        If PyTorch cannot.
    """
    frame = torch.rand(1, channels, *sides)
    modes = [(part, part.training) for part in module.modules()]
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            torch.onnx.export(_First(module).eval(), (frame,), path, input_names=["image"],
                              output_names=["mask"], opset_version=OPSET, dynamo=False)
    except Exception as error:      # whatever a module raises, too
        raise InputError(f"PyTorch does not export {type(module).__name__} for frames of "
                         f"{channels} x {sides[0]} x {sides[1]} ({told(error)})") from None
    finally:
        for part, training in modes:
            part.training = training


class _First(nn.Module):
    """A network that returns the first of its results, where it has several."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x):
        """One mask."""
        found = self.network(x)
        return found[0] if isinstance(found, list | tuple) else found
