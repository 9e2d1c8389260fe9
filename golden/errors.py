"""What golden says when it is given something that it cannot use."""

__all__ = ["InputError"]


class InputError(ValueError):
    """An input is unusable; the message is one line that names the cause and a way out."""
