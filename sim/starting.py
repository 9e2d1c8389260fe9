"""What the host writes into the registers of the machine, wherever it is."""

from hw.control.regmap import Control, Interrupt, Register

__all__ = ["BEFORE_RUN", "WRITE_CYCLES", "starting"]

# In simulation, cycles of a write, and from the end of the one that starts a run to its first.
WRITE_CYCLES = 3
BEFORE_RUN   = 4


def starting(settings):
    """``(register, value)``, in order, of a run with ``settings``: ``program_base``, ``writable``
    (two addresses), ``cycle_limit``, ``stall_limit``, and ``live`` if only the first frame is there
    yet. The last one starts it."""
    base, limit = settings["writable"]
    live = settings.get("live", False)
    yield Register.IRQ_ENABLE, Interrupt.const({"done": 1, "mask": live}).as_bits()
    if live:
        yield Register.FRAMES_READY, 1
    yield Register.PROGRAM_BASE, settings["program_base"]
    yield Register.WRITE_BASE, base
    yield Register.WRITE_LIMIT, limit
    yield Register.CYCLE_LIMIT_LO, settings["cycle_limit"] & 0xFFFFFFFF
    yield Register.CYCLE_LIMIT_HI, settings["cycle_limit"] >> 32
    yield Register.STALL_LIMIT, settings["stall_limit"]
    yield Register.MONITOR_LAYER, 0             # every gate
    yield Register.MONITOR_WIDTH, 0x7FF
    yield Register.MONITOR_HEIGHT, 0xFFF
    yield Register.MONITOR_ENABLE, 1
    yield Register.CONTROL, Control.const({"start": 1}).as_bits()
