"""The fenced blocks of pages, with the marks that stand above them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

BLOCK = re.compile(
    r"(?:<!-- (?P<mark>[^>]*) -->\n)?```(?P<kind>\w+)\n(?P<text>.*?)^```", re.MULTILINE | re.DOTALL
)


@dataclass(frozen=True)
class Block:
    """A fenced block; `heading` is the one it is under."""

    page: Path
    heading: str
    mark: str
    kind: str
    text: str


def blocks_of(*pages: Path) -> Iterator[Block]:
    """All blocks of the pages, in their order."""
    for page in pages:
        text = page.read_text(encoding="utf-8")
        for found in BLOCK.finditer(text):
            headings = re.findall(r"^#+ (.*)$", text[: found.start()], re.MULTILINE)
            heading = headings[-1] if headings else ""
            yield Block(page, heading, found["mark"] or "", found["kind"], found["text"])


def blocks(page: Path, kind: str) -> list[tuple[str, str]]:
    """The mark and the text of a page's blocks of a kind."""
    return [(block.mark, block.text) for block in blocks_of(page) if block.kind == kind]


def marked(page: Path, mark: str) -> str:
    """The text of the only block with this mark."""
    [text] = [block.text for block in blocks_of(page) if block.mark == mark]
    return text
