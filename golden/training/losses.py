"""What training makes small."""

import torch.nn.functional as F
from monai.losses import DiceLoss

from golden.names import LOSSES as NAMES

__all__ = ["LOSSES"]

# The 1 in both parts makes an empty mask, where there is nothing to find, cost nothing.
_each = DiceLoss(sigmoid=True, smooth_nr=1.0, smooth_dr=1.0)
_whole = DiceLoss(sigmoid=True, smooth_nr=1.0, smooth_dr=1.0, batch=True)


def bce(logit_N1HW, truth_N1HW):
    """Binary cross-entropy, mean over pixels."""
    return F.binary_cross_entropy_with_logits(logit_N1HW, truth_N1HW)


def dice(logit_N1HW, truth_N1HW):
    """One minus soft Dice, (2 * sum(p * t) + 1) / (sum(p) + sum(t) + 1).

    Half of it is a mean over images, so that small lesions count; half is over the whole batch,
    so that false alarms cost where there is nothing to find.
    """
    return (_each(logit_N1HW, truth_N1HW) + _whole(logit_N1HW, truth_N1HW)) / 2


def bce_dice(logit_N1HW, truth_N1HW):
    """The sum of both."""
    return bce(logit_N1HW, truth_N1HW) + dice(logit_N1HW, truth_N1HW)


LOSSES = dict(zip(NAMES, (bce, dice, bce_dice), strict=True))
