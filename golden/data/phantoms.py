"""Phantoms as a data set: nothing to download, and any number of them.

Seeds below a million are never trained on: ``phantom:7`` is always a fair test.
"""

from golden.data.sample import Dataset, Sample
from golden.errors import InputError

__all__ = ["TRAIN_SEEDS", "VALIDATION_SEEDS", "phantoms", "read"]

TRAIN_SEEDS = 1_000_000
VALIDATION_SEEDS = 2_000_000
TEST_COUNT = 64
MOST = 100_000
WORD = "phantom"


def is_phantom(text):
    """Whether ``text`` asks for phantoms."""
    return text == WORD or text.startswith(f"{WORD}:")


def read(text):
    """``phantom`` or ``phantom:N``: the first N test phantoms, 64 unless told."""
    _, _, digits = text.partition(":")
    counted = digits.isascii() and digits.isdigit() and len(digits) <= len(str(MOST))
    if ":" in text and not (counted and 0 < int(digits) <= MOST):
        raise InputError(f"Number of phantoms must be 1..{MOST}, not {digits[:40]!r}; for example "
                         f"{WORD}:{TEST_COUNT}")
    return phantoms(0, int(digits) if digits else TEST_COUNT)


def phantoms(first, count):
    """Phantoms of so many seeds from the first on."""
    samples = tuple(Sample(f"{WORD}:{seed}", f"{WORD}:{seed}", (f"{WORD}:{seed}",), WORD,
                           f"{WORD}:{seed}") for seed in range(first, first + count))
    return Dataset(f"{WORD}:{count}", "phantoms", samples)
