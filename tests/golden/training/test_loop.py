import csv
import dataclasses
import re

import pytest
import torch
from PIL import Image

from golden.errors import InputError
from golden.metrics import measure
from golden.training import Settings, load_checkpoint, train
from golden.training.loop import COLUMNS, _batch_measures, _Run

SETTINGS = Settings(width=2, size=32, crop=32, epochs=4, batch=4, rate=1e-2)


class Killed(Exception):
    """The machine went away."""


def kill_after(epoch):
    def report(text):
        if text.startswith(f"epoch {epoch:3d} "):
            raise Killed
    return report


@pytest.mark.parametrize("schedule, model", [
    ("cosine", "elec4848"), ("plateau", "elec4848"), ("cosine", "elec4848-ds-published")])
def test_a_run_that_was_killed_ends_the_same(frames, tmp_path, schedule, model):
    settings = dataclasses.replace(SETTINGS, schedule=schedule, model=model, patience=1)
    train(settings, *frames, tmp_path / "whole")
    with pytest.raises(Killed):
        train(settings, *frames, tmp_path / "halves", report=kill_after(2))
    torch.rand(7)       # whatever happens in between
    said = []
    train(settings, *frames, tmp_path / "halves", resume=True, report=said.append)
    assert said[0] == "resumed after epoch 2"
    assert len(said) == 3
    contents = [torch.load(tmp_path / name / "last.pt", weights_only=True)
                for name in ("whole", "halves")]
    for part in (lambda c: c["state_dict"], lambda c: c["normed"], lambda c: c["run"]["network"]):
        whole, halves = map(part, contents)
        assert whole.keys() == halves.keys()
        assert all(torch.equal(whole[name], halves[name]) for name in whole)
    logs = [list(csv.DictReader((tmp_path / name / "log.csv").open()))
            for name in ("whole", "halves")]
    for rows in logs:
        for row in rows:
            del row["seconds"]
    assert logs[0] == logs[1]
    assert len(logs[0]) == 4


def test_what_a_run_leaves_behind(frames, tmp_path):
    score = train(SETTINGS, *frames, tmp_path, sheet_every=3)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "best.pt", "curves.png", "last.pt", "log.csv", "sheet-003.png", "sheet-004.png"]
    with (tmp_path / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    assert [row["epoch"] for row in rows] == ["1", "2", "3", "4"]
    assert max(float(row["score"]) for row in rows) == score
    assert Image.open(tmp_path / "curves.png").size == (900, 600)
    assert Image.open(tmp_path / "sheet-003.png").size == (900, 660)
    network = load_checkpoint(tmp_path / "best.pt", "elec4848", 2)
    assert network.segment(frames[1].frame(0)).shape == (32, 32)


def test_the_log_has_training_beside_validation(frames, tmp_path):
    """One frame that is lesion throughout, and a network that calls every pixel lesion; then the
    other way round."""
    one = frames[0].pick(frames[0].samples[:1])
    for truth, accuracy in ((255, 1.0), (0, 0.0)):
        one.truth.fill_(truth)
        run = _Run(dataclasses.replace(SETTINGS, batch=2, crop=32), None, None, one.image)
        with torch.no_grad():
            run.network.final.weight.zero_()
            run.network.final.bias.fill_(3)
        _, sums = run.learn(one.image.expand(2, -1, -1, -1), one.truth.expand(2, -1, -1),
                            torch.ones(2), 4)
        assert sums.tolist() == pytest.approx([2 * accuracy] * 3)

    said = []
    train(dataclasses.replace(SETTINGS, epochs=1), *frames, tmp_path, report=said.append)
    first, second, third = said[0].splitlines()
    with (tmp_path / "log.csv").open() as file:
        row = {name: float(value) for name, value in next(csv.DictReader(file)).items()}
    assert first == (f"epoch   1  rate {row['rate']:.1e}  loss {row['loss']:.4f}  accuracy "
                     f"{row['training_accuracy']:.4f}  IoU {row['training_iou']:.4f}  Dice "
                     f"{row['training_dice']:.4f}")
    assert second == (f"             validation  loss {row['validation_loss']:.4f}  accuracy "
                      f"{row['accuracy']:.4f}  IoU {row['iou']:.4f}  Dice {row['dice']:.4f}")
    assert third.startswith(f"                  score  {row['score']:.4f} (best), ")
    assert max(map(len, said[0].splitlines())) <= 80


def test_measures_of_a_batch_are_those_of_its_images():
    torch.manual_seed(4)
    logit_N1HW, truth_N1HW = torch.randn(4, 1, 8, 8), (torch.rand(4, 1, 8, 8) > 0.7).float()
    logit_N1HW[0], truth_N1HW[0] = -1, 0            # two empty masks
    truth_N1HW[1] *= 0.6                            # blended: 0.6 is lesion, 0 is not
    rows = [measure(logit_HW >= 0, truth_HW > 0) for logit_HW, truth_HW in
            zip(logit_N1HW[:, 0], truth_N1HW[:, 0], strict=True)]
    assert rows[0]["dice"] == 1 and 0 < rows[1]["dice"] < 1
    assert _batch_measures(logit_N1HW[:, 0] >= 0, truth_N1HW[:, 0]).tolist() == pytest.approx(
        [sum(row[name] for row in rows) for name in ("accuracy", "iou", "dice")])


def test_a_run_from_before_there_were_training_measures_goes_on(frames, tmp_path):
    settings = dataclasses.replace(SETTINGS, schedule="plateau", epochs=1)
    train(settings, *frames, tmp_path)
    content = torch.load(tmp_path / "last.pt", weights_only=True)
    for row in content["run"]["rows"]:
        for name in [name for name in row if name.startswith("training_")]:
            del row[name]
    torch.save(content, tmp_path / "last.pt")
    train(dataclasses.replace(settings, epochs=2), *frames, tmp_path, resume=True)
    with (tmp_path / "log.csv").open() as file:
        first, second = csv.DictReader(file)
    assert first["training_iou"] == "" and float(second["training_iou"]) >= 0


def test_training_learns(frames, tmp_path):
    """One frame, many times: the network must end up knowing its mask."""
    one = frames[0].pick(frames[0].samples[1:2])
    assert one.truth.any()
    settings = dataclasses.replace(SETTINGS, width=4, steps=30, epochs=8, augmentation="none",
                                   average=0.9)
    assert train(settings, one, one, tmp_path) > 0.8


def test_plateau_lowers_the_rate_and_stops_early(frames, tmp_path):
    settings = dataclasses.replace(SETTINGS, schedule="plateau", patience=1, stop=4, epochs=50,
                                   rate=1e-6)
    said = []
    train(settings, *frames, tmp_path, report=said.append)
    with (tmp_path / "log.csv").open() as file:
        rates = [float(row["rate"]) for row in csv.DictReader(file)]
    assert len(rates) == 5          # the first is the best, four without a better one
    assert rates[:2] == [1e-6, 1e-6]
    assert rates[-1] == 0.5e-6


def test_widened_start_teacher_and_phantoms(frames, tmp_path):
    settings = dataclasses.replace(SETTINGS, epochs=1)
    train(settings, *frames, tmp_path / "narrow")
    wide = dataclasses.replace(settings, model="elec4848", width=4)
    train(wide, *frames, tmp_path / "wide", start=tmp_path / "narrow/best.pt", phantoms=frames[1])
    separable = dataclasses.replace(settings, model="elec4848-ds")
    train(separable, *frames, tmp_path / "ds", teacher=tmp_path / "wide/best.pt")
    assert load_checkpoint(tmp_path / "wide/best.pt").width == 4
    assert load_checkpoint(tmp_path / "ds/best.pt").name == "elec4848-ds"
    published = dataclasses.replace(settings, model="elec4848-ds-published")
    train(published, *frames, tmp_path / "published", start=tmp_path / "ds/best.pt")
    network = load_checkpoint(tmp_path / "published/best.pt")
    assert (network.name, network.dense) == ("elec4848-ds-published",
                                             ("e1a", "e2a", "e3a", "e4a", "e5a"))


def refused(message, function, *arguments, **options):
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        function(*arguments, **options)


def test_a_run_is_not_overwritten_nor_resumed_as_another(frames, tmp_path):
    settings = dataclasses.replace(SETTINGS, epochs=1)
    train(settings, *frames, tmp_path)
    last = str(tmp_path / "last.pt")
    refused(f"{str(tmp_path)!r} holds a run already; go on with RESUME=1, or name another folder "
            f"with OUT", train, settings, *frames, tmp_path)
    refused(f"The run at {last!r} has rate 0.01, not 0.02; resume it as it was, or begin another",
            train, dataclasses.replace(settings, rate=0.02), *frames, tmp_path, resume=True)
    refused(f"Checkpoint {last!r} is of elec4848 with width 2, not of unet-busi with width 2; give "
            f"MODEL=unet-busi, or another checkpoint".replace("MODEL=unet-busi", "MODEL=elec4848"),
            train, dataclasses.replace(settings, model="unet-busi"), *frames, tmp_path, resume=True)
    refused("A network of width 3 cannot start from one of width 2, which does not divide it",
            train, dataclasses.replace(settings, width=3), *frames, tmp_path / "new",
            start=tmp_path / "best.pt")


def test_an_empty_part(frames, tmp_path):
    none = frames[0].pick([])
    refused("The train part of the split is empty; give more images", train, SETTINGS, none,
            frames[1], tmp_path / "x")
    refused("The validation part of the split is empty; give more images", train, SETTINGS,
            frames[0], none, tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_a_loss_that_explodes(frames, tmp_path):
    settings = dataclasses.replace(SETTINGS, rate=1e30)
    with pytest.raises(InputError, match=r"^The loss is nan after step \d+; try a lower RATE than "
                                         r"1e\+30$"):
        train(settings, *frames, tmp_path)


@pytest.mark.parametrize("name, value, message", [
    ("model", "vgg", ("No model 'vgg'; known: elec4848, elec4848-ds, elec4848-ds-published, "
                     "elec4848-classes, unet-busi, attunet-nuclei, attunet-ct, teacher")),
    ("loss", "l2", "No loss 'l2'; known: bce, dice, bce+dice"),
    ("schedule", "step", "No schedule 'step'; known: cosine, plateau"),
    ("augmentation", "all", ("No augmentation 'all'; known: ultrasound, ultrasound-close, "
                              "microscopy, none")),
    ("epochs", 0, "Training needs epochs above 0, not 0"),
    ("rate", -1.0, "Training needs rate above 0, not -1.0"),
    ("crop", 40, "Frame size must be a positive multiple of 16, not 40; try 32"),
])
def test_settings(name, value, message):
    refused(message, dataclasses.replace, SETTINGS, **{name: value})
