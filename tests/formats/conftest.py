from __future__ import annotations

from pathlib import Path

import PIL.Image
import pytest

from tests.formats.place import Place


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """A place with three pictures."""
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for name in ("a.png", "b.png", "c.png"):
        PIL.Image.new("RGB", (64, 48), "#886644").save(pictures / name)
    return Place(tmp_path, pictures)
