"""How alike two masks are, and means over many.

Masks are boolean tensors of one shape. Two empty masks agree fully: every measure is 1; where only
one is empty, a measure without a denominator is 0.
"""

import math
from typing import NamedTuple

__all__ = ["METRICS", "OUTLIER_RULE", "Areas", "areas", "binary", "dice", "iou", "measure",
           "pixel_agreement", "pooled", "summary"]

METRICS = ("accuracy", "dice", "iou", "sensitivity", "specificity", "precision", "recall", "f1")
OUTLIER_RULE = ("below the first quartile minus 1.5 times the interquartile range, or above the "
                "third plus as much, per measure")


def binary(probability_HW):
    """A probability mask in 0..1 as a boolean one: one half and more is lesion."""
    return probability_HW >= 0.5


def dice(a_HW, b_HW):
    """Twice the intersection over the sum of the areas."""
    total = int(a_HW.sum()) + int(b_HW.sum())
    return 2 * int((a_HW & b_HW).sum()) / total if total else 1.0


def iou(a_HW, b_HW):
    """Intersection over union."""
    union = int((a_HW | b_HW).sum())
    return int((a_HW & b_HW).sum()) / union if union else 1.0


def pixel_agreement(a_HW, b_HW):
    """Share of pixels on which both say the same."""
    return int((a_HW == b_HW).sum()) / a_HW.numel()


def measure(mask_HW, truth_HW):
    """Every one of `METRICS` for one mask and the truth.

    Recall is sensitivity, and F1 of pixels is Dice; both stand under both names. Sensitivity needs
    a lesion, precision a mask, specificity a pixel that is none: where that is missing, it is 1 if
    the masks agree fully, else 0.
    """
    true_positive = int((mask_HW & truth_HW).sum())
    false_positive = int((mask_HW & ~truth_HW).sum())
    false_negative = int((~mask_HW & truth_HW).sum())
    true_negative = int((~mask_HW & ~truth_HW).sum())
    agree = float(false_positive == false_negative == 0)

    def share(part, rest):
        return part / (part + rest) if part + rest else agree

    sensitivity = share(true_positive, false_negative)
    overlap = dice(mask_HW, truth_HW)
    return {"accuracy": pixel_agreement(mask_HW, truth_HW), "dice": overlap,
            "iou": iou(mask_HW, truth_HW), "sensitivity": sensitivity,
            "specificity": share(true_negative, false_positive),
            "precision": share(true_positive, false_positive), "recall": sensitivity,
            "f1": overlap}


class Areas(NamedTuple):
    """Pixels of a mask, of the truth, and of both at once."""
    mask: int
    truth: int
    both: int


def areas(mask_HW, truth_HW):
    """The :class:`Areas` of one mask and the truth."""
    return Areas(int(mask_HW.sum()), int(truth_HW.sum()), int((mask_HW & truth_HW).sum()))


def pooled(rows):
    """IoU and Dice of many masks as if they were one, from their :class:`Areas`: large lesions
    count more than small ones. None where there are no pixels to count."""
    mask, truth, both = (sum(column) for column in zip(*rows, strict=True)) if rows else (0, 0, 0)
    if not mask + truth:
        return {"iou": None, "dice": None}
    return {"iou": both / (mask + truth - both), "dice": 2 * both / (mask + truth)}


def summary(rows):
    """Means of rows of :func:`measure`, with ``images``, ``std`` (of the population) and
    ``outliers_removed``: the means without those that `OUTLIER_RULE` names, and their number.

    None stands for what no image is there to give.
    """
    result = {"images": len(rows)}
    deviations, trimmed = {}, {}
    for name in METRICS:
        values = sorted(row[name] for row in rows)
        result[name], deviations[name] = _mean_and_deviation(values)
        low, high = _quantile(values, 0.25), _quantile(values, 0.75)
        kept = [v for v in values if low - 1.5 * (high - low) <= v <= high + 1.5 * (high - low)]
        trimmed[name] = {"mean": _mean_and_deviation(kept)[0], "removed": len(values) - len(kept)}
    return {**result, "std": deviations, "outliers_removed": trimmed}


def _mean_and_deviation(values):
    if not values:
        return None, None
    mean = math.fsum(values) / len(values)
    return mean, math.sqrt(math.fsum((v - mean) ** 2 for v in values) / len(values))


def _quantile(values, share):
    """Of sorted values, with linear interpolation between neighbours."""
    if not values:
        return 0.0
    place = share * (len(values) - 1)
    low = int(place)
    high = min(low + 1, len(values) - 1)
    return values[low] + (place - low) * (values[high] - values[low])
