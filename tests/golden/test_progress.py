import io

from rich.console import Console

from golden import progress


def test_a_log_gets_a_line_now_and_then(monkeypatch):
    clock = iter([0.0, 10.0, 20.0, 35.0, 40.0, 70.0])
    text  = io.StringIO()
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    with progress.bars(Console(file=text, width=80)) as bar:
        task = bar.add_task("frames", total=8)
        bar._tasks[task].start_time = 0.0
        bar._tasks[task]._get_time = lambda: 40.0
        for _ in range(5):          # 10, 20, 35, 40, 70 s
            bar.advance(task)
    assert text.getvalue() == ("frames: 3 of 8, 0.075 a second, 67 s left\n"
                               "frames: 5 of 8, 0.125 a second, 24 s left\n")


def test_a_terminal_gets_a_bar(monkeypatch):
    monkeypatch.setattr(progress, "EVERY", 0)
    text = io.StringIO()
    with progress.bars(Console(file=text, width=80, force_terminal=True)) as bar:
        task = bar.add_task("frames", total=2)
        bar.update(task, completed=2)
    assert "2/2" in text.getvalue() and "left" not in text.getvalue()
