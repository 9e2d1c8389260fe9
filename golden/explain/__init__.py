"""Why a network decided so: maps of what its mask depends on, on one sheet. ``make explain``."""

from golden.explain.maps import Explanation, Occlusion, explain
from golden.explain.probe import Probe, Score

__all__ = ["Explanation", "Occlusion", "Probe", "Score", "explain"]
