"""The words sent to a model: a text file per task, and `system.txt`, the same for every task about
an image.
"""

from functools import cache
from pathlib import Path


@cache
def load_prompt(name: str) -> str:
    """The box format and the task fill in the names in braces."""
    return (Path(__file__).parent / f"{name}.txt").read_text(encoding="utf-8").strip()


@cache
def prompt_names() -> tuple[str, ...]:
    """Return the names of prompts that a user may replace: the tasks' and the system messages."""
    files = Path(__file__).parent.glob("*.txt")
    return tuple(sorted(path.stem for path in files if path.stem != "definitions"))
