"""Parts of an image: inside it, enlarged by a whole factor, and told apart from it and from each
other.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from dataflow_grounding.data.records import Record
from dataflow_grounding.images.files import ImageFacts
from dataflow_grounding.images.image import Image as ImageFile
from dataflow_grounding.images.image import ImageLimits, open_image
from dataflow_grounding.images.shown import LEAST_SHARE, crop_around

ORIENTATION = 0x0112


@pytest.mark.slow
@given(st.data(), st.integers(1, 5000), st.integers(1, 5000), st.sampled_from([512, 2048]))
def test_a_crop_lies_inside_the_image_and_holds_the_box(
    data: st.DataObject, width: int, height: int, max_side: int
) -> None:
    x1, y1 = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    bbox = (x1, y1, data.draw(st.integers(x1 + 1, width)), data.draw(st.integers(y1 + 1, height)))
    facts = ImageFacts("0" * 64, width, height, "image/png", True, 1000)
    crop = crop_around(ImageFile("a.png", facts, ImageLimits(max_side=max_side)), bbox)
    left, top, right, bottom = crop.region
    assert 0 <= left <= bbox[0] < bbox[2] <= right <= width
    assert 0 <= top <= bbox[1] < bbox[3] <= bottom <= height
    assert right - left >= min(width, LEAST_SHARE * max(width, height) - 1)
    assert max(crop.sent_size) <= max_side
    if max(crop.size) <= max_side:
        assert crop.sent_size == (crop.size[0] * crop.factor, crop.size[1] * crop.factor)
    assert crop.factor == 1 or max(crop.sent_size) <= 1024
    assert crop.to_image((0, 0, *crop.size)) == crop.region


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_a_crop_is_of_the_upright_picture(tmp_path: Path, orientation: int) -> None:
    picture = Image.new("RGB", (400, 300), "gray")
    picture.paste("red", (0, 0, 20, 20))
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    picture.save(tmp_path / "a.png", exif=exif.tobytes())
    image = open_image(Record({"image_path": str(tmp_path / "a.png")}), "image_path")
    size = (400, 300) if orientation == 1 or orientation == 3 else (300, 400)
    assert image.size == size
    corners = {1: (0, 0), 3: (380, 280), 6: (280, 0), 8: (0, 380)}
    x, y = corners[orientation]
    crop = crop_around(image, (x, y, x + 20, y + 20))
    left, top = crop.region[:2]
    with crop.decoded() as pixels:
        assert pixels.size == crop.size
        assert pixels.getpixel((x - left + 10, y - top + 10)) == (255, 0, 0)
    assert not crop.as_is


def test_image_and_crops_are_stored_apart(tmp_path: Path) -> None:
    Image.new("RGB", (400, 300), "gray").save(tmp_path / "a.png")
    image = open_image(Record({"image_path": str(tmp_path / "a.png")}), "image_path")
    crops = [crop_around(image, (x, 10, x + 8, 20)) for x in (100, 101, 102)]
    assert len({one.sent_digest for one in (image, *crops)}) == 4
    assert crop_around(image, (100, 10, 108, 20)) == crop_around(image, (100, 10, 108, 20))
