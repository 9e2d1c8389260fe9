"""What training looks like: picture sheets and curves, as PNG files."""

import matplotlib
import torch

matplotlib.use("Agg")

from matplotlib import pyplot as plt

from golden.training.forward import logits

__all__ = ["draw_curves", "draw_sheet"]

SHOWN = 6
PANELS = {"loss": ("loss", "validation_loss"), "accuracy": ("accuracy",),
          "IoU": ("iou", "score"), "Dice": ("dice",)}
LABELS = {"loss": "training", "validation_loss": "validation", "accuracy": "all images",
          "iou": "all images", "score": "images with a lesion", "dice": "all images"}


def draw_curves(path, rows):
    """Loss, accuracy, IoU and Dice over the epochs."""
    figure, axes = plt.subplots(2, 2, figsize=(9, 6), layout="constrained")
    epochs = [row["epoch"] for row in rows]
    for axis, (title, names) in zip(axes.flat, PANELS.items(), strict=True):
        for name, colour in zip(names, ("#0072B2", "#D55E00"), strict=False):
            axis.plot(epochs, [row[name] for row in rows], ".-", color=colour, label=LABELS[name])
        axis.set(title=title, xlabel="epoch")
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.grid(alpha=0.3)
        axis.legend()
    figure.suptitle("Training; accuracy, IoU and Dice are of validation images")
    figure.savefig(path, dpi=100)
    plt.close(figure)


def draw_sheet(path, network, frames, settings):
    """Image, truth, mask and confidence of some validation frames, evenly chosen."""
    shown = min(SHOWN, len(frames))
    figure, axes = plt.subplots(shown, 4, figsize=(9, 2.2 * shown), layout="constrained",
                                squeeze=False)
    for row, line in enumerate(axes):
        i = row * len(frames) // shown
        logit_HW, truth_HW = logits(network, frames, i, settings)
        image_HW3 = frames.frame(i).permute(1, 2, 0)
        for axis, picture in zip(line, (image_HW3, truth_HW, logit_HW >= 0), strict=False):
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
