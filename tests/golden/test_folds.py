import functools
import json
import math
import re

import numpy as np
import pytest
import torch
from PIL import Image

from golden import train
from golden.export import calibration_images
from golden.folds import T, interval, main

SETTINGS = ["--width", "2", "--size", "16", "--epochs", "1", "--steps", "1", "--batch", "4",
            "--threads", "1", "--sheets", "0", "--split-seed", "51"]


@pytest.fixture(autouse=True)
def quickly(monkeypatch):
    """Quantise on two frames, and put back the number of threads."""
    monkeypatch.setattr("golden.evaluate.calibration_images",
                        functools.partial(calibration_images, count=2, with_phantoms=False))
    count = torch.get_num_threads()
    yield
    torch.set_num_threads(count)


@pytest.fixture
def table(tmp_path):
    """Twenty images, every fourth without a lesion, each a group of its own."""
    noise = np.random.default_rng(5)
    lines = ["file,mask,label,group"]
    for i in range(20):
        Image.fromarray(noise.integers(0, 256, (16, 16), np.uint8)).save(tmp_path / f"{i}.png")
        mask = np.zeros((16, 16), np.uint8)
        mask[4:9, 4:12] = 255 if i % 4 else 0
        Image.fromarray(mask).save(tmp_path / f"{i}-mask.png")
        lines.append(f"{i}.png,{i}-mask.png,some,{i}")
    path = tmp_path / "data.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_the_interval_is_students():
    """The area of Student's density, of any degrees of freedom, is 0.975 up to the quantile."""
    for freedom, quantile in T.items():
        gain = math.gamma((freedom + 1) / 2) / math.gamma(freedom / 2) / math.sqrt(
            freedom * math.pi)
        x = torch.linspace(0, quantile, 20001, dtype=torch.float64)
        area = torch.trapezoid(gain * (1 + x ** 2 / freedom) ** (-(freedom + 1) / 2), x)
        assert 0.5 + float(area) == pytest.approx(0.975, abs=2e-6), freedom
    # Deviation 0.1 of three values: 4.3027 * 0.1 / sqrt(3).
    found = interval([0.5, 0.6, 0.7])
    assert found["mean"] == pytest.approx(0.6)
    assert found["half_width"] == pytest.approx(0.24842, abs=1e-5)
    assert interval([0.5, None]) == {"mean": 0.5, "half_width": None}
    assert interval([None]) == {"mean": None, "half_width": None}


def test_folds_are_stopped_go_on_and_are_not_repeated(table, tmp_path, capsys, monkeypatch):
    out = tmp_path / "runs"
    arguments = ["--data", str(table), "--folds", "2", "--out", str(out), *SETTINGS]
    trained = []
    own = train.train

    def stopped(settings, frames, check, folder, **options):
        trained.append((folder.name, options["resume"]))
        if len(trained) == 2:
            raise KeyboardInterrupt
        return own(settings, frames, check, folder, **options)

    monkeypatch.setattr(train, "train", stopped)
    assert main(arguments) == 2
    assert capsys.readouterr().err == "error: stopped; the same command goes on\n"
    assert not (out / "folds.json").exists()
    before = (out / "fold-1" / "test" / "metrics.json").read_bytes()
    assert main(["--data", str(table), "--folds", "2", "--out", str(out), *SETTINGS,
                 "--rate", "0.5"]) == 2
    assert capsys.readouterr().err == (
        f"error: The folds in {str(out)!r} have rate 0.001, not 0.5; give that, or name another "
        f"folder with OUT\n")
    assert main(arguments) == 0
    said = capsys.readouterr().out
    assert "fold 1 of 2: done" in said and "fold 2 of 2: begins" in said
    shown = said.split("2 folds, their test parts")[1].splitlines()
    assert max(map(len, shown[:shown.index(f"see {out}/folds.json")])) <= 80
    assert "± is half the 95 % interval of the mean" in said
    assert trained == [("fold-1", False), ("fold-2", False), ("fold-2", False)]
    assert (out / "fold-1" / "test" / "metrics.json").read_bytes() == before

    parts = [dict(line.split(",")[0::3] for line in
                  (out / name / "split.csv").read_text().splitlines()[1:])
             for name in ("fold-1", "fold-2")]
    assert parts[0].keys() == parts[1].keys() and len(parts[0]) == 20
    for name in parts[0]:
        assert [part[name] for part in parts].count("test") == 1

    summary = json.loads((out / "folds.json").read_text())
    metrics = [json.loads((out / name / "test" / "metrics.json").read_text())
               for name in ("fold-1", "fold-2")]
    assert sum(fold["images"] for fold in summary["folds"]) == 20
    assert summary["int8"]["false_alarms"]["images"] == 5
    for form in ("float", "int8"):
        values = [result[form]["lesion"]["dice"] for result in metrics]
        assert summary[form]["dice"]["mean"] == pytest.approx(sum(values) / 2)
        assert summary[form]["dice"]["half_width"] == pytest.approx(
            12.7062 * abs(values[0] - values[1]) / 2)
        assert summary[form]["false_alarms"]["alarms"] == sum(
            result[form]["false_alarms"]["alarms"] for result in metrics)


def test_a_fold_that_was_stopped_after_an_epoch_goes_on(table, tmp_path, capsys, monkeypatch):
    out = tmp_path / "runs"
    arguments = ["--data", str(table), "--folds", "2", "--out", str(out), *SETTINGS,
                 "--epochs", "2"]
    own = train.train

    def stopped(*arguments, report, **options):
        def told(text):
            report(text)
            if text.startswith("epoch   1"):
                raise KeyboardInterrupt
        return own(*arguments, report=told, **options)

    monkeypatch.setattr(train, "train", stopped)
    assert main(arguments) == 2
    monkeypatch.setattr(train, "train", own)
    capsys.readouterr()
    assert main(arguments) == 0
    said = capsys.readouterr().out
    assert "fold 1 of 2: goes on\n" in said
    assert "resumed after epoch 1" in said
    assert len((out / "fold-1" / "log.csv").read_text().splitlines()) == 3


def test_each_fold_has_its_own_teacher(table, tmp_path, monkeypatch):
    seen = []

    def taught(settings, frames, check, folder, **options):
        seen.append(options["teacher"].name)
        raise KeyboardInterrupt

    monkeypatch.setattr(train, "train", taught)
    assert main(["--data", str(table), "--folds", "3", "--out", str(tmp_path / "runs"), *SETTINGS,
                 "--teacher", str(tmp_path / "teacher-{fold}.pt")]) == 2
    assert seen == ["teacher-1.pt"]


@pytest.mark.parametrize("arguments, message", [
    (["--folds", "1"], "FOLDS must be 2 to 10, not 1"),
    (["--folds", "11"], "FOLDS must be 2 to 10, not 11"),
    (["--final"], ("Folds have splits of their own, and train on no validation part; leave out "
                   "--split, --fold and --final")),
    (["--model", "vgg"], "No model 'vgg'; known: elec4848, "),
])
def test_refused_before_anything_is_written(tmp_path, capsys, arguments, message):
    out = tmp_path / "runs"
    assert main(["--data", "phantom:4", "--out", str(out), *SETTINGS, *arguments]) == 2
    assert re.search(f"^error: {re.escape(message)}", capsys.readouterr().err, re.M)
    assert not out.exists()


def test_settings_that_are_damaged(table, tmp_path, capsys):
    out = tmp_path / "runs"
    out.mkdir()
    (out / "settings.json").write_text("[")
    assert main(["--data", str(table), "--out", str(out), *SETTINGS]) == 2
    assert capsys.readouterr().err == (
        f"error: {str(out / 'settings.json')!r} is damaged; name another folder with OUT\n")
