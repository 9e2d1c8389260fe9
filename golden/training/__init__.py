"""Training of :mod:`golden.networks`: what happens to frames, losses, the loop, its files."""

from golden.training.checkpoint import load_checkpoint, save_checkpoint
from golden.training.loop import Settings, check_folder, train
from golden.training.teacher import TRAINABLE

__all__ = ["TRAINABLE", "Settings", "check_folder", "load_checkpoint", "save_checkpoint", "train"]
