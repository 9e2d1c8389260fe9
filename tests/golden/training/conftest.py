import pytest
import torch

from golden.data import load
from golden.data.phantoms import TRAIN_SEEDS, VALIDATION_SEEDS, phantoms


@pytest.fixture(autouse=True)
def one_thread():
    """Networks this small are slower with more."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def frames():
    return load(phantoms(TRAIN_SEEDS, 12), 32), load(phantoms(VALIDATION_SEEDS, 3), 32)
