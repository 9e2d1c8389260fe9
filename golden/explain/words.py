"""An explanation in plain sentences, from what was measured; a template, and nothing that was not.
"""

import torch
import torch.nn.functional as F

from golden.confidence import components, lesion_score
from golden.metrics import binary

__all__ = ["sentences"]

UNSURE = (0.1, 0.9)
LEAST_FIT = 0.5         # share of the score's variance that a linear model should explain
ALIKE = 1.1             # times as much that a gate must let through to favour a side
PLACES = (("upper left", "upper middle", "upper right"), ("middle left", "centre", "middle right"),
          ("lower left", "lower middle", "lower right"))


def sentences(explanation, occlusion):
    """Size, place and confidence of the mask, whether there is a lesion at all, what the gates let
    through in the mask and outside, what is left of the mask where hiding costs most, and which
    superpixel matters most."""
    confidence_HW = explanation.confidence_HW
    mask_HW = binary(confidence_HW)
    lines = list(_mask(confidence_HW, mask_HW) if explanation.found else _nothing(confidence_HW))
    lines.append(f"Is there a lesion: {lesion_score(confidence_HW):.2f}, the confidence that one "
                 f"pixel in a thousand exceeds.")
    if explanation.found and not mask_HW.all():
        lines += _gates(explanation.alpha, mask_HW)
    return [*lines, *_hiding(explanation.hidden, occlusion, mask_HW),
            _superpixel(explanation.lime, mask_HW)]


def _mask(confidence_HW, mask_HW):
    parts = components(mask_HW)
    sure_P = confidence_HW[mask_HW]
    yield (f"{_share(mask_HW)} of the frame is called lesion, at a mean confidence of "
           f"{float(sure_P.mean()):.2f} and a highest of {float(sure_P.max()):.2f}.")
    rows, columns = (torch.nonzero(parts[0].any(1 - axis)).flatten() for axis in (0, 1))
    which = "It is one part," if len(parts) == 1 else f"The largest of its {len(parts)} parts is"
    yield (f"{which} {len(rows)} x {len(columns)} pixels, in the {_place(parts[0])} of the frame.")
    unsure_HW = (confidence_HW > UNSURE[0]) & (confidence_HW < UNSURE[1])
    yield (f"In {_share(unsure_HW)} of the frame the network is unsure: confidence between "
           f"{UNSURE[0]} and {UNSURE[1]}.")


def _nothing(confidence_HW):
    highest = float(confidence_HW.max())
    yield (f"No pixel is called lesion; the highest confidence is {highest:.2f}, in the "
           f"{_place(confidence_HW == highest)} of the frame.")


def _gates(alpha, mask_HW):
    """A sentence for the gates that favour the mask, its surroundings, and neither."""
    sides = {"more through in the mask than outside": [], "less through in the mask than outside":
             [], "as much through in the mask as outside": []}
    more, less, alike = sides.values()
    for name, alpha_HW in alpha.items():
        inside_HW = F.interpolate(mask_HW[None, None].float(), alpha_HW.shape, mode="area")[0, 0]
        within = float((alpha_HW * inside_HW).sum() / inside_HW.sum())
        outside = float((alpha_HW * (1 - inside_HW)).sum() / (1 - inside_HW).sum())
        side = (more if within > ALIKE * outside else less if outside > ALIKE * within else alike)
        side.append((name.removeprefix("alpha"), f"{within:.2f} and {outside:.2f}"))
    for what, found in sides.items():
        if found:
            names, values = zip(*found, strict=True)
            several = len(found) > 1
            yield (f"Gate{'s' if several else ''} {_listed(names)} let{'' if several else 's'} "
                   f"{what}: {', '.join(values)}.")


def _hiding(hidden, occlusion, mask_HW):
    left_HW = binary(hidden.confidence_HW)
    side = occlusion.window
    window_HW = torch.zeros_like(mask_HW)
    window_HW[hidden.top:hidden.top + side, hidden.left:hidden.left + side] = True
    where = (f"Hiding {side} x {side} pixels in the {_place(window_HW)}, "
             f"{_share((window_HW & mask_HW)[window_HW])} of them lesion by the mask, costs most")
    if not mask_HW.any():
        yield (f"{where}: then {_share(left_HW)} of the frame is called lesion.")
        return
    kept = int((left_HW & mask_HW).sum()) / int(mask_HW.sum())
    new_HW = left_HW & ~mask_HW
    yield (f"{where}: {kept:.0%} of the mask stays, and "
           + (f"{_share(new_HW)} of the frame is called lesion that was not."
              if new_HW.any() else "nothing new is called lesion."))


def _superpixel(lime, mask_HW):
    most = int(lime.weight_N.abs().argmax())
    patch_HW = lime.label_HW == most
    what = "raises" if lime.weight_N[most] > 0 else "lowers"
    worth = "" if lime.explained >= LEAST_FIT else ", too little to rely on"
    return (f"Of {len(lime.weight_N)} superpixels, one of {int(patch_HW.sum())} pixels in the "
            f"{_place(patch_HW)}, {_share(mask_HW[patch_HW])} of them lesion by the mask, {what} "
            f"the score most, by a linear model that explains {max(0.0, lime.explained):.0%} of "
            f"the score's variance{worth}.")


def _share(chosen):
    return f"{float(chosen.float().mean()):.1%}"


def _place(region_HW):
    """Which ninth of the frame the middle of a region is in."""
    return PLACES[int(3 * _middle(region_HW, 0))][int(3 * _middle(region_HW, 1))]


def _middle(region_HW, axis):
    """Centre of gravity along an axis, from 0 to 1, without 1."""
    places = torch.nonzero(region_HW)[:, axis].double()
    return float((places.mean() + 0.5) / region_HW.shape[axis])


def _listed(names):
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last
