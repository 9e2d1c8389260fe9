"""What a run looks like: frame, masks, difference and attention maps as PNG files."""

from pathlib import Path

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.figure import Figure
from PIL import Image

from golden.classes import coloured, numbers

__all__ = ["overlay", "write_pictures"]

ALPHA = colormaps["inferno"]


def write_pictures(folder, frame_CHW, golden, hardware=None, truth_HW=None, *, rows=None,
                   classes=False):
    """Write the pictures of one frame into ``folder``; tensors are uint8 C x H x W by name. Those
    of ``hardware`` are drawn where there is one, and the true mask, boolean, where it is known.
    ``rows`` are the machine's, if its frame was padded: maps are cropped. Masks that tell
    ``classes`` apart are in the colours of :mod:`golden.classes`."""
    folder = Path(folder)
    frame_HWC = frame_CHW.transpose(1, 2, 0)
    _save(folder / "input.png", frame_HWC)
    if truth_HW is not None:
        _save(folder / "truth.png", np.where(truth_HW, np.uint8(255), np.uint8(0)))
    shown = _coloured if classes else np.asarray
    _save(folder / "mask-golden.png", shown(golden["mask"][0]))
    if hardware is not None:
        _save(folder / "mask-hardware.png", shown(hardware["mask"][0]))
        _save(folder / "mask-difference.png",
              np.where(hardware["mask"][0] == golden["mask"][0], 0, 255).astype(np.uint8))
    seen = golden if hardware is None else hardware
    _save(folder / "overlay.png", overlay(frame_HWC, seen["mask"][0] > 127))
    for name in sorted(name for name, values in golden.items()
                       if name.startswith("alpha") and values.dtype == np.uint8):
        alpha_HW = seen.get(name, golden[name])[0]
        size     = max(1, (rows or frame_HWC.shape[0]) // alpha_HW.shape[0])
        coloured = (ALPHA(alpha_HW)[..., :3] * 255).astype(np.uint8)
        source   = "hardware" if hardware is not None and name in hardware else "golden"
        _save(folder / f"{name}-{source}.png", coloured.repeat(size, 0).repeat(size, 1)[
            :frame_HWC.shape[0], :frame_HWC.shape[1]])
    _sheet(folder / "sheet.png", frame_HWC, golden, hardware, shown)


def _coloured(mask_HW):
    return coloured(numbers(torch.from_numpy(mask_HW))).numpy()


def _sheet(path, frame_HWC, golden, hardware, shown):
    """All of them on one sheet, masks as ``shown`` makes them."""
    panels = [("frame, mask outlined",
               overlay(frame_HWC, (hardware or golden)["mask"][0] > 127), {}),
              ("mask, golden model", shown(golden["mask"][0]), {"cmap": "gray"})]
    if hardware is not None:
        equal   = hardware["mask"][0] == golden["mask"][0]
        panels += [
            ("mask, hardware", shown(hardware["mask"][0]), {"cmap": "gray"}),
            (f"difference: {(~equal).sum()} of {equal.size} pixels", ~equal, {"cmap": "gray"}),
            *((f"attention map {name.removeprefix('alpha')}, as the monitor saw it",
               hardware[name][0], {"cmap": ALPHA})
              for name in sorted(hardware) if name.startswith("alpha"))]
    figure = Figure(figsize=(12, 3.2 * -(-len(panels) // 4)), layout="constrained")
    for number, (title, pixels, style) in enumerate(panels, 1):
        axes  = figure.add_subplot(-(-len(panels) // 4), 4, number)
        range_ = {} if pixels.ndim == 3 else {"vmin": 0, "vmax": 1 if pixels.dtype == bool else 255}
        axes.imshow(pixels, interpolation="nearest", **range_, **style)
        axes.set_title(title, fontsize=9)
        axes.set_axis_off()
    figure.savefig(path, dpi=80)


def overlay(frame_HWC, lesion_HW):
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
