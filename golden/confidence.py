"""What a mask's confidence is worth, and what can be done with it.

Confidence is the probability of lesion that a network gives a pixel. It is calibrated if of all
pixels with 0.8 four in five are lesion. Dividing logits by one number, the temperature, calibrates
a network that is too sure, or not sure enough, and moves no pixel across one half (Guo et al.,
ICML 2017).
"""

import copy
import math
from functools import partial

import torch
import torch.nn.functional as F
from monai.metrics import calibration_binning, compute_roc_auc

from golden.classes import one_hot
from golden.errors import InputError
from golden.plan import plan

__all__ = ["BINS", "DEFINITION", "SCORE_QUANTILE", "SUSPECTED", "auc", "calibration_error",
           "check_peak", "components", "drop_faint", "fit_temperature", "lesion_score",
           "reliability", "temper"]

BINS = 15
SUSPECTED = 0.1         # confidence from which on a pixel is worth a look: most others are easy
SCORE_QUANTILE = 0.999
HALVINGS = 48
TEMPERATURES = (1 / 16, 16.0)
DEFINITION = (f"expected calibration error: pixels in {BINS} equal ranges of the probability of "
              f"lesion, difference of its mean and the share of lesion in each, mean over pixels; "
              f"'error' is of pixels with a probability of {SUSPECTED} and more, 'error_all' of "
              f"all; 'ranges' have pixels, mean probability and share of lesion of all pixels; "
              f"the score of an image is the {SCORE_QUANTILE} quantile of its probabilities")


def reliability(confidence_HW, truth_HW, least=0.0):
    """Of the pixels with a confidence of ``least`` and more, by :data:`BINS` equal ranges of
    confidence: how many there are, the sum of their confidence, and how many are lesion; float64,
    3 x BINS.

    Such tables of several images add up.
    """
    chosen_HW = confidence_HW >= least
    mean, lesion, count = (x[0, 0].to(torch.float64) for x in calibration_binning(
        confidence_HW[chosen_HW][None, None], truth_HW[chosen_HW][None, None], num_bins=BINS))
    return torch.stack([count, (mean * count).nan_to_num(), (lesion * count).nan_to_num()])


def calibration_error(table_3K):
    """Expected calibration error of a :func:`reliability` table: by how much confidence and share
    of lesion differ in a range, on average over pixels. None without pixels."""
    count_K, confidence_K, lesion_K = table_3K
    if not count_K.any():
        return None
    return float((confidence_K - lesion_K).abs().sum() / count_K.sum())


def lesion_score(confidence_HW):
    """Whether there is a lesion in the frame, 0..1: the confidence that one pixel in a thousand
    exceeds."""
    return float(confidence_HW.flatten().to(torch.float32).quantile(SCORE_QUANTILE))


def auc(scores, lesions):
    """Area under the ROC curve of scores of frames, and whether each has a lesion: the chance that
    one with scores higher than one without. None where all have one, or none has."""
    if len(set(lesions)) < 2:
        return None
    return float(compute_roc_auc(torch.tensor(scores), torch.tensor(lesions, dtype=torch.long)))


def check_peak(peak):
    """Refuse a peak that every component of a mask has, or none can have."""
    if not 0.5 < peak <= 1:
        raise InputError(f"PEAK must be above 0.5, where masks begin, and at most 1, not {peak!r}")


def drop_faint(mask_HW, confidence_HW, peak):
    """A mask without those connected components (of eight neighbours) whose highest confidence is
    below ``peak``."""
    return _grown(mask_HW & (confidence_HW >= peak), mask_HW)


def components(mask_HW):
    """The connected components (of eight neighbours) of a mask, the largest first."""
    parts, rest_HW = [], mask_HW.clone()
    while rest_HW.any():
        seed_HW = torch.zeros_like(rest_HW)
        seed_HW.view(-1)[rest_HW.flatten().int().argmax()] = True
        parts.append(_grown(seed_HW, rest_HW))
        rest_HW &= ~parts[-1]
    return sorted(parts, key=lambda part_HW: -int(part_HW.sum()))


def _grown(kept_HW, mask_HW):
    """What is kept, grown within the mask until it fills its components."""
    while True:
        grown_HW = mask_HW & (F.max_pool2d(kept_HW[None].float(), 3, 1, 1)[0] > 0)
        if torch.equal(grown_HW, kept_HW):
            return kept_HW
        kept_HW = grown_HW


def fit_temperature(network, frames, advance=lambda: None):
    """The temperature at which a network's confidence loses least on frames, in the sense of
    cross-entropy over all of their pixels, and over classes where the network tells them apart.

    ``frames`` are :class:`golden.data.Frames` that have not been trained on. ``advance`` is called
    after each.
    """
    if not len(frames):
        raise InputError("The validation part of the data is empty, and a temperature is fitted to "
                         "no other; give more images, or TEMPERATURE as a number")
    if not frames.truth.any():
        raise InputError("The validation part of the data has no lesion to fit a temperature to; "
                         "give more images, or TEMPERATURE as a number")
    logits = []
    network.eval()
    for i in range(len(frames)):
        with torch.no_grad():
            logits.append(network(frames.frame(i)[None].to(torch.float32) / 255)[0])
        advance()
    logit_NCHW, truth_NCHW = torch.stack(logits), (frames.truth > 0).float()[:, None]
    probability = torch.sigmoid
    if network.classes:
        truth_NKHW = one_hot(truth_NCHW, frames.numbers(network.classes), len(network.classes))
        truth_NCHW = torch.cat([1 - truth_NCHW, truth_NKHW], 1)
        probability = partial(torch.softmax, dim=1)

    def too_cold(temperature):
        """Whether the loss falls as logits shrink: it is convex in the factor."""
        wrong_NCHW = probability(logit_NCHW / temperature) - truth_NCHW
        return float((logit_NCHW * wrong_NCHW).mean(dtype=torch.float64)) > 0

    low, high = map(math.log, TEMPERATURES)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if too_cold(math.exp(middle)) else (low, middle)
    return math.exp((low + high) / 2)


@torch.no_grad()
def temper(network, temperature):
    """A copy of a network whose logits are divided by a temperature, in the weights and the bias of
    the last layer, or of the normalisation behind it: its mask at one half is the same."""
    if not (math.isfinite(temperature) and temperature > 0):
        raise InputError(f"A temperature must be above 0, not {temperature!r}")
    network = copy.deepcopy(network).eval()
    steps = {step.name: step for step in plan(network)}
    head = steps[steps["mask"].inputs[0]]
    last = head.conv if head.norm is None else head.norm
    for parameter in last.parameters():
        parameter.div_(temperature)
    return network
