"""What the environment says, and the `.env` files that add to it; where the cache is."""

import os
from collections.abc import Iterable

from dataflow_grounding._util.errors import SpecError, errors_as


def cache_folder() -> str:
    """Return the package's cache folder, which may not exist yet."""
    home = os.environ.get("XDG_CACHE_HOME", "")
    folder = home if os.path.isabs(home) else os.path.expanduser(os.path.join("~", ".cache"))
    return os.path.join(folder, "dataflow-grounding")


def read_env_files(folders: Iterable[str] = (".",)) -> list[str]:
    """Set variables that are missing from each folder's `.env`; return the paths of these files."""
    paths = []
    for folder in dict.fromkeys(folders):  # each once
        path = os.path.join(folder, ".env")
        if not os.path.isfile(path):
            continue
        from dotenv import load_dotenv  # few folders have such a file

        try:
            with errors_as(SpecError, f"can't read {path}"):
                load_dotenv(path, interpolate=False, encoding="utf-8-sig")
        except ValueError:  # a key would be read wrongly
            raise SpecError(f"can't read {path}: it is not a text in UTF-8") from None
        paths.append(path)
    return paths
