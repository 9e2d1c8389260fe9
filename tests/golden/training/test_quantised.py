"""Stages that see INT8: `golden.train --quantised`."""

import csv
import dataclasses
import re

import pytest
import torch

from golden.errors import InputError
from golden.fake_quantise import FakeQuantised
from golden.integer import float_mask, run
from golden.quantize import quantize
from golden.training import Settings, load_checkpoint, train
from golden.training.losses import LOSSES

SETTINGS = Settings(width=4, size=32, crop=32, epochs=2, batch=4, steps=12, rate=1e-2, average=0.9,
                    augmentation="none")
STAGE = dataclasses.replace(SETTINGS, quantised=True, rate=3e-3)


@pytest.fixture(scope="module")
def start(frames, tmp_path_factory):
    """A checkpoint that has learnt a little."""
    folder = tmp_path_factory.mktemp("start")
    train(SETTINGS, *frames, folder)
    return folder / "best.pt"


def graph_of(path, frames):
    """The integer graph of a checkpoint, calibrated on frames that it was trained on."""
    images = [frames.frame(i * len(frames) // 8) for i in range(8)]
    return quantize(load_checkpoint(path), images, clipping="min-max")


def loss_of(graph, frames):
    """What training makes small, of INT8 masks."""
    total = 0.0
    for i in range(len(frames)):
        mask_HW = float_mask(graph, run(graph, frames.frame(i))).clamp(1 / 512, 1 - 1 / 512)
        total += LOSSES["bce+dice"](torch.logit(mask_HW)[None, None],
                                    (frames.truth[i] > 0).float()[None, None]).item()
    return total / len(frames)


def test_a_stage_learns(frames, start, tmp_path):
    """Of INT8 masks; what a stage that sees floats would learn is not held against it."""
    learnt, _ = frames
    train(STAGE, *frames, tmp_path, start=start)
    before, after = (loss_of(graph_of(path, learnt), learnt)
                     for path in (start, tmp_path / "last.pt"))
    assert after < 0.9 * before


def test_what_is_measured_are_int8_masks(frames, start, tmp_path):
    """With next to no rate the loss is that of the checkpoint as `golden.quantize` makes it."""
    learnt, check = frames
    train(dataclasses.replace(STAGE, rate=1e-12, decay=1e-12, epochs=1, steps=1), *frames, tmp_path,
          start=start)
    [row] = csv.DictReader((tmp_path / "log.csv").open())
    network, graph = load_checkpoint(start), graph_of(start, learnt)
    losses = {"fake": [], "float": []}
    for i in range(len(check)):
        truth_HW = (check.truth[i] > 0).float()
        for name, form in (("fake", FakeQuantised(network, graph)), ("float", network)):
            with torch.no_grad():
                logit_N1HW = form(check.frame(i)[None] / 255)
            losses[name].append(LOSSES["bce+dice"](logit_N1HW, truth_HW[None, None]).item())
    means = {name: sum(values) / len(values) for name, values in losses.items()}
    found = float(row["validation_loss"])
    assert found == pytest.approx(means["fake"], rel=1e-4)
    assert abs(found - means["fake"]) < abs(found - means["float"]) / 3
    assert found == pytest.approx(loss_of(graph, check), rel=0.02)


def test_normalisations_stay_as_they_are(frames, tmp_path):
    """Those that the network has: their statistics; training adds none to fold away."""
    settings = dataclasses.replace(STAGE, model="unet-busi", epochs=1, steps=3)
    train(dataclasses.replace(settings, quantised=False), *frames, tmp_path / "float")
    train(settings, *frames, tmp_path / "int8", start=tmp_path / "float/best.pt")
    states = [torch.load(tmp_path / name, weights_only=True)["state_dict"]
              for name in ("float/best.pt", "int8/best.pt")]
    assert states[0].keys() == states[1].keys()
    for name, x in states[0].items():
        assert torch.equal(x, states[1][name]) == ("running" in name or "batches" in name), name


def test_a_stage_that_was_stopped_ends_the_same(frames, start, tmp_path):
    class Stopped(Exception):
        pass

    def stop(text):
        raise Stopped

    train(STAGE, *frames, tmp_path / "whole", start=start)
    with pytest.raises(Stopped):
        train(STAGE, *frames, tmp_path / "halves", start=start, report=stop)
    train(STAGE, *frames, tmp_path / "halves", resume=True)
    whole, halves = (torch.load(tmp_path / name / "last.pt", weights_only=True)["state_dict"]
                     for name in ("whole", "halves"))
    assert all(torch.equal(whole[name], halves[name]) for name in whole)


@pytest.mark.parametrize("changes, message", [
    ({"model": "teacher", "size": 32}, "No teacher is ever quantised; leave --quantised out"),
    ({"device": "cuda"}, "Quantised training runs on the CPU alone; take DEVICE=cpu"),
])
def test_refused(changes, message):
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        dataclasses.replace(STAGE, **changes)
