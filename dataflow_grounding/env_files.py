"""`.env` files: settings, mostly keys, that a folder gives to the environment."""

from __future__ import annotations

import os
from collections.abc import Iterable


def read_env_files(folders: Iterable[str] = (".",)) -> list[str]:
    """Take `.env` of each folder into the environment, where the names in it aren't set yet; returns the files found."""
    found = [
        path for path in (os.path.join(folder, ".env") for folder in dict.fromkeys(folders)) if os.path.isfile(path)
    ]
    for path in found:
        from dotenv import load_dotenv

        load_dotenv(path, override=False)
    return found
