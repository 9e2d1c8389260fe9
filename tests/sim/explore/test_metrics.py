import pytest
from amaranth import Shape

from hw.attention import unit as attention
from hw.config import PRESETS
from hw.decoder import unit as decoder
from hw.encoder import unit as encoder
from sim.explore.metrics import METRICS, STATIC, of_machine

STORED = ("rows", "weights", "params", "table", "alpha", "gate_params", "feedback")


@pytest.mark.parametrize("config", PRESETS.values(), ids=PRESETS)
def test_bytes_are_those_of_the_hardware(config):
    units = [encoder.EncoderUnit(config), attention.AttentionUnit(config),
             decoder.DecoderUnit(config)]
    bits  = sum(Shape.cast(memory.shape).width * memory.depth
                for unit in units for name, memory in unit.protected if name in STORED)
    assert of_machine(config)["memory_bytes"] == bits // 8 + config.onchip_bytes


def test_lanes_and_multipliers():
    found = of_machine(PRESETS["reference"])
    assert found["dsps"] == 896 + 2 * (16 + 8 + 16) + 3 * 8
    assert found["luts"] > of_machine(PRESETS["tiny"])["luts"]
    for name in ("luts", "dsps", "block_rams"):
        assert found.pop(name) > 0
    assert found | {"memory_bytes": 0} == {
        "mac_lanes": 896, "multipliers": 896 + 16 + 8 + 16 + 2 * 8, "memory_bytes": 0,
        "offchip_peak": 16}
    assert tuple(of_machine(PRESETS["tiny"])) == tuple(
        name for name in METRICS if name in STATIC)
