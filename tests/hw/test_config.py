from dataclasses import replace

import pytest

from golden.errors import InputError
from hw.config import PRESETS, TINY, Config, preset

KIB = 1024
MIB = 1024 * KIB


def changed(name, value):
    """``TINY`` with one size changed; ``unit.size`` is one of that unit."""
    if "." not in name:
        return replace(TINY, **{name: value})
    unit, size = name.split(".")
    return replace(TINY, **{unit: replace(getattr(TINY, unit), **{size: value})})


def addressable(what, least, most, value):
    return f"{what} must be from {least} to {most}, what an instruction can address, not {value}"


MISTAKES = [
    ("vector", 4, "Vector must be a power of two from 8 to 32, the bytes of an instruction, not 4"),
    ("vector", 64, None), ("vector", 512, None), ("vector", 12, None),
    ("onchip_bytes", 16 * MIB, addressable("On-chip words", 2, 1 << 20, 2 << 20)),
    ("onchip_bytes", 32 * MIB, None),
    ("onchip_bytes", 8, "Config onchip_banks (2) must not exceed its 1 words"),
    ("onchip_bytes", 4, "Config onchip_bytes (4) must be whole vectors of 8 bytes"),
    ("onchip_banks", 3, "Config onchip_banks must be a power of two, not 3"),
    ("encoder.row_words", 65536, addressable("Unit row_words", 4, 1 << 15, 65536)),
    ("encoder.weight_words", 131072, addressable("Unit weight_words", 4, 1 << 16, 131072)),
    ("encoder.params", 8192, addressable("Unit params", 4, 1 << 12, 8192)),
    ("encoder.params", 3, None),
    ("encoder.pixels", 3, "Unit pixels must be a power of two, not 3"),
    ("encoder.drain", 1, "Unit drain (1) must be at least its outputs (2)"),
    ("encoder.drain", 16, "Encoder outputs (2) and drain (16) must not exceed the vector (8)"),
    ("gate_lanes", 3, "Gate lanes (3) must divide the vector (8)"),
    ("gate_param_words", 2048, addressable("Config gate_param_words", 2, 1 << 10, 2048)),
    ("gate_param_words", 0, None),
    ("alpha_words", 8192, addressable("Config alpha_words", 2, 1 << 12, 8192)),
    ("alpha_words", 0, None),
    ("feedback_bytes", 0, addressable("Feedback words", 2, 1 << 20, 0)),
    ("feedback_bytes", 100, "Config feedback_bytes (100) must be whole vectors of 8 bytes"),
    ("feedback_bytes", 16 * MIB, None),
    ("offchip_bytes", 8192 * MIB, addressable("Config offchip_bytes", 4096, 1 << 32, 8192 * MIB)),
    ("offchip_bytes", 64, None),
]


@pytest.mark.parametrize(("name", "value", "message"), MISTAKES,
                         ids=[f"{name}-{value}" for name, value, _ in MISTAKES])
def test_sizes_that_cannot_be_are_refused_in_one_line(name, value, message):
    with pytest.raises(ValueError) as refusal:
        changed(name, value)
    line = str(refusal.value)
    assert "\n" not in line
    assert message in (None, line)


@pytest.mark.parametrize(("name", "value"), [
    ("onchip_bytes", 8 * MIB), ("encoder.row_words", 1 << 15), ("encoder.weight_words", 1 << 16),
    ("encoder.params", 1 << 12), ("gate_param_words", 1 << 10), ("alpha_words", 1 << 12),
    ("feedback_bytes", 8 * MIB), ("offchip_bytes", 1 << 32), ("vector", 32)])
def test_the_largest_sizes_are_not(name, value):
    assert isinstance(changed(name, value), Config)


@pytest.mark.parametrize("protection, found", [
    ("none", {"onchip": "none", "queues": "none"}),
    ("secded", {"onchip": "secded", "queues": "secded"}),
    ("onchip=parity,queues=secded", {"onchip": "parity", "queues": "secded", "rows": "none"}),
])
def test_protection_by_memory(protection, found):
    config = preset("tiny", protection=protection)
    assert {memory: config.protects(memory) for memory in found} == found
    assert config.protected is (protection != "none")


@pytest.mark.parametrize("protection", ["ecc", "onchip", "onchip=ecc", "dram=parity", ""])
def test_unknown_protection_is_refused(protection):
    wrong = protection.split(",")[-1]
    with pytest.raises(InputError, match="^Protection is one of none, parity, secded, or "
                       f"MEMORY=KIND with commas between, for onchip, .*; not '{wrong}'$"):
        preset("tiny", protection=protection)


def test_presets_protect_nothing():
    assert not any(config.protected for config in PRESETS.values())
