import re

import pytest
import torch

from golden import train
from golden.data import write_split
from golden.data.phantoms import TRAIN_SEEDS, VALIDATION_SEEDS, phantoms
from golden.training import load_checkpoint

TRAINED, CHECKED = (phantoms(seed, 2).samples for seed in (TRAIN_SEEDS, VALIDATION_SEEDS))
SMALL = ["--width", "2", "--size", "32", "--batch", "4", "--threads", "1"]


@pytest.fixture(autouse=True)
def threads():
    """Put back the number of threads that a test has set."""
    count = torch.get_num_threads()
    yield
    torch.set_num_threads(count)


def test_phantoms_from_the_command_line(tmp_path, capsys):
    out = tmp_path / "run"
    common = ["--data", "phantom:12", "--out", str(out), *SMALL]
    assert train.main([*common, "--epochs", "1"]) == 0
    said = capsys.readouterr().out
    assert "elec4848, width 2: 12 train, 2 validation, 0 test images" in said
    assert re.search(r"^epoch   1  rate 1\.0e-03  loss ", said, re.M)
    assert f"see {out}/best.pt, log.csv, curves.png" in said
    lines = (out / "split.csv").read_text().splitlines()
    assert lines[0] == "name,class,group,part"
    assert lines[1] == "phantom:1000000,phantom,phantom:1000000,train"
    assert lines[13] == "phantom:2000000,phantom,phantom:2000000,validation"
    assert load_checkpoint(out / "best.pt").name == "elec4848"
    assert train.main([*common, "--epochs", "2", "--resume"]) == 0
    assert "resumed after epoch 1" in capsys.readouterr().out


def error(capsys, *arguments):
    assert train.main(list(arguments)) == 2
    captured = capsys.readouterr()
    assert captured.out == "" or "error" not in captured.out
    return captured.err


@pytest.mark.parametrize("arguments, message", [
    (["--model", "vgg"], ("error: No model 'vgg'; known: elec4848, elec4848-ds, "
                         "elec4848-ds-published, elec4848-classes, unet-busi, attunet-nuclei, "
                         "attunet-ct, teacher\n")),
    (["--width", "0"], ("error: Network width must be positive, not 0; it is the number of "
                         "filters of the first level\n")),
    (["--odds", "normal"], "error: Odds must look like normal=0.6,benign=1, not 'normal'\n"),
    (["--data", "none"], "error: No data at 'none'; name a folder, a table (.csv), or phantom\n"),
    (["--epochs", "x"], "error: argument --epochs: invalid int value: 'x'; see `make help`\n"),
    (["--epochs", "0"], "error: Training needs epochs above 0, not 0\n"),
])
def test_bad_input_is_one_line(capsys, tmp_path, arguments, message):
    out = tmp_path / "run"
    assert error(capsys, *SMALL, "--data", "phantom:2", "--out", str(out), *arguments) == message
    assert not out.exists()


def test_odds_of_an_unknown_class(capsys, tmp_path):
    out = tmp_path / "run"
    assert error(capsys, *SMALL, "--data", "phantom:2", "--out", str(out), "--odds",
                 "cyst=2") == "error: No class 'cyst' to give odds to; classes: phantom\n"
    assert not out.exists()


def test_a_run_goes_on_with_its_own_data_or_not_at_all(capsys, tmp_path):
    common = ["--epochs", "1", "--out", str(tmp_path), *SMALL]
    assert train.main(["--data", "phantom:4", *common]) == 0
    split = (tmp_path / "split.csv").read_text()
    assert error(capsys, "--data", "phantom:5", *common) == (
        f"error: {str(tmp_path)!r} holds a run already; go on with RESUME=1, or name another "
        f"folder with OUT\n")
    assert error(capsys, "--data", "phantom:5", "--resume", *common).startswith(
        f"error: Split {str(tmp_path / 'split.csv')!r} is of other data: 'phantom:1000004' is in "
        f"the data alone; ")
    assert (tmp_path / "split.csv").read_text() == split
    assert error(capsys, *SMALL, "--resume", "--out", str(tmp_path / "none")) == (
        f"error: {str(tmp_path / 'none')!r} holds no run to go on with; name its folder with OUT, "
        f"or begin one without RESUME\n")


def test_a_stop_by_hand_says_how_to_go_on(capsys, tmp_path, monkeypatch):
    def stopped(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(train, "train", stopped)
    arguments = [*SMALL, "--data", "phantom:2", "--out", str(tmp_path)]
    assert error(capsys, *arguments) == "error: interrupted\n"
    write_split(tmp_path / "split.csv", {"train": TRAINED, "validation": CHECKED})
    (tmp_path / "last.pt").touch()
    assert error(capsys, *arguments, "--resume") == (
        f"error: stopped; go on with RESUME=1 OUT={tmp_path}\n")
