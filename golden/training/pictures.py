"""What training looks like: picture sheets and curves, as PNG files."""

import math

import matplotlib
import torch

matplotlib.use("Agg")

from matplotlib import pyplot as plt

from golden.classes import coloured, lesion_logit
from golden.training.forward import logits

__all__ = ["draw_curves", "draw_sheet"]

SHOWN = 6
PANELS = {"loss": ("loss", "validation_loss"), "accuracy": ("training_accuracy", "accuracy"),
          "IoU": ("training_iou", "iou", "score"), "Dice": ("training_dice", "dice")}
LOOKS = (("training", "#0072B2", ".-"), ("validation", "#D55E00", ".-"),
         ("validation, images with a lesion", "#D55E00", ".--"))


def draw_curves(path, rows):
    """Loss, accuracy, IoU and Dice over the epochs, of training and of validation; what an older
    log has not is left out."""
    figure, axes = plt.subplots(2, 2, figsize=(9, 6), layout="constrained")
    epochs = [row["epoch"] for row in rows]
    for axis, (title, names) in zip(axes.flat, PANELS.items(), strict=True):
        for name, (label, colour, line) in zip(names, LOOKS, strict=False):
            axis.plot(epochs, [row.get(name, math.nan) for row in rows], line, color=colour,
                      label=label)
        axis.set(title=title, xlabel="epoch")
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    figure.suptitle("Training lines: batches as they are learnt, augmented and with dropout",
                    fontsize=10)
    figure.savefig(path, dpi=100)
    plt.close(figure)


def draw_sheet(path, network, frames, settings):
    """Image, truth, mask and confidence of some validation frames, evenly chosen."""
    shown = min(SHOWN, len(frames))
    figure, axes = plt.subplots(shown, 4, figsize=(9, 2.2 * shown), layout="constrained",
                                squeeze=False)
    for row, line in enumerate(axes):
        i = row * len(frames) // shown
        logit_CHW, truth_HW = logits(network, frames, i, settings)
        logit_HW = lesion_logit(logit_CHW[None])[0, 0]
        image_HW3 = frames.frame(i).permute(1, 2, 0)
        mask = logit_HW >= 0 if len(logit_CHW) == 1 else coloured(logit_CHW.argmax(0))
        for axis, picture in zip(line, (image_HW3, truth_HW, mask), strict=False):
            axis.imshow(picture.numpy(), cmap="gray", vmin=0, vmax=1)
        confidence = line[3].imshow(torch.sigmoid(logit_HW).numpy(), cmap="cividis", vmin=0, vmax=1)
        line[0].set_title(frames.samples[i].name, fontsize=8)
        for axis in line:
            axis.set_axis_off()
    for axis, title in zip(axes[0, 1:], ("truth", "mask", "confidence"), strict=True):
        axis.set_title(title, fontsize=8)
    figure.colorbar(confidence, ax=axes[:, 3], label="confidence in lesion")
    figure.savefig(path, dpi=100)
    plt.close(figure)
