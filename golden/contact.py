"""Pictures of an evaluation: sheets of images with their masks, and what confidence is worth."""

from dataclasses import dataclass

import matplotlib
import torch

matplotlib.use("Agg")

from matplotlib import pyplot as plt

from golden.classes import coloured
from golden.confidence import SUSPECTED

__all__ = ["Masks", "contact_sheets", "draw_reliability"]

PER_SHEET = 8
CAPTION = 0.12      # inches
PANELS = ("image", "truth", "float mask", "INT8 mask", "confidence (INT8)")


@dataclass(frozen=True)
class Masks:
    """What a sheet shows of one image: truth and masks, boolean or, uint8, numbers of classes;
    ``confidence_HW`` in 0..1, the probability of lesion that the INT8 network gives; ``caption``
    stands above."""
    index: int
    caption: str
    truth_HW: torch.Tensor
    float_HW: torch.Tensor
    int8_HW: torch.Tensor
    confidence_HW: torch.Tensor


def contact_sheets(folder, frames, shown, advance=lambda: None):
    """Write ``masks-001.png`` and so on with ``shown``, :class:`Masks` of images of ``frames``, in
    their order; returns the names. ``advance`` is called after each image."""
    names = []
    for first in range(0, len(shown), PER_SHEET):
        some = shown[first:first + PER_SHEET]
        names.append(f"masks-{len(names) + 1:03}.png")
        _draw(folder / names[-1], frames, some)
        for _ in some:
            advance()
    return names


def _draw(path, frames, some):
    figure, axes = plt.subplots(len(some), len(PANELS), figsize=(9.4, 1.95 * len(some) + 0.4),
                                layout="constrained", squeeze=False)
    figure.get_layout_engine().set(         # captions are wider than their column, so left out
        h_pad=CAPTION, rect=(0, 0, 1, 1 - CAPTION / figure.get_figheight()))
    for line, masks in zip(axes, some, strict=True):
        image_HW3 = frames.frame(masks.index).permute(1, 2, 0)
        found = [x_HW if x_HW.dtype is torch.bool else coloured(x_HW)
                 for x_HW in (masks.truth_HW, masks.float_HW, masks.int8_HW)]
        for axis, picture in zip(line, (image_HW3, *found), strict=False):
            axis.imshow(picture.numpy(), cmap="gray", vmin=0, vmax=1)
        confidence = line[-1].imshow(masks.confidence_HW.numpy(), cmap="cividis", vmin=0, vmax=1)
        line[0].text(0, 1.04, masks.caption, fontsize=8,
                     transform=line[0].transAxes).set_in_layout(False)
        for axis in line:
            axis.set(xticks=[], yticks=[])
    for axis, title in zip(axes[-1], PANELS, strict=True):
        axis.set_xlabel(title, fontsize=8)
    figure.colorbar(confidence, ax=axes[:, -1], label="confidence in lesion", aspect=10 * len(some),
                    shrink=0.9)
    figure.savefig(path, dpi=100)
    plt.close(figure)


def draw_reliability(path, calibration):
    """Write the reliability diagram: share of lesion over confidence, and how many pixels have it.

    ``calibration`` is that of ``metrics.json``, by form.
    """
    figure, (shares, pixels) = plt.subplots(2, 1, figsize=(5.2, 6.4), layout="constrained",
                                            sharex=True, height_ratios=(3, 1))
    shares.plot((0, 1), (0, 1), color="black", linewidth=0.8, label="calibrated")
    looks = {"float": ("#0072B2", "o", "float"), "int8": ("#D55E00", "x", "INT8")}
    for form, (colour, marker, name) in looks.items():
        ranges = calibration[form]["ranges"]
        width = 1 / len(ranges)
        filled = [entry for entry in ranges if entry["pixels"]]
        error = calibration[form]["error"]
        label = name if error is None else f"{name}, error from {SUSPECTED} on: {error:.4f}"
        shares.plot([entry["probability"] for entry in filled],
                    [entry["lesion"] for entry in filled], color=colour, marker=marker, label=label)
        pixels.stairs([entry["pixels"] for entry in ranges],
                      [width * k for k in range(len(ranges) + 1)], color=colour)
    shares.set(ylabel="share of lesion", title="Reliability, all pixels", xlim=(0, 1), ylim=(0, 1))
    shares.legend(loc="upper left")
    pixels.set(xlabel="confidence in lesion", ylabel="pixels", yscale="log")
    for axis in (shares, pixels):
        axis.grid(alpha=0.3)
    figure.savefig(path, dpi=100)
    plt.close(figure)
