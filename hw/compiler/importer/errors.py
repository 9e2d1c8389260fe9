"""What the importer says about a file that it cannot take."""

from golden.errors import InputError


class Refused(InputError):
    """Nodes cannot run; ``reasons`` has one line for each, with the nearest rewrite that would.

    The message is the first of them, and how many more there are.
    """

    def __init__(self, path, reasons):
        more = len(reasons) - 1
        super().__init__(f"{path}: {reasons[0]}" + (
            f" ({more} more; `make check-model` lists them)" if more else ""))
        self.path, self.reasons = path, tuple(reasons)


class Refusal(Exception):
    """One node cannot run, for a reason; ``rewrite`` is the nearest that would. ``node`` is None
    if it is the one that is being read."""

    def __init__(self, reason, rewrite, node=None):
        super().__init__(f"{reason}; {rewrite}")
        self.node = node
