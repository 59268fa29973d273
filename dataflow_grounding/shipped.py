"""What `init` copies: found beside the package in a repository, inside it when installed from a wheel."""

import os
from collections.abc import Iterator

from dataflow_grounding.errors import InputError

_PACKAGE = os.path.dirname(os.path.abspath(__file__))
_FOLDERS = ("api_pipelines", "example_data", "init_template")


def shipped_files() -> Iterator[tuple[str, str]]:
    """Each file, and its name in a new working folder; what's in `init_template` goes to the top. Raises InputError."""
    for folder in _FOLDERS:
        top = _find(folder)
        for path, names, files in os.walk(top):
            names[:] = sorted(name for name in names if name != "__pycache__")
            for name in sorted(files):
                if not name.endswith(".pyc"):
                    inside = os.path.relpath(os.path.join(path, name), top)
                    yield (
                        os.path.join(path, name),
                        inside if folder == "init_template" else os.path.join(folder, inside),
                    )


def _find(folder: str) -> str:
    for top in (os.path.join(_PACKAGE, "_shipped"), os.path.dirname(_PACKAGE)):
        if os.path.isdir(os.path.join(top, folder)):
            return os.path.join(top, folder)
    raise InputError(f"this installation has no {folder}: install dataflow-grounding again")
