"""What command lines share: bad input is one line and exit code 2, a fault of ours is code 70."""

import argparse
import platform
import shlex
import signal
import sys
import tempfile
import threading
import traceback
from contextlib import contextmanager

from golden.errors import InputError, shown
from golden.places import COMMAND

__all__ = ["FAULT", "FILE_COLUMNS", "Parser", "exit_code", "make_console"]

SIGNALS = (signal.SIGTERM, signal.SIGHUP)
FAULT = 70      # EX_SOFTWARE of sysexits.h: neither a result (0, 1) nor a refusal (2)


FILE_COLUMNS = 160      # of a line where it is not on a terminal: no table breaks in a file


def make_console(**options):
    """A :class:`rich.console.Console` whose tables keep their shape in pipes, files and CI logs,
    where Rich takes 80 columns for granted."""
    from rich.console import Console
    made = Console(**{"highlight": False, **options})
    if not made.is_terminal:
        made.width = max(made.width, FILE_COLUMNS)
    return made


class Parser(argparse.ArgumentParser):
    """Complains in one line; its help is the module's docstring as it stands."""

    def __init__(self, module, text):
        super().__init__(prog=f"python -m {module}", description=text,
                         formatter_class=argparse.RawDescriptionHelpFormatter)

    def error(self, message):
        raise InputError(f"{message}; see `{COMMAND} help`")


def exit_code(command, arguments, *refusals):
    """What ``command(arguments)`` returns, 0 for None; or 2 after one line that says why it could
    not be done. ``refusals`` are exceptions that say so as :class:`InputError` does. Any other
    exception is a fault of the program: :data:`FAULT`, after a block that says how to report it.
    SIGTERM and SIGHUP end it as Ctrl-C does, so that nothing half-written stays."""
    try:
        with _ended_by_signals():
            return command(arguments) or 0
    except (InputError, *refusals) as error:
        reason = error
    except OSError as error:
        reason = f"{shown(error.filename or 'system')}: {error.strerror or error}"
    except MemoryError:
        reason = "not enough memory; take a smaller network or frame, or fewer frames"
    except KeyboardInterrupt as error:
        reason = str(error) or "interrupted"
    except Exception as error:
        print(_fault(command, arguments, error), file=sys.stderr)
        return FAULT
    print(f"error: {reason}", file=sys.stderr)
    return 2


@contextmanager
def _ended_by_signals():
    """Only the main thread may set handlers, and only there do they raise."""
    def end(number, _):
        for each in SIGNALS:
            signal.signal(each, signal.SIG_IGN)     # what follows cleans up
        raise KeyboardInterrupt(f"ended by {signal.Signals(number).name}")

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {each: signal.signal(each, end) for each in SIGNALS}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def _fault(command, arguments, error):
    """What a person is told of an exception that nobody foresaw. The traceback goes to a file, or
    follows where none can be written."""
    place  = traceback.extract_tb(error.__traceback__)[-1]
    module = getattr(command, "func", command).__module__       # of a partial, what it calls
    if module == "__main__":
        module = sys.modules[module].__spec__.name
    given  = sys.argv[1:] if arguments is None else arguments
    replay = shlex.join(["python", "-m", module, *map(str, given)])
    text   = (f"{replay}\nPython {platform.python_version()}, {platform.platform()}\n\n"
              + "".join(traceback.format_exception(error)))
    what   = " ".join(str(error).split())[:200]
    kind   = f"{type(error).__name__}: {what}" if what else type(error).__name__
    where  = f"{place.name}, line {place.lineno} of {place.filename.rpartition('/')[2]}"
    head   = ("fault: the program failed, and what it was given is not to blame\n"
              f"  {kind} ({where})\n")
    try:
        with tempfile.NamedTemporaryFile("w", prefix="attune-fault-", suffix=".txt",
                                         delete=False) as file:
            file.write(text)
    except OSError:
        return f"{head}  please report it with these lines and the files it was given\n{text}"
    return (f"{head}  please report it: attach {file.name} (command, versions, traceback)\n"
            "  and the files that the command was given")
