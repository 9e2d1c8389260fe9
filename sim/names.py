"""What a person may name; nothing here takes long to import."""

from sim.errors import SimulationError

__all__ = ["ENGINES", "FUZZ_ENGINES", "SIMULATORS", "demand_simulator"]

SIMULATORS   = ("verilator", "icarus")
ENGINES      = ("rtl", "model", "golden")
FUZZ_ENGINES = ("rtl", "interpreter")


def demand_simulator(name):
    """Refuse a name that no simulator has.

    Raises
    ------
    SimulationError
    """
    if name not in SIMULATORS:
        raise SimulationError(f"Unknown simulator {name!r}; known are {', '.join(SIMULATORS)}")
