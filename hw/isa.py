"""Instruction set: the one place where bit positions exist.

A program is one stream of 256-bit macro instructions per engine. Engines run their streams in
order and side by side; order *between* engines comes from waits: an instruction starts once each
engine that it names has retired at least ``count`` instructions since the program began. Retired
means that every write of the instruction has landed. A program that was emitted in a sequential
order, each instruction waiting only for earlier ones, therefore cannot deadlock.
"""

from amaranth import signed
from amaranth.lib import data, enum

INSTRUCTION_BITS  = 256
INSTRUCTION_BYTES = INSTRUCTION_BITS // 8
WAITS             = 3
LAYER_SLOTS       = 16
KERNEL_ROWS       = 3           # of one CONV; taller kernels have a ROWS before it
MAX_KERNEL        = 7
PROGRAM_MAGIC     = 0x4E555441          # "ATUN", little-endian


class Engine(enum.IntEnum, shape=4):
    """The machine's issue ports. Each fetches and retires its own stream."""
    LOAD_ENCODER   = 0      # off-chip memory to on-chip memory, or to the unit's own memories
    LOAD_ATTENTION = 1
    LOAD_DECODER   = 2
    STORE          = 3      # on-chip memory to off-chip memory
    ENCODER_FILL   = 4      # on-chip memory to the encoder's row memory
    ENCODER_CONV   = 5      # the encoder's MAC array
    ATTENTION_FILL = 6
    ATTENTION_CONV = 7
    GATE           = 8      # alpha * skip, straight into the decoder's row memory
    DECODER_FILL   = 9
    DECODER_CONV   = 10
    STORE_DECODER  = 11     # a second store channel, so that masks never wait behind spilled maps


LOADS = (Engine.LOAD_ENCODER, Engine.LOAD_ATTENTION, Engine.LOAD_DECODER)
STORES = (Engine.STORE, Engine.STORE_DECODER)
FILLS = (Engine.ENCODER_FILL, Engine.ATTENTION_FILL, Engine.DECODER_FILL)
CONVS = (Engine.ENCODER_CONV, Engine.ATTENTION_CONV, Engine.DECODER_CONV)


class Opcode(enum.Enum, shape=4):
    SYNC  = 1      # only waits; legal on every engine
    LOAD  = 2
    STORE = 3
    LAYER = 4      # conv engines: write a layer descriptor slot
    CONV  = 5      # conv engines: one output row of one layer, for some output channels
    FILL  = 6
    GATE  = 7
    ROWS  = 8      # conv engines: kernel rows from the fourth on, for the CONVs that follow


def legal_opcodes(engine):
    """The opcodes that ``engine`` runs; any other is a corrupt program."""
    engine = Engine(engine)
    if engine in LOADS:
        return (Opcode.SYNC, Opcode.LOAD)
    if engine in FILLS:
        return (Opcode.SYNC, Opcode.FILL)
    if engine in CONVS:
        return (Opcode.SYNC, Opcode.LAYER, Opcode.ROWS, Opcode.CONV)
    return (Opcode.SYNC, Opcode.STORE if engine in STORES else Opcode.GATE)


class Traffic(enum.Enum, shape=3):
    """Class of off-chip bytes, for the report."""
    PROGRAM = 0
    WEIGHTS = 1
    FRAME   = 2
    SPILL   = 3
    ALPHA   = 4
    MASK    = 5


class Cause(enum.Enum, shape=3):
    """What one engine did with one cycle. Exactly one holds."""
    ISSUE        = 0      # retired one vector instruction
    DEPENDENCY   = 1      # waits for another engine's result
    CONFLICT     = 2      # lost a memory port to another requester
    OFFCHIP      = 3      # off-chip data (weights, map or program) not there
    BACKPRESSURE = 4      # its consumer cannot take more
    FILL_DRAIN   = 5      # pipeline filling or draining
    NO_WORK      = 6      # stream exhausted, or machine idle


class Error(enum.Enum, shape=4):
    """Why the machine stopped; held in the status register."""
    NONE        = 0
    BAD_PROGRAM = 1      # program header without the magic word, or for another engine
    BAD_OPCODE  = 2      # opcode that this engine does not run
    BAD_ADDRESS = 3      # access outside a memory
    AXI_READ    = 4      # off-chip memory answered a read with an error
    AXI_WRITE   = 5
    STALLED     = 6      # no engine issued or retired anything for the watchdog's time
    CYCLE_LIMIT = 7
    NO_ANSWER   = 8      # off-chip memory owes answers for longer than the watchdog's time
    WRITE_PROTECTED = 9  # a STORE outside the part of off-chip memory that the host made writable
    MEMORY      = 10     # a protected memory gave a word that could not be corrected


class LoadTarget(enum.Enum, shape=3):
    ONCHIP       = 0
    WEIGHTS      = 1      # beat k goes to lane k % outputs of word k // outputs
    PARAMS       = 2      # beat k holds the Requant of channel k in its low 64 bits; base in
                          # units of outputs channels
    TABLE        = 3      # 256 bytes, lowest address first
    GATE_PARAMS  = 4      # as PARAMS, gate lanes instead of outputs; attention's load only


class Source(enum.Enum, shape=1):
    ONCHIP   = 0
    FEEDBACK = 1


class FillMode(enum.Enum, shape=2):
    COPY = 0
    POOL = 1      # 2x2 maximum of two source rows
    UP   = 2      # nearest x2: every pixel written twice


class Target(enum.Enum, shape=2):
    """Where a convolution writes."""
    ROW      = 0      # the unit's own row memory
    ONCHIP   = 1
    FEEDBACK = 2      # decoder only
    ALPHA    = 3      # attention only: its alpha store, and on-chip memory for the monitor


class Wait(data.Struct):
    """Hold the instruction until ``engine`` has retired ``count``; a count of 0 always holds."""
    engine: Engine
    count:  18


class KernelRow(data.Struct):
    """Row-memory address of the input row under one kernel row, if there is such a row."""
    valid: 1
    base:  15


class Requant(data.Struct):
    """One output channel: ``clamp((((acc + bias) * m + 2**(shift-1)) >> shift) + zero)``.

    ``bound`` is what its bytes are at least, or with ``ceiling`` at most, where the layer's own
    bound on that side is 0 or 255. All bits zero bound nothing.
    """
    bias:       signed(32)
    multiplier: signed(16)
    shift:      6
    bound:      8
    ceiling:    1
    _spare:     1


_HEADER = {
    "opcode": Opcode,
    "layer":  8,      # index into the compiler's layer table: per-layer counters and taps
    "row":    12,     # output row, for taps
    "waits":  data.ArrayLayout(Wait, WAITS),
}

_BODIES = {
    Opcode.SYNC: {},
    # Copy ``beats`` vectors from byte address ``offchip``. With ``expand``, every 4 bytes become
    # one vector, the rest zero: an image of 4 bytes a pixel becomes vectors of channels.
    Opcode.LOAD: {
        "traffic": Traffic,
        "target":  LoadTarget,
        "offchip": 32,
        "beats":   20,
        "base":    20,
        "expand":  1,
        "frame_start": 1,      # the first bytes of a frame: the controller notes the cycle
    },
    Opcode.STORE: {
        "traffic": Traffic,
        "offchip": 32,
        "beats":   20,
        "base":    20,
        "frame_end": 1,        # the last bytes of a mask: the controller notes the cycle
    },
    # What the rows of one layer share.
    Opcode.LAYER: {
        "slot":        4,
        "vectors":     7,      # input vectors per pixel: input channels / vector
        "kernel_h":    3,      # 1..7
        "kernel_w":    3,      # 1..7
        "stride2":     1,      # horizontal stride 2; vertical stride is in the row bases
        "pad_left":    3,
        "width_in":    11,
        "width_out":   11,
        "zero_in":     8,      # what padding inserts
        "zero_out":    8,
        "low":         8,
        "high":        8,
        "target":      Target,
        "out_stride":  7,      # vectors per output pixel
        "packed":      1,      # one channel: byte x % vector of word x // vector, rows zero-filled
        "table":       1,      # look the requantised bytes up in the unit's table
        "depthwise":   1,      # every channel by itself: see CONV
        "spread":      1,      # output pixel x goes to column 2 * x + odd
        "odd":         1,
        "clamp":       1,      # depthwise: past a row's ends its first and last pixel, not zero_in
        "transformed": 1,      # two neighbouring pixels at a time: hw.compute.transform
        "doubled":     7,      # transformed: the first so many vectors have equal pairs of pixels
    },
    # One output row of ``groups`` x outputs channels, from channel ``first`` * outputs on;
    # ``out_base`` is where the row's channel 0 lies. Depthwise: of ``groups`` whole vectors, from
    # output vector ``first`` on; input vector g of a pixel, counted from the row bases, becomes
    # output vector ``first`` + g. Parameters count in units of ``outputs`` channels; depthwise
    # ones begin at a whole vector.
    Opcode.CONV: {
        "slot":        4,
        "rows":        data.ArrayLayout(KernelRow, KERNEL_ROWS),
        "weight_base": 16,
        "param_base":  12,
        "groups":      8,
        "out_base":    20,
        "first":       10,
        "alpha_base":  12,     # Target.ALPHA: word in the alpha store; out_base is the on-chip copy
        "column":      11,     # of its first pixel, for taps
    },
    # Kernel rows KERNEL_ROWS .. MAX_KERNEL - 1 of every CONV until the next ROWS.
    Opcode.ROWS: {
        "rows": data.ArrayLayout(KernelRow, MAX_KERNEL - KERNEL_ROWS),
    },
    # One row of the source into row memory: vector v of pixel x goes to bank x % banks, address
    # dst_base + x // banks * dst_stride + dst_vector + v.
    Opcode.FILL: {
        "source":     Source,
        "mode":       FillMode,
        "src_base":   20,
        "src_base2":  20,      # second row, FillMode.POOL only
        "width":      11,      # source pixels per row
        "vectors":    7,       # per pixel
        "dst_base":   15,
        "dst_stride": 7,
        "dst_vector": 7,
    },
    # (alpha - zero_alpha) * (skip - zero_skip), requantised per channel, into the decoder's row
    # memory as FILL does. Alpha is one byte per pixel of the alpha store, or with ``wide`` a vector
    # per skip vector of on-chip memory; of pixel x // 2, or with ``same`` of pixel x.
    Opcode.GATE: {
        "skip_base":  20,
        "alpha_base": 20,
        "width":      11,      # skip pixels per row
        "vectors":    7,
        "param_base": 10,
        "dst_base":   15,
        "dst_stride": 7,
        "dst_vector": 7,
        "zero_out":   8,
        "low":        8,
        "high":       8,
        "zero_alpha": 8,
        "zero_skip":  8,
        "wide":       1,
        "same":       1,
    },
}


def _form(body):
    fields = {**_HEADER, **body}
    used   = data.StructLayout(fields).size
    if used > INSTRUCTION_BITS:
        raise ValueError(f"Instruction of {used} bits exceeds {INSTRUCTION_BITS}")
    return data.StructLayout({**fields, "_spare": INSTRUCTION_BITS - used})


FORMS = {opcode: _form(body) for opcode, body in _BODIES.items()}

INSTRUCTION = data.UnionLayout({opcode.name.lower(): form for opcode, form in FORMS.items()})
"""Any instruction: ``view.conv.out_base``, ``view.sync.opcode`` (the header is common)."""


class StreamHeader(data.Struct):
    """One per engine, in engine order, at the program's base address: where its stream lies."""
    magic:   32
    engine:  4
    count:   18
    address: 32
    _spare:  INSTRUCTION_BITS - 86
