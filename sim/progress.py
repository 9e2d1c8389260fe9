"""The one line that tells how far a simulation or a search is."""

import time

__all__ = ["CycleProgress", "MachineProgress"]

BAR      = 24
INTERVAL = 10.0       # seconds between lines where the terminal cannot overwrite one


class _Line:
    """Context manager; a terminal has one line that is redrawn, a file or pipe gets one now and
    then. ``what`` is done until the first is shown."""

    def __init__(self, console, what):
        self._console, self._what = console, what

    def __enter__(self):
        self._start   = time.monotonic()
        self._printed = self._start
        self._status  = self._console.status(self._what)
        if self._console.is_terminal:
            self._status.start()
        return self

    def __exit__(self, *_):
        self._status.stop()

    def _show(self, describe, *values):
        now  = time.monotonic()
        line = describe(*values, now - self._start)
        if self._console.is_terminal:
            self._status.update(line)
        elif now - self._printed >= INTERVAL:
            self._printed = now
            self._console.print(line)


class CycleProgress(_Line):
    """Context manager; call it with the cycles done. ``estimate`` is what 100 % means."""

    def __init__(self, console, estimate):
        super().__init__(console, "simulating")
        self._estimate = max(1, estimate)

    def __call__(self, cycles):
        self._show(self.describe, cycles)

    def describe(self, cycles, seconds):
        """The line."""
        rate = cycles / max(seconds, 1e-9)
        done = min(cycles / self._estimate, 0.99)
        left = max(0, self._estimate - cycles) / max(rate, 1e-9)
        return (f"{_bar(done)} {done:4.0%}  {cycles / 1e6:.2f} M cycles  {rate / 1e3:.0f} "
                f"kcycles/s  {left:.0f} s left")


class MachineProgress(_Line):
    """Context manager; call it with how many machines were measured now, and the best of
    ``objective`` so far. ``todo`` is what 100 % means."""

    def __init__(self, console, todo, objective):
        super().__init__(console, "measuring machines")
        self._todo, self._objective = max(1, todo), objective

    def __call__(self, count, best):
        self._show(self.describe, count, best)

    def describe(self, count, best, seconds):
        """The line."""
        rate  = count / max(seconds, 1e-9)
        done  = min(count / self._todo, 1)
        left  = (self._todo - count) / max(rate, 1e-9)
        found = "none yet" if best is None else f"{best:,.6g}" if best % 1 else f"{best:,.0f}"
        return (f"{_bar(done)} {done:4.0%}  {count} of {self._todo} machines  "
                f"{3600 * rate:,.0f} an hour  best {self._objective}: {found}  "
                f"{max(0, left):.0f} s left")


def _bar(done):
    return f"{'━' * round(done * BAR):·<{BAR}}"
