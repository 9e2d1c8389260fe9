"""What the compiler says when it cannot compile."""


class CompileError(ValueError):
    """A network does not fit the machine; the message names the cause and a way out."""


class NoRoom(CompileError):
    """A memory is too small for what a plan keeps in it. ``wanted`` did not fit beside ``live``,
    all of them names of blocks; ``alone`` says that it would hardly fit an empty memory."""

    def __init__(self, message, *, wanted, live, alone):
        super().__init__(message)
        self.wanted, self.live, self.alone = wanted, live, alone
