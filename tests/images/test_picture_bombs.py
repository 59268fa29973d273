"""Pictures made to take time or memory, and of odd shapes: each fails its record, or works, and
ends no run.
"""

from __future__ import annotations

import io
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import pytest
from PIL import Image

from dataflow_grounding._util.errors import ImageBroken
from dataflow_grounding.data.records import Record
from dataflow_grounding.images.files import decode, parse_facts, read_header
from dataflow_grounding.images.image import open_image
from dataflow_grounding.testing import LoopbackServer
from tests.support.bytecode import steps_of
from tests.support.fault_cases.picture_bombs import BOMBS, many_pages
from tests.support.reviewing import look_at_all
from tests.support.stand_ins.probe_model import ProbeModel
from tests.support.workplace import Workplace, caption, command

pytestmark = pytest.mark.slow


READINGS: dict[str, Callable[[str], object]] = {
    "its header": lambda path: read_header(path, whole_png=False),
    "to send it": lambda path: open_image(Record({"image": path}), "image"),
    "its pixels": decode,
}
MOST_STEPS = 400_000
"""A tenth of a second's."""
MOST_MEMORY = 8 * 2**20
"""In bytes, besides the file's own: an eighth of what the bombs inflate to."""


@contextmanager
def little_memory(path: Path) -> Iterator[None]:
    """What is done within takes little memory compared with the file's size."""
    tracemalloc.start()
    try:
        yield
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < path.stat().st_size + MOST_MEMORY


def test_an_animation_that_is_cut_off_anywhere_is_a_picture_or_broken() -> None:
    """Pillow raises IndexError, struct.error and others where a GIF's second frame should be."""
    frames = [Image.effect_noise((24, 18), 60).convert("P") for _ in range(2)]
    file = io.BytesIO()
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:])
    whole = file.getvalue()
    taken = 0
    for length in range(1, len(whole)):
        with suppress(ImageBroken):
            taken += parse_facts(whole[:length], "x.gif").size == (24, 18)
    assert taken > 100


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_before_it_takes_time_or_memory(tmp_path: Path, name: str) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(BOMBS[name]())

    def refused(read: Callable[[str], object]) -> None:
        with pytest.raises(ImageBroken):
            read(str(path))

    for what, read in READINGS.items():
        with little_memory(path):
            refused(read)
        assert steps_of(partial(refused, read)) < MOST_STEPS, what


def test_a_file_of_very_many_pictures_is_its_first(tmp_path: Path) -> None:
    path = tmp_path / "many.tif"
    path.write_bytes(many_pages())

    def opened() -> Image:
        return open_image(Record({"image": str(path)}), "image")

    assert steps_of(lambda: opened().data_url()) < MOST_STEPS
    with little_memory(path):
        image = opened()
        assert image.size == (4, 4)
        assert not image.facts.plain
        assert image.data_url().startswith(b"data:image/jpeg")


def test_exif_as_cameras_write_it_is_read_of_large_files(tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.effect_noise((2000, 1500), 90).save(path, quality=98, exif=exif.tobytes())
    assert path.stat().st_size > 2**20
    assert read_header(str(path)).size == (1500, 2000)


SHAPES = [(200_000, 2), (2, 200_000), (60_000, 1), (51, 1), (3000, 61), (1, 1)]


@pytest.mark.sampled
@pytest.mark.parametrize("size", SHAPES, ids=str)
@pytest.mark.parametrize("box_format", ["auto", "qwen2.5-vl"])
def test_no_shape_of_a_picture_ends_a_run(
    workplace: Workplace, size: tuple[int, int], box_format: str
) -> None:
    workplace.picture()
    Image.new("RGB", size, "navy").save(workplace.folder / "odd.png", compress_level=1)
    names = ["a.jpg", "odd.png", "a.jpg"]
    workplace.rows({"image_path": name, "caption": caption(n)} for n, name in enumerate(names))
    with LoopbackServer(ProbeModel("qwen2.5-vl")) as server:
        workplace.settings |= {"vlm.openai.base_url": server.base_url, "vlm.check_every": 1}
        done = workplace.run(**{"vlm.box_format": box_format})
    assert done.code in (0, 1), done
    assert len(workplace.annotations()) >= 2
    assert len(workplace.annotations()) + len(workplace.failures()) == 3
    look_at_all(str(workplace.results))
    for name in ("report", "stats", "lint"):
        assert command([name, str(workplace.results)]).code in (0, 1), name
