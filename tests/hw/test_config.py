from dataclasses import astuple, replace

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


MISTAKES = [
    ("vector", 4, "vector must be a power of two from 8 B to 32 B, not 4 B"),
    ("vector", 64, None), ("vector", 512, None), ("vector", 12, None),
    ("onchip_bytes", 16 * MIB, ("onchip_bytes must be from 16 B to 8 MiB, the 1048576 vectors of 8 "
     "bytes that an instruction can address, not 16 MiB")),
    ("onchip_bytes", 64 * MIB, ("onchip_bytes must be a power of two from 16 B to 32 MiB, not 64 "
     "MiB")),
    ("onchip_banks", 3, "onchip_banks must be a power of two from 1 to 64, not 3"),
    ("encoder.row_words", 65536, "row_words must be from 4 to 32768, not 65536"),
    ("encoder.weight_words", 131072, "weight_words must be from 4 to 65536, not 131072"),
    ("encoder.params", 8192, "params must be from 4 to 4096, not 8192"),
    ("encoder.params", 3, None),
    ("encoder.pixels", 3, "pixels must be a power of two from 1 to 16, not 3"),
    ("encoder.pixels", True, "pixels must be a whole number, not true"),
    ("encoder.transform", 1, "transform must be true or false, not 1"),
    ("encoder.drain", 1, "drain (1) must be at least outputs (2)"),
    ("encoder.drain", 16, ("encoder.outputs (2) and encoder.drain (16) must not exceed the vector "
     "(8)")),
    ("gate_lanes", 3, "gate_lanes must be a power of two from 1 to 32, not 3"),
    ("gate_lanes", 16, "gate_lanes (16) must divide the vector (8)"),
    ("gate_param_words", 2048, "gate_param_words must be from 2 to 1024, not 2048"),
    ("gate_param_words", 0, None),
    ("alpha_words", 8192, "alpha_words must be from 2 to 4096, not 8192"),
    ("alpha_words", 0, None),
    ("feedback_bytes", 0, None),
    ("feedback_bytes", 100, "feedback_bytes (100) must be whole vectors of 8 bytes"),
    ("feedback_bytes", 16 * MIB, None),
    ("offchip_bytes", 8192 * MIB, ("offchip_bytes must be a power of two from 4 KiB to 4 GiB, not "
     "8 GiB")),
    ("offchip_bytes", 64, None),
    ("clock_mhz", 0.5, "clock_mhz must be from 1 MHz to 5000 MHz, not 0.5 MHz"),
    ("clock_source", "hearsay", ("clock_source must be one of configured, timing analysis, "
     "place-and-route, not 'hearsay'")),
    ("name", "a b", ("name must be up to 64 letters, digits, dots, dashes and underscores, not "
     "'a b'")),
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
    with pytest.raises(InputError, match="^Protection must be one of none, parity, secded, or "
                       f"MEMORY=KIND with commas between, for onchip, .*; not '{wrong}'$"):
        preset("tiny", protection=protection)


def test_presets_protect_nothing():
    assert not any(config.protected for config in PRESETS.values())


def test_banks_beyond_the_words_are_refused():
    with pytest.raises(ValueError, match=r"^onchip_banks \(16\) must not exceed the 8 vectors of "
                       r"onchip_bytes$"):
        replace(TINY, onchip_bytes=64, onchip_banks=16)


@pytest.mark.parametrize("config", PRESETS.values(), ids=PRESETS)
def test_presets_name_what_they_are_and_nothing_was_changed(config):
    assert preset(config.name) == config
    assert (preset(config.name).base, preset(config.name).changes) == (config.name, ())


# What the files said in cycles of the one clock for which it was right.
CYCLES = {
    ("reference", "ddr4-2400"):   (64, 16, 8192, 5, 5, 5, 6, 2340, 105),
    ("reference", "lpddr4-3200"): (pytest.approx(21.333, abs=1e-3), 8, 2048, 6, 6, 6, 6, 1170, 84),
    ("tiny", "ddr3-1600"):        (32, 8, 2048, 2, 2, 2, 2, 780, 26),
    ("edge", "sdr-ulx3s"):        (2, 4, 1024, 2, 2, 2, 2, 390, 4),
    # A third of the clock, three times the bytes of a cycle; six times the clock, a sixth.
    ("tiny", "lpddr4-3200"):      (64, 8, 2048, 2, 2, 2, 2, 390, 28),
    ("reference", "sdr-ulx3s"):   (pytest.approx(1 / 3), 4, 1024, 12, 12, 12, 12, 2343, 20),
}


@pytest.mark.parametrize("machine, dram", CYCLES)
def test_memories_are_as_fast_as_they_are_at_any_clock(machine, dram):
    """They were cycles of one clock: LPDDR4 was three times too slow on tiny, SDRAM six times too
    fast on reference."""
    assert astuple(preset(machine, dram=dram).timing) == CYCLES[machine, dram]


def test_one_structure_for_all_names_clocks_and_memories():
    other = preset("tiny", dram="ddr4-2400", changes="clock_mhz=50 name=slow")
    assert other != TINY and other.structure == TINY.structure
    assert preset("tiny", changes="decoder.pixels=4").structure != TINY.structure


def test_a_clock_too_slow_for_refreshes_is_refused():
    with pytest.raises(ValueError, match=r"^clock_mhz \(1\) is too slow for fast: DRAM "
                       r"refresh_interval \(0\) must exceed refresh_busy \(1\)$"):
        replace(TINY, clock_mhz=1, dram=replace(TINY.dram, name="fast", refresh_interval_ns=500))
