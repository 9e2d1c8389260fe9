"""Why a network decided so: maps of what its mask depends on, on one sheet. ``make explain``."""

from golden.explain.lime import Lime, Surrogate
from golden.explain.maps import Explanation, Hidden, Occlusion, explain
from golden.explain.probe import Probe, Score
from golden.explain.words import sentences

__all__ = ["Explanation", "Hidden", "Lime", "Occlusion", "Probe", "Score", "Surrogate", "explain",
           "sentences"]
