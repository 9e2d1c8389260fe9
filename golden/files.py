"""Files that a person names."""

from golden.errors import InputError

__all__ = ["check_file"]


def check_file(path, what="one image in it"):
    """Refuse what is no plain file: pipes and devices would be waited for, or never end."""
    if path.is_dir():
        raise InputError(f"{str(path)!r} is a folder; name {what}")
    if path.exists() and not path.is_file():
        raise InputError(f"{str(path)!r} is a pipe or a device; name a file")
