"""Frames through a network in training's precision: bfloat16 where that is exact enough."""

import torch
import torch.nn.functional as F

from golden.training.augment import AUGMENTATIONS

__all__ = ["channels_last", "half", "logits"]


def half(device):
    return torch.autocast(torch.device(device).type, torch.bfloat16)


def channels_last(x_NCHW, device):
    return x_NCHW.expand(-1, 3, -1, -1).to(device).contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def logits(network, frames, i, settings):
    """Logit and truth of a validation frame, as large as the network sees frames in training.

    Native windows are the exception: there the whole frame is taken as it is.
    """
    x_1CHW, truth_HW = frames.image[i:i + 1].float(), frames.truth[i]
    if not AUGMENTATIONS[settings.augmentation].native and settings.crop != truth_HW.shape[-1]:
        shape = (settings.crop, settings.crop)
        x_1CHW = F.interpolate(x_1CHW, shape, mode="bilinear", antialias=True).round()
        truth_HW = F.interpolate(truth_HW[None, None], shape, mode="nearest")[0, 0]
    network.eval()
    with half(settings.device):
        logit_N1HW = network(channels_last(x_1CHW / 255, settings.device))
    return logit_N1HW[0, 0].float().cpu(), truth_HW > 0
