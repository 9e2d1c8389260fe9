"""What command lines share: bad input is one line and exit code 2."""

import argparse
import sys

from golden.errors import InputError

__all__ = ["Parser", "exit_code"]


class Parser(argparse.ArgumentParser):
    """Complains in one line; its help is the module's docstring as it stands."""

    def __init__(self, module, text):
        super().__init__(prog=f"python -m {module}", description=text,
                         formatter_class=argparse.RawDescriptionHelpFormatter)

    def error(self, message):
        raise InputError(f"{message}; see `make help`")


def exit_code(command, arguments, *refusals):
    """What ``command(arguments)`` returns, 0 for None; or 2 after one line that says why it could
    not be done. ``refusals`` are exceptions that say so as :class:`InputError` does."""
    try:
        return command(arguments) or 0
    except (InputError, *refusals) as error:
        reason = error
    except OSError as error:
        reason = f"{error.filename or 'system'}: {error.strerror or error}"
    except KeyboardInterrupt:
        reason = "interrupted"
    print(f"error: {reason}", file=sys.stderr)
    return 2
