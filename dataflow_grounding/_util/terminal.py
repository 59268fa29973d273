"""The one way to the terminal: without secrets, and without a terminal's commands.

`say` prints for people, on standard error. `say_json` and `say(…, err=False)` print answers, on
standard output. A live line on how far work is stays the last one.
"""

import json
import os
import re
import sys
import time
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from typing import Any, TextIO

from dataflow_grounding._util.secrets import blotted, blotted_message

# Characters that command a terminal, or confuse its reader: C0 (but tab and newline), DEL, C1,
# marks that turn a line's direction, line separators, halves of surrogate pairs.
_CONTROL_CHARACTERS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
_shown_as: dict[str, str] = {}  # the address that is shown, by folder
_answers: TextIO | None = None  # the real standard output, within the block of `only_answers`


@contextmanager
def only_answers() -> Iterator[None]:
    """Keep standard output to what this module says in the block; other output goes to stderr."""
    global _answers
    _answers = sys.stdout
    sys.stdout = sys.stderr
    try:
        yield
    finally:
        sys.stdout = _answers
        _answers = None


def shown(text: str, lines: bool = True) -> str:
    """Return a text without secrets, `\\x1b` for an escape character; one line without `lines`."""
    text = addressed(blotted_message(text))
    if text.isprintable():
        return text
    if not lines:
        text = text.replace("\n", "\\n")
    return _CONTROL_CHARACTERS.sub(
        lambda command: command[0].encode("unicode_escape").decode(), text
    )


def show_as(folder: str, address: str) -> None:
    """Have a folder of this machine, and what is in it, shown as an address from now on."""
    # Three ways to write the folder: as it is in messages; in JSON, with quotes and backslashes
    # escaped; and in JSON of ASCII alone, with other letters escaped, too.
    in_json = json.dumps(folder, ensure_ascii=False)[1:-1]
    in_ascii_json = json.dumps(folder)[1:-1]
    for text in (folder, in_ascii_json, in_json):
        _shown_as[text] = address


def addressed(text: str) -> str:
    """Return a text in which folders that `show_as` was told of are their addresses."""
    for folder, address in _shown_as.items():
        if folder in text:
            # The folder stays before `/.ckpt` and `/shards/1-of-2/.ckpt`, which are this machine's,
            # and in an address that a browser is to open.
            folder_to_replace = rf"(?<!file://){re.escape(folder)}(?!(?:/shards/[^/]+)?/\.ckpt)"
            # An address is put in as it is: `re.sub` would interpret its backslashes.
            text = address.join(re.split(folder_to_replace, text))
    return text


def quoted(path: str) -> str:
    """Return a path between quotes, with its backslashes as they are: `repr` would double them."""
    return repr(path).replace("\\\\", "\\")


def say(text: str, *, err: bool = True) -> None:
    """Print a text for people, as `shown` returns it."""
    _print(shown(text), err)


# A list of numbers in JSON that was written with an indent, each number on a line of its own. It
# can't be within a text, where line breaks are escaped.
_LIST_OF_NUMBERS = re.compile(r"\[\n *(-?\d[\d.e+-]*(?:,\n *-?\d[\d.e+-]*)*)\n *\]")


def say_json(value: Any, indent: int | None = None) -> None:
    """Print JSON for programs on standard output; dataclasses are objects of their fields."""
    standard_output = _answers or sys.stdout
    # In another encoding, such as Latin-1, not all characters can be written.
    only_ascii = not str(standard_output.encoding).lower().startswith("utf")
    encoder = json.JSONEncoder(ensure_ascii=only_ascii, indent=indent, default=asdict)
    # without secrets, but for those that may be a word of a caption (`is_no_word`)
    text = addressed(blotted(encoder.encode(value)))
    text = _CONTROL_CHARACTERS.sub(lambda command: f"\\u{ord(command[0]):04x}", text)
    # with an indent, a list of numbers still takes only one line
    _print(_LIST_OF_NUMBERS.sub(lambda numbers: f"[{' '.join(numbers[1].split())}]", text))


def counted(number: int, thing: str) -> str:
    """Return a number with its noun in the right form: `1 record`, `1,200 replies`, `0 boxes`."""
    if number == 1:
        return f"{number:,} {thing}"
    if thing.endswith("y"):
        return f"{number:,} {thing[:-1]}ies"
    if thing.endswith("x"):
        return f"{number:,} {thing}es"
    return f"{number:,} {thing}s"


def in_columns(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield the rows of a table as lines: the first column aligned left, the others right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for name, *numbers in rows:
        cells = [name.ljust(widths[0])]
        for number, width in zip(numbers, widths[1:], strict=True):
            cells.append(number.rjust(width))
        yield "  ".join(cells)


MOST_ITEMS = 3  # that `counted_items` shows


def counted_items(what: str, items: list[str]) -> list[str]:
    """Return one line that counts items and shows the first ones; none without items."""
    if not items:
        return []
    first = "; ".join(items[:MOST_ITEMS])
    if len(items) > MOST_ITEMS:
        first += "; ..."
    return [f"{what}: {len(items)} ({first})"]


_PARTICULARS = re.compile(r"'[^']*'|\"[^\"]*\"|\d+")


def grouped(messages: Sequence[str], most: int = 3) -> list[str]:
    """Return at most `most` messages of each kind; the last one says how many more are like it."""
    counts: Counter[str] = Counter()
    returned: list[str] = []
    index_of_last: dict[str, int] = {}  # by kind, of its last message in `returned`
    for message in messages:
        kind = _PARTICULARS.sub("", message)  # all but quoted text and numbers
        counts[kind] += 1
        if counts[kind] <= most:
            index_of_last[kind] = len(returned)
            returned.append(message)
    for kind, index in index_of_last.items():
        if counts[kind] > most:
            returned[index] += f" … and {counts[kind] - most:,} more like it"
    return returned


LINE_EVERY = 10.0  # seconds between two lines that say how far work is
LIVE_EVERY = 0.25  # seconds between changes of a live line
USUAL_COLUMNS = 80  # of a terminal that doesn't tell its width

_live: "list[LiveLine]" = []  # the line that is shown, if any


class LiveLine:
    """The last line of a terminal's standard error; what is said meanwhile comes above it."""

    @classmethod
    def on_terminal(cls) -> "LiveLine | None":
        """Return a live line; None where standard error is no terminal that can write over one."""
        return cls() if sys.stderr.isatty() and os.environ.get("TERM") != "dumb" else None

    def show(self, title: str, parts: Sequence[str], needed: int = 1) -> None:
        """Show what there is room for; the first `needed` parts matter more than the title."""
        _live[:] = [self]  # so that `_print` clears it before it prints
        columns = _columns_of_terminal()
        text = f"{shown(title, lines=False)} {parts[0]}"
        rest_of_needed = "".join(f", {part}" for part in parts[1:needed])
        # The last column stays free: some terminals wrap there.
        if _columns_of(text) + len(rest_of_needed) >= columns:
            text = parts[0][: columns - 1]  # without the title
        for part in parts[1:]:
            with_part = f"{text}, {part}"
            if _columns_of(with_part) >= columns:
                break
            text = with_part
        self.write(text)

    def end(self) -> None:
        _live.clear()
        self.write("")

    def write(self, text: str) -> None:
        """Write a text over the line; an empty one clears it."""
        sys.stderr.write(f"\r\x1b[K{text}")
        sys.stderr.flush()


@contextmanager
def progress(
    title: str, total: int | None = None, silent: bool = False
) -> Iterator[Callable[[int], None]]:
    """Yield a function that takes how many records are done, and says so now and then."""
    if silent or sys.stderr is None:
        yield lambda done: None
        return
    live = LiveLine.on_terminal()
    interval = LIVE_EVERY if live else LINE_EVERY
    last_said = time.monotonic()

    def tell(done: int) -> None:
        nonlocal last_said
        now = time.monotonic()
        if now - last_said < interval:
            return
        last_said = now
        records = f"{done:,} records" if total is None else f"{done:,}/{total:,} records"
        if live:
            live.show(f"{title}:", [records])
        else:
            say(f"{title}: {records}")

    try:
        yield tell
    finally:
        if live:
            live.end()


def _columns_of_terminal() -> int:
    columns = 0
    with suppress(OSError):
        columns = os.get_terminal_size(sys.stderr.fileno()).columns
    return columns or USUAL_COLUMNS  # some terminals tell 0


def _columns_of(text: str) -> int:
    """A Chinese character takes two, a combining accent none."""
    if text.isascii():
        return len(text)
    columns = 0
    for character in text:
        if unicodedata.east_asian_width(character) in "WF":  # wide, full width
            columns += 2
        elif not unicodedata.combining(character):
            columns += 1
    return columns


def _print(text: str, err: bool = False) -> None:
    import click

    # A live line is cleared. It comes back the next time that its `show` is called.
    for line in _live:
        line.write("")
    # Within the block of `only_answers`, sys.stdout leads to standard error. Else `_answers` is
    # None, and `echo` takes sys.stdout.
    click.echo(text, None if err else _answers, err=err)  # noqa: TID251
