"""Scripts of pages, run within this process, where what is installed isn't the question."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

import pytest


def printed_by(script: str, folder: Path, **environment: str) -> str:
    """What a script prints whose current folder and home is `folder`."""
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        patch.chdir(folder)
        for name, value in {"HOME": str(folder), **environment}.items():
            patch.setenv(name, value)
        exec(compile(script, "script.py", "exec"), {"__name__": "__main__"})
    return printed.getvalue()
