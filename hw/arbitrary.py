"""Random machines, for ``make fuzz``: every size of the block diagram another one, small enough to
be built in a minute, and with memories in which small networks fit."""

from random import Random

from golden.errors import InputError
from hw.config import DRAMS, KIB, Config, UnitConfig

__all__ = ["PREFIX", "arbitrary_machine", "is_arbitrary"]

PREFIX = "random:"


def is_arbitrary(name):
    """Whether a machine is named ``random:SEED``."""
    return name.startswith(PREFIX)


def arbitrary_machine(name):
    """The machine called ``random:SEED``; always the same for a seed.

    Raises
    ------
    InputError
        If there is no seed.
    """
    seed = name.removeprefix(PREFIX)
    if not is_arbitrary(name) or not (seed.isascii() and seed.isdigit()):
        raise InputError(f"A random machine is called {PREFIX}SEED, with a whole number, not "
                         f"{name!r}")
    rng    = Random(f"machine {seed}")
    vector = rng.choice((8, 16))

    def unit(*widths):
        outputs = rng.choice(widths)
        return UnitConfig(
            pixels=rng.choice((1, 2, 4)), outputs=outputs,
            drain=rng.choice([drain for drain in (1, 2, 4, 8, 16) if outputs <= drain <= vector]),
            row_words=rng.choice((512, 1024)), weight_words=rng.choice((2048, 4096)),
            params=rng.choice((256, 512)), transform=rng.random() < 0.6)

    return Config(
        name=f"random-{seed}", vector=vector, encoder=unit(1, 2, 4), attention=unit(1, 2, 4),
        decoder=unit(2, 4, 8),      # linear upsampling wants two columns
        gate_lanes=rng.choice((1, 2, 4, 8)), gate_param_words=512, alpha_words=256,
        onchip_banks=rng.choice((1, 2, 4, 8)), onchip_bytes=rng.choice((64, 128, 256)) * KIB,
        feedback_bytes=rng.choice((16, 64)) * KIB, offchip_bytes=8 * 1024 * KIB,
        dram=DRAMS.shipped[rng.choice(sorted(DRAMS.shipped))], clock_mhz=rng.choice((50, 100, 300)))
