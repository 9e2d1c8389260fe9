"""Float networks: what the engine approximates, and what training produces."""

import torch
import torch.nn.functional as F
from torch import nn

from golden.errors import InputError

__all__ = ["AttentionUNet", "check_shape", "elec4848", "macs", "parameters"]

LEVELS = 4
DROPOUT = (0.1, 0.1, 0.2, 0.2, 0.3)


def check_shape(size, width):
    """Refuse frame sizes and widths that the network cannot have."""
    if size < 16 or size % 16:
        raise InputError(f"Frame size must be a positive multiple of 16, not {size!r}; "
                         f"try {max(16, round(size / 16) * 16)}")
    if width < 1:
        raise InputError(f"Network width must be positive, not {width!r}; the paper's is 32")


class ConvBlock(nn.Module):
    """Conv3x3-ReLU, dropout, conv3x3-ReLU: the body of an encoder or decoder block."""

    def __init__(self, inputs, filters, dropout):
        super().__init__()
        self.a = nn.Conv2d(inputs, filters, 3, padding=1)
        self.b = nn.Conv2d(filters, filters, 3, padding=1)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x_NCHW):
        """The results of both convolutions."""
        a_NCHW = F.relu(self.a(x_NCHW))
        return a_NCHW, F.relu(self.b(self.dropout(a_NCHW)))


class AttentionGate(nn.Module):
    """Weighs a skip by where the gating signal and the skip itself agree to look.

    ``down`` has stride 2 with Keras 'same' padding, which on even sizes pads only after: bottom
    and right. Batch normalisation follows the product, with Keras' epsilon.
    """

    def __init__(self, gating, filters):
        super().__init__()
        self.normal = nn.Conv2d(gating, filters, 3, padding=1)
        self.down = nn.Conv2d(filters, filters, 3, stride=2)
        self.learn = nn.Conv2d(filters, 1, 1)
        self.norm = nn.BatchNorm2d(filters, eps=1e-3)

    def forward(self, gating_NCHW, skip_NCHW):
        """Every named tensor of the gate, without its number."""
        normal_NCHW = F.relu(self.normal(gating_NCHW))
        down_NCHW = F.relu(self.down(F.pad(skip_NCHW, (0, 1, 0, 1))))
        sum_NCHW = normal_NCHW + down_NCHW
        logit_N1HW = self.learn(sum_NCHW)
        alpha_N1HW = torch.sigmoid(logit_N1HW)
        gated_NCHW = self.norm(_upsample(alpha_N1HW) * skip_NCHW)
        return {"normal": normal_NCHW, "down": down_NCHW, "sum": sum_NCHW, "logit": logit_N1HW,
                "alpha": alpha_N1HW, "gated": gated_NCHW}


class AttentionUNet(nn.Module):
    """The ELEC4848 Attention U-Net: four gates, nearest upsampling, sigmoid output.

    Takes frames in 0..1 of any size that is a multiple of 16; ``size`` is the one it is meant for.
    """

    def __init__(self, *, size=256, width=32):
        super().__init__()
        check_shape(size, width)
        self.size, self.width = size, width
        filters = [width << level for level in range(LEVELS + 1)]
        self.encoder = nn.ModuleList(
            ConvBlock(inputs, outputs, dropout)
            for inputs, outputs, dropout in zip([3, *filters], filters, DROPOUT, strict=False))
        self.gates = nn.ModuleList(
            AttentionGate(2 * f, f) for f in reversed(filters[:-1]))
        self.decoder = nn.ModuleList(
            ConvBlock(3 * f, f, dropout)
            for f, dropout in zip(reversed(filters[:-1]), reversed(DROPOUT[:-1]), strict=True))
        self.final = nn.Conv2d(width, 1, 1)

    def trace(self, frame_N3HW):
        """Every named tensor of the network, in the order of computation (see the README)."""
        t = {"image": frame_N3HW}
        x = frame_N3HW
        for level, block in enumerate(self.encoder, 1):
            last = "encoding" if level > LEVELS else f"c{level}"
            t[f"e{level}a"], t[last] = block(x)
            if level <= LEVELS:
                x = t[f"p{level}"] = F.max_pool2d(t[last], 2)
        x = t["encoding"]
        for i, (gate, block) in enumerate(zip(self.gates, self.decoder, strict=True), 1):
            parts = gate(x, t[f"c{LEVELS + 1 - i}"])
            for part in ("normal", "down", "sum", "logit"):
                t[f"g{i}_{part}"] = parts[part]
            t[f"alpha{i}"], t[f"gated{i}"] = parts["alpha"], parts["gated"]
            t[f"d{i}_up"] = _upsample(x)
            t[f"d{i}_concat"] = torch.cat([t[f"d{i}_up"], t[f"gated{i}"]], 1)
            t[f"d{i}a"], t[f"d{i}"] = block(t[f"d{i}_concat"])
            x = t[f"d{i}"]
        t["logit"] = self.final(x)
        t["mask"] = torch.sigmoid(t["logit"])
        return t

    def forward(self, frame_N3HW):
        """Logits of the mask: the sigmoid belongs to the loss in training."""
        return self.trace(frame_N3HW)["logit"]

    @torch.no_grad()
    def segment(self, image_CHW):
        """Probability mask, H x W in 0..1, of one uint8 frame."""
        self.eval()
        return self.trace(image_CHW[None].to(torch.float32) / 255)["mask"][0, 0]


def _upsample(x_NCHW):
    return F.interpolate(x_NCHW, scale_factor=2, mode="nearest")


def elec4848(*, size=256, width=32):
    """The network of ELEC4848 section 6; 10.20 M parameters and 15.76 GMAC at 256 and 32."""
    return AttentionUNet(size=size, width=width)


def parameters(network):
    """Number of parameters as Keras counts them: running mean and variance are included."""
    running = [b for name, b in network.named_buffers() if "running" in name]
    return sum(p.numel() for p in [*network.parameters(), *running])


@torch.no_grad()
def macs(network):
    """Multiply-accumulates of all convolutions for one frame, by figure-10 unit."""
    counts = {"encoder": 0, "attention": 0, "decoder": 0}
    hooks = []

    def count(unit):
        def hook(conv, _, output):
            counts[unit] += output[0].numel() * conv.weight[0].numel()
        return hook

    units = {"encoder": "encoder", "gates": "attention", "decoder": "decoder", "final": "decoder"}
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d):
            hooks.append(module.register_forward_hook(count(units[name.split(".")[0]])))
    training = network.training
    network.eval()(torch.zeros(1, 3, network.size, network.size))
    network.train(training)
    for hook in hooks:
        hook.remove()
    return counts
