"""Contrast-limited adaptive histogram equalisation, as ELEC4848 applies it to ultrasound."""

import torch
import torch.nn.functional as F

__all__ = ["clahe"]

LEVELS = 256


def clahe(image_3HW, *, tiles=8, limit=2.0):
    """Equalise a uint8 image tile by tile, on its brightness; colours keep their ratios.

    The histogram of each of ``tiles`` x ``tiles`` tiles is cut off at ``limit`` times its mean,
    what was cut is spread evenly, and its running sum maps brightness to brightness. Between the
    centres of tiles the maps are blended linearly; outside them the nearest ones hold.
    """
    bright_HW = image_3HW.amax(0)
    rows, columns = bright_HW.shape
    step_y, step_x = -(-rows // tiles), -(-columns // tiles)
    spare = (0, step_x * tiles - columns, 0, step_y * tiles - rows)
    padded_HW = F.pad(bright_HW[None, None].float(), spare, mode="replicate")[0, 0].long()
    tile_TP = padded_HW.unfold(0, step_y, step_y).unfold(1, step_x, step_x).reshape(tiles**2, -1)
    counts_TL = torch.zeros(tiles**2, LEVELS).scatter_add_(1, tile_TP,
                                                            torch.ones_like(tile_TP).float())
    pixels = step_y * step_x
    ceiling = max(1.0, limit * pixels / LEVELS)
    excess_T1 = (counts_TL - ceiling).clamp(min=0).sum(1, keepdim=True)
    counts_TL = counts_TL.clamp(max=ceiling) + excess_T1 / LEVELS
    map_TTL = ((LEVELS - 1) * counts_TL.cumsum(1) / pixels).reshape(tiles, tiles, LEVELS)

    y0_H1, y1_H1, fy_H1 = (v[:, None] for v in _between(rows, step_y, tiles))
    x0_W, x1_W, fx_W = _between(columns, step_x, tiles)
    level_HW = bright_HW.long()
    upper_HW = map_TTL[y0_H1, x0_W, level_HW].lerp(map_TTL[y0_H1, x1_W, level_HW], fx_W)
    lower_HW = map_TTL[y1_H1, x0_W, level_HW].lerp(map_TTL[y1_H1, x1_W, level_HW], fx_W)
    result_HW = upper_HW.lerp(lower_HW, fy_H1.expand_as(upper_HW))
    gain_HW = result_HW / bright_HW.clamp(min=1)
    coloured_3HW = torch.where(bright_HW > 0, image_3HW * gain_HW, result_HW)
    return coloured_3HW.round().clamp(0, LEVELS - 1).to(torch.uint8)


def _between(length, step, tiles):
    """For each place along an axis the two tiles whose centres enclose it, and how far between."""
    place = ((torch.arange(length) + 0.5) / step - 0.5).clamp(0, tiles - 1)
    low = place.floor().long()
    return low, (low + 1).clamp(max=tiles - 1), place - low
