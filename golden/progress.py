"""Bars for long work: how far, how fast, how long still."""

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


class _Speed(ProgressColumn):
    """Steps a second."""

    def render(self, task):
        """The rate as text; empty before there is one."""
        return Text(f"{task.speed:.2f} a second" if task.speed else "")


def bars(console):
    """Progress bars on a terminal; nothing where output goes to a file."""
    return Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Speed(),
                    TimeRemainingColumn(), console=console, disable=not console.is_terminal)
