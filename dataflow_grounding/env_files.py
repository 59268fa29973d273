"""`.env` files: settings, mostly keys, that a folder gives to the environment."""

from __future__ import annotations

import os
from collections.abc import Iterable

from dataflow_grounding.errors import SpecError


def read_env_files(folders: Iterable[str] = (".",)) -> list[str]:
    """Add what each folder's `.env` sets and the environment doesn't; returns the files found. Raises SpecError."""
    found = list(filter(os.path.isfile, (os.path.join(folder, ".env") for folder in dict.fromkeys(folders))))
    for path in found:
        from dotenv import load_dotenv

        try:
            load_dotenv(path, override=False)
        except (OSError, ValueError) as error:  # ValueError: no UTF-8, or a character that no environment holds
            raise SpecError(f"can't read {path}: {str(error).splitlines()[0]}") from None
    return found
