"""How many words each page has, and where words are that CONTRIBUTING.md lists.

    python -m benchmarks.words [--where]

Counted are words between blanks in README.md and docs, code blocks and tables included. Listed
words are looked for in pages, code, specs and scripts; --where names each place.
"""

from __future__ import annotations

import argparse
import re
import subprocess
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LIST = "CONTRIBUTING.md"
BEGINS = "Words that we don't use: "  # the line of LIST with the words
PAGES = ("README.md", "docs")
READ = (*PAGES, "AGENTS.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "skills")
READ += ("dataflow_grounding", "api_pipelines", "extensions", "init_template", "benchmarks")
TYPES = (".md", ".py", ".yaml", ".txt", ".html", ".js")
GOALS = {"docs": 32_000, "README.md": 1_500}
MOST_LISTED = 20


def tracked(*folders: str) -> list[Path]:
    """The files that git knows below these folders."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--", *folders], cwd=ROOT, check=True, capture_output=True
    )
    return [ROOT / name for name in listed.stdout.decode().split("\0") if name]


def words_of(path: Path) -> int:
    """How many words a page has."""
    return len(path.read_text(encoding="utf-8").split())


def listed_words() -> list[str]:
    """The words that we don't use."""
    text = (ROOT / LIST).read_text(encoding="utf-8")
    line = text.partition(BEGINS)[2].partition(".")[0]
    return [word.strip() for word in line.split(",")]


def places(words: list[str]) -> list[tuple[str, str]]:
    """Each place of a word, as `file:line`, and the word."""
    pattern = re.compile(rf"\b({'|'.join(map(re.escape, words))})\b", re.IGNORECASE)
    found = []
    for path in tracked(*READ):
        if path.suffix not in TYPES:
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if BEGINS in line:
                continue
            for match in pattern.finditer(line):
                found.append((f"{path.relative_to(ROOT)}:{number}", match[1].lower()))
    return found


def main() -> None:
    """Print both counts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--where", action="store_true", help="name each place of a listed word")
    arguments = parser.parse_args()
    sums = Counter[str]()
    for path in tracked(*PAGES):
        if path.suffix == ".md":
            name = str(path.relative_to(ROOT))
            sums[name.partition("/")[0]] += words_of(path)
            print(f"{words_of(path):7,}  {name}")
    for name, count in sums.items():
        print(f"{count:7,}  {name} in all, goal {GOALS[name]:,}")
    found = places(listed_words())
    if arguments.where:
        for place, word in found:
            print(f"{place}: {word}")
    by_word = Counter(word for _, word in found)
    for word, count in by_word.most_common():
        print(f"{count:7,}  {word!r}")
    print(f"{by_word.total():7,}  listed words in all, goal {MOST_LISTED}")


if __name__ == "__main__":
    main()
