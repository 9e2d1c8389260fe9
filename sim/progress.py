"""The one line that tells how far a simulation is."""

import time

__all__ = ["CycleProgress"]

BAR      = 24
INTERVAL = 10.0       # seconds between lines where the terminal cannot overwrite one


class CycleProgress:
    """Context manager; call it with the cycles done. ``estimate`` is what 100 % means.

    On a terminal one line is redrawn; in a file or pipe a line is added now and then.
    """

    def __init__(self, console, estimate):
        self._console  = console
        self._estimate = max(1, estimate)

    def __enter__(self):
        self._start   = time.monotonic()
        self._printed = self._start
        self._status  = self._console.status("simulating")
        if self._console.is_terminal:
            self._status.start()
        return self

    def __exit__(self, *_):
        self._status.stop()

    def __call__(self, cycles):
        now  = time.monotonic()
        line = self.describe(cycles, now - self._start)
        if self._console.is_terminal:
            self._status.update(line)
        elif now - self._printed >= INTERVAL:
            self._printed = now
            self._console.print(line)

    def describe(self, cycles, seconds):
        """The line."""
        rate = cycles / max(seconds, 1e-9)
        done = min(cycles / self._estimate, 0.99)
        left = max(0, self._estimate - cycles) / max(rate, 1e-9)
        bar  = "━" * round(done * BAR)
        return (f"{bar:·<{BAR}} {done:4.0%}  {cycles / 1e6:.2f} M cycles  {rate / 1e3:.0f} "
                f"kcycles/s  {left:.0f} s left")
