"""What a run says when it cannot be done."""

__all__ = ["SimulationError"]


class SimulationError(RuntimeError):
    """A simulation could not be built, or ended without a result; the message is one line."""
