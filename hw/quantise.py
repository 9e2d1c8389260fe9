"""``make quantise``: a float ONNX file becomes one that the machine runs, calibrated on pictures.

ONNX Runtime's own quantiser does it: batch normalisation folded, weights int8 with a scale for each
output channel, activations uint8 with a zero point, ranges as the pictures take them. The result is
imported before it is written, so what does not run is refused with all its reasons; and both files
say what they see in the pictures. Exit code 0: OUT is written; 2: it could not be done.
"""

import logging
import math
import sys
import tempfile
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import replace
from io import StringIO
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process
from rich.console import Console

from golden.command import Parser, exit_code, make_console
from golden.data import phantoms
from golden.data.busi import MASK
from golden.data.sample import pictures
from golden.errors import InputError
from golden.folders import Fresh
from golden.images import padded, read_image
from golden.names import is_file
from golden.places import COMMAND
from golden.progress import bars
from hw.compiler.importer import Refused, import_onnx
from hw.compiler.importer.check import plain, printable, read_model, told
from hw.compiler.importer.door import as_channels
from hw.compiler.importer.file import fixed_frame
from hw.compiler.importer.layout import channels_first
from hw.compiler.importer.read_tables import POINTWISE, TOGETHER
from hw.freeze import frozen
from hw.squeeze import in_steps
from hw.stacked import unstacked

__all__ = ["calibrated", "load_calibrated", "main"]

OPSET     = 17      # of what is written, if the file's own is older than PER_CHANNEL
PER_CHANNEL = 13    # opset from which DequantizeLinear has scales along an axis
PIXELS    = {"rmin": np.float32(0), "rmax": np.float32(1)}      # whatever the pictures have
FATAL     = 4       # of what ONNX Runtime has to say
MOST_PICTURES = 32  # of a folder, evenly spread


def load_calibrated(path, calibration, *, size=None, picture=None, freeze=False, console=None):
    """A float ONNX file, quantised on pictures, as :class:`hw.compiler.importer.Imported`.

    Parameters
    ----------
    path : path
    calibration : str
        As of :func:`calibrated`.
    size : int, optional
        Rows and columns that the file leaves open.
    picture : tuple of int, optional
        Rows and columns of a picture, which is padded to a frame; the frame's unless given.
    freeze : bool
        Whether normalisation by a frame's own statistics becomes one by those of the pictures
        (:mod:`hw.freeze`).
    console : rich.console.Console, optional
        Where progress is shown.

    Raises
    ------
    Refused
        If nodes of the result cannot run.
    InputError
        If it is no float model of one frame, ONNX Runtime does not take it, or there are no
        pictures.
    """
    names = calibrated(calibration)
    model = channels_first(plain(read_model(path), path))
    if any(node.op_type in ("DequantizeLinear", "QLinearConv") for node in model.graph.node):
        raise InputError(f"{path} is quantised already; `{COMMAND} sim MODEL={path}` takes it "
                         "as it is")
    given, (channels, *frame) = _fixed(model, path, size)
    feeds = [{given: as_channels(padded(read_image(name, picture or frame), frame), channels)
              .numpy()[None].astype(np.float32) / 255} for name in names]
    with _quiet(), bars(console or Console(quiet=True)) as bar:
        task = bar.add_task("calibrate", total=len(names))
        made = _quantised(model, path, feeds, freeze, lambda: bar.advance(task))
    return replace(import_onnx(path, model=made), origin=model)


def _quantised(model, path, feeds, freeze, advance):
    """The float ``model`` of a file as ONNX QDQ; ``advance`` is called after each of ``feeds``."""
    with tempfile.TemporaryDirectory() as scratch:
        steps = [Path(scratch) / f"{number}.onnx" for number in range(3)]
        try:
            version = next(x.version for x in model.opset_import if x.domain in ("", "ai.onnx"))
            if version < PER_CHANNEL:
                model = onnx.version_converter.convert_version(model, OPSET)
            onnx.save(frozen(model, feeds) if freeze else model, steps[0])
            with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
                quant_pre_process(steps[0], steps[1], skip_symbolic_shape=True)
            ready = in_steps(unstacked(onnx.load(steps[1])))
            for number, node in enumerate(ready.graph.node):
                node.name = node.name or f"{node.op_type}_{number}"
            quantize_static(
                ready, steps[2], _Reader(feeds, advance), QuantFormat.QDQ,
                op_types_to_quantize=sorted({node.op_type for node in ready.graph.node}),
                nodes_to_exclude=sorted(_inside(ready.graph)), per_channel=True,
                activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
                extra_options={"WeightSymmetric": True, "ActivationSymmetric": False,
                               "TensorQuantOverrides": {name: [PIXELS] for name in feeds[0]}})
            return onnx.load(steps[2])
        except Exception as error:      # its own classes, and whatever a strange graph meets there
            raise InputError(f"{path}: ONNX Runtime does not quantise it ({told(error)}); quantise "
                             "it with another tool, as ONNX QDQ") from None


def calibrated(text):
    """The pictures of a folder (masks left out, at most 32), or phantoms.

    Raises
    ------
    InputError
        If there are none.
    """
    if phantoms.is_phantom(text):
        found = [sample.image for sample in phantoms.read(text).samples]
    else:
        folder = Path(text)
        if not folder.is_dir():
            raise InputError(f"No folder {text!r}; CALIBRATION is a folder of pictures such as the "
                             "network will see, or phantom:N")
        found = [path for path in pictures(folder) if not MASK.search(path.stem)]
    if not found:
        raise InputError(f"No pictures in {text!r}; CALIBRATION is a folder of PNG, JPEG or BMP "
                         "files, or phantom:N")
    return [found[index * len(found) // MOST_PICTURES] for index in range(MOST_PICTURES)] if (
        len(found) > MOST_PICTURES) else found


def _inside(graph):
    """Names of the nodes that are parts of an activation, such as those of ``x * sigmoid(x)``: what
    they make is not rounded before the last of them, and all are one table. What makes an output is
    not among them, so that it is rounded; but a sigmoid alone there is the host's."""
    ends    = {x.name for x in graph.output}
    numbers = {x.name: math.prod(x.dims) for x in graph.initializer}
    roots, found = {x.name: None for x in graph.input}, set()
    for node in graph.node:
        if node.op_type == "Constant":
            numbers |= {name: math.prod(attribute.t.dims) for name in node.output
                        for attribute in node.attribute if attribute.name == "value"}
            continue
        maps  = [name for name in node.input if name and name not in numbers]
        alike = len({roots.get(name, name) for name in maps}) == 1 and all(
            numbers.get(name, 1) == 1 for name in node.input)
        begun = any(roots.get(name) for name in maps)
        first = maps and roots.get(maps[0], maps[0])
        if node.output[0] in ends and (begun or node.op_type != "Sigmoid"):
            continue
        if alike and first and (node.op_type in {*POINTWISE, "Sigmoid"} or begun and (
                node.op_type in {*TOGETHER, "Relu", "Clip"}) or (
                node.op_type in TOGETHER and len(maps) == 1)):
            roots[node.output[0]] = first
            found.add(node.name)
    return found


class _Reader(CalibrationDataReader):
    """Frames in turn."""

    def __init__(self, feeds, advance):
        self._left, self._advance = iter(feeds), advance

    def get_next(self):
        feed = next(self._left, None)
        if feed is not None:
            self._advance()
        return feed


def _fixed(model, path, size):
    """Name of the frame, and its channels, rows and columns, which become those of the model."""
    given, shape = fixed_frame(model, path, size)
    if given.type.tensor_type.elem_type != TensorProto.FLOAT:
        raise InputError(f"{path}: input {printable(given.name)!r} is not float32; export with "
                         "float32")
    for info in model.graph.output:
        info.type.tensor_type.ClearField("shape")
    del model.graph.value_info[:]
    return given.name, shape


@contextmanager
def _quiet():
    """Without ONNX Runtime's advice about its own tools."""
    logging.disable(logging.WARNING)
    onnxruntime.set_default_logger_severity(FATAL)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def main(arguments=None):
    """The command line; returns the exit code."""
    return exit_code(_command, arguments)


def _command(arguments):
    options, console = _parse(arguments), make_console()
    if not is_file(options.model):
        raise InputError(f"MODEL must be an ONNX file, not {options.model!r}; the project's own "
                         "networks are quantised already")
    try:
        imported = load_calibrated(options.model, options.calibration, size=options.size,
                                   freeze=options.freeze, console=console)
    except Refused as refused:
        raise InputError("\n  ".join(refused.lines)) from None
    path = Path(options.out)
    if path.suffix != ".onnx":
        path = path / f"{Path(options.model).stem}-int8.onnx"
    with Fresh(path.parent, (), shared=True) as folder:
        onnx.save(imported.model, folder / path.name)
    console.print(f"{path}: {path.stat().st_size / 1e6:.1f} MB, {len(imported.graph.layers)} "
                  "layers", soft_wrap=True)
    shown = [imported.frame(read_image(name, imported.picture))
             for name in calibrated(options.calibration)]
    equal = torch.stack([
        (imported.segment_frame(frame, imported.model) > 0.5) == (
            imported.segment_frame(frame) > 0.5) for frame in shown]).to(torch.float64).mean()
    console.print(f"mask: {equal:.3%} of the pixels as the float network has them, in the pictures "
                  "of the calibration")
    for note in imported.notes:
        console.print(note)
    console.print(f"next: {COMMAND} check-model MODEL={path}", soft_wrap=True)
    return 0


def _parse(arguments):
    parser = Parser("hw.quantise", __doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--calibration", default="phantom:16")
    parser.add_argument("--size", type=int)
    parser.add_argument("--freeze", action="store_true")
    parser.add_argument("--out", default="reports")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
