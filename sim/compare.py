"""Hardware against golden: every byte of every tensor that can be seen."""

import numpy as np
import torch

from golden.classes import numbers
from golden.metrics import dice, iou, pixel_agreement
from sim.taps import first_mismatch, golden_name

__all__ = ["class_pixels", "compare_mask", "compare_tensors"]


def compare_tensors(golden, hardware, recorded):
    """``tensors`` of the report.

    ``golden`` and ``hardware`` are tensors by name for each frame, the latter only those that were
    read back; ``recorded`` is what the taps saw. A tensor with elements never or doubly written is
    a mismatch too, and ``problems`` says so.
    """
    pairs = [(one.name, one.frame, one.values, one.problem)     # in the order of computation
             for one in sorted(recorded, key=lambda one: one.frame)]
    pairs += [(name, frame, got, None)
              for frame, tensors in enumerate(hardware) for name, got in tensors.items()]

    result = {"compared": 0, "mismatched": 0, "bytes": 0, "first_mismatch": None, "problems": []}
    for name, frame, got, problem in pairs:
        wrong = first_mismatch(name, got, golden[frame][golden_name(name, golden[frame])])
        result["compared"]   += 1
        result["bytes"]      += int(np.prod(got.shape))
        result["mismatched"] += wrong is not None or problem is not None
        if wrong is not None and result["first_mismatch"] is None:
            result["first_mismatch"] = {"frame": frame, **wrong}
        if problem is not None:
            result["problems"].append(problem)
    return result


def compare_mask(mask_HW, float_HW, truth_HW):
    """``mask`` of the report, from boolean tensors; ``truth_HW`` may be None."""
    return {
        "pixel_agreement_float": pixel_agreement(mask_HW, float_HW),
        "iou_float":             iou(mask_HW, float_HW),
        "dice_truth":            None if truth_HW is None else dice(mask_HW, truth_HW),
        "iou_truth":             None if truth_HW is None else iou(mask_HW, truth_HW),
    }


def class_pixels(mask_HW, classes):
    """``classes`` of the report's ``mask``: pixels of each but the background, of uint8 bytes."""
    number_HW = numbers(torch.from_numpy(mask_HW))
    return {name: int((number_HW == number).sum()) for number, name in enumerate(classes[1:], 1)}
