"""What training makes small."""

import torch
import torch.nn.functional as F
from monai.losses import DiceLoss

from golden.names import LOSSES as NAMES

__all__ = ["LOSSES"]

# The 1 in both parts makes an empty mask, where there is nothing to find, cost nothing.
_each = DiceLoss(smooth_nr=1.0, smooth_dr=1.0)
_whole = DiceLoss(smooth_nr=1.0, smooth_dr=1.0, batch=True)


def bce(logit_NCHW, truth_NKHW):
    """Cross-entropy, mean over pixels: of one logit binary, of one per class that of their softmax.
    Truths are of all classes but the background, which has the rest."""
    if logit_NCHW.shape[1] == 1:
        return F.binary_cross_entropy_with_logits(logit_NCHW, truth_NKHW)
    rest_N1HW = 1 - truth_NKHW.sum(1, keepdim=True)
    return F.cross_entropy(logit_NCHW, torch.cat([rest_N1HW, truth_NKHW], 1))


def dice(logit_NCHW, truth_NKHW):
    """One minus soft Dice, (2 * sum(p * t) + 1) / (sum(p) + sum(t) + 1); mean over classes.

    Half of it is a mean over images, so that small lesions count; half is over the whole batch,
    so that false alarms cost where there is nothing to find.
    """
    p_NKHW = (logit_NCHW.sigmoid() if logit_NCHW.shape[1] == 1
              else logit_NCHW.softmax(1)[:, 1:])
    return (_each(p_NKHW, truth_NKHW) + _whole(p_NKHW, truth_NKHW)) / 2


def bce_dice(logit_NCHW, truth_NKHW):
    """The sum of both."""
    return bce(logit_NCHW, truth_NKHW) + dice(logit_NCHW, truth_NKHW)


LOSSES = dict(zip(NAMES, (bce, dice, bce_dice), strict=True))
