"""The one way to the terminal: without secrets, and without characters that a terminal takes for
commands.
"""

import json
import os
import re
import sys
import time
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any, TextIO

from dataflow_grounding._util.secrets import blotted, blotted_message

# C0 (but tab and newline), DEL, C1, marks that turn a line's direction, line separators, halves of
# surrogate pairs.
_COMMANDS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
_answers: TextIO | None = None


@contextmanager
def answers_alone() -> Iterator[None]:
    """Standard output has nothing but what is said here; what other code prints (the user's) goes
    to standard error.
    """
    global _answers
    _answers, sys.stdout = sys.stdout, sys.stderr
    try:
        yield
    finally:
        sys.stdout, _answers = _answers, None


_NUMBERS = re.compile(r"\[\n *(-?\d[\d.e+-]*(?:,\n *-?\d[\d.e+-]*)*)\n *\]")
"""A list of numbers over several lines, which no JSON text holds: a box is easier to
read in one.
"""
_SPEC_KEY = re.compile(
    r"(?<![\w./\\-])(?:vlm|workflow|(?:image_\w+\.)?data)\.(?P<block>openai\.azure\.|openai\.|gemini\.|)(?P<name>"
    r"api_key|api_version|backend|base_url|box_formats?|budget_usd|check_every|endpoint|extra_body|extra_headers|"
    r"force_reprocess|max_requests|max_wait|media_resolution|model|model_name|on_suspect_boxes|prices|token_provider|"
    r"image_dir|kitti_label_dir|coco_json|yolo_label_dir|yolo_names)\b"
    r"(?:: (?P<value>null|calibrated|warn|stop|xyxy_1000)\b)?"
)
_ARGUMENTS = {"openai.base_url": "api_url", "openai.azure.endpoint": "azure_endpoint"}
"""Keys that Python doesn't call by their last part; those of labels lose `_label_dir`
or `_json`.
"""

speaks_of_specs: ContextVar[bool] = ContextVar("speaks_of_specs", default=False)
"""Whether a spec is read: its keys are then called as it has them, and elsewhere as Python's
arguments.
"""


def shown(text: str, lines: bool = True) -> str:
    """`text` as people may see it: secrets blotted out, `\\x1b` for an escape; its `lines` may
    stay, or be made one.
    """
    text = blotted_message(text)
    if not speaks_of_specs.get():
        text = _SPEC_KEY.sub(_as_argument, text)
    if text.isprintable():
        return text
    if not lines:
        text = text.replace("\n", "\\n")
    return _COMMANDS.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def _as_argument(found: re.Match[str]) -> str:
    """`vlm.box_format: calibrated` as `box_format='calibrated'`."""
    name = _ARGUMENTS.get(found["block"] + found["name"]) or re.sub(
        "_label_dir$|_json$", "", found["name"]
    )
    value = found["value"]
    return name if value is None else f"{name}={'None' if value == 'null' else repr(value)}"


def say(text: str, *, err: bool = True) -> None:
    """Print a text for people, on standard error unless told otherwise."""
    _print(shown(text), err)


def say_json(value: Any, indent: int | None = None) -> None:
    """Print a JSON value for programs on standard output: its data is as it is, written without
    such characters.
    """
    only_ascii = not str((_answers or sys.stdout).encoding).lower().startswith("utf")
    text = blotted(json.dumps(value, ensure_ascii=only_ascii, indent=indent))
    if indent is not None:
        text = _NUMBERS.sub(lambda found: f"[{' '.join(found[1].split())}]", text)
    _print(_COMMANDS.sub(lambda found: f"\\u{ord(found[0]):04x}", text))


def counted(number: int, thing: str) -> str:
    """`1 record`, `1,200 replies`."""
    several = (
        f"{thing[:-1]}ies"
        if thing.endswith("y")
        else f"{thing}{'es' if thing.endswith('x') else 's'}"
    )
    return f"{number:,} {thing if number == 1 else several}"


# seconds between two lines on how far work is, and between changes of a live one
LINE_EVERY, LIVE_EVERY = 10.0, 0.25

_live: "list[LiveLine]" = []


class LiveLine:
    """The last line of a terminal's standard error, which is written over; what is said meanwhile
    stands above it.
    """

    @classmethod
    def on_terminal(cls) -> "LiveLine | None":
        """One, where standard error is a terminal that can write over a line."""
        return cls() if sys.stderr.isatty() and os.environ.get("TERM") != "dumb" else None

    def show(self, title: str, parts: Sequence[str], needed: int = 1) -> None:
        """Write over it with as many of `parts` as the terminal has room for; the title is the
        first to be left out, where it leaves no room for the `needed` ones of them.
        """
        _live[:] = [self]
        columns = 80
        with suppress(OSError):
            columns = os.get_terminal_size(sys.stderr.fileno()).columns or columns
        text = f"{shown(title, lines=False)} {parts[0]}"
        needs = sum(len(part) + 2 for part in parts[1:needed])
        if _width(text) + needs >= columns:  # the last column stays free: some terminals wrap there
            text = parts[0][: columns - 1]
        for part in parts[1:]:
            if _width(text) + len(part) + 2 >= columns:
                break
            text += f", {part}"
        self.write(text)

    def end(self) -> None:
        """Take it away."""
        _live.clear()
        self.write("")

    def write(self, text: str) -> None:
        """Write over it; an empty text makes room for what is said."""
        sys.stderr.write(f"\r\x1b[K{text}")
        sys.stderr.flush()


@contextmanager
def telling(
    title: str, total: int | None = None, silent: bool = False
) -> Iterator[Callable[[int], None]]:
    """Tells how many records long work has done: on a terminal by a live line, else by a line every
    ten seconds.

    Args:
        title: What is done, as in "making the report".
        total: How many there are, if that is known.
        silent: Whether to say nothing at all.

    Yields:
        What is to be called with the number of records that are done, as often as one likes.
    """
    if silent or sys.stderr is None:
        yield lambda done: None
        return
    live, told_at = LiveLine.on_terminal(), time.monotonic()

    def tell(done: int) -> None:
        nonlocal told_at
        now = time.monotonic()
        if now - told_at < (LIVE_EVERY if live else LINE_EVERY):
            return
        told_at = now
        far = f"{done:,} records" if total is None else f"{done:,}/{total:,} records"
        if live:
            live.show(f"{title}:", [far])
        else:
            say(f"{title}: {far}")

    try:
        yield tell
    finally:
        if live:
            live.end()


def _width(text: str) -> int:
    if text.isascii():
        return len(text)
    return sum(
        2 if unicodedata.east_asian_width(c) in "WF" else not unicodedata.combining(c) for c in text
    )


def _print(text: str, err: bool = False) -> None:
    import click

    for line in _live:
        line.write("")
    click.echo(text, None if err else _answers, err=err)  # noqa: TID251
