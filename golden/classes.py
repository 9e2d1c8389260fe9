"""Networks that tell lesions apart: what their logits, and the bytes of their masks, mean.

Such a network has a logit per class, the background first. A pixel's class is that of its largest
logit, the first of several. A byte of the mask is 0 for background, and :data:`LESION` plus the
class's number for a lesion: so a mask of 128 and more is lesion, as it is everywhere, and its low
seven bits say of which kind.

The machine needs nothing new for that (:func:`comparisons`, :func:`codes`). Two logits are compared
by a convolution of 1x1 whose weights are 1 and -1, clamped to 0 and 1; each pair has a bit of its
own in the sum of a second one, and a table of 256 entries says which class has the largest logit.
"""

from itertools import combinations

import torch
import torch.nn.functional as F

from golden.errors import InputError
from golden.names import CLASS_COLOURS

__all__ = ["LESION", "check_classes", "class_mask", "codes", "coloured", "comparisons",
           "lesion_confidence", "lesion_logit", "numbers", "one_hot"]

LESION = 128
MOST = len(CLASS_COLOURS)       # of these there are six pairs, and a table has eight bits


def check_classes(classes):
    """Refuse names that no mask can tell apart."""
    if not 2 <= len(classes) <= MOST or len(set(classes)) < len(classes):
        raise InputError(f"Classes must be 2 to {MOST} different names, the background first, not "
                         f"{', '.join(map(repr, classes)) or 'none'}")


def class_mask(logit_NCHW):
    """The mask of logits, N x 1 x H x W: what its bytes are, over 256."""
    number_N1HW = logit_NCHW.argmax(1, keepdim=True)
    return torch.where(number_N1HW > 0, number_N1HW + LESION, 0) / 256


def numbers(mask_HW):
    """The class of each pixel of a mask in 0..1, or of its bytes: uint8, 0 is background."""
    if mask_HW.is_floating_point():
        mask_HW = (256 * mask_HW).round().to(torch.uint8)
    return torch.where(mask_HW >= LESION, mask_HW - LESION, 0).to(torch.uint8)


def coloured(number_HW):
    """A picture of classes, uint8 H x W x 3."""
    return torch.tensor(list(CLASS_COLOURS.values()), dtype=torch.uint8)[number_HW.long()]


def lesion_logit(logit_NCHW):
    """The logit, N x 1 x H x W, of the probability that a pixel is lesion of any class: of one
    channel itself, of several what softmax makes of them."""
    if logit_NCHW.shape[1] == 1:
        return logit_NCHW
    return logit_NCHW[:, 1:].logsumexp(1, keepdim=True) - logit_NCHW[:, :1]


def lesion_confidence(logit_CHW):
    """The probability, H x W in 0..1, that a pixel is lesion of any class."""
    return torch.sigmoid(lesion_logit(logit_CHW[None]))[0, 0]


def one_hot(lesion_N1HW, number_N, classes):
    """Truths of each class but the background, N x classes - 1 x H x W, of lesions that are of one
    class in a frame: ``number_N``, 0 where there is no lesion."""
    hot_NC = F.one_hot(number_N, classes)[:, 1:].to(lesion_N1HW.dtype)
    return lesion_N1HW * hot_NC[:, :, None, None]


def comparisons(classes):
    """Weights, int8 pairs x classes x 1 x 1, whose sums are above 0 where the later logit of a pair
    is the larger one."""
    pairs = list(combinations(range(classes), 2))
    weight_OI11 = torch.zeros(len(pairs), classes, 1, 1, dtype=torch.int8)
    for row, (earlier, later) in enumerate(pairs):
        weight_OI11[row, later], weight_OI11[row, earlier] = 1, -1
    return weight_OI11


def codes(classes):
    """Weights, int8 1 x pairs x 1 x 1, that give each pair a bit, and the table, 256 bytes, of the
    masks that bits stand for. Bits that contradict each other come from no logits: background."""
    pairs = list(combinations(range(classes), 2))
    table = torch.zeros(256, dtype=torch.uint8)
    for code in range(1 << len(pairs)):
        later = {pair: code >> bit & 1 for bit, pair in enumerate(pairs)}
        for number in range(1, classes):
            if all(won == (pair[1] == number) for pair, won in later.items() if number in pair):
                table[code] = LESION + number
    weight_1I11 = torch.tensor([1 << bit for bit in range(len(pairs))], dtype=torch.int8)
    return weight_1I11[None, :, None, None], table
