"""What the importer says about a file that it cannot take."""

from golden.errors import InputError
from golden.places import COMMAND


class Refused(InputError):
    """Nodes cannot run; ``reasons`` has one line for each, with the nearest rewrite that would, and
    ``share``, if it is known, says how much of the network would run as it is.

    The message is the first of them, and how many more there are.
    """

    def __init__(self, path, reasons, share=None):
        more = len(reasons) - 1
        super().__init__(f"{path}: {reasons[0]}" + (
            f" ({more} more; `{COMMAND} check-model` lists them)" if more else ""))
        self.path, self.reasons, self.share = path, tuple(reasons), share

    @property
    def lines(self):
        """All that there is to say, a line each."""
        return f"{self.path} does not run", *self.reasons, *([self.share] if self.share else [])


class Refusal(Exception):
    """One node cannot run, for a reason; ``rewrite`` is the nearest that would. ``node`` is None
    if it is the one that is being read."""

    def __init__(self, reason, rewrite, node=None):
        super().__init__(f"{reason}; {rewrite}")
        self.node = node
