"""A screen for images that show the same scene, where nobody has written that down."""

import torch
import torch.nn.functional as F

__all__ = ["near_duplicates"]

THUMBNAIL = 24
ALIKE = 0.97


def near_duplicates(image_NCHW):
    """For each image the first one that it is alike, directly or through others; else itself.

    Alike means that thumbnails of 24 x 24, brightness and contrast removed, correlate by 0.97 or
    more. Crops, shifts and other frames of one scan may pass unseen.
    """
    small_NHW = F.adaptive_avg_pool2d(image_NCHW.float().mean(1), THUMBNAIL)
    small_NK = small_NHW.flatten(1)
    small_NK = small_NK - small_NK.mean(1, keepdim=True)
    small_NK = F.normalize(small_NK)
    first = list(range(len(small_NK)))

    def root(i):
        while first[i] != i:
            i = first[i]
        return i

    for i, j in torch.nonzero(torch.triu(small_NK @ small_NK.T >= ALIKE, 1)).tolist():
        low, high = sorted((root(i), root(j)))
        first[high] = low
    return [root(i) for i in range(len(first))]
