"""What a run looks like: frame, masks, difference and attention maps as PNG files."""

from pathlib import Path

import numpy as np
from matplotlib import colormaps
from PIL import Image

__all__ = ["write_pictures"]

ALPHA = colormaps["inferno"]


def write_pictures(folder, frame_CHW, golden, hardware):
    """Write the pictures of one frame into ``folder``; tensors are uint8 C x H x W by name."""
    folder = Path(folder)
    frame_HWC = frame_CHW.transpose(1, 2, 0)
    _save(folder / "input.png", frame_HWC)
    _save(folder / "mask-golden.png", golden["mask"][0])
    _save(folder / "mask-hardware.png", hardware["mask"][0])
    _save(folder / "mask-difference.png",
          np.where(hardware["mask"][0] == golden["mask"][0], 0, 255).astype(np.uint8))
    _save(folder / "overlay.png", _overlay(frame_HWC, hardware["mask"][0] > 127))
    for name in sorted(name for name in golden if name.startswith("alpha")):
        alpha_HW = hardware.get(name, golden[name])[0]
        size     = frame_HWC.shape[0] // alpha_HW.shape[0]
        coloured = (ALPHA(alpha_HW)[..., :3] * 255).astype(np.uint8)
        source   = "hardware" if name in hardware else "golden"
        _save(folder / f"{name}-{source}.png", coloured.repeat(size, 0).repeat(size, 1))


def _overlay(frame_HWC, lesion_HW):
    """The frame with the outline of the lesion in yellow."""
    inside = lesion_HW.copy()
    for axis in (0, 1):
        for step in (-1, 1):
            inside &= np.roll(lesion_HW, step, axis)
    marked = frame_HWC.copy()
    marked[lesion_HW & ~inside] = (255, 220, 0)
    return marked


def _save(path, pixels):
    Image.fromarray(np.ascontiguousarray(pixels)).save(path)
