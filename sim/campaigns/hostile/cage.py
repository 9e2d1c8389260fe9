"""A cage: runs a function in a process of its own, with limits, and watches what it writes.

The process is forked, so that everything imported is warm and nothing that happens in it reaches
the next one. Within it memory, processor time and files are limited; Python's audit events tell
which paths are opened for writing, which programs started and which names unpickled; and where the
kernel has Landlock, writing outside the two folders that are allowed fails, whoever does it.
"""

import ctypes
import faulthandler
import io
import json
import os
import resource
import select
import signal
import struct
import sys
import tempfile
import time
import traceback
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import asdict, dataclass
from pathlib import Path

__all__ = ["LIMITS", "Limits", "Outcome", "Wrong", "caged", "has_landlock", "state"]

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446     # system calls, on all of Linux
RULE_PATH_BENEATH, NO_NEW_PRIVILEGES, ABI = 1, 38, 1
# Rights of Landlock: write and truncate files; remove and make anything; of ABI 1, 2 and 3.
WRITE_FILE = 1 << 1
RIGHTS     = (sum(1 << bit for bit in (1, *range(4, 13))), 1 << 13, 1 << 14)

WRITING  = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
CHANGING = {"os.mkdir": 1, "os.rmdir": 1, "os.remove": 1, "os.rename": 2, "os.link": 2,
            "os.symlink": 2, "os.truncate": 1, "os.chmod": 1, "os.chown": 1, "os.utime": 1,
            "os.mkfifo": 1}     # audit event -> how many of its first arguments are paths
WITHIN   = ("os.mkdir", "os.rmdir", "os.remove")        # their last argument is a folder, or -1
STARTING = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn",
            "socket.connect")
HELPERS  = ("fold_worker", "shape_worker")      # programs of ours, which inherit all limits
REPORTED = 12                   # seconds in which a process that was told to stop must tell where
POLLED   = 1                    # seconds between looks at whether a process still works


class Wrong(BaseException):
    """Something was accepted, and what came of it is wrong; the message says how. No command line
    catches it as a fault of its own."""


@dataclass(frozen=True)
class Limits:
    """What one file may take: seconds of processor time, seconds asleep without any, bytes of
    address space, and bytes of any file that it writes."""
    seconds: int = 20
    wall:    int = 60
    memory:  int = 4 * 2**30
    written: int = 2**28


LIMITS = Limits()


@dataclass(frozen=True)
class Outcome:
    """How it went: ``accepted``, ``refused`` with its ``line``, or a fault.

    Faults are ``traceback``, ``hang``, ``memory``, ``died`` (killed by the system), ``write``
    (outside its folders), ``started`` (a program, a connection, or code of a pickle), ``untidy``
    (a refusal of no or several lines, or that left something) and ``wrong``. ``log`` is all that
    there is to see. ``peak`` is in bytes, ``seconds`` of processor time.
    """
    kind:    str
    line:    str   = ""
    log:     str   = ""
    peak:    int   = 0
    seconds: float = 0.0

    @property
    def is_fault(self):
        return self.kind not in ("accepted", "refused")


def caged(jobs, limits=LIMITS):
    """Yield the :class:`Outcome` of every job in turn. A job is ``(command, folder)``, where
    ``command()`` is a command line: it returns its exit code and, where that is 2, prints one line
    that begins with ``error:`` to standard error.

    It runs in ``folder`` and may write below its ``out`` and ``tmp``, no more. What a refusal
    finds in ``out`` it leaves as it is, and nothing else; ``tmp`` is empty at the end. Jobs share
    a process until one of them fails; the next has a fresh one.
    """
    jobs = [(command, Path(folder).resolve()) for command, folder in jobs]
    for _, folder in jobs:
        for name in ("out", "tmp"):
            (folder / name).mkdir(exist_ok=True)
    while jobs:
        reader, writer = os.pipe()
        process = os.fork()
        if not process:
            os.close(reader)
            try:
                _inside(jobs, limits, writer)
            finally:
                os._exit(70)
        os.close(writer)
        heard = bytearray()
        while jobs:
            answer, late = _heard(reader, heard, process, limits)
            _, folder = jobs.pop(0)
            if answer:
                outcome = Outcome(**json.loads(answer))
                yield outcome
            if not answer or outcome.is_fault:
                break
        os.close(reader)
        _, status, used = os.wait4(process, 0)
        if not answer:
            yield _ended(late, status, folder, used)


def has_landlock():
    """Whether the kernel can forbid writing."""
    return _system(CREATE_RULESET, None, 0, ABI) > 0


def state(folder):
    """What lies in a folder, and of files how large, and when they were changed."""
    return {str(path): () if path.is_dir() else (path.lstat().st_size, path.lstat().st_mtime_ns)
            for path in folder.rglob("*")}


def _heard(reader, heard, process, limits):
    """The next line that the process tells, if any, and whether it had to be stopped; ``heard`` is
    what was read beyond the last one."""
    late, idle = False, time.monotonic()
    work = _worked(process)
    while b"\n" not in heard:
        ready, _, _ = select.select([reader], [], [], POLLED)
        if not ready:
            before, work = work, _worked(process)
            if work != before:      # it waits for a processor, if for anything
                idle = time.monotonic()
            if time.monotonic() - idle > limits.wall:
                os.kill(process, signal.SIGKILL if late else signal.SIGXCPU)
                late, idle = True, time.monotonic() - limits.wall + REPORTED
            continue
        part = os.read(reader, 1 << 16)
        if not part:
            return None, late
        heard += part
    line, _, rest = bytes(heard).partition(b"\n")
    heard[:] = rest
    return line, late


def _worked(process):
    """What changes while a process, or one that it started, gets on: the processor time of each,
    or that one is not asleep."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            how, parent, *rest = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue                # it has just ended
        number = int(stat.parent.name)
        if process in (number, int(parent)):
            found.append((number, rest[9:11], "" if how in "SDZ" else time.monotonic()))
    return found


def _ended(late, status, folder, used):
    """The outcome of a job whose process ended without a word."""
    where  = folder / "stack"
    stack  = where.read_text(errors="replace") if where.exists() else ""
    spent  = {"peak": used.ru_maxrss * 1024, "seconds": used.ru_utime + used.ru_stime}
    killed = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
    if late or killed == signal.SIGXCPU:
        return Outcome("hang", "did not end in time", stack, **spent)
    line = signal.Signals(killed).name if killed else f"exit code {os.WEXITSTATUS(status)}"
    return Outcome("died", line, stack, **spent)


def _inside(jobs, limits, writer):
    """In the forked process: run, judge and tell, job by job."""
    free = [folder / name for _, folder in jobs for name in ("out", "tmp")]
    seen = _watched(free)
    forbid_writing(free, [folder / name for _, folder in jobs for name in ("stack", "native")])
    for what, most in ((resource.RLIMIT_AS, limits.memory), (resource.RLIMIT_CORE, 0),
                       (resource.RLIMIT_FSIZE, limits.written)):
        resource.setrlimit(what, (most, most))
    nothing = os.open(os.devnull, os.O_RDWR)
    for command, folder in jobs:
        begun = time.process_time()
        resource.setrlimit(resource.RLIMIT_CPU, (int(begun) + limits.seconds + 1,
                                                 resource.RLIM_INFINITY))
        os.chdir(folder)
        tempfile.tempdir = os.environ["TMPDIR"] = str(folder / "tmp")
        with (folder / "stack").open("w") as stack, (folder / "native").open("w") as native:
            faulthandler.enable(stack)
            faulthandler.register(signal.SIGXCPU, stack, all_threads=True, chain=True)
            for target, source in ((0, nothing), (1, native.fileno()), (2, native.fileno())):
                os.dup2(source, target)
            del seen[:]
            kind, line, log = _tried(command, folder, seen, state(folder / "out"))
            faulthandler.unregister(signal.SIGXCPU)
            faulthandler.disable()
        outcome = Outcome(kind, " ".join(line.splitlines()), log,
                          resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
                          time.process_time() - begun)
        os.write(writer, json.dumps(asdict(outcome)).encode() + b"\n")
        if outcome.is_fault:
            break
    os._exit(0)


def _tried(command, folder, seen, before):
    out, err = io.StringIO(), io.StringIO()
    try:
        with redirect_stdout(out), redirect_stderr(err):
            code = command()
    except Wrong as error:
        return "wrong", str(error), traceback.format_exc()
    except BaseException as error:
        if seen:
            return *seen[0], traceback.format_exc()
        kind = ("memory" if isinstance(error, MemoryError)
                or "alloc" in str(error) and "memory" in str(error) else "traceback")
        return kind, f"{type(error).__name__}: {error}"[:300], traceback.format_exc()
    text  = err.getvalue()
    log   = out.getvalue() + text
    lines = text.splitlines()
    if seen:
        kind, line = seen[0]
        return kind, line, "\n".join(f"{a}: {b}" for a, b in seen) + "\n" + log
    left  = [path.read_text() for path in (folder / "tmp").glob("attune-fault-*")]
    if code not in (0, 1, 2):
        what = lines[1].strip() if len(lines) > 1 else text
        return "traceback", what or f"exit code {code}", "\n".join([log, *left])
    if strays := sorted(path.name for path in (folder / "tmp").iterdir()):
        return "write", f"left {', '.join(strays)[:100]} in the folder for temporary files", log
    if code in (0, 1):
        return "accepted", "", log
    told = [line for line in lines if line.startswith("error: ")]
    if len(told) != 1 or not told[0].removeprefix("error: ").strip():
        return "untidy", f"{len(told)} lines of error", log
    # What follows the line of a refusal in order are the reasons, indented.
    rest = lines[lines.index(told[0]) + 1:]
    if any(not line.startswith("  ") for line in rest) or "\x1b" in text:
        return "untidy", f"refused in {1 + len(rest)} lines", log
    if "Permission denied" in told[0]:
        return "write", told[0], log
    if "not enough memory" in told[0]:
        return "memory", told[0], log
    left = sorted(Path(path).name for path, _ in state(folder / "out").items() ^ before.items())
    if left:
        return "untidy", f"refused, and left or changed {', '.join(left[:3])}", log
    return "refused", told[0].removeprefix("error: "), log


def _watched(allowed):
    """A list that fills with what is written elsewhere, and what is started."""
    seen  = []
    roots = tuple(f"{path}/" for path in allowed)
    exact = {os.devnull, *map(str, allowed),
             *(str(path.with_name(name)) for path in allowed for name in ("stack", "native"))}

    def elsewhere(path, folder=-1):
        if not isinstance(path, (str, bytes, os.PathLike)):
            return False
        # With links followed, so that none leads out; from the folder that is open, if one is.
        base  = Path(f"/proc/self/fd/{folder}" if folder >= 0 else ".")
        where = os.path.realpath(base / os.fsdecode(path))
        return not where.startswith(roots) and where not in exact

    def watch(event, arguments):
        if event == "open":
            path, mode, flags = arguments
            writes = (isinstance(mode, str) and set("wax+") & set(mode)
                      or isinstance(flags, int) and flags & WRITING)
            if writes and elsewhere(path):
                seen.append(("write", f"opened {path!r} for writing"))
        elif event in CHANGING:
            paths = arguments[:CHANGING[event]]
            if event == "os.symlink":
                paths = paths[1:]       # to where it leads does not matter
            folder = arguments[-1] if event in WITHIN else -1
            for path in paths:
                if elsewhere(path, folder):
                    seen.append(("write", f"{event} of {path!r}"))
        elif event in STARTING and not any(name in str(arguments) for name in HELPERS):
            seen.append(("started", f"{event}: {str(arguments)[:100]}"))
        elif event == "pickle.find_class":
            seen.append(("started", f"unpickled {'.'.join(arguments)}"))

    sys.addaudithook(watch)
    return seen


def forbid_writing(folders, files=()):
    """From here on nothing is written but ``files``, what lies below ``folders``, and /dev/null."""
    abi = _system(CREATE_RULESET, None, 0, ABI)
    if abi <= 0:
        return
    for path in files:
        path.touch()
    rights  = sum(RIGHTS[:min(abi, len(RIGHTS))])
    of_file = rights & (WRITE_FILE | RIGHTS[2])
    handled = struct.pack("Q", rights)
    rules   = _system(CREATE_RULESET, handled, len(handled), 0)
    for path, granted in (*((path, rights) for path in folders),
                          *((path, of_file) for path in (*files, os.devnull))):
        place = os.open(path, os.O_PATH)
        rule  = struct.pack("=Qi", granted, place)
        _system(ADD_RULE, rules, RULE_PATH_BENEATH, rule, 0)
        os.close(place)
    ctypes.CDLL(None).prctl(NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    _system(RESTRICT_SELF, rules, 0)
    os.close(rules)


def _system(number, *arguments):
    return ctypes.CDLL(None, use_errno=True).syscall(number, *arguments)
