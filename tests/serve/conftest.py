"""A folder with pictures, and a `serve` that asks a loopback endpoint."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dataflow_grounding.testing import EchoAnswers, LoopbackServer
from tests.support.endpoint import Serves
from tests.support.served import Served


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(4):
        Image.new("RGB", (320, 240), (40 * number, 90, 160)).save(folder / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A `serve` for requests that are refused, which answers a right one after all of them."""
    folder = tmp_path_factory.mktemp("served")
    root = folder / "root"
    root.mkdir()
    Image.new("RGB", (32, 24)).save(root / "0.png")
    (root / "link.png").symlink_to("/etc/passwd")
    (root / "broken.png").write_bytes(b"no picture")
    (root / "e'\".\u200b.png").write_bytes(b"")
    with Served(folder, "--root", str(root), bounds={"BODY_MB": 1}) as served:
        yield served
        assert served.ground("0.png", "a cup").status == 200
        code, said = served.end()
        assert code == 0
        assert "Traceback" not in said
        assert "Internal error" not in said
        assert "warn" not in said.lower()


@pytest.fixture
def endpoint(serves: Serves) -> LoopbackServer:
    return serves(EchoAnswers("xyxy_px"))


@pytest.fixture
def variables(endpoint: LoopbackServer) -> dict[str, Any]:
    """The environment that names the endpoint."""
    return {
        "DF_BASE_URL": endpoint.base_url,
        "DF_MODEL": "stand-in",
        "DF_BOX_FORMAT": "xyxy_px",
        "DF_API_KEY": "sk-a-key-of-nobody-0123456789",
    }
