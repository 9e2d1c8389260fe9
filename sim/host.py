"""The host: one way to drive every engine that can run a network.

``load`` hands over the frames, ``start`` sets the engine off, ``wait`` blocks until it is done,
``read_back`` returns per frame the tensors that can be seen (always the mask), uint8 C x H x W by
name, and ``counters`` what was counted. :class:`GoldenEngine` is the integer model;
:class:`RtlEngine` is the chip under a simulator, :class:`sim.board.BoardEngine` that on a board.
"""

import json
import os
import re
import threading
from contextlib import contextmanager
from pathlib import Path

from golden import integer
from hw.config import MEMORIES
from hw.control.counters import Counter
from hw.isa import Engine, Error
from hw.memory.dram import timing_plusarg
from sim.counters import selectors
from sim.errors import SimulationError
from sim.simulators import run, stop
from sim.starting import BEFORE_RUN
from sim.taps import read_monitor, read_tensors
from sim.trace import check_trace, interval, read_trace

__all__ = ["ChipEngine", "GoldenEngine", "RtlEngine", "broken_rules"]

BENCH        = "sim.bench_run"
CLOCK_PERIOD = 10_000       # picoseconds; sim/verilator_main.cpp makes it


class GoldenEngine:
    """The golden integer model; it shows every tensor and counts nothing."""

    def __init__(self, graph):
        self._graph = graph

    def load(self, frames):
        self._frames = frames

    def start(self):
        self._values = []

    def wait(self):
        self._values = [integer.run(self._graph, frame) for frame in self._frames]

    def read_back(self):
        return [{name: tensor.numpy() for name, tensor in values.items()}
                for values in self._values]

    def counters(self):
        return {}


class ChipEngine:
    """What is the same wherever the chip is: the image of a run, its settings, and its results.

    Parameters
    ----------
    program : hw.compiler.Program
    config : hw.config.Config
    cycle_limit : int
        The machine stops after as many cycles; None: those of
        :meth:`hw.compiler.Program.cycle_limit`.
    stall_limit : int
        The machine stops after as many cycles without progress; 0: its default.
    arrivals : sequence of int
        Cycles after the start in which the frames from the second on come, while the machine runs;
        by default all of them lie in memory before.
    progress : callable
        Called with the number of cycles done, about once a second.

    Attributes
    ----------
    notes : list of str
        What a user should know of the run.
    """

    def __init__(self, program, config, *, cycle_limit=None, stall_limit=0, arrivals=(),
                 progress=lambda cycles: None):
        self._program, self._config = program, config
        self._arrivals    = list(arrivals)
        self._cycle_limit = cycle_limit or program.cycle_limit(config) + max(arrivals, default=0)
        self._stall_limit = stall_limit
        self._progress    = progress
        self._outputs_at  = min(output.base for output in program.outputs)
        self._output_bytes = max(output.base + program.frames * output.bytes
                                 for output in program.outputs) - self._outputs_at
        self._selectors   = selectors(program.layers, program.frames, protected=config.protected)
        self._counters    = None
        self._result      = None
        self.notes        = []

    def _image(self, frames):
        """Off-chip memory before the start, whole beats, with the frames in place."""
        program = self._program
        if len(frames) != program.frames:
            raise SimulationError(f"The program runs {program.frames} frames, not {len(frames)}")
        image = bytearray(program.image)
        for index, frame in enumerate(frames):
            blob = program.pack_frame(frame)
            end  = program.frame_address(index) + len(blob)
            image.extend(bytes(max(0, end - len(image))))
            image[program.frame_address(index):end] = blob
        if len(image) > self._config.offchip_bytes:
            raise SimulationError(f"Program and frames need {len(image)} bytes, and off-chip "
                                  f"memory has {self._config.offchip_bytes}; run fewer frames")
        image.extend(bytes(-len(image) % self._config.vector))
        return image

    def _settings(self):
        """What :func:`sim.starting.starting` makes registers of."""
        return {"program_base": self._program.program_base, "writable": self._program.writable,
                "cycle_limit": self._cycle_limit, "stall_limit": self._stall_limit,
                "live": bool(self._arrivals)}

    def _keep(self, result):
        """``result`` is what a run left."""
        by_select      = {int(select): value for select, value in result["counters"].items()}
        self._counters = {key: by_select[select] for key, select in self._selectors.items()}
        self._result   = result

    def _judge(self):
        """Raise what went wrong in the run."""
        result, cycles = self._result, self.cycles
        if not result["stopped"]:
            raise SimulationError(f"The machine raised no interrupt within "
                                  f"{self._cycle_limit} cycles, its own limit")
        error = Error(result["error"])
        if error is Error.CYCLE_LIMIT:
            raise SimulationError(f"The machine stopped at its limit of {self._cycle_limit} "
                                  f"cycles; {_spoken(result)} was still at work")
        if error is Error.MEMORY:
            memory = MEMORIES[result["memory"]]
            kind   = self._config.protects(memory)
            raise SimulationError(f"The machine stopped with error MEMORY after {cycles} cycles: "
                                  f"a word of {memory}, with {kind}, could not be corrected")
        if error is not Error.NONE:
            raise SimulationError(f"The machine stopped with error {error.name} of "
                                  f"{_spoken(result)} after {cycles} cycles")

    def _with_outputs(self, frames, blob):
        """``frames``, a dictionary each, with the outputs out of that part of off-chip memory."""
        program = self._program
        for frame, tensors in enumerate(frames):
            for output in program.outputs:
                start = program.output_address(output, frame) - self._outputs_at
                values_CHW = program.unpack(output, blob[start:start + output.bytes])
                tensors[output.name] = values_CHW.numpy()
        return frames

    def counters(self):
        """``(counter, *indices) -> value``, as :func:`sim.counters.selectors` lists them."""
        return self._counters

    @property
    def cycles(self):
        """Of the run, also of one that failed; None if nobody could read them."""
        return self._counters[Counter.CYCLES,] if self._counters else None

    @property
    def offchip(self):
        """Counters of the off-chip memory, by name."""
        return self._result["offchip"]

    @property
    def arrived(self):
        """Cycles of the run in which its frames had come; empty if they were there before."""
        told = self._result["arrivals"]
        return [0, *(cycle - BEFORE_RUN for cycle in told)] if told else []

    @property
    def cycles_to_read(self):
        """From the end of the run until the counters of the off-chip memory were read."""
        return self._result["read"] - BEFORE_RUN - self.cycles

    @property
    def seconds(self):
        """From start to interrupt: ``wall_s``, and ``cpu_s`` of the simulator's process."""
        return {name: self._result[name] for name in ("wall_s", "cpu_s")}


class RtlEngine(ChipEngine):
    """The chip and its off-chip memory, under Verilator or Icarus.

    Parameters
    ----------
    program, config, cycle_limit, stall_limit, progress
        As :class:`ChipEngine` takes them.
    built : sim.simulators.Build
        Of :class:`sim.top.SimTop` for a machine with the structure of ``config``.
    folder : Path
        Where image, log and dumps go.
    taps : bool
        Record, and read back, every tensor of the program's layers.
    trace : bool
        Record every event; ``built`` must be of a ``SimTop`` with ``trace``.
    wave : tuple
        File, first cycle and number of cycles of the waveforms to write; None: none. ``built`` must
        be one for waveforms.
    """

    def __init__(self, program, config, built, folder, *, taps=False, trace=False,
                 wave=None, **common):
        super().__init__(program, config, **common)
        self._built  = built
        self._folder = Path(folder)
        self._taps   = taps
        self._trace  = trace
        self._wave   = wave

    def load(self, frames):
        """Write the off-chip image with the frames in place."""
        (self._folder / "image.bin").write_bytes(self._image(frames))

    def start(self):
        """Launch the simulator."""
        vector = self._config.vector
        job = {
            **self._settings(),
            "clock":        self._built.simulator != "verilator",
            "counters":     list(self._selectors.values()),
            "arrivals":     self._arrivals,
            "dump_first":   self._outputs_at // vector,
            "dump_count":   -(-self._output_bytes // vector),
            "result":       str(self._folder / "result.json"),
        }
        (self._folder / "job.json").write_text(json.dumps(job))
        self._failure = None
        self._thread  = threading.Thread(target=self._simulate, daemon=True)
        self._thread.start()

    def wait(self):
        """Block until the interrupt, and raise what went wrong.

        Raises
        ------
        SimulationError
            If the simulator fails, a rule of a bus was broken, or the machine stops itself; the
            message names the rule, or the error and the engine.
        """
        try:
            while self._thread.is_alive():
                self._thread.join(0.2)      # so that Ctrl-C gets through
        except BaseException:
            stop()
            self._thread.join()
            raise
        if self._failure is not None:
            raise self._failure
        result = json.loads((self._folder / "result.json").read_text())
        self._keep(result)
        if result["broken"]:
            raise SimulationError(f"A bus broke its protocol {result['broken']} times: "
                                  f"{broken_rules(self._folder / 'simulator.log')[0]}")
        self._judge()

    def read_back(self):
        """Per frame: the outputs, and the attention maps that the monitor sent."""
        program = self._program
        blob    = (self._folder / "masks.bin").read_bytes()
        if len(blob) < self._output_bytes:
            raise SimulationError(f"The simulator dumped {len(blob)} bytes of masks instead of "
                                  f"{self._output_bytes}")
        frames = read_monitor(self._folder / "monitor.tap", program.layers, frames=program.frames)
        return self._with_outputs(frames, blob)

    def recorded(self):
        """What the taps saw: a list of :class:`sim.taps.Recorded`; empty without taps."""
        if not self._taps:
            return []
        return read_tensors(self._folder / "taps", self._program.layers,
                            frames=self._program.frames, vector=self._config.vector,
                            frame_rows=self._program.frame_rows)

    def traced(self):
        """Every event, as :class:`sim.trace.Trace`, checked against the counters; None without
        ``trace``."""
        if not self._trace:
            return None
        trace = read_trace(self._folder / "trace")
        check_trace(trace, self._program.layers, self._counters)
        return trace

    def _simulate(self):
        plusargs = [timing_plusarg(self._config), f"+offchip_image={self._folder / 'image.bin'}",
                    f"+offchip_dump={self._folder / 'masks.bin'}", f"+monitor={self._folder}"]
        if self._built.simulator == "verilator":
            plusargs.append(f"+clock={CLOCK_PERIOD}")
        if self._taps:
            (self._folder / "taps").mkdir(exist_ok=True)
            plusargs.append(f"+taps={self._folder / 'taps'}")
        if self._trace:
            (self._folder / "trace").mkdir(exist_ok=True)
            plusargs += [f"+trace={self._folder / 'trace'}",
                         f"+trace_interval={interval(self._program.estimated_cycles)}"]
        if self._wave is not None:
            path, first, cycles = self._wave
            plusargs += [f"+wave={path}", f"+wave_from={first}", f"+wave_cycles={cycles}",
                         f"+wave_period={round(1e6 / self._config.clock_mhz)}"]
        try:
            with (self._progress_pipe() as pipe,
                  (self._folder / "simulator.log").open("wb") as log):
                run(self._built, BENCH, folder=self._folder, plusargs=plusargs, output=log,
                    pass_fds=(pipe,), env={"ATTUNE_JOB": self._folder / "job.json",
                                           "ATTUNE_PROGRESS": pipe})
        except SimulationError as error:
            self._failure = error

    @contextmanager
    def _progress_pipe(self):
        read, write = os.pipe()

        def listen():
            with os.fdopen(read) as lines:
                for line in lines:
                    self._progress(int(line))

        listener = threading.Thread(target=listen, daemon=True)
        listener.start()
        try:
            yield write
        finally:
            os.close(write)
            listener.join(timeout=5)


def broken_rules(log):
    """What ``axi_monitor.v`` and the SDRAM printed into a simulator's log, in order."""
    return re.findall(r"^(?:axi_monitor|sdram_device): (.*)$", log.read_text(), re.MULTILINE)


def _spoken(result):
    return Engine(result["engine"]).name.lower()
