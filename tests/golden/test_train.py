import re

import pytest
import torch

from golden import train
from golden.training import load_checkpoint

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
    (["--model", "vgg"], ("error: No model 'vgg'; known: elec4848, elec4848-ds, unet-busi, "
                         "attunet-nuclei, attunet-ct\n")),
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
    assert error(capsys, *SMALL, "--data", "phantom:2", "--out", str(tmp_path / "run"), "--odds",
                 "cyst=2") == "error: No class 'cyst' to give odds to; classes: phantom\n"


def test_a_stop_by_hand_says_how_to_go_on(capsys, tmp_path, monkeypatch):
    def stopped(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(train, "train", stopped)
    arguments = [*SMALL, "--data", "phantom:2", "--out", str(tmp_path)]
    assert error(capsys, *arguments) == "error: interrupted\n"
    (tmp_path / "last.pt").touch()
    assert error(capsys, *arguments) == f"error: stopped; go on with RESUME=1 OUT={tmp_path}\n"
