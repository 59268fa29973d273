"""What the environment says: `.env` files, settings, mostly keys, that a folder gives to it; where the cache is."""

import io
import os
from collections.abc import Iterable

from dataflow_grounding.errors import SpecError, told_as
from dataflow_grounding.terminal import say

_told: set[str] = set()


def cache_folder() -> str:
    """`dataflow-grounding` in `XDG_CACHE_HOME`, or in `~/.cache`."""
    home = os.environ.get("XDG_CACHE_HOME", "")
    folder = home if os.path.isabs(home) else os.path.expanduser(os.path.join("~", ".cache"))
    return os.path.join(folder, "dataflow-grounding")


def read_env_files(folders: Iterable[str] = (".",)) -> list[str]:
    """Add what each folder's `.env` sets and the environment doesn't; returns the files found. Raises SpecError."""
    found = list(filter(os.path.isfile, (os.path.join(folder, ".env") for folder in dict.fromkeys(folders))))
    for path in found:
        from dotenv import load_dotenv

        load_dotenv(stream=io.StringIO(_readable(path)), override=False)
    return found


def _readable(path: str) -> str:
    """The file without the lines that set nothing, each of which is told once, but not what it holds."""
    from dotenv.parser import parse_stream

    with told_as(SpecError, f"can't read {path}"), open(path, "rb") as file:
        data = file.read()
    at = data.find(b"\0")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        at = error.start
    if at >= 0:
        line = data.count(b"\n", 0, at) + 1
        raise SpecError(f"can't read {path}, line {line}: it is not a text in UTF-8; save it as one")
    kept = ""
    for binding in parse_stream(io.StringIO(text)):
        said = binding.original.string
        line = binding.original.line + said.count("\n", 0, -len(said.lstrip()))
        if not binding.error:
            kept += said
        elif (place := f"{os.path.realpath(path)}:{line}") not in _told:
            _told.add(place)
            say(f"Warning: {path}, line {line} is passed over: it should be NAME=value, quotes closed")
    return kept
