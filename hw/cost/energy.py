"""The energy of a run: events that the hardware counted, times the published energy of each.

Printed tables differ fourfold for the same multiplication, so every constant has a low and a high
end, and so has every sum. All logic and on-chip memory is that of a 45 nm process at about 0.9 V,
whatever the machine will be made in; off-chip memory is the part that the machine names.
What is left out, for lack of a count or a source, is :data:`NOT_COUNTED`.
"""

import math
from dataclasses import dataclass
from itertools import pairwise

from hw.config import KIB, MIB
from hw.control.counters import Counter
from hw.isa import CONVS, FILLS, Cause, Engine, Requant, Traffic
from hw.knobs import spoken

__all__ = ["NOT_COUNTED", "Constant", "Part", "Range", "energy_of", "grouped", "memory",
           "offchip_costs", "total"]

NOT_COUNTED = ("control logic, queues, clock tree outside of the MAC lanes, leakage of memories, "
               "check bits, and at the low end pins and termination of off-chip memory")
PARAM_BYTES = Requant.as_shape().size // 8

HOROWITZ = ("M. Horowitz, Computing's energy problem (and what we can do about it), ISSCC 2014, "
            "table of energies: 45 nm, 0.9 V")
HAN      = "S. Han et al., EIE, ISCA 2016, table I: 45 nm"
SHAO     = "Y. S. Shao et al., Aladdin, ISCA 2014, its functional units: 40 nm, 1 ns"
MICRON   = "Micron TN-41-01, Calculating memory system power for DDR3, with data sheet currents of"


@dataclass(frozen=True)
class Range:
    """Between ``low`` and ``high``, both in the same unit."""
    low:  float
    high: float

    def __add__(self, other):
        return Range(self.low + other.low, self.high + other.high)

    def __mul__(self, factor):
        if isinstance(factor, Range):
            return Range(self.low * factor.low, self.high * factor.high)
        return Range(self.low * factor, self.high * factor)


@dataclass(frozen=True)
class Constant:
    """What one event takes, in ``unit``, and who says so."""
    name:   str
    value:  Range
    unit:   str
    source: str


@dataclass(frozen=True)
class Part:
    """Energy of ``unit`` by one ``cause``, in pJ: ``events`` times ``constant``."""
    unit:     str
    cause:    str
    events:   Range
    constant: Constant

    @property
    def energy(self):
        return self.events * self.constant.value


# Of Aladdin's functional units of 32 bits: pJ an operation, and pJ/ns (mW) that they leak. A
# product of n bits takes (n/32)^2 of them, and registers are by the bit.
ALADDIN_PRODUCT, ALADDIN_SUM   = 12.7, 0.21
ALADDIN_PRODUCT_LEAK           = 0.0779
ALADDIN_SUM_LEAK               = 0.00225
ALADDIN_REGISTER_CLOCK         = 0.00794        # a bit, clocked without a new value
LANE_REGISTERS = 1690 / 32
"""Flip-flops of one lane with its share of adder tree and accumulators: those of 32 lanes, counted
by Yosys in the encoder's array of ``tiny``."""

MAC = Constant(
    "MAC", Range(0.2 + 0.1, ALADDIN_PRODUCT / 16 + ALADDIN_SUM), "pJ a lane and step",
    f"low: product of 8 bits and sum of 32, {HOROWITZ}; high: a sum, and a product of 32 bits "
    f"scaled to 8 by the square, {SHAO}")
CLOCK = Constant(
    "clock", Range(0, LANE_REGISTERS * ALADDIN_REGISTER_CLOCK), "pJ a lane and idle cycle",
    f"low: a gated clock; high: {LANE_REGISTERS:.0f} flip-flops clocked in vain, {SHAO}")
LEAKAGE = Constant(
    "leakage", Range(0, ALADDIN_PRODUCT_LEAK / 16 + ALADDIN_SUM_LEAK), "pJ a lane and ns",
    f"low: none, a low-power process; high: product scaled as that of MAC, and sum, {SHAO}")
REQUANTISE = Constant(
    "requantise", Range(3.1 / 2 + 2 * 0.1, ALADDIN_PRODUCT + 2 * ALADDIN_SUM), "pJ a byte",
    f"product of 32 by 16 bits, and two sums; low: half a product of 32 bits, {HOROWITZ}; high: a "
    f"whole one, {SHAO}")
GATE = Constant(
    "gate", Range(0.2, ALADDIN_PRODUCT / 16), "pJ a byte",
    f"a product of 8 bits, as in MAC: {HOROWITZ}; {SHAO}")

SRAM = {8 * KIB: 10 / 8, 32 * KIB: 20 / 8, MIB: 100 / 8}
"""pJ a byte of a memory with so many bytes: an access of 64 bits, Horowitz."""
SRAM_LOW = (5 / 4) / (20 / 8)
"""Low over high: Han has 5 pJ for 32 bits of 32 KiB."""
SRAM_SOURCE = ("high: 10, 20 and 100 pJ for 64 bits of 8 KiB, 32 KiB and 1 MiB, straight in "
               f"logarithms between them, {HOROWITZ}; low: half, as 5 pJ for 32 bits of 32 KiB, "
               f"{HAN}")


def memory(size):
    """The :class:`Constant` of a byte at a port of an on-chip memory, banks of ``size`` bytes."""
    sizes = list(SRAM)
    small, large = next((pair for pair in pairwise(sizes) if size < pair[1]), sizes[-2:])
    slope = math.log(SRAM[large] / SRAM[small]) / math.log(large / small)
    high  = SRAM[small] * (size / small) ** slope
    return Constant(f"memory of {spoken(size, 'bytes')}", Range(SRAM_LOW * high, high), "pJ a byte",
                    SRAM_SOURCE)


PAGE = 2 * KIB
"""Bytes of an open row in one chip of those below."""


@dataclass(frozen=True)
class Currents:
    """Of one chip with rows of ``page`` bytes: mA of each supply, volts, ns, bytes/ns."""
    supplies: tuple     # of (volts, IDD0, IDD2P, IDD2N, IDD3N, IDD4R, IDD4W, IDD5)
    t_ras:    float
    t_rp:     float
    rate:     float
    page:     int

    def _each(self, milliwatts):
        return sum(volts * milliwatts(*currents) for volts, *currents in self.supplies)

    def energies(self):
        """pJ: opening a row of ``PAGE`` bytes, a byte read, a byte written; mW = pJ/ns: refreshing,
        standing by at least and at most."""
        cycle  = self.t_ras + self.t_rp
        active = self._each(lambda i0, i2p, i2n, i3n, *_:
                            i0 * cycle - i3n * self.t_ras - i2n * self.t_rp)
        return {
            "activate": active * PAGE / self.page,
            "read":     self._each(lambda i0, i2p, i2n, i3n, i4r, i4w, i5: i4r - i3n) / self.rate,
            "write":    self._each(lambda i0, i2p, i2n, i3n, i4r, i4w, i5: i4w - i3n) / self.rate,
            "refresh":  self._each(lambda i0, i2p, i2n, i3n, i4r, i4w, i5: i5 - i2n),
            "least":    self._each(lambda i0, i2p, *_: i2p),
            "most":     self._each(lambda i0, i2p, i2n, i3n, *_: i3n),
        }


DDR4   = Currents(((1.2, 80, 25, 34, 47, 243, 228, 280),), 32, 14.16, 4.8, 2 * KIB)
DDR3   = Currents(((1.35, 66, 18, 32, 47, 235, 171, 235),), 35, 13.75, 3.2, 2 * KIB)
LPDDR3 = Currents(((1.8, 8, 0.8, 0.8, 2, 2, 2, 28), (1.2, 60, 1.8, 26, 34, 230, 190, 150)),
                  42, 18, 6.4, 4 * KIB)
WITH_PINS = 1300 / 8
"""pJ of a byte of DDR3 or DDR4 with pins and controller: 1.3 nJ for 64 bits, Horowitz."""


def _dram(currents, low, high, source, pins=None):
    each = currents.energies()
    found = {name: Range(each[name] * low, max(each[name] * high, pins or 0)
                         if name in ("read", "write") else each[name] * high)
             for name in ("activate", "read", "write", "refresh")}
    return {**found, "standby": Range(each["least"] * low, each["most"] * high)}, source


OFFCHIP = {
    "ddr4-2400": _dram(
        DDR4, 1, 1, f"{MICRON} an 8 Gb DDR4-2400 of 16 bits at 1.2 V; high end of a byte with "
        f"pins: 1.3 nJ for 64 bits, {HOROWITZ}", WITH_PINS),
    "ddr3-1600": _dram(
        DDR3, 1, (1.5 / 1.35) ** 2, f"{MICRON} a 4 Gb DDR3L-1600 of 16 bits at 1.35 V; high end at "
        f"1.5 V, by the square; of a byte with pins: 1.3 nJ for 64 bits, {HOROWITZ}", WITH_PINS),
    "lpddr4-3200": _dram(
        LPDDR3, (1.1 / 1.2) ** 2, 1, f"{MICRON} a 4 Gb LPDDR3-1600 of 32 bits, which moves as many "
        "bytes; low end at LPDDR4's 1.1 V, by the square; without pins"),
    "sdr-ulx3s": _dram(
        DDR3, 1, (3.3 / 1.35) ** 2, f"{MICRON} a 4 Gb DDR3L-1600 of 16 bits, for lack of its own; "
        "high end at 3.3 V, by the square; without pins"),
}
"""By the name of the memory: energies of one chip, and their source."""


def offchip_costs(dram):
    """``{event: Constant}`` of an off-chip memory: ``activate`` a row, ``read`` and ``write`` a
    byte, ``refresh`` beyond standing by and ``standby`` a ns. An unknown memory may be any of the
    known ones."""
    known  = [OFFCHIP[dram.name]] if dram.name in OFFCHIP else list(OFFCHIP.values())
    source = known[0][1] if len(known) == 1 else (
        f"{dram.name} is unknown: the least and the most of {', '.join(OFFCHIP)}")
    chips  = dram.row_bytes / PAGE
    units  = {"activate": "pJ a row", "read": "pJ a byte", "write": "pJ a byte",
              "refresh": "pJ a ns", "standby": "pJ a ns"}
    return {event: Constant(
        f"{dram.name}, {event}",
        Range(min(one[event].low for one, _ in known), max(one[event].high for one, _ in known))
        * (1 if event in ("read", "write") else chips), unit, source)
        for event, unit in units.items()}


def energy_of(config, program, counters, offchip):
    """The parts of a run's energy, a list of :class:`Part`.

    Parameters
    ----------
    config : hw.config.Config
    program : hw.compiler.Program
    counters, offchip : dict
        Of the machine and its off-chip memory, as :class:`sim.host.RtlEngine` and
        :class:`sim.model.ModelRun` have them.
    """
    parts = []

    def charge(unit, cause, constant, events, most=None):
        """``events``, or from so many to ``most``."""
        if most or events:
            parts.append(Part(unit, cause, Range(events, most or events), constant))

    cycles = counters[Counter.CYCLES,]
    time   = cycles * 1000 / config.clock_mhz           # ns
    vector = config.vector
    issued = {engine: counters[Counter.CAUSE, engine, Cause.ISSUE] for engine in Engine}
    gated  = issued[Engine.GATE] * config.gate_lanes

    for (name, unit), conv, fill in zip(config.units.items(), CONVS, FILLS, strict=True):
        steps   = issued[conv]
        lanes   = unit.pixels * vector * unit.outputs
        window  = unit.banks * vector
        word    = unit.outputs * vector
        filled  = issued[fill] * vector + (gated if name == "decoder" else 0)
        results = program.frames * sum(layer.channels * layer.height * layer.width
                                       for layer in program.layers
                                       if layer.macs and layer.unit == name)
        charge(name, "MAC", MAC, steps * lanes)
        charge(name, "clock of idle lanes", CLOCK, (cycles - steps) * lanes)
        charge(name, "leakage of lanes", LEAKAGE, time * lanes)
        # Both memories are enabled in every cycle. What steps need is less: four transformed ones
        # read two windows and three weights.
        charge(name, "row memory", memory(unit.row_words * vector),
               steps * window * (0.5 if unit.transform else 1) + filled,
               cycles * window + filled + results)      # a result may go to another memory, too
        charge(name, "weight memory", memory(unit.weight_words * vector),
               steps * word * (0.75 if unit.transform else 1), cycles * word)
        charge(name, "requantise", REQUANTISE, results)
        charge(name, "parameters", memory(unit.params * unit.outputs // unit.drain * PARAM_BYTES),
               results * PARAM_BYTES)

    charge("gate", "gate", GATE, gated)
    charge("gate", "requantise", REQUANTISE, gated)
    charge("gate", "parameters", memory(config.gate_param_words * PARAM_BYTES), gated * PARAM_BYTES)

    largest = max(unit.weight_words for unit in config.units.values()) * vector
    charge("loads", "weight memory", memory(largest), counters[Counter.READ_BYTES, Traffic.WEIGHTS])

    moved = vector * sum(count for (which, *_), count in counters.items()
                         if which in (Counter.ONCHIP_READS, Counter.ONCHIP_WRITES))
    charge("on-chip memory", "on-chip memory", memory(config.onchip_bytes // config.onchip_banks),
           moved)

    each = offchip_costs(config.dram)
    refreshing = offchip["refresh_cycles"] * 1000 / config.clock_mhz
    for event, cause, events in (("activate", "rows opened", offchip["row_misses"]),
                                 ("read", "bytes read", offchip["read_bytes"]),
                                 ("write", "bytes written", offchip["written_bytes"]),
                                 ("refresh", "refresh", refreshing), ("standby", "standby", time)):
        charge("off-chip memory", cause, each[event], events)
    return parts


def total(parts):
    """The sum of parts, in pJ."""
    return sum((part.energy for part in parts), Range(0, 0))


def grouped(parts, by):
    """``{value of the attribute by: sum in pJ}``."""
    found = {}
    for part in parts:
        key = getattr(part, by)
        found[key] = found.get(key, Range(0, 0)) + part.energy
    return found
