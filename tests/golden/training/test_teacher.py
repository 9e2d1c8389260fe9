import csv
import dataclasses

import torch

from golden.training import Settings, load_checkpoint, train
from golden.training.start import initialise
from golden.training.teacher import Teacher

SETTINGS = Settings(model="teacher", width=4, size=32, crop=32, epochs=1, steps=2, batch=2,
                    schedule="cosine")


def test_the_encoder_keeps_what_it_has_learnt():
    torch.manual_seed(1)
    teacher = Teacher(size=32, width=4)
    stem = teacher.encoder._conv_stem.weight.clone()
    last = teacher.decoder[0].a.weight.clone()
    initialise(teacher)
    assert torch.equal(teacher.encoder._conv_stem.weight, stem)
    assert not torch.equal(teacher.decoder[0].a.weight, last)
    assert stem.std() > 0.2                             # ImageNet's, not a fresh one's 0.1
    teacher.eval()
    with torch.no_grad():
        maps = teacher.trace(torch.rand(1, 3, 64, 96))
    assert maps["logit"].shape == maps["mask"].shape == (1, 1, 64, 96)


def loss_of(folder):
    """Of the first epoch."""
    with (folder / "log.csv").open(newline="") as file:
        return next(csv.DictReader(file))["loss"]


def test_a_teacher_is_trained_and_teaches(frames, tmp_path):
    assert 0 <= train(SETTINGS, *frames, tmp_path / "teacher") <= 1
    assert load_checkpoint(tmp_path / "teacher/best.pt").name == "teacher"
    student = dataclasses.replace(SETTINGS, model="elec4848", width=2, rate=1e-2)
    losses = {}
    for taught in (0.0, 0.7):
        folder = tmp_path / str(taught)
        train(dataclasses.replace(student, taught=taught), *frames, folder,
              teacher=tmp_path / "teacher/best.pt")
        losses[taught] = loss_of(folder)
    train(student, *frames, tmp_path / "alone")
    assert losses[0.0] == loss_of(tmp_path / "alone")
    assert losses[0.7] != losses[0.0]
