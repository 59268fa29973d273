"""Headers of JPEGs: which way up a picture is, and whether its file is whole."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import PIL.Image
import pytest

from dataflow_grounding import CaptionGenerator, OpenAIServing
from dataflow_grounding._util.errors import GroundingError
from dataflow_grounding.data.records import Record
from dataflow_grounding.images.files import read_header
from dataflow_grounding.images.image import open_image

EXAMPLES = Path(__file__).parents[2] / "example_data" / "images"
ORIENTATION = 0x0112
XMP_TURNED = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'


def jpeg(mode: str = "RGB", size: tuple[int, int] = (60, 40), **how: Any) -> bytes:
    """A drawn picture as a JPEG."""
    out = io.BytesIO()
    PIL.Image.new(mode, size, 90 if mode == "L" else None).save(out, "JPEG", **how)
    return out.getvalue()


def turned(orientation: int) -> bytes:
    """A JPEG that EXIF turns."""
    exif = PIL.Image.Exif()
    exif[ORIENTATION] = orientation
    return jpeg(exif=exif)


def test_a_picture_that_exif_or_xmp_turns_stays_turned(tmp_path: Path) -> None:
    for name, data in (("exif.jpg", turned(6)), ("xmp.jpg", jpeg(xmp=XMP_TURNED))):
        (tmp_path / name).write_bytes(data)
        image = open_image(Record({"image_path": str(tmp_path / name)}), "image_path")
        assert image.size == (40, 60), name
        assert not image.facts.plain, name


@pytest.mark.parametrize(
    ("data", "size", "orientation"),
    [
        (jpeg(), (60, 40), 1),
        (jpeg(comment=b"drawn " * 2000), (60, 40), 1),  # its size comes after the first 4 KiB
        (turned(1), (60, 40), 1),
        (turned(6), (40, 60), 6),
        (jpeg("CMYK"), (60, 40), 1),
        (jpeg(size=(600, 400))[:-200], (600, 400), 1),
    ],
)
def test_a_files_header_is_the_same_however_it_is_read(
    data: bytes, size: tuple[int, int], orientation: int, tmp_path: Path
) -> None:
    path = tmp_path / "picture.jpg"
    path.write_bytes(data)
    header = read_header(str(path))
    assert header == (size, "image/jpeg", orientation)
    assert header == read_header(str(path), data)


def test_a_picture_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    data = (EXAMPLES / "cat.jpg").read_bytes()
    path = tmp_path / "cut.jpg"
    path.write_bytes(data[:-200])
    serving = OpenAIServing("http://127.0.0.1:9/v1", "never-asked")
    with pytest.raises(GroundingError, match="cut off"):
        CaptionGenerator(serving)({"image_path": str(path)})
