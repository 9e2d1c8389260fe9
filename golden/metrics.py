"""How alike two masks are.

Masks are boolean tensors of one shape. Two empty masks agree fully: Dice and IoU are 1; an empty
one against one that is not scores 0.
"""

__all__ = ["binary", "dice", "iou", "pixel_agreement"]


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
