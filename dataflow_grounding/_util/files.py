"""The package's own files: names kept inside a folder, and files opened through no link.

A results folder may come from a stranger. Neither a name in one of its files nor a link in place of
a file makes a command write outside of it. Folders that are links are the user's way to another
disk, and stay.
"""

import errno
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from secrets import token_hex
from typing import IO, Any

from dataflow_grounding._util.errors import InputError

# Characters, within brackets of a pattern: those that end a line or command a terminal, and the
# backslash, which is `/` on another system.
_UNSAFE = r"\x00-\x1f\x7f\\\u2028\u2029"
# Names that could lead out of a folder: `/a`, `~/a`, `C:a`, `a/../b`, and any unsafe character.
_LEADS_OUT = re.compile(rf"^[/~]|^.:|[{_UNSAFE}]|(^|/)\.\.(/|$)")
# Names that Windows keeps for its devices, also with an ending: `aux`, `COM1.txt`.
_RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³])[ .]*(\..*)?", re.IGNORECASE)


def within(folder: str, name: object, of: str = "") -> str:
    """Return the path of a file in a folder, by a name that was read in some file or listing.

    Whether there is such a file isn't looked up.

    Args:
        folder: The folder, which the name must not leave.
        name: The name, with `/` between folders.
        of: The file that holds the name, for the error; "" names the folder.

    Raises:
        InputError: The name is no text, or could lead out of the folder here or on another system:
            an absolute path, a drive, `~`, `..`, a backslash, a line break.

    Example:
        >>> within("results", "step_0/annotations.jsonl")
        'results/step_0/annotations.jsonl'
    """
    if not isinstance(name, str) or not name or _LEADS_OUT.search(name):
        raise InputError(
            f"{of or folder}: {name!r:.200} is not the name of a file in that folder: take it out"
            " there"
        )
    return os.path.join(folder, name)


def portable(name: str) -> str:
    """Return a name that `within` takes, for a file that is called after something of a user's.

    It has `_` for what `within` or Windows refuses, and before what Windows keeps for its devices;
    slashes at its beginning are left out.

    Example:
        >>> [portable(name) for name in ("images/a.jpg", "../a\\n.jpg", "images/AUX.jpg", "~a")]
        ['images/a.jpg', '_/a_.jpg', 'images/_AUX.jpg', '_a']
    """
    parts = re.sub(f"""[{_UNSAFE}<>:"|?*]""", "_", name).split("/")
    path = "/".join(_portable_part(part) for part in parts)
    return re.sub("^~", "_", path.lstrip("/"))


def _portable_part(part: str) -> str:
    # A dot or blank at the end, which Windows leaves out, becomes `_`, too. "" and `.`, which say
    # nothing between slashes, stay.
    if part in ("", os.curdir):
        return part
    if part == os.pardir:
        return "_"
    part = re.sub("[. ]$", "_", part)
    return f"_{part}" if _RESERVED.fullmatch(part) else part


def new_file(path: str, mode: str = "wb", **how: Any) -> IO[Any]:
    """Open a new file to be written; a file or link at its path is removed before.

    `mode` and `how` are those of `open`. Raises OSError, also where another process has just made
    it.
    """
    with suppress(FileNotFoundError):
        os.unlink(path)
    return open(path, mode.replace("w", "x"), **how)


def locked_file(path: str) -> IO[str]:
    """Open a new file to be written that no other process writes meanwhile.

    It is locked where the file system has locks; not every one has. A file that a killed run has
    left there is removed. Raises OSError, also where another process is writing it.
    """
    remove_leftover(path)
    file: IO[str] = new_file(path, "w", encoding="utf-8", newline="\n")
    _lock(file, path)
    return file


def remove_leftover(path: str) -> None:
    """Remove a file that `locked_file` has opened in a run that was killed; it may be missing.

    Raises OSError, also where another process is writing it.
    """
    with suppress(FileNotFoundError):
        if stat.S_ISREG(os.lstat(path).st_mode):
            # The file is of a run that was killed, or of one at work: the latter holds the lock.
            with open(path, encoding="utf-8") as leftover:
                _lock(leftover, path)
                if not is_at(leftover, path):
                    raise _being_written(path)
                os.unlink(path)


def _lock(file: IO[str], path: str) -> None:
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise _being_written(path) from None
    except OSError:
        pass  # there are no locks here: the writer asks `is_at` in the end whose file it is


def _being_written(path: str) -> OSError:
    return OSError(errno.EBUSY, "another process is writing it", path)


def is_at(file: IO[str], path: str) -> bool:
    """Return whether an open file is still the one at its path, and no other was put there.

    False also where that can't be looked up.
    """
    with suppress(OSError):
        return os.path.samestat(os.fstat(file.fileno()), os.lstat(path))
    return False


def open_log(path: str, flags: int = os.O_WRONLY) -> int:
    """Open a file to be appended to, made where it is missing; return its descriptor.

    `flags` are those of `os.open`, to which more are added. A link is not followed: for one, and
    for any other reason, OSError is raised.
    """
    flags |= os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | getattr(os, "O_NOFOLLOW", 0)
    try:
        return os.open(path, flags, 0o644)
    except OSError as error:
        if error.errno == errno.ELOOP and os.path.islink(path):
            raise OSError(errno.ELOOP, "it is a link: put the file itself there", path) from None
        raise


@contextmanager
def whole_file(path: str, *, alone: bool = True) -> Iterator[IO[bytes]]:
    """Yield a file that is put at `path`, whole, when the block ends.

    If the block fails, nothing is left of it. Raises OSError.

    Args:
        path: Where it is put, in place of what is there.
        alone: Whether nobody else writes a file for the same path meanwhile. Otherwise each has a
            different name until then, and the last one stays.
    """
    part = f"{path}.part" if alone else f"{path}.{token_hex(4)}.part"
    file = new_file(part)
    try:
        with file:
            yield file
        os.replace(part, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(part)
        raise
