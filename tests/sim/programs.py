"""An imaginary program, for tests of what surrounds the machine."""

from types import SimpleNamespace

from hw.compiler.memory import Block
from hw.isa import Engine, Traffic

__all__ = ["LAYERS", "program"]

LAYERS = (
    SimpleNamespace(id=1, name="e1a", unit="encoder", by_array=True, macs=9000, tensor="e1a",
                    channels=4, height=8, width=8, lenders=()),
    SimpleNamespace(id=2, name="p1", unit="encoder", by_array=False, macs=0, tensor="p1",
                    channels=4, height=4, width=4, lenders=()),
    SimpleNamespace(id=3, name="gated1", unit="attention", by_array=False, macs=0, tensor="gated1",
                    channels=4, height=4, width=4, lenders=()),
)

TRAFFIC = {Traffic.WEIGHTS: 45, Traffic.FRAME: 32}
BLOCKS  = (
    Block("onchip", "c1", 0, 16, {Engine.ENCODER_CONV: (0, 1), Engine.GATE: (2, 2)}),
    Block("feedback", "d1", 0, 4, {Engine.DECODER_CONV: (1, 2)}),
    Block("onchip", "never touched", 16, 4),
)


def program(frames=1):
    """What a report needs to know of a program."""
    return SimpleNamespace(
        frames=frames, layers=LAYERS, layer_bytes={1: 77}, layer_traffic={1: TRAFFIC},
        compulsory_bytes=500, spilled=("c1",), estimated_cycles=5_000,
        timetable={engine: [0, 1000, 2000, 4000] for engine in Engine},
        layer_spans={1: (1000, 2000), 3: (3000, 4000)}, blocks=BLOCKS,
        occupancy={"onchip_capacity": 1000, "onchip_peak": 900, "offchip_peak": 5000})
