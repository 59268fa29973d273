"""Where a user's own code raised an error."""

import sysconfig
import traceback
from pathlib import Path

_PACKAGE = str(Path(__file__).resolve().parent.parent)
_PYTHON = sysconfig.get_path("stdlib")


def place_of(error: BaseException) -> str:
    """Return `FILE:LINE` of the last call outside of this package and Python; "" without any."""
    place = ""
    for frame in traceback.extract_tb(error.__traceback__):  # from the outermost call in
        # Installed packages are in a folder of Python's: `…/lib/python3.12/site-packages`.
        is_pythons = frame.filename.startswith(_PYTHON) and "site-packages" not in frame.filename
        if not frame.filename.startswith(_PACKAGE) and not is_pythons:
            place = f"{frame.filename}:{frame.lineno}"
    return place
