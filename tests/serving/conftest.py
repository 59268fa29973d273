"""A record that a serving is asked about."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image


@pytest.fixture
def row(tmp_path: Path) -> dict[str, Any]:
    Image.new("RGB", (64, 48), "navy").save(tmp_path / "a.png")
    return {"image_path": str(tmp_path / "a.png"), "caption": "A red mug"}
