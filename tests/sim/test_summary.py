import io

import pytest
from rich.console import Console

from golden.command import make_console
from sim.summary import print_summary
from sim.video import frame_times
from tests.sim.pages import whole_report
from tests.sim.test_report import counted


def printed(report, tmp_path, width):
    text = io.StringIO()
    print_summary(Console(file=text, width=width), report, tmp_path)
    return text.getvalue()


@pytest.mark.parametrize("frames", [1, 12])
def test_tables_keep_their_shape_in_80_columns(tmp_path, frames):
    """They said ``dependen…`` and ``encoder_…``, in every pipe and log."""
    report = whole_report(frames)
    report["stream"] = frame_times(counted(frames), report["input"]["images"], 100)
    text = printed(report, tmp_path, 80)
    assert "…" not in text
    assert "attention_fill" in text and "pressure" in text and "store_decoder" in text


@pytest.mark.parametrize("exact", [True, False])
def test_colours_are_no_words(tmp_path, exact):
    """A pipe got ``[green]bit exact[/]``."""
    report = whole_report()
    report["bit_exact"] = exact
    report["model"] = "a[/]b"
    report["tensors"]["problems"] = ["[red]x[/] is missing"]
    report["stages"] = {"[bold]c1": 1_000_000}
    text = printed(report, tmp_path, 200)
    assert f"a[/]b on {report['config']} under" in text and "[bold]c1 1.00 M" in text
    assert ("mask       bit exact: " if exact else "mask       not bit exact: ") in text
    assert ("[red]x[/] is missing" in text) is not exact


def test_nobody_trained_the_network(tmp_path):
    report = whole_report()
    assert "weights" not in printed(report, tmp_path, 200)
    report["input"]["trained"] = False
    assert ("weights    seeded, not trained: the mask means nothing; trained ones come with "
            "WIDTH=8 or 32") in printed(report, tmp_path, 200)
    report["model"] = "nobody"
    assert ("weights    seeded, not trained: the mask means nothing; nobody has no trained "
            "ones") in printed(report, tmp_path, 200)


def test_a_pipe_has_room_for_tables(monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    assert make_console(file=io.StringIO()).width == 160
    terminal = make_console(file=io.StringIO(), force_terminal=True, width=80)
    assert terminal.width == 80
