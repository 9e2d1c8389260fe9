"""Bars for long work: how far, how fast, how long still."""

import time

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

__all__ = ["bars"]

EVERY = 30          # seconds between lines where there is no terminal


class _Speed(ProgressColumn):
    """Steps a second."""

    def render(self, task):
        """The rate as text; empty before there is one."""
        return Text(f"{task.speed:.2f} a second" if task.speed else "")


class _Bars(Progress):
    """Bars on a terminal; elsewhere a line now and then."""

    def __init__(self, *columns, console):
        super().__init__(*columns, console=console, disable=not console.is_terminal)
        self._told = time.monotonic()

    def update(self, task_id, **changes):
        super().update(task_id, **changes)
        self._tell(task_id)

    def advance(self, task_id, advance=1):
        super().advance(task_id, advance)
        self._tell(task_id)

    def _tell(self, task_id):
        with self._lock:
            now  = time.monotonic()
            task = self._tasks[task_id]
            if not self.disable or now - self._told < EVERY or not (task.total and task.completed):
                return
            self._told = now
        rate = task.completed / task.elapsed
        self.console.print(f"{task.description}: {task.completed:g} of {task.total:g}, {rate:.3g} "
                           f"a second, {(task.total - task.completed) / rate:.0f} s left",
                           soft_wrap=True)


def bars(console):
    """Progress bars on a terminal; where output goes to a file, a line every half minute."""
    return _Bars(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Speed(),
                 TimeRemainingColumn(), console=console)
