"""Random windows, shapes and brightness, so that few images go a long way."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F

__all__ = ["AUGMENTATIONS", "Augmentation", "augment", "blend"]


@dataclass(frozen=True)
class Augmentation:
    """Ranges to draw from. ``whole``: share of windows that show the frame without zoom.

    ``native`` windows keep the frame's resolution and show a part of it; others shrink it.
    ``elastic`` is how far a point moves, in half frames; ``angle`` is in radians; ``noise`` is a
    part of the brightness.
    """
    zoom: tuple[float, float] = (0.5, 1.2)
    whole: float = 0.35
    stretch: float = 0.16
    angle: float = 0.25
    elastic: float = 0.035
    gamma: tuple[float, float] = (0.65, 1.5)
    gain: tuple[float, float] = (0.7, 1.35)
    offset: float = 0.06
    noise: float = 0.06
    mirror: bool = True
    flip: bool = False
    native: bool = False


AUGMENTATIONS = {
    # The probe is above: ultrasound is mirrored, never turned over.
    "ultrasound": Augmentation(),
    # Windows at the resolution of whole frames, which cost less than those.
    "ultrasound-close": Augmentation(zoom=(0.8, 1.25), native=True),
    "microscopy": Augmentation(zoom=(0.6, 1.4), whole=0.4, angle=0.4, elastic=0.03,
                               gamma=(0.75, 1.3), gain=(0.6, 1.8), flip=True, native=True),
    "none": Augmentation(zoom=(1.0, 1.0), whole=1.0, stretch=0.0, angle=0.0, elastic=0.0,
                         gamma=(1.0, 1.0), gain=(1.0, 1.0), offset=0.0, noise=0.0, mirror=False),
}


def augment(image_NCHW, truth_NHW, crop, ranges):
    """Inputs N x C x crop x crop, on the grid of uint8 but in 0..1, and truths N x 1 x crop x crop.

    Beyond the edge of a frame lies its mirror image. Draws from torch's generator.
    """
    n, _, size, _ = image_NCHW.shape

    def draw(low, high, *shape):
        return torch.empty(n, *shape).uniform_(low, high)

    base = crop / size if ranges.native else 1.0
    span_N = torch.where(torch.rand(n) < ranges.whole, 1.0, draw(*ranges.zoom)) * base
    stretch_N = draw(-ranges.stretch, ranges.stretch).exp()
    angle_N = draw(-ranges.angle, ranges.angle)
    across_N = _sign(n, ranges.mirror) * span_N * stretch_N
    down_N = _sign(n, ranges.flip) * span_N / stretch_N
    room_N2 = (1 - span_N).abs()[:, None] * draw(-1, 1, 2)
    theta_N23 = torch.stack([
        torch.stack([across_N * angle_N.cos(), -down_N * angle_N.sin(), room_N2[:, 0]], 1),
        torch.stack([across_N * angle_N.sin(), down_N * angle_N.cos(), room_N2[:, 1]], 1)], 1)
    grid_NHW2 = F.affine_grid(theta_N23, (n, 1, crop, crop), align_corners=False)
    if ranges.elastic:
        field_N2KK = torch.randn(n, 2, 5, 5) * ranges.elastic * base * torch.rand(n, 1, 1, 1)
        grid_NHW2 = grid_NHW2 + F.interpolate(field_N2KK, size=(crop, crop), mode="bicubic",
                                              align_corners=True).permute(0, 2, 3, 1)
    source_NCHW = image_NCHW.float() / 255
    if size * float(span_N.mean()) > 1.5 * crop:        # a little low-pass against aliasing
        source_NCHW = F.avg_pool2d(F.pad(source_NCHW, (0, 1, 0, 1), mode="replicate"), 2, 1)
    x_NCHW = F.grid_sample(source_NCHW, grid_NHW2, padding_mode="reflection", align_corners=False)
    truth_N1HW = F.grid_sample(truth_NHW[:, None].float() / 255, grid_NHW2,
                               padding_mode="reflection", align_corners=False).round()

    gamma_N111 = draw(*ranges.gamma, 1, 1, 1)
    gain_N111 = draw(*map(math.log, ranges.gain), 1, 1, 1).exp()
    x_NCHW = x_NCHW.clamp(min=1e-4) ** gamma_N111 * gain_N111
    x_NCHW = x_NCHW + draw(-ranges.offset, ranges.offset, 1, 1, 1)
    if ranges.noise:
        x_NCHW = x_NCHW * (1 + ranges.noise * torch.rand(n, 1, 1, 1)
                           * torch.randn(n, 1, crop, crop))
    return (255 * x_NCHW).round().clamp(0, 255) / 255, truth_N1HW


def _sign(n, turned):
    return torch.where(torch.rand(n) < 0.5, -1.0, 1.0) if turned else torch.ones(n)


def blend(x_NCHW, truth_N1HW, share):
    """The same, with a ``share`` of images laid over another one of the batch, or holding a window
    of another one; truths likewise, so those of overlays lie between 0 and 1.

    Overlays have weights of 0.5 to 1, windows sides of a fifth to four fifths of the frame. Draws
    from torch's generator. (mixup: Zhang et al., 2018; CutMix: Yun et al., 2019.)
    """
    n, _, height, width = x_NCHW.shape
    other_N = torch.randperm(n)
    weight_N111 = torch.empty(n, 1, 1, 1).uniform_(0.5, 1)
    side_N2 = torch.empty(n, 2).uniform_(0.2, 0.8)
    first_N2 = torch.rand(n, 2) * (1 - side_N2)
    row_H, column_W = torch.linspace(0, 1, height), torch.linspace(0, 1, width)
    inside_NHW = (_between(row_H, first_N2[:, 0], side_N2[:, 0])[:, :, None]
                  & _between(column_W, first_N2[:, 1], side_N2[:, 1])[:, None])
    kind_N111 = torch.rand(n, 1, 1, 1)
    keep_N1HW = torch.where(kind_N111 < share / 2, weight_N111.expand(-1, 1, height, width),
                            torch.where(kind_N111 < share, (~inside_NHW[:, None]).float(), 1.0))
    return tuple(keep_N1HW * a + (1 - keep_N1HW) * a[other_N] for a in (x_NCHW, truth_N1HW))


def _between(place_L, first_N, side_N):
    return (place_L >= first_N[:, None]) & (place_L <= (first_N + side_N)[:, None])
