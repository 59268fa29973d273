"""In which of the run's pictures the endpoint is checked: each kind is before it is asked about, so
that a server that reduces, or pads, some of them is found.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from PIL import Image

from dataflow_grounding import PhraseGrounder
from dataflow_grounding._util.errors import SuspectBoxes
from dataflow_grounding.boxes.formats import find_box_format
from dataflow_grounding.boxes.geometry import Size
from dataflow_grounding.engine.options import OwnPictures
from dataflow_grounding.images.image import ImageLimits
from dataflow_grounding.serving import OpenAIServing
from dataflow_grounding.testing import EchoAnswers, LoopbackServer, ReceivedRequest
from dataflow_grounding.testing.answers import asks_for_rectangles
from dataflow_grounding.trust.kinds import (
    MOST_KINDS,
    kind_of,
    one_of_each_kind,
    picture_of_each_kind,
    sizes_to_check,
)
from tests.support.endpoint import calibrate
from tests.support.workplace import Workplace, caption, command

X, PX, REDUCED = "xyxy_1000", "xyxy_px", "xyxy_px@long_edge_1000"
SMALL, LARGE = (640, 480), (1200, 700)


class Sized:
    """Answers as EchoAnswers do, in the format that `chosen` names for the n-th answer with boxes."""

    def __init__(self) -> None:
        self.chosen: Callable[[int], str] = lambda _: X
        self.boxes = 0
        self.probed: list[Size] = []
        self.asked: list[tuple[bool, Size]] = []
        """Of each request for boxes, whether it is a probe, and the size of its picture."""

    def __call__(self, request: ReceivedRequest) -> dict[str, Any]:
        answer = EchoAnswers(self.chosen(self.boxes))(request)
        if request.task == "phrase_grounding":
            is_probe, size = asks_for_rectangles(request), request.image_sizes[0]
            self.boxes += not is_probe
            self.probed += [size] * is_probe
            self.asked.append((is_probe, size))
        return answer


@pytest.fixture
def model(server: LoopbackServer) -> Sized:
    """Who answers."""
    sized = Sized()
    server.answers = sized
    return sized


@pytest.fixture
def place(place: Workplace) -> Workplace:
    place.settings |= {"vlm.box_format": PX, "workflow.max_workers": 2}
    return place


def pictures(place: Workplace, sizes: Sequence[Size]) -> None:
    names = {size: place.picture(f"{size[0]}x{size[1]}.jpg", size) for size in set(sizes)}
    place.rows({"image_path": names[size], "caption": caption(n)} for n, size in enumerate(sizes))


@pytest.mark.parametrize("largest", [LARGE, (1340, 200)])
def test_pixels_are_checked_in_the_largest_size_that_will_be_sent(
    place: Workplace, largest: Size, model: Sized
) -> None:
    pictures(place, [SMALL] * 4 + [largest] + [SMALL] * 4)
    model.chosen = lambda _: REDUCED
    done = place.run()
    assert (done.code, model.boxes) == (2, 1), done
    assert sorted(model.probed) == sorted([SMALL, *[largest] * 4]), (
        "a miss, and three to confirm it"
    )
    assert f"in a picture of {largest[0]}x{largest[1]} px" in done.err


@pytest.mark.parametrize(("name", "first"), [(X, LARGE), (PX, (1300, 700))])
def test_of_a_kind_the_commonest_size_is_checked_or_the_largest_for_pixels(
    place: Workplace, name: str, first: Size
) -> None:
    sizes = [LARGE, (1300, 700), SMALL]
    paths = [str(place.folder / place.picture(f"{n}.jpg", size)) for n, size in enumerate(sizes)]
    pictures = OwnPictures(sizes, ["image/jpeg"] * 3, [3, 2, 1], paths)
    checked = picture_of_each_kind(pictures, ImageLimits(), find_box_format(name, ""))
    assert [image.size for image in checked] == [first, SMALL]


def test_larger_pictures_than_can_be_sent_are_checked_as_they_are_sent(
    place: Workplace, model: Sized
) -> None:
    pictures(place, [SMALL, SMALL, (2100, 700)])
    model.chosen = lambda _: PX
    assert place.run().code == 0
    assert sorted(model.probed) == [SMALL, (2048, 683)]


def test_a_server_that_begins_to_reduce_is_found_by_a_check_with_a_large_one(
    place: Workplace, model: Sized
) -> None:
    pictures(place, [SMALL, LARGE] * 4 + [LARGE] * 14)
    model.chosen = lambda n: PX if n < 8 else REDUCED
    done = place.run(**{"vlm.check_every": 8})
    assert (done.code, (place.results / "annotations.jsonl").exists()) == (2, False), done
    assert sorted(model.probed[:2]) == [SMALL, LARGE]
    assert LARGE in model.probed[2:]


def test_a_script_that_comes_to_larger_pictures_gets_no_boxes_that_are_wrong(
    place: Workplace, server: LoopbackServer, model: Sized
) -> None:
    model.chosen = lambda _: REDUCED
    serving = OpenAIServing(server.base_url, "loopback", box_format=PX)

    def grounded(width: int, height: int) -> Any:
        path = str(place.folder / place.picture(f"{width}.jpg", (width, height)))
        return PhraseGrounder(serving)({"image_path": path, "expressions": ["a mug"]})

    for size in (SMALL, (620, 480)):
        assert grounded(*size)["expressions"][0]["instances"]
    with pytest.raises(SuspectBoxes, match="1200x700"):
        grounded(*LARGE)
    assert model.probed.count(SMALL) <= 2


def test_parts_of_the_side_are_checked_in_the_commonest_size_of_each_kind(
    place: Workplace, model: Sized
) -> None:
    kinds = [(400, 400), LARGE, (1300, 700), (1300, 700), SMALL, SMALL, (700, 500)]
    kinds += [(1100, 400), (480, 640), (300, 800), (64, 48), (64, 64)]
    pictures(place, kinds)
    assert place.run(**{"vlm.box_format": X}).code == 0
    left_out = [LARGE, (700, 500)]
    commonest = set(kinds) - set(left_out) - {(64, 48), (64, 64)}
    enlarged = {(128, 96), (96, 96)}
    # at the end may be another, if the first reply looked odd
    assert sorted(model.probed[:8]) == sorted(commonest | enlarged)
    first = [is_probe for is_probe, _ in model.asked[:9]]
    assert first.count(False) == 1, "all of them before the run's second request for boxes"


def test_a_kind_that_comes_later_is_checked_before_it_is_asked_about(
    place: Workplace, server: LoopbackServer, model: Sized
) -> None:
    """A pipeline by hand sees one record after the other: nobody can know what will come."""
    sizes = [SMALL, (620, 480), (480, 640), SMALL, (1100, 400), (300, 300), (300, 300), (480, 600)]
    paths = [place.picture(f"{n}.jpg", size) for n, size in enumerate(sizes)]
    grounder = PhraseGrounder(
        OpenAIServing(server.base_url, "kinds that come later", box_format=X, max_workers=1)
    )
    for path in paths:
        grounder({"image_path": str(place.folder / path), "expressions": ["a mug"]})
    probed = {kind_of(sizes[0])}  # together with the first request
    for is_probe, size in model.asked:
        if is_probe:
            probed.add(kind_of(size))
        assert kind_of(size) in probed, size
    assert len(model.probed) in (4, 5), "one of each kind, and perhaps one at a random place"


@pytest.mark.parametrize(
    ("size", "kind"),
    [
        ((640, 480), ("lying", 9)),
        ((480, 640), ("upright", 9)),
        ((640, 640), ("square", 9)),
        ((640, 256), ("lying", 9)),
        ((641, 256), ("wide", 9)),
        ((256, 641), ("tall", 9)),
        ((255, 255), ("square", 7)),
        ((1023, 800), ("lying", 9)),
        ((800, 1024), ("upright", 10)),
    ],
)
def test_a_kind_is_a_shape_and_a_range_of_sizes(size: Size, kind: tuple[str, int]) -> None:
    assert kind_of(size) == kind


def test_a_run_of_many_kinds_is_checked_in_the_commonest_and_the_most_elongated_one() -> None:
    sizes = [(2**n, 2**n - 1) for n in range(5, 12)] + [(480, 640), (30, 2000), (64, 64)]
    chosen = one_of_each_kind(sizes)
    assert len(chosen) == MOST_KINDS
    assert chosen[:3] == [(32, 31), (480, 640), (30, 2000)]
    assert one_of_each_kind([]) == []


def test_of_frames_each_is_checked() -> None:
    """Both are of one kind, and each has a map of its own."""
    frames = [(640, 480), (1000, 750)]
    assert sizes_to_check(frames, in_frames=False) == frames[:1]
    assert sizes_to_check(frames, in_frames=True) == frames


def test_a_file_type_that_comes_late_is_checked_before_it_is_asked_about(
    place: Workplace, server: LoopbackServer
) -> None:
    for n in range(8):
        place.picture(f"p{n}.jpg", SMALL)
    Image.new("RGB", SMALL, "navy").save(place.folder / "p5.png")
    names = [f"p{n}.png" if n == 5 else f"p{n}.jpg" for n in range(8)]
    place.rows({"image_path": name, "caption": caption(n)} for n, name in enumerate(names))

    def answers(request: ReceivedRequest) -> dict[str, Any]:
        is_png = request.encoded_images and request.encoded_images[0].startswith("iVBOR")
        return EchoAnswers("yxyx_1000" if is_png else X)(request)

    server.answers = answers
    done = place.run(**{"vlm.box_format": X})
    assert (done.code, "yxyx_1000 would fit" in done.err) == (2, True), done


def test_what_a_calibration_did_not_see_leads_to_no_second_one(
    place: Workplace, server: LoopbackServer
) -> None:
    """The server pads a size that those which were calibrated seem to stand for."""
    pictures(place, [SMALL, SMALL, (480, 640)] * 4)

    def answers(request: ReceivedRequest) -> dict[str, Any]:
        padded = request.image_sizes and request.image_sizes[0] == (480, 640)
        return EchoAnswers("xyxy_1000@pad_square" if padded else "xyxy_1000")(request)

    server.answers = answers
    stated = place.run(**{"vlm.box_format": X})
    assert (stated.code, "then set vlm.box_format: calibrated" in stated.err) == (2, True), stated
    calibrate(server)
    done = place.run(**{"vlm.box_format": "calibrated"})
    assert (done.code, "dataflowgrounding calibrate" in done.err) == (2, False), done
    assert "leave pictures like those out, or go on with vlm.on_suspect_boxes: warn" in done.err


def test_a_calibration_of_pictures_that_disagree_says_what_helps(server: LoopbackServer) -> None:
    def answers(request: ReceivedRequest) -> dict[str, Any]:
        [(width, height)] = request.image_sizes
        return EchoAnswers("yxyx_1000" if height > width else "xyxy_1000")(request)

    server.answers = answers
    done = command(["calibrate", "--base-url", server.base_url, "--model", "loopback"])
    assert (done.code, "lie on no line" in done.err) == (2, True), done
    assert "If some pictures alone are answered otherwise, leave these out" in done.err
