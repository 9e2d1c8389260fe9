"""Contrast-limited adaptive histogram equalisation, as ELEC4848 writes it for ultrasound.

Its appendix calls OpenCV: the L of Lab colours (of 8 bits, sRGB, D65) goes through
``createCLAHE(clipLimit=3.0, tileGridSize=(8, 8))``, a and b stay. OpenCV is not needed here: L is
computed as OpenCV does, and the result differs from its own by 2 at most, where it rounds on the
way back to RGB. (The appendix then trains on the images as they were, not on these.)
"""

import torch
import torch.nn.functional as F

__all__ = ["clahe", "to_lab"]

LEVELS = 256
WHITE = torch.tensor([0.950456, 1.0, 1.088754], dtype=torch.float64)
RGB_TO_XYZ = torch.tensor([[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169],
                           [0.019334, 0.119193, 0.950227]], dtype=torch.float64)
EPSILON, SLOPE, OFFSET = 0.008856, 7.787, 16 / 116       # where the cube root becomes a line

# OpenCV's tables of 8-bit images: linear light in eighths, its cube root in 2**-15.
LIGHT_STEPS = 255 * 8
_value = torch.arange(LEVELS, dtype=torch.float64) / 255
GAMMA = (LIGHT_STEPS * torch.where(_value <= 0.04045, _value / 12.92,
                                   ((_value + 0.055) / 1.055) ** 2.4)).round().long()
_light = torch.arange(LEVELS * 12, dtype=torch.float64) / LIGHT_STEPS
ROOT = (2**15 * torch.where(_light < EPSILON, SLOPE * _light + OFFSET,
                            _light ** (1 / 3))).round().long()
XYZ_STEPS = (2**12 * RGB_TO_XYZ / WHITE[:, None]).round().long()
L_GAIN, L_OFFSET = (116 * 255 + 50) // 100, (16 * 255 * 2**15 + 50) // 100


def clahe(image_3HW, *, tiles=8, limit=3.0):
    """Equalise a uint8 image tile by tile, on its lightness.

    The histogram of each of ``tiles`` x ``tiles`` tiles is cut off at ``limit`` times its mean,
    what was cut is spread evenly, and its running sum maps lightness to lightness. Between the
    centres of tiles the maps are blended linearly; outside them the nearest ones hold. Where tiles
    do not divide the image, it is mirrored beyond its last row and column.
    """
    lab_3HW = to_lab(image_3HW)
    lab_3HW[0] = _equalised(lab_3HW[0].to(torch.long), tiles, limit)
    return _to_rgb(lab_3HW)


def _equalised(light_HW, tiles, limit):
    rows, columns = light_HW.shape
    spare = [0, 0]
    if rows % tiles or columns % tiles:
        spare = [tiles - columns % tiles, tiles - rows % tiles]
    padded_HW = F.pad(light_HW[None, None].double(), (0, spare[0], 0, spare[1]),
                      mode="reflect")[0, 0].long()
    step_y, step_x = (side // tiles for side in padded_HW.shape)
    tile_TP = padded_HW.unfold(0, step_y, step_y).unfold(1, step_x, step_x).reshape(tiles**2, -1)
    counts_TL = torch.zeros(tiles**2, LEVELS, dtype=torch.long).scatter_add_(
        1, tile_TP, torch.ones_like(tile_TP))
    pixels = step_y * step_x
    ceiling = max(1, int(limit * pixels / LEVELS))
    cut_T = (counts_TL - ceiling).clamp(min=0).sum(1)
    counts_TL = counts_TL.clamp(max=ceiling) + (cut_T // LEVELS)[:, None]
    for counts_L, rest in zip(counts_TL, (cut_T % LEVELS).tolist(), strict=True):
        if rest:
            counts_L[::LEVELS // rest][:rest] += 1
    map_TTL = ((LEVELS - 1) / pixels * counts_TL.cumsum(1)).round().reshape(tiles, tiles, LEVELS)

    y0_H1, y1_H1, fy_H1 = (v[:, None] for v in _between(rows, step_y, tiles))
    x0_W, x1_W, fx_W = _between(columns, step_x, tiles)
    upper_HW = map_TTL[y0_H1, x0_W, light_HW].lerp(map_TTL[y0_H1, x1_W, light_HW], fx_W)
    lower_HW = map_TTL[y1_H1, x0_W, light_HW].lerp(map_TTL[y1_H1, x1_W, light_HW], fx_W)
    return upper_HW.lerp(lower_HW, fy_H1.expand_as(upper_HW)).round().clamp(0, LEVELS - 1)


def _between(length, step, tiles):
    """For each place along an axis the two tiles whose centres enclose it, and how far between.
    OpenCV's centres: half a pixel after the middle of a tile."""
    place = torch.arange(length) / step - 0.5
    low = place.floor().long()
    return low.clamp(min=0), (low + 1).clamp(max=tiles - 1), place - low


def to_lab(image_3HW):
    """Lab of 8 bits, as float64, in OpenCV's fixed point: L in 0..255, a and b around 128."""
    linear_3HW = GAMMA[image_3HW.long()]
    xyz_3HW = (torch.tensordot(XYZ_STEPS, linear_3HW, 1) + (1 << 11)) >> 12
    x_HW, y_HW, z_HW = ROOT[xyz_3HW]
    lab_3HW = torch.stack([L_GAIN * y_HW - L_OFFSET, 500 * (x_HW - y_HW) + (128 << 15),
                           200 * (y_HW - z_HW) + (128 << 15)])
    return ((lab_3HW + (1 << 14)) >> 15).clamp(0, 255).double()


def _to_rgb(lab_3HW):
    light_HW, a_HW, b_HW = lab_3HW
    y_HW = (light_HW / 2.55 + 16) / 116
    root_3HW = torch.stack([y_HW + (a_HW - 128) / 500, y_HW, y_HW - (b_HW - 128) / 200])
    cube_3HW = root_3HW ** 3
    xyz_3HW = torch.where(cube_3HW > EPSILON, cube_3HW, (root_3HW - OFFSET) / SLOPE)
    linear_3HW = torch.tensordot(RGB_TO_XYZ.inverse(), xyz_3HW * WHITE[:, None, None], 1)
    value_3HW = torch.where(linear_3HW <= 0.0031308, 12.92 * linear_3HW,
                            1.055 * linear_3HW.clamp(min=0) ** (1 / 2.4) - 0.055)
    return (255 * value_3HW).round().clamp(0, 255).to(torch.uint8)
