"""What a person may name; nothing here takes long to import."""

from sim.errors import SimulationError

__all__ = ["FUZZ_ENGINES", "SIMULATORS", "demand_simulator"]

SIMULATORS   = ("verilator", "icarus")
FUZZ_ENGINES = ("rtl", "interpreter")


def demand_simulator(name):
    """Refuse a name that no simulator has.

    Raises
    ------
    SimulationError
    """
    if name not in SIMULATORS:
        raise SimulationError(f"Unknown simulator {name!r}; known are {', '.join(SIMULATORS)}")
