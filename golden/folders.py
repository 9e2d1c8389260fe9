"""Folders that are complete or not there: what a command writes, and what it needs meanwhile."""

import ctypes
import errno
import fcntl
import os
import shutil
import tempfile
import time
from contextlib import contextmanager, suppress
from fnmatch import fnmatch
from pathlib import Path

from golden.errors import InputError

__all__ = ["Fresh", "temporary"]

YOUNG    = 60       # seconds in which a folder may still be without its lock
AT_CWD   = -100
EXCHANGE = 2        # of renameat2(2)
FULL     = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def temporary(parent, prefix):
    """A folder in ``parent`` for as long as the block lasts.

    Its owner holds a lock on it: what one that was killed has left of the same ``prefix``, the next
    one removes.
    """
    parent = Path(parent)
    for stale in parent.glob(f"{prefix}*"):
        _remove_stale(stale)
    folder = Path(tempfile.mkdtemp(dir=parent, prefix=prefix))
    lock   = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _remove_stale(folder):
    with suppress(OSError):
        if time.time() - folder.stat().st_mtime < YOUNG:
            return
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)    # refused while its owner lives
            shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(lock)


class Fresh:
    """A folder that is written beside ``place``, and takes its place when the block ends well.

    Where the block fails, ``place`` is what it was before. What an earlier command left there goes,
    all of it, so that nothing of two runs is ever mixed: it must consist of ``known`` names
    (patterns), and anything else is refused before the block, unless the folder is ``shared``: then
    files are moved into it one by one. With ``replace`` false another name is taken where one is
    taken already. After the block, ``place`` is where the folder is.

    Raises
    ------
    InputError
        If it cannot be written there; or while it is, for want of space.
    """

    def __init__(self, place, known, *, shared=False, replace=True):
        self.place = Path(place)
        self._known, self._shared, self._replace = known, shared, replace

    def __enter__(self):
        self._made = []
        try:
            self._check()
            place  = self.place.resolve()
            parent = place if self._shared and place.is_dir() else place.parent
            self._made = [folder for folder in (parent, *parent.parents) if not folder.exists()]
            if not (self._made[-1].parent if self._made else parent).is_dir():
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
            parent.mkdir(parents=True, exist_ok=True)
            self._scratch = temporary(parent, ".attune-")
            self._outer   = self._scratch.__enter__()
            self._folder  = self._outer / "new"
            self._folder.mkdir()
        except OSError as error:
            self._forget()
            raise InputError(f"{self.place}: {error.strerror}; name another folder with "
                             "OUT") from None
        return self._folder

    def __exit__(self, kind, error, trace):
        try:
            if kind is None:
                self._swap()
            elif isinstance(error, OSError) and self._is_ours(error):
                raise InputError(self._reason(error)) from None
        except OSError as late:
            raise InputError(self._reason(late)) from None
        finally:
            self._scratch.__exit__(None, None, None)
            self._forget()

    def _check(self):
        if self.place.exists() and not self.place.is_dir():
            raise InputError(f"{str(self.place)!r} is a file; name a folder with OUT")
        if self._shared or not self._replace or not self.place.is_dir():
            return
        foreign = sorted(path.name for path in self.place.iterdir()
                         if not any(fnmatch(path.name, name) for name in self._known))
        if foreign:
            raise InputError(f"{str(self.place)!r} holds {foreign[0]!r}, which is no output of "
                             "this command and would be lost; name another folder with OUT")

    def _swap(self):
        self._folder.chmod(0o755)
        place = self.place.resolve()
        if self._shared and place.is_dir():
            for path in self._folder.iterdir():
                path.replace(place / path.name)
        elif self._replace:
            self._exchange(place)
        else:
            count = 1
            while not self._rename(place):
                count += 1
                place = self.place.resolve().with_name(f"{self.place.name}-{count}")
            self.place = self.place.with_name(place.name)

    def _exchange(self, place):
        """The new folder for the old one, in one step where the system can."""
        if self._rename(place):
            return
        self._check()           # once more: who knows what has come in the meantime
        try:
            swapped = not ctypes.CDLL(None, use_errno=True).renameat2(
                AT_CWD, os.fsencode(self._folder), AT_CWD, os.fsencode(place), EXCHANGE)
        except (AttributeError, OSError):
            swapped = False
        if not swapped:
            place.rename(self._outer / "old")
            self._folder.rename(place)

    def _rename(self, place):
        """Whether nothing was there."""
        try:
            self._folder.rename(place)
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                return False
            raise
        return True

    def _is_ours(self, error):
        return error.errno in FULL or str(error.filename or "").startswith(str(self._outer))

    def _reason(self, error):
        return f"{self.place}: {error.strerror or error}; nothing was written there"

    def _forget(self):
        """Folders that were made for this one alone."""
        for folder in self._made:
            with suppress(OSError):
                folder.rmdir()
