"""Superpixels: connected patches of pixels that lie together and look alike.

Source: SLIC (R. Achanta et al., IEEE TPAMI 34(11), 2012, doi:10.1109/TPAMI.2012.120). It is k-means
over colour and place that starts from a grid and lets a pixel join only a centre near it: here one
of the nine around its own place on the grid. None of the libraries in use has it.
"""

import math

import numpy as np
import torch
from scipy import ndimage

from golden.data.clahe import to_lab

__all__ = ["grid", "superpixels"]

COMPACTNESS = 10.0      # colour, in units of Lab, that a cell of the grid away is worth: SLIC's own
ROUNDS = 10
BLUR = 0.02             # of a frame's side: speckle is finer than what is looked for


def grid(count, shape):
    """Rows and columns of a grid of about ``count`` nearly square cells over a frame."""
    rows = max(1, round(math.sqrt(count * shape[0] / shape[1])))
    return rows, max(1, round(count / rows))


def superpixels(image_3HW, count):
    """The number of the superpixel of each pixel, int64 H x W from 0 without gaps.

    ``image_3HW`` is uint8. There are as many as cells in :func:`grid`, or fewer where one lost all
    its pixels to others. Each is connected over the four sides of pixels.
    """
    rows, columns = grid(count, image_3HW.shape[1:])
    places_PK = _places(image_3HW, rows, columns)
    y_P, x_P = _cells(image_3HW.shape[1:], rows, columns)
    near_P9 = torch.stack([(y_P + y).clamp(0, rows - 1) * columns + (x_P + x).clamp(0, columns - 1)
                           for y in (-1, 0, 1) for x in (-1, 0, 1)], 1)
    nearest_P, centre_NK = y_P * columns + x_P, torch.zeros(rows * columns, places_PK.shape[1])
    for _ in range(ROUNDS):
        centre_NK = _means(places_PK, nearest_P, centre_NK)
        distance_P9 = (places_PK[:, None] - centre_NK[near_P9]).square().sum(2)
        nearest_P = near_P9.gather(1, distance_P9.argmin(1, keepdim=True))[:, 0]
    label_HW = _connected(nearest_P.view(image_3HW.shape[1:]).numpy())
    return torch.from_numpy(np.unique(label_HW, return_inverse=True)[1])


def _places(image_3HW, rows, columns):
    """Where each pixel lies: its colour, and row and column in units worth as much."""
    blur = BLUR * min(image_3HW.shape[1:])
    lab_3HW = ndimage.gaussian_filter(to_lab(image_3HW).numpy(), (0, blur, blur))
    _, height, width = image_3HW.shape
    step = math.sqrt(height * width / (rows * columns))
    places_2HW = np.indices((height, width)) * COMPACTNESS / step
    colour_3HW = lab_3HW * [[[100 / 255]], [[1]], [[1]]]        # L from 0 to 100
    return torch.from_numpy(np.concatenate([colour_3HW, places_2HW])).flatten(1).T.float()


def _cells(shape, rows, columns):
    """Row and column on the grid of each pixel."""
    cells = (torch.arange(side) * count // side
             for side, count in zip(shape, (rows, columns), strict=True))
    return [index_HW.flatten() for index_HW in torch.meshgrid(*cells, indexing="ij")]


def _means(places_PK, nearest_P, before_NK):
    """The centre of every superpixel; of one without pixels, that from before."""
    count_N1 = torch.bincount(nearest_P, minlength=len(before_NK))[:, None]
    sum_NK = torch.zeros_like(before_NK).index_add_(0, nearest_P, places_PK)
    return torch.where(count_N1 > 0, sum_NK / count_N1.clamp(min=1), before_NK)


def _connected(label_HW):
    """The largest part of every superpixel keeps its number; what else it has gets those of the
    neighbours, from outside to inside."""
    number_HW = np.zeros(label_HW.shape, np.int64)
    for label in np.unique(label_HW):
        part_HW, _ = ndimage.label(label_HW == label)
        largest = np.bincount(part_HW.flat)[1:].argmax() + 1
        number_HW[part_HW == largest] = label + 1
    while not number_HW.all():
        padded_HW = np.pad(number_HW, 1)
        for beside_HW in (padded_HW[:-2, 1:-1], padded_HW[2:, 1:-1],
                          padded_HW[1:-1, :-2], padded_HW[1:-1, 2:]):
            number_HW = np.where(number_HW, number_HW, beside_HW)
    return number_HW
