"""Register map: the one table for the hardware, the host driver and the documentation."""

from dataclasses import dataclass

from amaranth.lib import data, enum

from hw.isa import Engine, Error

ADDRESS_BITS          = 12
ID                    = 0x4E555441      # "ATUN", little-endian, as at the head of a program
VERSION               = 0x0001_0001     # major, minor
DEFAULT_STALL_LIMIT   = 100_000


class Register(enum.IntEnum):
    """Byte addresses of the 32-bit registers."""
    ID               = 0x00
    VERSION          = 0x04
    CONTROL          = 0x08
    STATUS           = 0x0C
    IRQ_ENABLE       = 0x10
    IRQ_STATUS       = 0x14
    PROGRAM_BASE     = 0x18
    CYCLE_LIMIT_LO   = 0x1C
    CYCLE_LIMIT_HI   = 0x20
    STALL_LIMIT      = 0x24
    COUNTER_SELECT   = 0x28
    COUNTER_LO       = 0x2C
    COUNTER_HI       = 0x30
    WRITE_BASE       = 0x34
    WRITE_LIMIT      = 0x38
    MONITOR_ENABLE   = 0x40
    MONITOR_LAYER    = 0x44
    MONITOR_X0       = 0x48
    MONITOR_Y0       = 0x4C
    MONITOR_WIDTH    = 0x50
    MONITOR_HEIGHT   = 0x54
    MONITOR_DECIMATE = 0x58
    MONITOR_SENT     = 0x5C
    MONITOR_DROPPED  = 0x60
    FRAMES_READY     = 0x64


class Access(enum.Enum):
    READ       = "read"
    WRITE      = "write"          # reads as 0
    READ_WRITE = "read, write"
    CLEAR      = "read, write 1 to clear"


class Control(data.Struct):
    """Writing a 1 acts once. ``start`` while the machine is busy does nothing. ``reset`` ends a run
    at once, without an interrupt, and forgets its status, its counters and whatever off-chip memory
    still owes: it is only for when that side of the bus is reset as well."""
    start: 1
    stop:  1
    reset: 1


class Status(data.Struct):
    """``done`` rises when a run ends, however it ends, and falls with the next start. ``error`` and
    ``engine`` say why it ended early; ``stopped``, that the host asked for it; ``unanswered``, that
    off-chip memory still owes answers to a run that has ended. ``memory`` is which one had the
    error ``MEMORY``, as a number in ``hw.config.MEMORIES``."""
    busy:       1
    done:       1
    stopped:    1
    unanswered: 1
    _spare0:    4
    error:      Error
    _spare1:    4
    engine:     Engine
    memory:     4


class Interrupt(data.Struct):
    """``error`` comes with ``done``, when a run ended with an error; ``mask`` with the last bytes
    of each mask."""
    done:  1
    error: 1
    mask:  1


EVERY_INTERRUPT = (1 << data.StructLayout.cast(Interrupt).size) - 1
"""What clears IRQ_STATUS."""


@dataclass(frozen=True)
class Entry:
    """``bits`` of a register exist; the others read as 0 and ignore writes."""
    access: Access
    bits:   int
    text:   str


_R, _W, _RW, _C = Access

REGISTERS = {
    Register.ID:               Entry(_R,  32, 'Always 0x4E555441, "ATUN"'),
    Register.VERSION:          Entry(_R,  32, "Major version in the upper half, minor below"),
    Register.CONTROL:          Entry(_W,   3, "Bit 0 starts a run, bit 1 stops it, bit 2 "
                                              "resets the machine"),
    Register.STATUS:           Entry(_R,  24, "Busy, done, stopped, unanswered; error code from "
                                              "bit 8, its engine from bit 16, or memory "
                                              "from bit 20"),
    Register.IRQ_ENABLE:       Entry(_RW,  3, "Which bits of IRQ_STATUS raise the interrupt"),
    Register.IRQ_STATUS:       Entry(_C,   3, "Bit 0: a run ended; bit 1: with an error; bit 2: a "
                                              "mask is in off-chip memory"),
    Register.PROGRAM_BASE:     Entry(_RW, 32, "Byte address of the program; read at the start"),
    Register.CYCLE_LIMIT_LO:   Entry(_RW, 32, "A run that takes this many cycles is stopped; "
                                              "0: never"),
    Register.CYCLE_LIMIT_HI:   Entry(_RW, 16, "Bits 47 to 32 of the same"),
    Register.STALL_LIMIT:      Entry(_RW, 32, "Cycles without any progress that stop a run, and "
                                              "then that it waits for the bus; "
                                              f"0: {DEFAULT_STALL_LIMIT}"),
    Register.COUNTER_SELECT:   Entry(_RW, 16, "Number of a performance counter"),
    Register.COUNTER_LO:       Entry(_R,  32, "Samples that counter; bits 31 to 0"),
    Register.COUNTER_HI:       Entry(_R,  32, "Bits 63 to 32 of the last sample"),
    Register.WRITE_BASE:       Entry(_RW, 32, "First byte off chip that a program may write"),
    Register.WRITE_LIMIT:      Entry(_RW, 32, "First byte behind that; 0: the end of memory"),
    Register.MONITOR_ENABLE:   Entry(_RW,  1, "Send rows of an attention map"),
    Register.MONITOR_LAYER:    Entry(_RW,  8, "Layer number of the gate to watch"),
    Register.MONITOR_X0:       Entry(_RW, 11, "Left edge of the region"),
    Register.MONITOR_Y0:       Entry(_RW, 12, "Top edge of the region"),
    Register.MONITOR_WIDTH:    Entry(_RW, 11, "Width of the region, before decimation"),
    Register.MONITOR_HEIGHT:   Entry(_RW, 12, "Height of the region, before decimation"),
    Register.MONITOR_DECIMATE: Entry(_RW,  2, "Send every 2**n-th pixel of every 2**n-th row"),
    Register.MONITOR_SENT:     Entry(_R,  32, "Rows sent"),
    Register.MONITOR_DROPPED:  Entry(_R,  32, "Rows dropped, because the host was too slow"),
    Register.FRAMES_READY:     Entry(_RW, 18, "Frames of a stream that lie in off-chip memory so "
                                              "far, at least 1; 0: all of them"),
}


def register_table():
    """The map as Markdown, for the documentation."""
    lines = ["| address | register | access | meaning |", "| --- | --- | --- | --- |"]
    for register, entry in REGISTERS.items():
        lines.append(f"| 0x{register:02X} | {register.name} | {entry.access.value} "
                     f"| {entry.text} |")
    return "\n".join(lines)
