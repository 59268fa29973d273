"""Commands in this process that know no more than those of a new one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dataflow_grounding._util import secrets


@contextmanager
def forgetting(folder: Path | str | None = None) -> Iterator[None]:
    """Within the block, commands are run in `folder` and know nothing of earlier keys; after
    it, the environment is as it was.
    """
    with pytest.MonkeyPatch.context() as patch:
        if folder:
            patch.chdir(folder)
        patch.setattr(os, "environ", os.environ.copy())
        patch.setattr(secrets, "_forms", {})
        yield
