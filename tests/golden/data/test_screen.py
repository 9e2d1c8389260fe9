import torch

from golden.data.screen import near_duplicates


def test_brightness_and_a_mark_do_not_matter_but_the_scene_does():
    torch.manual_seed(1)
    one, other = torch.randint(40, 200, (2, 3, 8, 8), dtype=torch.uint8)
    one, other = (x.repeat_interleave(6, 1).repeat_interleave(6, 2) for x in (one, other))
    bright = (one * 0.8 + 40).to(torch.uint8)
    marked = one.clone()
    marked[:, 3, 3:9] = 255
    images = torch.stack([other, one, bright, marked])
    assert near_duplicates(images) == [0, 1, 1, 1]


def test_black_images_are_not_alike():
    assert near_duplicates(torch.zeros(2, 1, 48, 48, dtype=torch.uint8)) == [0, 1]
