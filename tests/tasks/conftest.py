"""The picture that the questions of these tests are about."""

from __future__ import annotations

import PIL.Image
import pytest

from dataflow_grounding.data.records import Record
from dataflow_grounding.images.image import Image, open_image


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    path = tmp_path_factory.mktemp("tasks") / "a.png"
    PIL.Image.new("RGB", (640, 480)).save(path)
    return open_image(Record({"image": str(path)}), "image")
