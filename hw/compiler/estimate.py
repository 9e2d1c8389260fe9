"""How long a program takes, from its waits and the length of each instruction alone.

Engines share nothing here but the order between them: no memory port is ever lost, and off-chip
memory always has its first beat after a fixed latency. The machine itself needs a little more.
"""

from hw.compute.transform import DOUBLED_STEPS, OUTPUTS, STEPS
from hw.isa import Engine, FillMode, Opcode

OVERHEAD = 20       # cycles of an instruction beyond its vector instructions
LATENCY  = 60       # cycles to the first off-chip beat, and after the last
SHORT    = 3        # cycles of an instruction that moves nothing

# Members are slow to look up on their enumeration.
LOAD, STORE, LAYER, CONV, FILL, GATE = (
    Opcode[name] for name in ("LOAD", "STORE", "LAYER", "CONV", "FILL", "GATE"))
COPY = FillMode.COPY


class Timetable:
    """Grows by one instruction at a time, in the order of emission. ``ends`` has, per engine, the
    cycle in which it has retired 0, 1, 2 .. instructions; ``busy`` how many of these cycles it took
    without its waits; ``masks`` when each frame's was stored.
    """

    def __init__(self, config):
        self.config = config
        self.ends   = [[0] for _ in Engine]
        self.busy   = [0] * len(Engine)
        self.masks  = []
        self._units  = [config.units.get(engine.name.split("_")[0].lower()) for engine in Engine]
        self._groups = {}       # engine, slot -> cycles of one group of a CONV

    def add(self, engine, opcode, fields, waits):
        """The next instruction of ``engine``; those that it waits for are there already."""
        ends  = self.ends[engine]
        start = ends[-1]
        for other, count in waits:
            done = self.ends[other][count]
            if done > start:
                start = done
        cycles = self._cycles(engine, opcode, fields)
        ends.append(start + cycles)
        self.busy[engine] += cycles
        if opcode is STORE and fields.get("frame_end"):
            self.masks.append(ends[-1])

    def end(self, engine):
        """Cycle in which ``engine`` has retired all that it was given so far."""
        return self.ends[engine][-1]

    def _cycles(self, engine, opcode, fields):
        config = self.config
        if opcode is CONV:
            return fields["groups"] * self._groups[engine, fields["slot"]] + OVERHEAD
        if opcode is FILL:
            written = 1 if fields["mode"] is COPY else 2
            return fields["width"] * fields["vectors"] * written + OVERHEAD
        if opcode is LOAD or opcode is STORE:
            return fields["beats"] * (config.vector // 4 if fields.get("expand") else 1) + LATENCY
        if opcode is GATE:
            return (fields["width"] * fields["vectors"] * config.vector // config.gate_lanes
                    + OVERHEAD)
        if opcode is LAYER:
            self._groups[engine, fields["slot"]] = group_cycles(fields, self._units[engine],
                                                                config.vector)
        return SHORT


def group_cycles(layer, unit, vector):
    """Cycles that one group of a CONV of ``layer`` adds: its steps, or what draining them takes."""
    pixels = unit.pixels
    if layer["depthwise"]:
        taps  = unit.depthwise_taps(1 + layer["stride2"])
        steps = layer["kernel_h"] * -(-layer["kernel_w"] // taps)
        drain = pixels * (vector // unit.drain)
    elif layer["transformed"]:
        steps = layer["kernel_h"] * (layer["doubled"] * DOUBLED_STEPS
                                     + (layer["vectors"] - layer["doubled"]) * STEPS)
        pixels *= OUTPUTS
        drain = pixels
    else:
        steps = layer["kernel_h"] * layer["kernel_w"] * layer["vectors"]
        drain = pixels
    return -(-layer["width_out"] // pixels) * max(steps, drain)
