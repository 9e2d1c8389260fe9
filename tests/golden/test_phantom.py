import numpy as np
import pytest

from golden.errors import InputError
from golden.phantom import phantom


def test_a_seed_is_a_frame():
    (a, a_mask), (b, b_mask), (c, _) = phantom(7, 64), phantom(7, 64), phantom(8, 64)
    assert np.array_equal(a, b)
    assert np.array_equal(a_mask, b_mask)
    assert not np.array_equal(a, c)


@pytest.mark.parametrize("size", [16, 64, 256, 320])
def test_size_and_type(size):
    image, mask = phantom(3, size)
    assert image.shape == mask.shape == (size, size)
    assert image.dtype == mask.dtype == np.uint8
    assert set(np.unique(mask)) <= {0, 255}


def test_small_frames_show_the_same_scene():
    large, large_mask = phantom(1, 256)
    small, small_mask = phantom(1, 64)
    blocks = large.reshape(64, 4, 64, 4).mean((1, 3))
    assert np.abs(blocks - small).max() <= 1
    assert abs(np.mean(large_mask > 0) - np.mean(small_mask > 0)) < 0.01


def test_lesions_are_darker_than_their_surroundings():
    darker, lesions = 0, 0
    for seed in range(30):
        image, mask = phantom(seed, 256)
        if mask.any():
            rows, columns = np.nonzero(mask)
            box = image[max(0, rows.min() - 10):rows.max() + 10,
                        max(0, columns.min() - 10):columns.max() + 10]
            around = box[mask[max(0, rows.min() - 10):rows.max() + 10,
                              max(0, columns.min() - 10):columns.max() + 10] == 0]
            lesions += 1
            darker += image[mask > 0].mean() < around.mean() - 5
    assert 20 <= lesions < 30
    assert darker >= 0.9 * lesions


def test_speckle_is_present():
    # Fully developed speckle makes neighbours differ: a smooth drawing would not.
    image, _ = phantom(1, 256)
    texture = np.abs(np.diff(image.astype(float), axis=0)).mean()
    assert texture > 3


@pytest.mark.parametrize("seed", [-1, 1.5, "7"])
def test_seed_must_be_a_whole_number(seed):
    with pytest.raises(InputError, match=f"^Phantom seed must be a whole number of at least 0, "
                                         f"not {seed!r}$"):
        phantom(seed, 64)


def test_size_must_be_positive():
    with pytest.raises(InputError, match="^Phantom size must be positive, not 0; "
                                         "the paper's is 256$"):
        phantom(1, 0)
