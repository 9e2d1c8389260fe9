"""Frames through a network in training's precision: bfloat16 where that is exact enough, and the
processor can."""

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

from golden.training.augment import AUGMENTATIONS

__all__ = ["channels_last", "half", "logits", "swift"]


BFLOAT16 = ("amx_bf16", "avx512_bf16", "bf16")      # PyTorch's names of what processors have


def half(settings):
    """The precision to train in: bfloat16, but float32 where its 8 bits are too few for what INT8
    rounds, and on a processor that has no instructions for it, where it takes six times as long."""
    kind = torch.device(settings.device).type
    able = kind != "cpu" or any(torch.cpu.get_capabilities().get(name) for name in BFLOAT16)
    return torch.autocast(kind, torch.bfloat16, enabled=able and not settings.quantised)


def channels_last(x_NCHW, device):
    return x_NCHW.expand(-1, 3, -1, -1).to(device).contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def logits(network, frames, i, settings):
    """Logits, C x H x W, and truth of a validation frame, as large as the network sees frames in
    training.

    Native windows are the exception: there the whole frame is taken as it is.
    """
    x_1CHW, truth_HW = frames.image[i:i + 1].float(), frames.truth[i]
    if not AUGMENTATIONS[settings.augmentation].native and settings.crop != truth_HW.shape[-1]:
        shape = (settings.crop, settings.crop)
        x_1CHW = F.interpolate(x_1CHW, shape, mode="bilinear", antialias=True).round()
        truth_HW = F.interpolate(truth_HW[None, None], shape, mode="nearest")[0, 0]
    network.eval()
    with half(settings):
        logit_NCHW = network(channels_last(x_1CHW / 255, settings.device))
    return logit_NCHW[0].float().cpu(), truth_HW > 0


class swift(TorchFunctionMode):
    """Lets a CPU train 1.7 times as fast: what two of PyTorch's functions do slowly.

    The gradient of a concatenation is two views of one tensor; what follows a view, a
    normalisation above all, is many times slower than for a tensor of its own. And a dropout draws
    a double per value; a byte will do, for rates in steps of 1/256.
    """

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function is torch.cat and args[1:] == (1,):
            return _Concat.apply(*args[0])
        if function is F.dropout and kwargs["training"]:
            return _dropout(args[0], kwargs["p"])
        return function(*args, **kwargs)


class _Concat(torch.autograd.Function):
    """Of channels."""

    @staticmethod
    def forward(context, *parts_NCHW):
        context.channels = [part.shape[1] for part in parts_NCHW]
        return torch.cat(parts_NCHW, 1)

    @staticmethod
    def backward(context, gradient_NCHW):
        return tuple(part.contiguous(memory_format=torch.channels_last)
                     for part in gradient_NCHW.split(context.channels, 1))


def _dropout(x_NCHW, rate):
    n, c, h, w = x_NCHW.shape
    words = torch.empty(-(-x_NCHW.numel() // 8), dtype=torch.int64, device=x_NCHW.device)
    byte_NHWC = words.random_(-2**63, None).view(torch.uint8)[:x_NCHW.numel()].view(n, h, w, c)
    dropped = round(256 * rate)
    gain = 256 / (256 - dropped)
    return x_NCHW * (byte_NHWC >= dropped).to(x_NCHW.dtype).mul_(gain).permute(0, 3, 1, 2)
