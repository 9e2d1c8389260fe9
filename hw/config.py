"""Every size of the machine, in frozen dataclasses whose fields say what they may be.

The machines that come with the project are files of ``machines/``, and its off-chip memories files
of ``drams/``, as a user's are; :mod:`hw.machine_file` reads them.
"""

import math
from dataclasses import dataclass, field, replace
from pathlib import Path

from golden.errors import InputError
from hw.interfaces import PENDING_READS, PIPELINED_READS
from hw.isa import FORMS, INSTRUCTION_BYTES, KernelRow, Opcode
from hw.knobs import Rule, demand, differences, knob, spoken
from hw.machine_file import Shelf, parse_changes

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB

NAME = {"pattern": r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}",
        "shape": "up to 64 letters, digits, dots, dashes and underscores"}


@dataclass(frozen=True)
class DramTiming:
    """Off-chip memory timing in cycles of the accelerator's clock: what the model counts.

    ``bus_bytes_per_cycle`` is the peak of the memory's own pins, seen from our clock; the AXI data
    path (``Config.vector`` bytes a beat) may be the narrower of the two.
    """
    bus_bytes_per_cycle: float
    banks:               int
    row_bytes:           int
    row_hit:             int
    activate:            int
    precharge:           int
    turnaround:          int
    refresh_interval:    int
    refresh_busy:        int

    def __post_init__(self):
        for name in ("banks", "row_bytes"):
            value = getattr(self, name)
            if value < 1 or value & (value - 1):
                raise ValueError(f"DRAM {name} must be a power of two, not {value!r}")
        if self.refresh_interval <= self.refresh_busy:
            raise ValueError(f"DRAM refresh_interval ({self.refresh_interval}) must exceed "
                             f"refresh_busy ({self.refresh_busy})")


@dataclass(frozen=True)
class SdramTiming:
    """What the pins of a plain SDRAM are owed, in its clocks: :mod:`hw.memory.sdram` keeps it."""
    bits:             int       # of the data pins
    banks:            int
    row_bytes:        int
    cas:              int       # CAS latency
    activate:         int       # tRCD, from ACTIVATE to READ or WRITE
    precharge:        int       # tRP, from PRECHARGE to anything of that bank
    row_active:       int       # tRAS, from ACTIVATE to PRECHARGE
    row_cycle:        int       # tRC, from ACTIVATE to ACTIVATE of a bank
    row_to_row:       int       # tRRD, from ACTIVATE to ACTIVATE of another
    write_recovery:   int       # tWR, from the last data to PRECHARGE
    refresh_busy:     int       # tRFC
    refresh_interval: int       # tREFI
    power_up:         int       # from a stable clock to the first command


@dataclass(frozen=True)
class Dram:
    """An off-chip memory, in time and not in cycles: the same part on every machine.

    The knobs behind the refresh are 0 where no controller of ours drives such a memory's pins.
    """
    name:                str   = knob("what reports call it", **NAME)
    bytes_per_second:    int   = knob("peak of the memory's own pins", "bytes/s",
                                      least=10**7, most=10**13)
    banks:               int   = knob("banks, each with one open row", least=1, most=64,
                                      power=True)
    row_bytes:           int   = knob("an open row, of all chips of the channel together", "bytes",
                                      least=64, most=64 * KIB, power=True)
    row_hit_ns:          float = knob("from command to first data, row open (CL, RL)", "ns",
                                      least=0, most=1000)
    activate_ns:         float = knob("more where the row must be opened (tRCD)", "ns",
                                      least=0, most=1000)
    precharge_ns:        float = knob("more where another row is open (tRP)", "ns",
                                      least=0, most=1000)
    turnaround_ns:       float = knob("more where the bus changes direction", "ns",
                                      least=0, most=1000)
    refresh_interval_ns: float = knob("between refreshes (tREFI)", "ns", least=100, most=10**6)
    refresh_busy_ns:     float = knob("a refresh blocks the memory (tRFC)", "ns", least=0,
                                      most=10_000)
    sdram_bits:          int   = knob("data pins, if it is a plain SDRAM (SDR); else 0", default=0,
                                      least=0, most=64)
    cas:                 int   = knob("CAS latency of a plain SDRAM, in its clocks", default=0,
                                      least=0, most=3)
    row_active_ns:       float = knob("a row is open at least (tRAS)", "ns", default=0, least=0,
                                      most=1000)
    row_cycle_ns:        float = knob("from opening a row to opening the bank's next (tRC)", "ns",
                                      default=0, least=0, most=1000)
    row_to_row_ns:       float = knob("from opening a row to opening one of another bank (tRRD)",
                                      "ns", default=0, least=0, most=1000)
    write_recovery_ns:   float = knob("from the last data written to closing the row (tWR)", "ns",
                                      default=0, least=0, most=1000)
    power_up_ns:         float = knob("from a stable clock to the first command", "ns", default=0,
                                      least=0, most=10**6)

    RULES = (
        Rule("refresh_interval_ns refresh_busy_ns", lambda interval, busy: None if interval > busy
             else f"refresh_interval_ns ({interval:g}) must exceed refresh_busy_ns ({busy:g})"),
        Rule("sdram_bits cas", lambda bits, cas: None if (bits, bool(cas)) == (0, False) or
             bits in (8, 16, 32, 64) and cas in (2, 3) else
             f"sdram_bits ({bits}) must be 8, 16, 32 or 64, and cas ({cas}) 2 or 3; or both 0"),
    )

    def __post_init__(self):
        demand(self)

    def timing(self, clock_mhz):
        """The :class:`DramTiming` seen from a clock: waits rounded up to whole cycles, and the time
        between refreshes down."""
        return DramTiming(
            bus_bytes_per_cycle=self.bytes_per_second / clock_mhz / 1e6, banks=self.banks,
            row_bytes=self.row_bytes,
            **self._waits(clock_mhz, "row_hit activate precharge turnaround refresh_busy"),
            refresh_interval=math.floor(_cycles(self.refresh_interval_ns, clock_mhz)))

    @property
    def pins_mhz(self):
        """Clock of the pins of a plain SDRAM, one transfer each; None of other memories."""
        return self.bytes_per_second * 8 / self.sdram_bits / 1e6 if self.sdram_bits else None

    def sdram(self, clock_mhz):
        """The :class:`SdramTiming` of its pins, which the machine's own clock must drive.

        Raises
        ------
        InputError
            If it is no plain SDRAM, or its pins have another clock.
        """
        if not self.sdram_bits:
            raise InputError(f"{self.name} is no plain SDRAM, so no controller has its pins; take "
                             "DRAM=sdr-ulx3s")
        if self.pins_mhz != clock_mhz:
            raise InputError(f"The pins of {self.name} have {self.pins_mhz:g} MHz and the machine "
                             f"{clock_mhz:g} MHz, but one clock drives both; take "
                             f"SET=clock_mhz={self.pins_mhz:g}, or change bytes_per_second of the "
                             "memory")
        return SdramTiming(
            bits=self.sdram_bits, banks=self.banks, row_bytes=self.row_bytes, cas=self.cas,
            **self._waits(clock_mhz, "activate precharge row_active row_cycle row_to_row "
                                     "write_recovery refresh_busy power_up"),
            refresh_interval=math.floor(_cycles(self.refresh_interval_ns, clock_mhz)))

    def _waits(self, clock_mhz, names):
        """Waits in whole cycles, rounded up, by name."""
        return {name: math.ceil(_cycles(getattr(self, f"{name}_ns"), clock_mhz))
                for name in names.split()}


def _cycles(nanoseconds, clock_mhz):
    return round(nanoseconds * clock_mhz / 1000, 6)     # 14.000000000000002 is 14


def _addressable(*fields):
    """How many words an instruction can address; ``fields`` hold the addresses."""
    return 1 << min(each.width for each in fields)


_LOAD, _STORE, _CONV, _FILL, _GATE = (FORMS[opcode] for opcode in (
    Opcode.LOAD, Opcode.STORE, Opcode.CONV, Opcode.FILL, Opcode.GATE))

MAX_TAPS = 3
"""Kernel columns that a depthwise step takes at most."""


@dataclass(frozen=True)
class UnitConfig:
    """One compute unit: a MAC array of ``pixels`` x ``Config.vector`` x ``outputs`` lanes.

    ``row_words`` and ``weight_words`` are depths. A row-memory word is one vector, in each of
    ``banks`` banks; a weight word is ``outputs`` vectors. ``params`` is how many groups of
    ``outputs`` channels the parameter memory holds the requantisation of. ``drain`` is how many
    channels of a depthwise pixel are requantised per cycle. With ``transform``, each lane can make
    two neighbouring pixels of a convolution three columns wide in four steps
    (:mod:`hw.compute.transform`). With ``gather`` the channels of a pixel are gathered, and written
    as whole vectors rather than ``outputs`` at a time.
    """
    pixels:       int  = knob("pixels side by side that the array takes per step",
                              least=1, most=16, power=True)
    outputs:      int  = knob("output channels that the array makes per step", least=1,
                              most=INSTRUCTION_BYTES, power=True)
    drain:        int  = knob("channels of a depthwise pixel requantised per cycle", least=1,
                              most=INSTRUCTION_BYTES, power=True)
    row_words:    int  = knob("vectors in each bank of row memory", least=4,
                              most=_addressable(KernelRow.as_shape()["base"], _FILL["dst_base"],
                                                _GATE["dst_base"]))
    weight_words: int  = knob("words of weight memory, each `outputs` vectors", least=4,
                              most=_addressable(_CONV["weight_base"], _LOAD["base"]))
    params:       int  = knob("groups of `outputs` channels with requantisation on chip", least=4,
                              most=_addressable(_CONV["param_base"], _LOAD["base"]))
    transform:    bool = knob("make two pixels of a 3 wide kernel in four steps (F(2,3))",
                              default=False)
    gather:       bool = knob("write whole vectors rather than `outputs` channels at a time",
                              default=False)

    RULES = (
        Rule("drain outputs", lambda drain, outputs: None if drain >= outputs else
             f"drain ({drain}) must be at least outputs ({outputs})"),
    )

    def __post_init__(self):
        demand(self)

    @property
    def taps(self):
        """Kernel columns of one depthwise step: one per column of the array, as far as it goes."""
        return min(MAX_TAPS, self.outputs)

    @property
    def banks(self):
        """Row-memory banks: neighbouring pixels that can be read in one cycle. Enough for a
        stride of 2, and for the columns of a depthwise step."""
        return 1 << (max(2 * self.pixels, self.pixels + self.taps - 1) - 1).bit_length()

    def depthwise_taps(self, stride):
        """Kernel columns of a depthwise step with this horizontal stride."""
        return min(self.taps, self.banks - stride * (self.pixels - 1))


CLOCK_SOURCES = ("configured", "timing analysis", "place-and-route")

PROTECTIONS = ("none", "parity", "secded")
MEMORIES    = ("onchip", "feedback", "rows", "weights", "params", "table", "slots", "alpha",
               "gate_params", "instructions", "streams", "queues")
"""What can be protected, in the order of the numbers in the status register and counters."""

MOST_ONCHIP   = _addressable(_LOAD["base"], _STORE["base"], _CONV["out_base"], _FILL["src_base"],
                             _FILL["src_base2"], _GATE["skip_base"])
MOST_FEEDBACK = _addressable(_CONV["out_base"], _FILL["src_base"])


def _within(unit):
    """The rule that a unit's results fit a vector."""
    def broken(part, vector):
        return (None if part.outputs <= vector and part.drain <= vector else
                f"{unit}.outputs ({part.outputs}) and {unit}.drain ({part.drain}) must not exceed "
                f"the vector ({vector})")
    return Rule(f"{unit} vector", broken)


def _words(name, most):
    """The rule that a memory is whole vectors, and not more than an instruction can address."""
    def broken(size, vector):
        if size % vector:
            return f"{name} ({size}) must be whole vectors of {vector} bytes"
        if not 2 <= size // vector <= most:
            return (f"{name} must be from {spoken(2 * vector, 'bytes')} to "
                    f"{spoken(most * vector, 'bytes')}, the {most} vectors of {vector} bytes that "
                    f"an instruction can address, not {spoken(size, 'bytes')}")
        return None
    return Rule(f"{name} vector", broken)


def _protection(text):
    known = (f"protection must be one of {', '.join(PROTECTIONS)}, or MEMORY=KIND with commas "
             f"between, for {', '.join(MEMORIES)}; not")
    if text in PROTECTIONS:
        return None
    for word in text.split(","):
        memory, _, kind = word.partition("=")
        if memory not in MEMORIES or kind not in PROTECTIONS:
            return f"{known} {word!r}"
    return None


def _refreshes(dram, clock_mhz):
    try:
        return dram.timing(clock_mhz) and None
    except ValueError as error:
        return f"clock_mhz ({clock_mhz:g}) is too slow for {dram.name}: {error}"


@dataclass(frozen=True)
class Config:
    """The whole machine. ``vector`` is the one width of the design: bytes of an on-chip word, of
    an AXI beat, and input channels that a MAC array takes per step."""
    name:             str        = knob("what reports call the machine", **NAME)
    vector:           int        = knob("the one width: an on-chip word, an AXI beat, the input "
                                        "channels of a step", "bytes", least=8,
                                        most=INSTRUCTION_BYTES, power=True)
    encoder:          UnitConfig
    attention:        UnitConfig
    decoder:          UnitConfig
    gate_lanes:       int        = knob("channels that the gate multiplies and requantises per "
                                        "cycle", least=1, most=INSTRUCTION_BYTES, power=True)
    gate_param_words: int        = knob("words of gate parameters, each `gate_lanes` channels",
                                        least=2, most=_addressable(_GATE["param_base"],
                                                                   _LOAD["base"]))
    alpha_words:      int        = knob("vectors in the attention unit's store of attention maps",
                                        least=2, most=_addressable(_CONV["alpha_base"],
                                                                   _GATE["alpha_base"]))
    onchip_banks:     int        = knob("banks of on-chip memory", least=1, most=64, power=True)
    onchip_bytes:     int        = knob("on-chip memory", "bytes", least=16,
                                        most=MOST_ONCHIP * INSTRUCTION_BYTES, power=True)
    feedback_bytes:   int        = knob("the decoder's own memory for its previous output", "bytes",
                                        least=16, most=MOST_FEEDBACK * INSTRUCTION_BYTES)
    offchip_bytes:    int        = knob("off-chip memory", "bytes", least=4 * KIB,
                                        most=min(4 * GIB, _addressable(_LOAD["offchip"],
                                                                       _STORE["offchip"])),
                                        power=True)
    dram:             Dram
    clock_mhz:        float      = knob("clock", "MHz", least=1, most=5000)
    clock_source:     str        = knob("whose figure the clock is", default="configured",
                                        about="clock_mhz",
                                        pattern="|".join(CLOCK_SOURCES),
                                        shape=f"one of {', '.join(CLOCK_SOURCES)}")
    protection:       str        = knob("of memories: none, parity or secded, or by memory: "
                                        "onchip=secded,rows=parity", default="none")
    channel_bounds:   bool       = knob("bounds for each channel: normalisation after ReLU",
                                        default=False)
    pipelined:        bool       = knob("registers on the ways to and from on-chip memory, for a "
                                        "faster clock: reads take two cycles longer", default=False)
    base:             str        = field(default="", compare=False)
    changes:          tuple      = field(default=(), compare=False)
    """What it began from, and what was changed of that: (knob, was, is), as people read them."""

    RULES = (
        *(_within(unit) for unit in ("encoder", "attention", "decoder")),
        Rule("gate_lanes vector", lambda lanes, vector: None if lanes <= vector else
             f"gate_lanes ({lanes}) must divide the vector ({vector})"),
        _words("onchip_bytes", MOST_ONCHIP),
        _words("feedback_bytes", MOST_FEEDBACK),
        Rule("onchip_banks onchip_bytes vector", lambda banks, size, vector: None
             if banks * vector <= size else
             f"onchip_banks ({banks}) must not exceed the {size // vector} vectors of "
             f"onchip_bytes"),
        Rule("dram clock_mhz", _refreshes),
        Rule("protection", _protection),
    )

    def __post_init__(self):
        demand(self)

    def _protections(self):
        """The protection of each memory, by name."""
        if self.protection in PROTECTIONS:
            return dict.fromkeys(MEMORIES, self.protection)
        return {**dict.fromkeys(MEMORIES, "none"),
                **dict(word.split("=") for word in self.protection.split(","))}

    def protects(self, memory):
        """How a memory, one of ``MEMORIES``, is protected: one of ``PROTECTIONS``."""
        return self._protections()[memory]

    @property
    def protected(self):
        """Whether any memory is."""
        return set(self._protections().values()) != {"none"}

    @property
    def timing(self):
        """The :class:`DramTiming` of its off-chip memory at its clock."""
        return self.dram.timing(self.clock_mhz)

    @property
    def peak_bytes_per_cycle(self):
        """Bytes per cycle that off-chip memory moves at best: one beat, or what its pins allow."""
        return min(self.vector, self.timing.bus_bytes_per_cycle)

    @property
    def structure(self):
        """All that its Verilog depends on: two machines that differ only in name, clock and timing
        of off-chip memory are one."""
        return replace(self, name="machine", clock_mhz=REFERENCE.clock_mhz,
                       clock_source=REFERENCE.clock_source, dram=REFERENCE.dram, base="",
                       changes=())

    @property
    def units(self):
        """The three compute units by name, in the order of the data."""
        return {"encoder": self.encoder, "attention": self.attention, "decoder": self.decoder}

    @property
    def mac_lanes(self):
        return sum(unit.pixels * self.vector * unit.outputs for unit in self.units.values())

    @property
    def read_latency(self):
        """Cycles from an accepted read of on-chip or feedback memory to its data, at least."""
        return PIPELINED_READS if self.pipelined else PENDING_READS

    @property
    def read_queue(self):
        """Vectors that a reader has asked for and not passed on, at most: those in flight, and two
        to move, so that one comes a cycle."""
        return self.read_latency + 2

    @property
    def onchip_lanes(self):
        """Separately writable parts of an on-chip word: the smallest thing a unit writes."""
        return self.vector // min(unit.outputs for unit in self.units.values())

    @property
    def feedback_lanes(self):
        return self.vector // self.decoder.outputs

    @property
    def onchip_words(self):
        return self.onchip_bytes // self.vector

    @property
    def feedback_words(self):
        return self.feedback_bytes // self.vector

    @property
    def offchip_words(self):
        return self.offchip_bytes // self.vector

    @property
    def offchip_address_width(self):
        return (self.offchip_bytes - 1).bit_length()



HERE  = Path(__file__).parent
DRAMS = Shelf(Dram, "off-chip memory", HERE / "drams",
              ("ddr4-2400", "ddr3-1600", "lpddr4-3200", "sdr-ulx3s"))
MACHINES = Shelf(Config, "machine", HERE / "machines", ("reference", "edge", "tiny", "large"),
                 {"dram": DRAMS})

PRESETS = MACHINES.shipped
REFERENCE, EDGE, TINY = (PRESETS[name] for name in ("reference", "edge", "tiny"))
TINY_SHAPE = (32, 4)


def preset(name, *, dram=None, protection=None, changes=None):
    """The machine called ``name``, or that of the file at this path.

    Parameters
    ----------
    dram : str
        Another off-chip memory: the name of one, or the path of its file.
    protection : str
        Another protection of memories.
    changes : str
        Knobs on top of all that: ``"decoder.outputs=16 onchip_bytes=2MiB"``.

    Raises
    ------
    InputError
        With every mistake on a line of its own.
    """
    config, begin = MACHINES.load(name)
    if dram is not None:
        config = replace(config, dram=DRAMS.load(dram)[0])
    if protection is not None:
        line = _protection(protection)
        if line:
            raise InputError(line.replace("p", "P", 1))
        config = replace(config, protection=protection)
    if changes:
        config = MACHINES.change(config, parse_changes(changes), "SET")
    return replace(config, base=begin.name, changes=tuple(differences(begin, config)))


def usual_shape(model, config):
    """Side of a frame and width of a network, where a person gives none: those of its source, or
    what ``tiny`` is for."""
    from golden.models import default_shape  # PyTorch; names and sizes do without
    return TINY_SHAPE if (config.base or config.name) == "tiny" else default_shape(model)
