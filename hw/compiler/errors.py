"""What the compiler says when it cannot compile."""


class CompileError(ValueError):
    """A network does not fit the machine; the message names the cause and a way out."""
