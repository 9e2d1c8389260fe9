"""Every size of the machine, in one frozen dataclass with three presets."""

from dataclasses import dataclass, replace

from golden.errors import InputError
from hw.isa import FORMS, INSTRUCTION_BYTES, KernelRow, Opcode


@dataclass(frozen=True)
class DramTiming:
    """Off-chip memory timing, in cycles of the accelerator's clock.

    ``bus_bytes_per_cycle`` is the peak of the memory's own pins, seen from our clock; the AXI data
    path (``Config.vector`` bytes a beat) may be the narrower of the two.
    """
    name:                str
    bus_bytes_per_cycle: float
    banks:               int   # DRAM banks, each with one open row
    row_bytes:           int   # bytes per open row (all chips of the channel together)
    row_hit:             int   # cycles from command to first data, row open (CL)
    activate:            int   # extra cycles when the row must be opened (tRCD)
    precharge:           int   # extra cycles when another row is open (tRP)
    turnaround:          int   # extra cycles when the bus changes direction
    refresh_interval:    int   # cycles between refreshes (tREFI)
    refresh_busy:        int   # cycles a refresh blocks the memory (tRFC)

    def __post_init__(self):
        for name in ("banks", "row_bytes"):
            value = getattr(self, name)
            if value < 1 or value & (value - 1):
                raise ValueError(f"DRAM {name} must be a power of two, not {value!r}")
        if self.refresh_interval <= self.refresh_busy:
            raise ValueError(f"DRAM refresh_interval ({self.refresh_interval}) must exceed "
                             f"refresh_busy ({self.refresh_busy})")


def _fits(what, value, least, *fields):
    """Refuse a memory that is smaller than ``least`` or that an instruction cannot address to its
    end; ``fields`` are those that hold its addresses."""
    most = 1 << min(field.width for field in fields)
    if not least <= value <= most:
        raise ValueError(f"{what} must be from {least} to {most}, what an instruction can address, "
                         f"not {value!r}")


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
    (:mod:`hw.compute.transform`).
    """
    pixels:       int
    outputs:      int
    drain:        int
    row_words:    int
    weight_words: int
    params:       int
    transform:    bool = False

    def __post_init__(self):
        for name in ("pixels", "outputs", "drain"):
            value = getattr(self, name)
            if value < 1 or value & (value - 1):
                raise ValueError(f"Unit {name} must be a power of two, not {value!r}")
        if self.drain < self.outputs:
            raise ValueError(f"Unit drain ({self.drain}) must be at least its outputs "
                             f"({self.outputs})")
        _fits("Unit row_words", self.row_words, 4, KernelRow.as_shape()["base"],
              _FILL["dst_base"], _GATE["dst_base"])
        _fits("Unit weight_words", self.weight_words, 4, _CONV["weight_base"], _LOAD["base"])
        _fits("Unit params", self.params, 4, _CONV["param_base"], _LOAD["base"])

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


PROTECTIONS = ("none", "parity", "secded")
MEMORIES    = ("onchip", "feedback", "rows", "weights", "params", "table", "slots", "alpha",
               "gate_params", "instructions", "streams", "queues")
"""What can be protected, in the order of the numbers in the status register and counters."""


@dataclass(frozen=True)
class Config:
    """The whole machine. ``vector`` is the one width of the design: bytes of an on-chip word, of
    an AXI beat, and input channels that a MAC array takes per step."""
    name:             str
    vector:           int
    encoder:          UnitConfig
    attention:        UnitConfig
    decoder:          UnitConfig
    gate_lanes:       int      # channels the gate multiplies and requantises per cycle
    gate_param_words: int      # each holds ``gate_lanes`` channels
    alpha_words:      int      # vectors in the attention unit's own store of attention maps
    onchip_banks:     int
    onchip_bytes:     int
    feedback_bytes:   int      # the decoder's own memory for its previous output
    offchip_bytes:    int
    dram:             DramTiming
    clock_mhz:        float
    protection:       str = "none"     # one of PROTECTIONS, or by memory: "onchip=secded,rows=.."

    def __post_init__(self):
        self._protections()
        if not 8 <= self.vector <= INSTRUCTION_BYTES or self.vector & (self.vector - 1):
            raise ValueError(f"Vector must be a power of two from 8 to {INSTRUCTION_BYTES}, the "
                             f"bytes of an instruction, not {self.vector!r}")
        for name in ("encoder", "attention", "decoder"):
            outputs = getattr(self, name).outputs
            if outputs > self.vector or getattr(self, name).drain > self.vector:
                raise ValueError(f"{name.capitalize()} outputs ({outputs}) and drain "
                                 f"({getattr(self, name).drain}) must not exceed the vector "
                                 f"({self.vector})")
        if self.gate_lanes < 1 or self.vector % self.gate_lanes:
            raise ValueError(f"Gate lanes ({self.gate_lanes}) must divide the vector "
                             f"({self.vector})")
        for name in ("onchip_banks", "onchip_bytes", "offchip_bytes"):
            value = getattr(self, name)
            if value < 1 or value & (value - 1):
                raise ValueError(f"Config {name} must be a power of two, not {value!r}")
        for name in ("feedback_bytes", "offchip_bytes", "onchip_bytes"):
            if getattr(self, name) % self.vector:
                raise ValueError(f"Config {name} ({getattr(self, name)}) must be whole vectors of "
                                 f"{self.vector} bytes")
        if self.onchip_banks > self.onchip_words:
            raise ValueError(f"Config onchip_banks ({self.onchip_banks}) must not exceed its "
                             f"{self.onchip_words} words")
        _fits("On-chip words", self.onchip_words, 2, _LOAD["base"], _STORE["base"],
              _CONV["out_base"], _FILL["src_base"], _FILL["src_base2"], _GATE["skip_base"])
        _fits("Feedback words", self.feedback_words, 2, _CONV["out_base"], _FILL["src_base"])
        _fits("Config alpha_words", self.alpha_words, 2, _CONV["alpha_base"], _GATE["alpha_base"])
        _fits("Config gate_param_words", self.gate_param_words, 2, _GATE["param_base"],
              _LOAD["base"])
        _fits("Config offchip_bytes", self.offchip_bytes, 4096, _LOAD["offchip"],
              _STORE["offchip"])

    def _protections(self):
        """The protection of each memory, by name."""
        if self.protection in PROTECTIONS:
            return dict.fromkeys(MEMORIES, self.protection)
        found = dict.fromkeys(MEMORIES, "none")
        for word in self.protection.split(","):
            memory, _, kind = word.partition("=")
            if memory not in MEMORIES or kind not in PROTECTIONS:
                raise ValueError(f"Config protection is one of {', '.join(PROTECTIONS)}, or "
                                 f"MEMORY=KIND with commas between, for {', '.join(MEMORIES)}; "
                                 f"not {word!r}")
            found[memory] = kind
        return found

    def protects(self, memory):
        """How a memory, one of ``MEMORIES``, is protected: one of ``PROTECTIONS``."""
        return self._protections()[memory]

    @property
    def protected(self):
        """Whether any memory is."""
        return set(self._protections().values()) != {"none"}

    @property
    def units(self):
        """The three compute units by name, in the order of the data."""
        return {"encoder": self.encoder, "attention": self.attention, "decoder": self.decoder}

    @property
    def mac_lanes(self):
        return sum(unit.pixels * self.vector * unit.outputs for unit in self.units.values())

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


KIB = 1024
MIB = 1024 * KIB

# Data sheets, converted to the accelerator's clock (rounded up):
# JEDEC JESD79-4 DDR4-2400R 17-17-17: CL = tRCD = tRP = 14.16 ns, tRFC(8 Gb) = 350 ns,
# tREFI = 7.8 us, tWTR + CL about 20 ns; a 64-bit channel moves 19.2 GB/s = 64 B per 300 MHz cycle.
DDR4_2400 = DramTiming("ddr4-2400", bus_bytes_per_cycle=64, banks=16, row_bytes=8 * KIB, row_hit=5,
                       activate=5, precharge=5, turnaround=6, refresh_interval=2340,
                       refresh_busy=105)
# JEDEC JESD79-3 DDR3-1600K 11-11-11 (13.75 ns), one 16-bit chip at 100 MHz: 3.2 GB/s = 32 B.
DDR3_1600 = DramTiming("ddr3-1600", bus_bytes_per_cycle=32, banks=8, row_bytes=2 * KIB, row_hit=2,
                       activate=2, precharge=2, turnaround=2, refresh_interval=780,
                       refresh_busy=26)
# JEDEC JESD209-4 LPDDR4-3200, one 16-bit channel at 300 MHz: 6.4 GB/s = 21.3 B; RL 28 = 17.5 ns.
LPDDR4_3200 = DramTiming("lpddr4-3200", bus_bytes_per_cycle=21.3, banks=8, row_bytes=2 * KIB,
                         row_hit=6, activate=6, precharge=6, turnaround=6, refresh_interval=1170,
                         refresh_busy=84)
# ULX3S SDR SDRAM (MT48LC16M16A2-7E), 16 bits, run at the fabric clock: CL 2, tRCD 2, tRP 2,
# tRFC 66 ns, 8192 rows in 64 ms; at 50 MHz.
SDR_ULX3S = DramTiming("sdr-ulx3s", bus_bytes_per_cycle=2, banks=4, row_bytes=1 * KIB, row_hit=2,
                       activate=2, precharge=2, turnaround=2, refresh_interval=390,
                       refresh_busy=4)

DRAM_TIMINGS = {timing.name: timing for timing in (DDR4_2400, DDR3_1600, LPDDR4_3200, SDR_ULX3S)}

REFERENCE = Config(
    name="reference", vector=16,
    encoder=UnitConfig(pixels=4, outputs=4, drain=16, row_words=2048, weight_words=8192,
                       params=512, transform=True),
    attention=UnitConfig(pixels=1, outputs=8, drain=8, row_words=4096, weight_words=6144,
                         params=128, transform=True),
    decoder=UnitConfig(pixels=4, outputs=8, drain=16, row_words=2048, weight_words=8192,
                       params=256, transform=True),
    gate_lanes=4, gate_param_words=128, alpha_words=2048,
    onchip_banks=4, onchip_bytes=4 * MIB, feedback_bytes=1536 * KIB, offchip_bytes=64 * MIB,
    dram=DDR4_2400, clock_mhz=300)

EDGE = Config(
    name="edge", vector=8,
    encoder=UnitConfig(pixels=2, outputs=2, drain=2, row_words=512, weight_words=2048, params=256),
    attention=UnitConfig(pixels=1, outputs=2, drain=2, row_words=1024, weight_words=1536,
                         params=256),
    decoder=UnitConfig(pixels=2, outputs=4, drain=4, row_words=1024, weight_words=2048,
                       params=128),
    gate_lanes=4, gate_param_words=64, alpha_words=256,
    onchip_banks=2, onchip_bytes=128 * KIB, feedback_bytes=4 * KIB, offchip_bytes=32 * MIB,
    dram=SDR_ULX3S, clock_mhz=50)

TINY = Config(
    name="tiny", vector=8,
    encoder=UnitConfig(pixels=2, outputs=2, drain=2, row_words=512, weight_words=1024, params=64,
                       transform=True),
    attention=UnitConfig(pixels=1, outputs=2, drain=4, row_words=1024, weight_words=1024,
                         params=64, transform=True),
    decoder=UnitConfig(pixels=2, outputs=4, drain=8, row_words=512, weight_words=1024, params=32,
                       transform=True),
    gate_lanes=2, gate_param_words=32, alpha_words=128,
    onchip_banks=2, onchip_bytes=64 * KIB, feedback_bytes=16 * KIB, offchip_bytes=4 * MIB,
    dram=DDR3_1600, clock_mhz=100)

TINY_SHAPE = (32, 4)
PRESETS = {config.name: config for config in (REFERENCE, EDGE, TINY)}


def preset(name, *, dram=None, protection=None):
    """The preset called ``name``, optionally with another off-chip memory timing, and protection of
    its memories.

    Raises
    ------
    InputError
        If one of them is unknown; the message lists the known ones.
    """
    if name not in PRESETS:
        raise InputError(f"Unknown preset {name!r}; known are {', '.join(PRESETS)}")
    config = PRESETS[name]
    if protection is not None:
        try:
            config = replace(config, protection=protection)
        except ValueError as error:
            raise InputError(str(error).replace("Config p", "P", 1)) from None
    if dram is None:
        return config
    if dram not in DRAM_TIMINGS:
        raise InputError(f"Unknown off-chip timing {dram!r}; known are {', '.join(DRAM_TIMINGS)}")
    return replace(config, dram=DRAM_TIMINGS[dram])


def usual_shape(model, config):
    """Side of a frame and width of a network, where a person gives none: those of its source, or
    what ``tiny`` is for."""
    from golden.models import default_shape  # PyTorch; names and sizes do without
    return TINY_SHAPE if config.name == "tiny" else default_shape(model)
