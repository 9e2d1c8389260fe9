"""The exact cycle model: the machine without its data."""

from sim.model.compare import deviations, differences
from sim.model.engine import ModelEngine
from sim.model.kernel import ModelRun, prepare_model, run_model

__all__ = ["ModelEngine", "ModelRun", "deviations", "differences", "prepare_model", "run_model"]
