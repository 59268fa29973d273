"""A folder with pictures, and a `serve` that asks a loopback endpoint."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dataflow_grounding.testing import EchoAnswers, LoopbackServer


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(4):
        Image.new("RGB", (320, 240), (40 * number, 90, 160)).save(folder / f"{number}.png")
    return folder


@pytest.fixture
def endpoint() -> Iterator[LoopbackServer]:
    with LoopbackServer(EchoAnswers("xyxy_px")) as server:
        yield server


@pytest.fixture
def variables(endpoint: LoopbackServer) -> dict[str, Any]:
    """The environment that names the endpoint."""
    return {
        "DF_BASE_URL": endpoint.base_url,
        "DF_MODEL": "stand-in",
        "DF_BOX_FORMAT": "xyxy_px",
        "DF_API_KEY": "sk-a-key-of-nobody-0123456789",
    }
