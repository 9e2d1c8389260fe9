"""Where things are: the project's own files, and what it makes.

In a checkout everything that is made stays in it. Where the project was installed with pip, what is
built stays in the user's cache, and reports go into the folder that one is in.
"""

import os
from pathlib import Path

__all__ = ["CACHE", "CHECKOUT", "COMMAND", "HOME", "ROOT", "SETUP", "typed"]

ROOT     = Path(__file__).resolve().parents[1]      # golden, hw, sim and attune are in it
CHECKOUT = (ROOT / "constraints.txt").is_file()
HOME     = ROOT if CHECKOUT else Path.cwd()
CACHE    = ROOT / ".build" if CHECKOUT else Path(
    os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "attune"
COMMAND  = "make" if CHECKOUT else "attune"         # what a person types
SETUP    = "`make setup` installs" if CHECKOUT else "the system's package manager has"


def typed(path):
    """A path as one would type it here."""
    path = Path(path).resolve()
    return str(path.relative_to(HOME) if path.is_relative_to(HOME) else path)
