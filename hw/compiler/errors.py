"""What the compiler says when it cannot compile."""

from hw.config import Config, UnitConfig
from hw.knobs import knob_named

__all__ = ["CompileError", "NoRoom", "or_set"]


def or_set(knob, size):
    """A second way out for a message: the knob, by its path, that would have room with ``size``, or
    the power of two above it; nothing where no machine can have that much."""
    unit, _, name = knob.rpartition(".")
    about = knob_named(UnitConfig if unit else Config, name)
    if about.power:
        size = 1 << (size - 1).bit_length()
    return f", or SET={knob}={size}" if size <= about.most else ""


class CompileError(ValueError):
    """A network does not fit the machine; the message names the cause and a way out."""


class NoRoom(CompileError):
    """A memory is too small for what a plan keeps in it. ``wanted`` did not fit beside ``live``,
    all of them names of blocks; ``alone`` says that it would hardly fit an empty memory."""

    def __init__(self, message, *, wanted, live, alone):
        super().__init__(message)
        self.wanted, self.live, self.alone = wanted, live, alone
