"""An imaginary program, for tests of what surrounds the machine."""

from types import SimpleNamespace

__all__ = ["LAYERS", "program"]

LAYERS = (
    SimpleNamespace(id=1, name="e1a", unit="encoder", macs=9000, tensor="e1a", channels=4,
                    height=8, width=8),
    SimpleNamespace(id=2, name="p1", unit="encoder", macs=0, tensor="p1", channels=4, height=4,
                    width=4),
    SimpleNamespace(id=3, name="gated1", unit="attention", macs=0, tensor="gated1", channels=4,
                    height=4, width=4),
)


def program(frames=1):
    """What a report needs to know of a program."""
    return SimpleNamespace(
        frames=frames, layers=LAYERS, layer_bytes={1: 77}, compulsory_bytes=500, spilled=("c1",),
        occupancy={"onchip_capacity": 1000, "onchip_peak": 900, "offchip_peak": 5000})
