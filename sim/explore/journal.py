"""What is known already, on disk: a line of JSON for each machine, written when it is known."""

import fcntl
import json
import os
from contextlib import suppress
from pathlib import Path

from golden.errors import InputError
from golden.places import COMMAND

__all__ = ["Journal"]

NAME = "journal.jsonl"


class Journal:
    """The journal in a folder, begun or gone on with; a context manager that keeps others out.

    Its first line is ``head``: a dictionary with the hashes of ``space`` and ``sources``, and the
    ``name`` of the space and its ``network`` for people. A line that a killed process left
    unfinished is forgotten, and so is a journal in which nothing was written.

    Raises
    ------
    InputError
        If there is one of another space or of other sources, or another process writes it.
    """

    def __init__(self, folder, head):
        self.path, self._head = Path(folder) / NAME, head
        self.rows, self.certified = {}, {}

    def __enter__(self):
        self._made = not self.path.parent.exists()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self.path.open("ab+")
        try:
            self._lock()
            self._read()
        except BaseException:
            self._file.close()
            raise
        return self

    def __exit__(self, *_):
        if not self.rows:           # nothing is lost with it
            self.path.unlink(missing_ok=True)
            if self._made:
                with suppress(OSError):
                    self.path.parent.rmdir()
        self._file.close()

    def add(self, number, found):
        """Remember what was found of a machine."""
        self.rows[number] = found
        self._write({"machine": number, **found})

    def certify(self, number, differences):
        """Remember in what the RTL contradicted the model: nothing, or sentences."""
        self.certified[number] = differences
        self._write({"certified": number, "differences": differences})

    def _write(self, line):
        os.write(self._file.fileno(), json.dumps(line, separators=(",", ":")).encode() + b"\n")

    def _lock(self):
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"{self.path} is being written by another {COMMAND} explore; wait for "
                             "it, or name another folder with OUT") from None

    def _read(self):
        self._file.seek(0)
        data  = self._file.read()
        whole = data[:data.rfind(b"\n") + 1]
        begin = json.dumps(self._head).encode() + b"\n"
        if not whole and begin.startswith(data):
            self._file.truncate(0)
            os.write(self._file.fileno(), begin)
            return
        try:
            head, *lines = map(json.loads, whole.splitlines())
            space, known, *names = (head[key] for key in ("space", "sources", "name", "network"))
            for line in lines:
                if "certified" in line:
                    self.certified[line["certified"]] = line["differences"]
                else:
                    self.rows[line.pop("machine")] = line
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise InputError(f"{self.path} is no journal of {COMMAND} explore; name another folder "
                             "with OUT") from None
        if space != self._head["space"]:
            raise InputError(f"{self.path} is the journal of another space ({', '.join(names)}); "
                             "name another folder with OUT, or remove it")
        if known != self._head["sources"]:
            raise InputError(f"{self.path} was measured with other sources of machine, compiler or "
                             "model; name another folder with OUT, or remove it")
        self._file.truncate(len(whole))
