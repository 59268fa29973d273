"""The package's own files: names kept inside a folder, and files opened through no link.

A results folder may come from a stranger. Neither a name in one of its files nor a link in place of
a file makes a command write outside of it. Folders that are links are the user's way to another
disk, and stay.
"""

import errno
import os
import re
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
    """Return a file's path by a name read somewhere. InputError where the name could lead out."""
    if not isinstance(name, str) or not name or _LEADS_OUT.search(name):
        raise InputError(
            f"{of or folder}: {name!r:.200} is not the name of a file in that folder: take it out"
            " there"
        )
    return os.path.join(folder, name)


def portable(name: str) -> str:
    """Return a name that `within` and Windows take, for a file called after something of a user."""
    # "_/b_/_" for "/~/b./.."
    parts = re.sub(f"""[{_UNSAFE}<>:"|?*]""", "_", name).split("/")
    path = "/".join(_portable_part(part) for part in parts)
    return re.sub("^~", "_", path.lstrip("/"))


def _portable_part(part: str) -> str:
    if part in ("", os.curdir):  # they lead nowhere: `a//b` and `a/./b` are `a/b`
        return part
    if part == os.pardir:
        return "_"
    part = re.sub("[. ]$", "_", part)  # Windows drops a dot or blank at the end
    return f"_{part}" if _RESERVED.fullmatch(part) else part


def new_file(path: str, mode: str = "wb", **how: Any) -> IO[Any]:
    """Open a new file to be written; a file or link at its path is removed before."""
    with suppress(FileNotFoundError):
        os.unlink(path)
    return open(path, mode.replace("w", "x"), **how)


def open_log(path: str, flags: int = os.O_WRONLY) -> int:
    """Open a file that isn't a link, made where it is missing, to append to it."""
    flags |= os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | getattr(os, "O_NOFOLLOW", 0)
    try:
        return os.open(path, flags, 0o644)
    except OSError as error:
        if error.errno == errno.ELOOP and os.path.islink(path):
            raise OSError(errno.ELOOP, "it is a link: put the file itself there", path) from None
        raise


@contextmanager
def whole_file(path: str, *, alone: bool = True) -> Iterator[IO[bytes]]:
    """Yield a file that is put at `path`, whole, at the end. Unless `alone`, several write it."""
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


def write_bytes(path: str, data: bytes, *, alone: bool = True) -> None:
    """Write a file whole or not at all; unless `alone`, the last of several writers wins."""
    with whole_file(path, alone=alone) as file:
        file.write(data)
