"""What a misspelt word was meant to be, for messages."""

import difflib
import os
from collections.abc import Iterable


def nearest(word: str, known: Iterable[str], least: float = 0.6) -> str:
    """Return `; is it 'WORD'?` or nothing; `least` is how similar it has to be, from 0 to 1."""
    by_lower = {name.lower(): name for name in known}
    close = difflib.get_close_matches(word.lower(), list(by_lower), 1, least)
    return f"; is it {by_lower[close[0]]!r}?" if close else ""


def nearest_file(path: str) -> str:
    """Return the same for a file that isn't there: `; is it 'rows.jsonl'?`, from its folder."""
    folder, name = os.path.split(path)
    try:
        names = os.listdir(folder or ".")
    except (OSError, ValueError):  # ValueError: no file can be called so
        return ""
    return nearest(name, names, 0.75)
