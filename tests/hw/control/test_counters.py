import pytest

from hw.control.counters import (
    LEDGER_ENGINES,
    LEDGER_LAYERS,
    Counter,
    LayerField,
    counter_index,
)
from hw.isa import Cause, Engine, Traffic


def test_every_counter_has_its_own_number():
    numbers = [counter_index(Counter.CYCLES)]
    numbers += [counter_index(Counter.CAUSE, engine, cause) for engine in Engine for cause in Cause]
    numbers += [counter_index(Counter.RETIRED, engine) for engine in Engine]
    numbers += [counter_index(Counter.LAYER, engine, layer, field) for engine in LEDGER_ENGINES
                for layer in range(LEDGER_LAYERS) for field in LayerField]
    for group in (Counter.FRAME_STARTED, Counter.FRAME_ENDED):
        numbers += [counter_index(group, frame) for frame in range(64)]
    for group in (Counter.READ_BYTES, Counter.WRITTEN_BYTES):
        numbers += [counter_index(group, traffic) for traffic in Traffic]
    for group in (Counter.FRAMES, Counter.BURSTS):
        numbers += [counter_index(group, which) for which in range(2)]
    for group in (Counter.ONCHIP_READS, Counter.ONCHIP_WRITES):
        numbers += [counter_index(group, port) for port in range(16)]
    assert len(set(numbers)) == len(numbers)
    assert max(numbers) < 1 << 16


def test_errors():
    with pytest.raises(ValueError, match="^Counter CAUSE takes 2 indices, not 1$"):
        counter_index(Counter.CAUSE, Engine.GATE)
    with pytest.raises(ValueError, match=f"^Counter RETIRED index 0 must be below {len(Engine)}, "
                                         "not 15$"):
        counter_index(Counter.RETIRED, 15)
    with pytest.raises(ValueError, match="^Counter LAYER index 1 must be below 256, not 256$"):
        counter_index(Counter.LAYER, Engine.GATE, 256, LayerField.BUSY)
    with pytest.raises(ValueError, match="^Engine STORE has no layer ledger$"):
        counter_index(Counter.LAYER, Engine.STORE, 1, LayerField.BUSY)
