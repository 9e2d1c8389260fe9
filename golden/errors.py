"""What golden says when it is given something that it cannot use."""

__all__ = ["InputError", "shown"]


class InputError(ValueError):
    """An input is unusable; the message is one line that names the cause and a way out."""


def shown(name):
    """A name as it stands, unless it would break the line or the terminal: then quoted."""
    text = str(name)
    return text if text.isprintable() else repr(text)
