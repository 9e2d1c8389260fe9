"""A network on a machine, from Python, in the shape of ONNX Runtime's ``InferenceSession``::

    from attune import Session
    session = Session("unet.onnx", machine="reference", engine="model")
    mask, = session.run(None, {"image": pictures})      # uint8, frames x channels x rows x columns
    session.report["cycles"]["total"]
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from golden.errors import InputError
from golden.folders import temporary
from golden.metrics import binary
from golden.models import load_float
from golden.places import CACHE
from hw.compiler import compile_network
from hw.config import Config, preset, usual_shape
from hw.network import export_module, load_network
from sim.compare import class_pixels, compare_mask, compare_tensors
from sim.errors import SimulationError
from sim.host import GoldenEngine, RtlEngine
from sim.model import ModelEngine
from sim.names import ENGINES, demand_simulator
from sim.report import make_report
from sim.run import beside, build_machine
from sim.taps import golden_name

__all__ = ["Session", "Tensor"]


@dataclass(frozen=True)
class Tensor:
    """An input or output: a byte q stands for ``scale * (q - zero_point)``."""
    name:       str
    shape:      tuple
    scale:      float
    zero_point: int
    type:       str = "tensor(uint8)"


class Session:
    """A network, compiled for a machine, on one of its engines.

    Parameters
    ----------
    model : str or torch.nn.Module
        A network by name, or the path of an ONNX file, as ``make sim MODEL=`` takes it. A module is
        float; so may be a file with ``calibration``.
    machine : str or hw.config.Config
        A machine by name, or the path of its file.
    engine : str
        ``"rtl"``: the chip under ``simulator``, every byte and every cycle compared.
        ``"model"``: the exact cycle model, with tensors of the golden model. ``"golden"``: these
        alone.
    size, width : int, optional
        Side of a frame, of a network by name, a module, or a file that leaves it open; filters of
        the first level of a network by name.
    calibration : str, optional
        Pictures on which a float model is quantised: a folder, or ``phantom:N``.
    freeze : bool
        Whether its normalisation by a frame's own statistics becomes one by those of the pictures.
    taps : bool
        Compare every tensor, and not only the outputs and attention maps.

    Attributes
    ----------
    report : dict
        Of the last :meth:`run`, as ``report.json`` has it; None before, and of ``"golden"``.

    Raises
    ------
    InputError, SimulationError, hw.compiler.CompileError
        If there is no such network, machine or engine, or one does not run on the other.
    """

    def __init__(self, model, *, machine="reference", engine="rtl", simulator="verilator",
                 size=None, width=None, taps=False, calibration=None, freeze=False):
        if engine not in ENGINES:
            raise InputError(f"Engine must be one of {', '.join(ENGINES)}, not {engine!r}")
        demand_simulator(simulator)
        self.config = machine if isinstance(machine, Config) else preset(machine)
        self.report = None
        self._model, self._engine, self._simulator, self._taps = model, engine, simulator, taps
        if isinstance(model, nn.Module):
            self._model = type(model).__name__
            self._graph, self._imported = _of_module(model, size, width, calibration, freeze)
        else:
            self._graph, self._imported = load_network(model, size, width, calibration=calibration,
                                                       freeze=freeze)
        self._width    = None if self._imported else width or usual_shape(model, self.config)[1]
        self._programs = {}         # by number of frames

    def get_inputs(self):
        """The frame, alone."""
        return [self._tensor(self._graph.input)]

    def get_outputs(self):
        return [self._tensor(name) for name in self._graph.outputs]

    def run(self, output_names, feed):
        """Run a stream of frames; returns the outputs in the order of ``output_names`` (None: all).

        Parameters
        ----------
        output_names : sequence of str, optional
        feed : dict
            The input's name -> uint8 frames x channels x rows x columns, one frame at least.

        Raises
        ------
        InputError
            If that is not what the network takes or makes.
        SimulationError
            If the machine stops, or differs from golden in a byte or from its model in a cycle.
        """
        frames = self._frames(feed)
        names  = list(self._graph.outputs) if output_names is None else list(output_names)
        for name in names:
            if name not in self._graph.outputs:
                raise InputError(f"No output {name!r}; there is {', '.join(self._graph.outputs)}")
        golden = GoldenEngine(self._graph)
        golden.load(frames)
        golden.start()
        golden.wait()
        expected = golden.read_back()
        seen     = expected if self._engine == "golden" else self._measure(frames, expected)
        found    = [{golden_name(name, tensors): values for name, values in of.items()}
                    for of, tensors in zip(seen, expected, strict=True)]
        return [np.stack([of[name] for of in found]) for name in names]

    def _tensor(self, name):
        t = self._graph.tensors[name]
        return Tensor(name, (None, t.channels, t.height, t.width), t.scale, t.zero_point)

    def _frames(self, feed):
        frame = self.get_inputs()[0]
        if list(feed) != [frame.name]:
            raise InputError(f"The network takes {frame.name!r}, not "
                             f"{', '.join(map(repr, feed)) or 'nothing'}")
        given = np.asarray(feed[frame.name])
        if given.dtype != np.uint8 or given.ndim != 4 or given.shape[1:] != frame.shape[1:] \
                or not len(given):
            wanted = " x ".join(map(str, frame.shape[1:]))
            raise InputError(f"{frame.name!r} must be uint8 of frames x {wanted}, not "
                             f"{given.dtype} of {' x '.join(map(str, given.shape))}")
        return [torch.from_numpy(np.ascontiguousarray(one)) for one in given]

    def _measure(self, frames, expected):
        """Outputs of the machine, after the report."""
        if len(frames) not in self._programs:
            self._programs[len(frames)] = compile_network(self._graph, self.config,
                                                          frames=len(frames))
        program = self._programs[len(frames)]
        if self._engine == "model":
            chip = ModelEngine(program, self.config, expected)
            seen = self._drive(chip, program, frames, expected, None)
        else:
            built = build_machine(self.config, self._simulator)
            CACHE.mkdir(parents=True, exist_ok=True)
            with temporary(CACHE, "session-") as folder:
                chip = RtlEngine(program, self.config, built, folder, taps=self._taps)
                seen = self._drive(chip, program, frames, expected, built)
        return seen

    def _drive(self, chip, program, frames, expected, built):
        chip.load(frames)
        chip.start()
        chip.wait()
        seen     = chip.read_back()
        compared = compare_tensors(expected, seen if built else [], chip.recorded())
        output   = self._graph.output
        mask     = next(values for name, values in seen[0].items()
                        if golden_name(name, expected[0]) == output)
        frame    = self._graph.tensors[self._graph.input]
        float_HW = binary(self._imported.segment_frame(frames[0]) if self._imported else
                          load_float(self._model, frame.height, self._width).segment(frames[0]))
        self.report = make_report(
            model=self._model, program=program, config=self.config,
            engine=self._simulator if built else "model", counters=chip.counters(),
            offchip=chip.offchip, comparison=compared,
            mask=compare_mask(torch.from_numpy(self._mask(mask)), float_HW, None),
            seconds=chip.seconds,
            build_s=built.seconds if built else 0.0,
            timetable=None if built else chip.timetable, timed_by="model")
        if self._graph.classes:
            self.report["mask"]["classes"] = class_pixels(mask[0], self._graph.classes)
        if built:
            self.report["cycle_model"], _ = beside(chip, None, program, self.config)
            self._demand_equal()
        return seen

    def _mask(self, values_CHW):
        return (self._imported.mask(values_CHW) if self._imported else values_CHW)[0] > 127

    def _demand_equal(self):
        wrong, model = self.report["tensors"], self.report["cycle_model"]["differences"]
        if wrong["mismatched"]:
            raise SimulationError(f"The hardware differs from golden in {wrong['mismatched']} of "
                                  f"{wrong['compared']} tensors: {wrong['first_mismatch']}")
        if model:
            raise SimulationError(f"The hardware differs from its cycle model: {model[0]}")


def _of_module(module, size, width, calibration, freeze):
    """What :func:`hw.network.load_network` makes of a PyTorch module."""
    if calibration is None or size is None:
        raise InputError("A PyTorch module needs calibration, a folder of pictures or phantom:N, "
                         "and the size of its frame")
    first = next((m for m in module.modules() if isinstance(m, nn.Conv2d)), None)
    if first is None:
        raise InputError(f"{type(module).__name__} has no Conv2d, so nothing tells the channels of "
                         "its frame; export it as ONNX")
    CACHE.mkdir(parents=True, exist_ok=True)
    with temporary(CACHE, "module-") as folder:
        path = folder / f"{type(module).__name__}.onnx"
        export_module(module, path, first.in_channels, (size, size))
        return load_network(str(path), None, width, calibration=calibration, freeze=freeze)
