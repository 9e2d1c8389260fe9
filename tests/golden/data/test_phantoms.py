import pytest
import torch

from golden.data import find, load
from golden.data.phantoms import TRAIN_SEEDS, phantoms
from golden.errors import InputError
from golden.images import read_image, read_truth


def test_default_and_count():
    assert len(find("phantom").samples) == 64
    frames = load(find("phantom:2"), 32)
    assert [s.name for s in frames.samples] == ["phantom:0", "phantom:1"]
    assert torch.equal(frames.frame(1), read_image("phantom:1", 32))
    assert torch.equal(frames.truth[1], read_truth("phantom:1", 32))
    assert frames.notes == ()


def test_training_seeds_are_others():
    assert phantoms(TRAIN_SEEDS, 1).samples[0].image == "phantom:1000000"


@pytest.mark.parametrize("digits", ["0", "-1", "x", "", "²"])
def test_refused(digits):
    with pytest.raises(InputError, match=(f"^Number of phantoms must be 1..100000, not "
                                          f"{digits!r}; for example phantom:64$")):
        find(f"phantom:{digits}")
