"""Probe pictures made of the run's own: as a server receives them, copies of what it receives
otherwise, with seven rectangles.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile, get_sampling

from dataflow_grounding import PhraseGrounder
from dataflow_grounding.boxes.formats import find_box_format
from dataflow_grounding.boxes.geometry import Size
from dataflow_grounding.data.records import Record
from dataflow_grounding.images.image import PADDING, ImageLimits, open_image
from dataflow_grounding.serving import OpenAIServing
from dataflow_grounding.testing import EchoAnswers, LoopbackServer, ReceivedRequest
from dataflow_grounding.testing.answers import asks_for_rectangles
from dataflow_grounding.trust.own_probes import STANDING_OUT, copy_question, drawn_into
from dataflow_grounding.trust.probes import COLORS, INSET, LAYOUTS
from tests.support.stand_ins.resize_rules import reduced
from tests.support.stand_ins.seeing_model import MODEL, SeeingModel
from tests.support.workplace import ORIENTATION, Workplace

X = "xyxy_1000"
TURNED = 6  # the EXIF orientation of a picture that is to be turned by 90 degrees


def photograph(size: Size) -> Image.Image:
    """A picture of soft colors, none of them a rectangle's, without two equal regions."""
    draw = np.random.default_rng(7)
    width, height = size
    coarse = draw.integers(90, 190, (max(2, height // 40), max(2, width // 40), 3), np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


class Looking:
    """Answers as EchoAnswers do, and keeps the pictures of a run and those of its probes."""

    def __init__(self) -> None:
        self.own: list[Image.Image] = []
        self.probes: list[Image.Image] = []
        self.found: list[int] = []
        """How many rectangles were found in each probe."""

    def __call__(self, request: ReceivedRequest) -> dict[str, Any]:
        answer = EchoAnswers(X)(request)
        picture = Image.open(io.BytesIO(base64.b64decode(request.encoded_images[-1])))
        picture.load()
        if not asks_for_rectangles(request):
            self.own.append(picture)
        elif len(request.input["phrases"]) == len(STANDING_OUT):
            self.probes.append(picture)
            self.found.append(len(answer["objects"]))
        return answer


Sent = Callable[[Path], tuple[Image.Image, Image.Image]]


@pytest.fixture
def sent(server: LoopbackServer) -> Sent:
    """Gives a picture as it is sent, and the run's probe picture, of which all rectangles are found."""

    def sent_of(path: Path) -> tuple[Image.Image, Image.Image]:
        model = Looking()
        server.answers = model
        serving = OpenAIServing(server.base_url, "loopback", box_format=X)
        [found] = PhraseGrounder(serving)([{"image_path": str(path), "expressions": ["a mug"]}])
        assert found["expressions"]
        assert model.found == [len(STANDING_OUT)] * len(model.probes)
        return model.own[-1], model.probes[0]

    return sent_of


def saved(folder: Path, kind: str) -> Path:
    """A picture's file of one kind."""
    path = folder / f"picture.{kind.rpartition(' ')[2]}"
    picture = photograph((2100, 200) if kind.startswith("large") else (320, 240))
    if kind.startswith("transparent"):
        picture = picture.convert("RGBA")
        picture.putalpha(Image.linear_gradient("L").resize(picture.size))
    elif kind.startswith("16-bit"):
        deep = np.asarray(picture.convert("L")).astype(np.uint16) * 257
        picture = Image.fromarray(deep)
    exif = Image.Exif()
    if kind.startswith("turned"):
        exif[ORIENTATION] = TURNED
        picture.save(path, exif=exif)
    else:
        picture.save(path)
    return path


KINDS = ("png", "jpg", "webp", "gif", "transparent png", "16-bit png", "turned jpg", "large png")


@pytest.mark.parametrize("kind", KINDS)
def test_a_probe_has_the_type_the_size_and_the_content_of_the_picture(
    tmp_path: Path, kind: str, sent: Sent
) -> None:
    own, probe = sent(saved(tmp_path, kind))
    assert (probe.format, probe.size) == (own.format, own.size)
    if kind in ("png", "jpg", "webp"):
        assert probe.format == {"png": "PNG", "jpg": "JPEG", "webp": "WEBP"}[kind]
    if kind.startswith("turned"):
        assert probe.size == (240, 320), "upright"
    if kind.startswith("transparent"):
        return  # how a viewer fills what is transparent is another matter
    apart = np.abs(as_numbers(own) - as_numbers(probe)).max(axis=2)
    assert (apart <= 24).mean() > 0.4, "it is the picture itself, but for the rectangles"


@pytest.mark.parametrize("mode", ["P", "RGBA", "LA", "progressive"])
def test_a_copy_is_coded_as_its_picture_is(tmp_path: Path, mode: str, sent: Sent) -> None:
    """A server may read palettes, alpha and progressive JPEGs in ways of its own."""
    picture = photograph((320, 240))
    if mode == "progressive":
        path = tmp_path / "a.jpg"
        picture.save(path, progressive=True)
    else:
        path = tmp_path / "a.png"
        picture.convert(mode).save(path)
    own, probe = sent(path)
    assert (
        own.info.get("progressive")
        == probe.info.get("progressive")
        == (mode == mode.lower() or None)
    )
    assert probe.mode == ("RGBA" if mode == "LA" else own.mode)


def test_a_copy_of_a_jpeg_has_its_tables_and_about_its_bytes(tmp_path: Path, sent: Sent) -> None:
    """A gateway may treat files over some number of bytes in a way of its own."""
    path = tmp_path / "a.jpg"
    photograph((640, 480)).save(path, quality=60, subsampling="4:2:2")
    own, probe = sent(path)
    assert isinstance(own, JpegImageFile)
    assert isinstance(probe, JpegImageFile)
    assert own.quantization == probe.quantization
    assert get_sampling(own) == get_sampling(probe) != 0
    probe.save(tmp_path / "b.jpg", quality="keep", subsampling="keep")
    assert (tmp_path / "b.jpg").stat().st_size < 1.3 * path.stat().st_size


def as_numbers(picture: Image.Image) -> Any:
    if picture.mode.startswith("I"):
        picture = Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8))
    return np.asarray(picture.convert("RGB")).astype(int)


@pytest.mark.parametrize(
    ("size", "probed"),
    [
        pytest.param((1, 1), (96, 96), id="a dot"),
        pytest.param((64, 48), (128, 96), id="small"),
        pytest.param((60, 600), (96, 960), id="an upright strip"),
        pytest.param((200, 150), (200, 150), id="large enough"),
    ],
)
def test_a_picture_too_small_for_rectangles_is_enlarged(
    tmp_path: Path, size: Size, probed: Size, sent: Sent
) -> None:
    photograph(size).save(tmp_path / "small.png")
    own, probe = sent(tmp_path / "small.png")
    assert (own.size, probe.size) == (size, probed)
    assert probe.format == "PNG"


def test_a_copy_goes_in_the_frame_of_its_picture_padding_and_all(
    tmp_path: Path, server: LoopbackServer, place: Workplace
) -> None:
    """What is padded in a measured frame is read in that frame, in probes as in pictures."""
    probes: list[Image.Image] = []
    boxes: list[Size] = []
    model = SeeingModel(resized=reduced(edge=1280))

    def answers(request: ReceivedRequest) -> dict[str, Any]:
        if not asks_for_rectangles(request):
            boxes.append(request.image_sizes[0])
        elif len(request.input["phrases"]) == len(STANDING_OUT):
            probes.append(Image.open(io.BytesIO(base64.b64decode(request.encoded_images[-1]))))
            probes[-1].load()
        return model(request)

    server.answers = answers
    place.settings |= {"vlm.box_format": "auto", "vlm.openai.model_name": MODEL}
    rows = []
    for size in ((1520, 1200), (1200, 1600)):
        picture = place.folder / f"{size[0]}.jpg"
        photograph(size).save(picture)
        rows.append({"image_path": str(picture), "expressions": [{"text": "the red box"}]})
    place.after_step_0(rows)
    done = place.run(**{"vlm.check_every": 100})
    assert done.code == 0, done
    frames = {(1792, 1344), (1344, 1792)}
    assert set(boxes) == {probe.size for probe in probes} == frames
    [padded] = [probe for probe in probes if probe.size == (1792, 1344)]
    at_the_right = as_numbers(padded)[:, 1720:]
    assert np.abs(at_the_right - np.array(PADDING)).max() < 24


def test_a_copy_that_is_enlarged_goes_in_the_frame_of_its_picture(tmp_path: Path) -> None:
    path = str(tmp_path / "small.png")
    photograph((64, 48)).save(path)
    limits = ImageLimits(frames=((64, 48), (128, 96)))
    image = open_image(Record({"image_path": path}), "image_path", limits)
    [copy] = copy_question(image, find_box_format(X, ""), str(tmp_path), 0).images
    assert (copy.size, copy.sent_size) == ((128, 96), (64, 48))


@pytest.mark.parametrize("size", [(96, 96), (96, 1024), (1024, 683)])
def test_rectangles_keep_apart_and_away_from_the_edges(size: Size) -> None:
    plain = photograph(size)
    for layout in (0, 1, LAYOUTS - 1):
        picture = plain.copy()
        probe = drawn_into(picture, layout)
        assert list(drawn_into(plain.copy(), layout).boxes) == list(probe.boxes)
        assert set(probe.boxes) == {f"the {color} rectangle" for color in STANDING_OUT}
        covered = np.zeros(size[::-1], int)
        numbers = as_numbers(picture)
        for phrase, (x1, y1, x2, y2) in probe.boxes.items():
            assert x1 >= round(INSET * size[0]), phrase
            assert y1 >= round(INSET * size[1]), phrase
            assert x2 <= size[0] - round(INSET * size[0]) + 1, phrase
            assert y2 <= size[1] - round(INSET * size[1]) + 1, phrase
            left, top, right, bottom = (int(edge) for edge in (x1, y1, x2, y2))
            covered[top:bottom, left:right] += 1
            inside = numbers[top:bottom, left:right]
            assert (inside == np.array(COLORS[phrase.split()[1]])).all(), "all of it is seen"
        assert covered.max() == 1


def test_layouts_differ() -> None:
    probes = [drawn_into(photograph((320, 240)), layout) for layout in range(40)]
    assert len({str(probe.boxes) for probe in probes}) == 40
    assert len({tuple(probe.boxes) for probe in probes}) == 40, "and so do the questions"
