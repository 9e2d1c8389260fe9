"""How long a program takes, from its waits and the length of each instruction alone.

Engines share nothing here but the order between them: no memory port is ever lost, and off-chip
memory always has its first beat after a fixed latency. The machine itself needs a little more.
"""

from hw.compute.transform import DOUBLED_STEPS, OUTPUTS, STEPS
from hw.isa import Engine, FillMode, Opcode

OVERHEAD = 20       # cycles of an instruction beyond its vector instructions
LATENCY  = 60       # cycles to the first off-chip beat, and after the last


def estimate(emitter, config):
    """Cycle in which each frame's mask has been stored, from the streams of an
    :class:`hw.compiler.emit.Emitter`."""
    return masks_done(emitter, timetable(emitter, config))


def masks_done(emitter, ends):
    """The same from the timetable."""
    return [ends[engine][index + 1] for engine, stream in emitter.streams.items()
            for index, (_, fields, *_) in enumerate(stream) if fields.get("frame_end")]


class Timetable:
    """Grows by one instruction at a time. ``ends`` has, per engine, the cycle in which it has
    retired 0, 1, 2 .. instructions."""

    def __init__(self, config):
        self.config = config
        self.ends   = {engine: [0] for engine in Engine}
        self._slots = {}

    def add(self, engine, opcode, fields, waits):
        """The next instruction of ``engine``; those that it waits for are there already."""
        ends  = self.ends
        start = max([ends[engine][-1], *(ends[other][count] for other, count in waits)])
        if opcode == Opcode.LAYER:
            self._slots[engine, fields["slot"]] = fields
        ends[engine].append(start + _cycles(engine, opcode, fields, self._slots, self.config))

    def end(self, engine):
        """Cycle in which ``engine`` has retired all that it was given so far."""
        return self.ends[engine][-1]


def timetable(emitter, config):
    """Per engine, the cycle in which it has retired 0, 1, 2 .. instructions."""
    table   = Timetable(config)
    ends    = table.ends
    streams = emitter.streams
    moved   = True
    while moved:
        moved = False
        for engine, stream in streams.items():
            while len(ends[engine]) <= len(stream):
                opcode, fields, _, _, waits = stream[len(ends[engine]) - 1]
                if any(count >= len(ends[other]) for other, count in waits):
                    break
                table.add(engine, opcode, fields, waits)
                moved = True
    if any(len(ends[engine]) <= len(stream) for engine, stream in streams.items()):
        raise AssertionError("The program waits for itself")
    return ends


def _cycles(engine, opcode, fields, slots, config):
    if opcode in (Opcode.SYNC, Opcode.LAYER, Opcode.ROWS):
        return 3
    if opcode in (Opcode.LOAD, Opcode.STORE):
        words = fields["beats"] * (config.vector // 4 if fields.get("expand") else 1)
        return words + LATENCY
    if opcode == Opcode.FILL:
        written = {FillMode.COPY: 1, FillMode.POOL: 2, FillMode.UP: 2}[fields["mode"]]
        return fields["width"] * fields["vectors"] * written + OVERHEAD
    if opcode == Opcode.GATE:
        return (fields["width"] * fields["vectors"] * config.vector // config.gate_lanes
                + OVERHEAD)
    unit = config.units[engine.name.split("_")[0].lower()]
    return (fields["groups"] * group_cycles(slots[engine, fields["slot"]], unit, config.vector)
            + OVERHEAD)


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
