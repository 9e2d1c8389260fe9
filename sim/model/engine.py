"""The cycle model behind the host: counters of the machine, tensors of the golden model."""

import time

from sim.model.kernel import run_model
from sim.starting import BEFORE_RUN, WRITE_CYCLES
from sim.taps import golden_name

__all__ = ["ModelEngine"]


class ModelEngine:
    """Drives the cycle model as :class:`sim.host.RtlEngine` drives the chip.

    It moves no data: what :meth:`read_back` returns are the outputs as the golden integer model has
    them, which ``tensors`` holds for every frame.

    Parameters
    ----------
    program : hw.compiler.Program
    config : hw.config.Config
    tensors : list of dict
    cycle_limit : int
        None: those of :meth:`hw.compiler.Program.cycle_limit`.
    arrivals : sequence of int
        As :class:`sim.host.ChipEngine` takes them.
    progress : callable
        Called with the number of cycles done, a few times a second.
    """

    def __init__(self, program, config, tensors, *, cycle_limit=None, arrivals=(),
                 progress=lambda cycles: None):
        self._program, self._config, self._tensors = program, config, tensors
        self._cycle_limit = cycle_limit or program.cycle_limit(config) + max(arrivals, default=0)
        self.arrived      = [0, *(due + WRITE_CYCLES - BEFORE_RUN for due in arrivals)] if (
            arrivals) else []
        self._progress    = progress

    def load(self, frames):
        """Nothing depends on what is in a frame."""

    def start(self):
        self._began = time.monotonic(), time.process_time()

    def wait(self):
        """Run to the end.

        Raises
        ------
        SimulationError
            As :func:`sim.model.kernel.run_model`.
        """
        self._run   = run_model(self._program, self._config, cycle_limit=self._cycle_limit,
                                arrivals=self.arrived, progress=self._progress)
        wall, cpu   = self._began
        self.seconds = {"wall_s": time.monotonic() - wall, "cpu_s": time.process_time() - cpu}

    def read_back(self):
        return [{output.name: tensors[golden_name(output.name, tensors)]
                 for output in self._program.outputs} for tensors in self._tensors]

    def recorded(self):
        return []

    def traced(self):
        return None

    def counters(self):
        return self._run.counters

    @property
    def cycles(self):
        return self._run.cycles

    @property
    def timetable(self):
        """Per engine, the cycle in which it had retired 0, 1, 2 .. instructions."""
        return self._run.timetable

    @property
    def offchip(self):
        return self._run.offchip
