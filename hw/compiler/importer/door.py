"""From a file to an :class:`golden.integer.IntegerGraph`."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import torch

from golden.errors import InputError
from golden.integer import UNITS, Input, IntegerGraph
from hw.compiler.importer.check import name_of, spoken
from hw.compiler.importer.ending import Ending
from hw.compiler.importer.file import File
from hw.compiler.importer.judge import answer
from hw.compiler.importer.place import placed
from hw.compiler.importer.read import Reader

PIXEL = 1 / 255             # what a step of a picture is worth, in 0..1
REALS = {onnx.TensorProto.FLOAT: torch.float32, onnx.TensorProto.FLOAT16: torch.float16}
WHOLE_PIXELS = 32 * PIXEL   # input scales from here on are for pixels of 0..255


@dataclass(frozen=True, eq=False)
class Imported:
    """A network from a file.

    ``stored`` maps each tensor of ``graph`` that the file has to the file's integer tensors and
    what these lack to uint8 (128 for int8); ``hosted`` are outputs with the operators at the end
    that the host does, and ``ending`` what the first of them holds; ``notes`` say what a user
    should know, a line each. ``picture`` are rows and columns of the pictures that the host pads to
    a frame. ``origin`` is the float model if the file was quantised here.
    """
    graph:  IntegerGraph
    model:  onnx.ModelProto
    stored: dict[str, tuple[tuple[str, int], ...]]
    hosted: tuple[tuple[str, tuple[str, ...]], ...]
    ending: Ending
    notes:  tuple[str, ...]
    picture: tuple[int, int]
    origin: onnx.ModelProto | None = None

    def frame(self, picture_CHW):
        """What the machine is given for a picture of uint8: the bytes of the input's grid.

        Colour channels beyond the network's are dropped, and one is averaged of them.
        """
        channels = self.graph.tensors[self.graph.input].channels
        return self._table()[as_channels(picture_CHW, channels).to(torch.int64)]

    def segment(self, picture_CHW):
        """What ONNX Runtime makes of a picture with the file as it is, float or quantised:
        probabilities, H x W."""
        return self.segment_frame(self.frame(picture_CHW))

    def segment_frame(self, frame_CHW, model=None):
        """The same of what the machine is given, also with another ``model`` of this input and
        output."""
        ending = self.ending
        seen = answer(model or self.origin or self.model, ending.output, self.given(frame_CHW))
        t = self.graph.tensors[self.graph.output]
        made_CHW = ending.read(seen, (t.height, t.width))
        return torch.from_numpy(self._picture(made_CHW)[0]) / 256

    def given(self, frame_CHW):
        """What the file is fed, as ``{input: array}``, where the machine is given ``frame_CHW``."""
        taken = [x.name for x in self.model.graph.initializer]
        fed   = next(x for x in self.model.graph.input if x.name not in taken)
        kind  = fed.type.tensor_type.elem_type
        t     = self.graph.tensors[self.graph.input]
        if kind in REALS:
            given_CHW = (t.scale * (frame_CHW.to(torch.float32) - t.zero_point)).to(REALS[kind])
        else:
            given_CHW = frame_CHW if kind == onnx.TensorProto.UINT8 else (
                frame_CHW.to(torch.int16) - 128).to(torch.int8)
        return {fed.name: given_CHW[None].numpy()}

    def mask(self, stored_CHW):
        """A picture of what was found, uint8 1 x H x W of the frame's size, of the bytes of the
        first output: the probability in 1/256, above 127 where it is one half or more, after the
        host's part. Of several classes, 255 is all but the first.
        """
        t    = self.graph.tensors[self.graph.output]
        real = np.float32(t.scale) * (stored_CHW.astype(np.float32) - t.zero_point)
        return self._picture(self.ending.made_of(real))

    def _picture(self, made_CHW):
        """The mask of a first output, with pixels repeated or left out where its size is not the
        frame's."""
        mask  = self.ending.mask(made_CHW)
        frame = self.graph.tensors[self.graph.input]
        rows, columns = (np.arange(side) * made // side for side, made in
                         zip((frame.height, frame.width), mask.shape[1:], strict=True))
        return mask[:, rows][:, :, columns]

    def _table(self):
        """The stored byte of every value of a pixel."""
        t = self.graph.tensors[self.graph.input]
        unit = np.float32(1 if t.scale >= WHOLE_PIXELS else PIXEL)
        real = np.arange(256, dtype=np.float32) * unit
        stored = np.rint(real / np.float32(t.scale)) + t.zero_point
        return torch.from_numpy(np.clip(stored, 0, 255).astype(np.uint8))


def as_channels(picture_CHW, channels):
    """A picture with so many channels: those beyond are dropped, and one is the mean of all."""
    if len(picture_CHW) == channels:
        return picture_CHW
    mean = torch.round(picture_CHW.to(torch.float64).mean(0, keepdim=True)).to(torch.uint8)
    return torch.cat([picture_CHW, mean])[:channels] if channels > 1 else mean


def import_onnx(path, *, model=None, size=None):
    """Read an ONNX QDQ file, or a ``model`` that was read from ``path``.

    ``size`` is for rows and columns that the file leaves open.

    Raises
    ------
    Refused
        If nodes cannot run; it lists all of them.
    InputError
        If it is no such file.
    """
    file    = File(path, model=model, size=size)
    reader  = Reader(file)
    try:
        outputs = reader.read()
    except RecursionError:
        raise InputError(f"{path}: too many operators follow each other without QuantizeLinear; "
                         "quantise between them") from None
    made    = reader.builder
    layers  = tuple(made.layers.values())
    needed  = _needed(made.layers, outputs)
    layers  = tuple(layer for layer in layers if layer.name in needed)
    layers  = _named_units(file, layers) or placed(layers, outputs)
    graph   = IntegerGraph(
        _network(file), {layer.name: made.tensors[layer.name] for layer in layers}, layers,
        next(layer.name for layer in layers if isinstance(layer, Input)), outputs[0],
        outputs=outputs)
    notes   = [*_notes(graph, reader), *_dropped(file)]
    stored  = {name: tuple(places) for name, places in reader.places.items() if name in needed}
    return Imported(graph, file.model, stored, tuple(reader.hosted), reader.ending,
                    tuple(notes), tuple(file.frame_shape[1:]))


def _needed(layers, outputs):
    """Tensors that outputs depend on; the frame always is one."""
    seen, open_ = set(), list(outputs)
    while open_:
        name = open_.pop()
        if name not in seen:
            seen.add(name)
            open_ += layers[name].inputs
    return seen


def _named_units(file, layers):
    """The units that our own exporter wrote into the names of nodes."""
    if file.model.producer_name != "attune":
        return None
    units = {}
    for node in file.graph.node:
        unit, _, name = node.name.partition("/")
        if unit in UNITS:
            units[name] = unit
    if not all(isinstance(layer, Input) or layer.name in units for layer in layers):
        return None
    return tuple(layer if isinstance(layer, Input) else replace(layer, unit=units[layer.name])
                 for layer in layers)


def _network(file):
    named = {x.key: x.value for x in file.model.metadata_props}
    return spoken(named.get("network") or Path(file.path).stem)


def _notes(graph, reader):
    t = graph.tensors[graph.input]
    if t.scale >= WHOLE_PIXELS:
        yield f"input {t.name!r} has a scale of {t.scale:.4g}: pixels are taken as 0..255"
    elif (np.float32(t.scale), t.zero_point) != (np.float32(PIXEL), 0):
        yield (f"input {t.name!r} has scale {t.scale:.4g} and zero point {t.zero_point}: the host "
               "looks up every byte of a picture")
    yield from reader.notes
    for name, operators in reader.hosted:
        yield f"output {name!r}: the host does {' and '.join(operators)}"


    made = graph.tensors[graph.output]
    if (made.height, made.width) != (t.height, t.width):
        yield (f"output {made.name!r} is {made.height} x {made.width}: its mask is shown at the "
               f"frame's {t.height} x {t.width}")


def _dropped(file):
    needed = {name for node in file.nodes for name in node.output if name}
    dead   = [spoken(name_of(node)) for node in file.graph.node
              if not needed.intersection(node.output)
              and node.op_type not in ("Constant", "Identity")]
    if dead:
        yield "left out, as no output depends on them: " + ", ".join(dead)
