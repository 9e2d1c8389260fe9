"""What hardware with another memory may do otherwise than the cycle model."""

from types import SimpleNamespace

import pytest

from hw.control.counters import Counter
from hw.isa import Cause, Engine, Traffic
from sim.model import deviations

COUNTERS = {(Counter.CYCLES,): 1000, (Counter.RETIRED, Engine.GATE): 7,
            (Counter.READ_BYTES, Traffic.WEIGHTS): 64, (Counter.WRITTEN_BYTES, Traffic.MASK): 8,
            (Counter.CAUSE, Engine.GATE, Cause.ISSUE): 500}
OFFCHIP  = {"read_bytes": 64, "written_bytes": 8, "row_hits": 3}
RUN      = SimpleNamespace(cycles=1000, counters=COUNTERS, offchip=OFFCHIP)


@pytest.mark.parametrize("cycles, told", [
    (1000, []), (1050, []), (950, []),
    (1051, ["cycles: 1051 in the hardware, 1000 in the model, more than 5% apart"]),
    (949,  ["cycles: 949 in the hardware, 1000 in the model, more than 5% apart"])])
def test_cycles_may_be_some_percent_away(cycles, told):
    counters = {**COUNTERS, (Counter.CYCLES,): cycles, (Counter.CAUSE, Engine.GATE, Cause.ISSUE): 9}
    assert deviations(counters, {**OFFCHIP, "row_hits": 5}, RUN, 0.05) == told


@pytest.mark.parametrize("key, told", [
    ((Counter.RETIRED, Engine.GATE), "retired, gate: 1 in the hardware, 7 in the model"),
    ((Counter.READ_BYTES, Traffic.WEIGHTS),
     "read bytes, weights: 1 in the hardware, 64 in the model"),
    ((Counter.WRITTEN_BYTES, Traffic.MASK),
     "written bytes, mask: 1 in the hardware, 8 in the model"),
])
def test_instructions_and_bytes_may_not(key, told):
    assert deviations({**COUNTERS, key: 1}, OFFCHIP, RUN, 0.05) == [told]


@pytest.mark.parametrize("name", ["read_bytes", "written_bytes"])
def test_bytes_of_the_memory_may_not_either(name):
    assert deviations(COUNTERS, {**OFFCHIP, name: 1}, RUN, 0.05) == [
        f"off-chip memory, {name}: 1 in the hardware, {OFFCHIP[name]} in the model"]
