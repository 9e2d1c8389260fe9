from types import SimpleNamespace

import pytest

from hw.config import preset
from hw.control.counters import Counter
from hw.cost.energy import Range, energy_of, grouped, memory, offchip_costs, total
from hw.isa import Cause, Engine, Traffic

LAYER = SimpleNamespace(channels=4, height=2, width=5, macs=1, unit="encoder")
POOL  = SimpleNamespace(channels=400, height=2, width=5, macs=0, unit="encoder")


def parts(cycles=1000, steps=600, **offchip):
    """Of an imaginary run of ``tiny`` at 100 MHz, of which only the encoder does anything."""
    counters = {(Counter.CAUSE, engine, Cause.ISSUE): 0 for engine in Engine}
    counters |= {(Counter.CYCLES,): cycles,
                 (Counter.CAUSE, Engine.ENCODER_CONV, Cause.ISSUE): steps,
                 (Counter.CAUSE, Engine.ENCODER_FILL, Cause.ISSUE): 50,
                 (Counter.READ_BYTES, Traffic.WEIGHTS): 0,
                 (Counter.READ_BYTES, Traffic.FRAME): 77,
                 (Counter.ONCHIP_READS, 0): 3, (Counter.ONCHIP_WRITES, 2): 4}
    found = energy_of(preset("tiny"), SimpleNamespace(frames=2, layers=[LAYER, POOL]), counters,
                      {"row_misses": 0, "read_bytes": 0, "written_bytes": 0, "refresh_cycles": 0,
                       **offchip})
    return {(part.unit, part.cause): part for part in found}


def test_events_of_a_unit():
    """Encoder of tiny: 2 x 8 x 2 = 32 lanes, 4 banks of 8 bytes, weight words of 16."""
    found = {cause: part.events for (unit, cause), part in parts().items() if unit == "encoder"}
    assert found["MAC"] == Range(600 * 32, 600 * 32)
    assert found["clock of idle lanes"] == Range(400 * 32, 400 * 32)
    assert found["leakage of lanes"] == Range(10_000 * 32, 10_000 * 32)         # 10 ns a cycle
    assert found["requantise"] == Range(80, 80)                         # both frames, no pooling
    assert found["parameters"] == Range(640, 640)
    # Fills of 50 vectors; transformed steps need half of the windows, and 3/4 of the weights.
    assert found["row memory"] == Range(300 * 32 + 400, 1000 * 32 + 400 + 80)
    assert found["weight memory"] == Range(450 * 16, 1000 * 16)


def test_events_of_shared_memories():
    found = parts(row_misses=5, read_bytes=700, written_bytes=30, refresh_cycles=26)
    assert found["on-chip memory", "on-chip memory"].events == Range(56, 56)
    off = {cause: part.events.low for (unit, cause), part in found.items()
           if unit == "off-chip memory"}
    assert off == {"rows opened": 5, "bytes read": 700, "bytes written": 30, "refresh": 260,
                   "standby": 10_000}


def test_parts_sum_to_the_whole_by_unit_and_by_cause():
    found = list(parts(row_misses=5, read_bytes=700).values())
    whole = total(found)
    assert 0 < whole.low < whole.high
    for by in ("unit", "cause"):
        sums = grouped(found, by).values()
        assert sum(one.low for one in sums) == pytest.approx(whole.low)
        assert sum(one.high for one in sums) == pytest.approx(whole.high)


def test_what_did_not_happen_costs_nothing():
    assert not any(unit in ("gate", "loads") for unit, _ in parts())


@pytest.mark.parametrize("kib, low, high", [(8, 0.625, 1.25), (32, 1.25, 2.5), (1024, 6.25, 12.5)])
def test_memories_of_the_published_sizes(kib, low, high):
    value = memory(kib * 1024).value
    assert (value.low, value.high) == (pytest.approx(low), pytest.approx(high))


def test_memories_between_and_beyond():
    sizes = [memory(kib * 1024).value.high for kib in (1, 4, 16, 128, 1024, 4096)]
    assert sizes == sorted(sizes)
    assert memory(2 * 1024).value.high == pytest.approx(1.25 / 2)       # twice for four times


def test_off_chip_memory_by_hand():
    """Four chips of DDR4, tRC 46.16 ns at 1.2 V: a row opened takes IDD0 less IDD3N and IDD2N for
    their times, a byte IDD4R less IDD3N for its share of 4.8 GB/s."""
    costs = offchip_costs(preset("reference").dram)
    assert costs["activate"].value.low == pytest.approx(
        4 * 1.2 * (80 * 46.16 - 47 * 32 - 34 * 14.16))
    assert costs["read"].value == Range(pytest.approx(1.2 * 196 / 4.8), 162.5)
    assert costs["standby"].value == Range(pytest.approx(4 * 30), pytest.approx(4 * 56.4))


def test_an_unknown_memory_is_any_of_the_known():
    dram  = preset("tiny", changes="dram.name=mine").dram
    costs = offchip_costs(dram)
    for name in ("ddr3-1600", "lpddr4-3200", "sdr-ulx3s"):
        known = offchip_costs(preset("tiny", dram=name).dram)["read"].value
        assert costs["read"].value.low <= known.low and known.high <= costs["read"].value.high
    assert costs["read"].source.startswith("mine is unknown")
