"""What a person may name; nothing here takes long to import."""

from sim.errors import SimulationError

__all__ = ["BOARD", "ENGINES", "FUZZ_ENGINES", "RUN_ENGINES", "SIMULATORS", "demand_simulator"]

SIMULATORS   = ("verilator", "icarus")
ENGINES      = ("rtl", "model", "golden")
BOARD        = "board"
RUN_ENGINES  = (*ENGINES, BOARD)        # of `make sim`, which knows the board's line
FUZZ_ENGINES = ("rtl", "interpreter")


def demand_simulator(name):
    """Refuse a name that no simulator has.

    Raises
    ------
    SimulationError
    """
    if name not in SIMULATORS:
        raise SimulationError(f"Unknown simulator {name!r}; known are {', '.join(SIMULATORS)}")
