"""What a misspelt word was meant to be, for messages."""

import difflib
from collections.abc import Iterable


def nearest(word: str, known: Iterable[str], least: float = 0.6) -> str:
    """Return the end of a message about an unknown word, `; is it 'WORD'?`, or "" for none near.
    `least` is a similarity as difflib counts it.
    """
    by_lower = {name.lower(): name for name in known}
    close = difflib.get_close_matches(word.lower(), list(by_lower), 1, least)
    return f"; is it {by_lower[close[0]]!r}?" if close else ""
