"""A counterexample, run again in Amaranth's simulator: as text, and as waveforms."""

import enum

from amaranth.hdl import Value
from amaranth.sim import Simulator


def replay(bench, inputs, *, vcd=None):
    """Run ``bench`` with ``inputs``, per cycle; returns ``(broken, covered, lines)``.

    ``broken`` are the texts of the checks that fail in the last cycle, ``covered`` whether all
    covers were reached, and ``lines`` tell what changed in each cycle. A second opinion: solver and
    simulator share nothing but the design.

    Raises
    ------
    ValueError
        If an assumption does not hold on the way, or a check fails before the last cycle.
    """
    lines, broken, covered = [], [], [False]

    async def run(ctx):
        known = {}
        for cycle, values in enumerate(inputs):
            for name, signal in bench.inputs.items():
                ctx.set(signal, values.get(name, 0))
            await ctx.delay(1e-9)
            now  = {name: _text(ctx.get(value)) for name, value in bench.shown.items()}
            news = [f"{name}={text}" for name, text in now.items() if known.get(name) != text]
            known.update(now)
            lines.extend(_wrapped(f"cycle {cycle:>3}  ", news))
            if not all(ctx.get(bit) for bit in bench.assumes):
                raise ValueError(f"An assumption does not hold in cycle {cycle}")
            failing = [text for bit, text in bench.checks if not ctx.get(bit)]
            covered[0] = all(ctx.get(bit) for bit in bench.covers)
            if cycle == len(inputs) - 1:
                broken.extend(failing)
            await ctx.tick()

    sim = Simulator(bench.fragment)
    sim.add_clock(1e-8)
    sim.add_testbench(run)
    if vcd is None:
        sim.run()
    else:
        shown = [Value.cast(value) for value in bench.shown.values()]
        with sim.write_vcd(str(vcd), traces=shown):
            sim.run()
    return broken, covered[0], lines


def _text(value):
    if isinstance(value, enum.Enum):
        return value.name
    if hasattr(value, "as_bits"):
        value = value.as_bits()
    return str(value) if -10 < value < 10 else f"{value:#x}"


def _wrapped(head, words, width=80):
    """``words`` behind ``head``, in lines of ``width`` columns."""
    lines = [head]
    for word in words:
        if len(lines[-1]) + len(word) + 1 > width and lines[-1].strip():
            lines.append(" " * len(head))
        lines[-1] += word + " "
    return [line.rstrip() for line in lines]
