"""The maps of an explanation. N batch, C channels, H rows, W columns; Captum does the work.

All but the activations explain one number: the sum of the mask's logits over the pixels that the
network calls lesion, or over all pixels if there are none.
"""

import math
import warnings
from dataclasses import dataclass

import torch
from captum.attr import GuidedBackprop, LayerGradCam, Saliency
from captum.attr import Occlusion as CaptumOcclusion

from golden.classes import lesion_confidence
from golden.errors import InputError
from golden.explain.lime import Lime, Surrogate, surrogate
from golden.explain.probe import BATCH, Probe, Score
from golden.metrics import binary

__all__ = ["Explanation", "Hidden", "Occlusion", "explain"]

BACKWARD = 3        # passes that a forward and a backward pass are worth, for the time left


@dataclass(frozen=True)
class Occlusion:
    """A square window of ``window`` pixels that moves by ``stride``, and hides what it covers.

    A hidden pixel gets the frame's mean. The last window of a row may be cut by the border.
    """
    window: int = 50
    stride: int = 30

    def check(self, size):
        """Refuse windows and strides that a frame of ``size`` cannot have."""
        if not 1 <= self.window <= size:
            raise InputError(f"Occlusion window must be 1..{size} for frames of {size} pixels, not "
                             f"{self.window!r}")
        if not 1 <= self.stride <= self.window:
            raise InputError(f"Occlusion stride must be 1..{self.window}, the window, so that no "
                             f"pixel is left out, not {self.stride!r}")

    def windows(self, size):
        """How many windows cover a frame."""
        return (math.ceil((size - self.window) / self.stride) + 1) ** 2


@dataclass(frozen=True)
class Hidden:
    """A window, by its first row and column, that is hidden where that costs most score, and the
    confidence that the network then has; H x W."""
    top: int
    left: int
    confidence_HW: torch.Tensor


@dataclass(frozen=True)
class Explanation:
    """Everything about one frame; maps are float32 H x W at the resolution where they arise.

    ``saliency`` is the largest absolute gradient of the three channels, ``guided`` their summed
    guided gradient, ``occlusion`` the loss of score per window that covers a pixel, on average.
    ``grad_cam``, ``alpha`` (mean over its channels) and ``encoder`` (mean over channels) are by
    tensor; the first two are empty for a network without gates. ``found`` tells whether any pixel
    was called lesion, and thus what the score sums over. ``hidden`` is the frame with the window
    that matters most hidden, ``lime`` what a linear model makes of hidden superpixels.
    """
    confidence_HW: torch.Tensor
    found: bool
    saliency_HW: torch.Tensor
    guided_HW: torch.Tensor
    occlusion_HW: torch.Tensor
    grad_cam: dict[str, torch.Tensor]
    alpha: dict[str, torch.Tensor]
    encoder: dict[str, torch.Tensor]
    hidden: Hidden
    lime: Surrogate


def explain(network, image_CHW, occlusion=None, lime=None, *, progress=None):
    """Every map of an :class:`Explanation` for one uint8 frame.

    ``occlusion`` and ``lime`` say how parts of it are hidden. ``progress``, if given, is called
    with passes done and passes in all.
    """
    occlusion, lime = occlusion or Occlusion(), lime or Lime()
    for hiding in (occlusion, lime):
        hiding.check(min(image_CHW.shape[1:]))
    probe = Probe(network)
    frame_13HW = image_CHW[None].to(torch.float32) / 255
    with torch.no_grad():
        trace = {name: x_1CHW[0] for name, x_1CHW in probe(frame_13HW).items()}
    confidence_HW = lesion_confidence(trace["logit"])
    lesion_HW = binary(confidence_HW)
    found = bool(lesion_HW.any())
    gates = [name for name in trace if name.startswith("gated")]
    counter = _Counter(progress, BACKWARD * (2 + len(gates)) + 1
                       + occlusion.windows(len(lesion_HW)) + lime.samples)
    pixels_HW = lesion_HW if found else torch.ones_like(lesion_HW)
    score = Score(probe, pixels_HW, passed=counter.add)

    frame_13HW.requires_grad_()     # Captum warns where it has to ask for it itself
    saliency_3HW = Saliency(score).attribute(frame_13HW)[0]
    counter.add(BACKWARD - 1)
    guided_3HW = _guided(score, frame_13HW)
    counter.add(BACKWARD - 1)
    grad_cam = {}
    for name in gates:
        cam_11HW = LayerGradCam(score, probe.point(name)).attribute(
            frame_13HW, relu_attributions=True)
        counter.add(BACKWARD - 1)
        grad_cam[name] = cam_11HW[0, 0].detach()
    frame_13HW = frame_13HW.detach()
    mean_13HW = frame_13HW.mean((2, 3), keepdim=True).expand_as(frame_13HW)
    occlusion_HW = _occlusion(score, frame_13HW, mean_13HW, occlusion)
    hidden = _hidden(probe, frame_13HW, mean_13HW, occlusion, occlusion_HW)
    counter.add(1)
    fitted = surrogate(score, image_CHW, frame_13HW, mean_13HW, lime)
    levels = [network.last_of(level) for level in range(1, network.depth + 2)]
    return Explanation(
        confidence_HW, found, saliency_3HW.amax(0).detach(), guided_3HW.sum(0).detach(),
        occlusion_HW, grad_cam,
        {name: x_CHW.mean(0) for name, x_CHW in trace.items() if name.startswith("alpha")},
        {name: trace[name].mean(0) for name in levels}, hidden, fitted)


def _guided(score, frame_13HW):
    """Backpropagation in which every ReLU also stops negative gradients."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Setting backward hooks on ReLU activations")
        return GuidedBackprop(score).attribute(frame_13HW)[0]


def _occlusion(score, frame_13HW, mean_13HW, occlusion):
    shape = (frame_13HW.shape[1], occlusion.window, occlusion.window)
    lost_13HW = CaptumOcclusion(score).attribute(
        frame_13HW, shape, strides=(shape[0], occlusion.stride, occlusion.stride),
        baselines=mean_13HW, perturbations_per_eval=BATCH)
    return lost_13HW[0, 0].detach()


@torch.no_grad()
def _hidden(probe, frame_13HW, mean_13HW, occlusion, occlusion_HW):
    """The window around the pixels whose hiding costs most."""
    most_P2 = torch.nonzero(occlusion_HW == occlusion_HW.max())
    middle_2 = most_P2[len(most_P2) // 2].tolist()
    top, left = (min(max(0, middle - occlusion.window // 2), side - occlusion.window)
                 for middle, side in zip(middle_2, occlusion_HW.shape, strict=True))
    covered_13HW = frame_13HW.clone()
    window = (..., slice(top, top + occlusion.window), slice(left, left + occlusion.window))
    covered_13HW[window] = mean_13HW[window]
    return Hidden(top, left, lesion_confidence(probe(covered_13HW)["logit"][0]))


class _Counter:
    """Passes through the network, so far and in all."""

    def __init__(self, progress, total):
        self.progress, self.done, self.total = progress, 0, total

    def add(self, passes):
        self.done = min(self.done + passes, self.total)
        if self.progress:
            self.progress(self.done, self.total)
