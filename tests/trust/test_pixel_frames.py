"""Models that count pixels of a picture that their server has resized: measured before the run, and
boxes are right.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dataflow_grounding import PhraseGrounder
from dataflow_grounding._util.errors import SpecError, SuspectBoxes
from dataflow_grounding.boxes.geometry import Bbox, Size
from dataflow_grounding.serving import OpenAIServing
from dataflow_grounding.testing import EchoAnswers, LoopbackServer, ReceivedRequest, on
from dataflow_grounding.testing.answers import asks_for_rectangles
from tests.support import faults
from tests.support.seen_boxes import off, offs, scene
from tests.support.stand_ins.resize_rules import reduced
from tests.support.stand_ins.seeing_model import MODEL, SeeingModel
from tests.support.workplace import Workplace


@pytest.mark.parametrize("size", [(1242, 375), (640, 480)])
def test_a_family_stated_by_name_is_measured_too(
    tmp_path: Path, server: LoopbackServer, size: Size
) -> None:
    """A name says in what a model counts, never of which size it sees a picture here.
    `benchmarks.box_quality` plays all servers, with more pictures.
    """
    server.answers = SeeingModel(resized=reduced(edge=500))
    serving = OpenAIServing(server.base_url, "anything", box_format="qwen2.5-vl")
    assert offs(serving, [scene(tmp_path, size)]) == [pytest.approx(0, abs=0.01)]


def test_numbers_that_change_with_each_request_are_refused_with_what_was_seen(
    tmp_path: Path, server: LoopbackServer
) -> None:
    """By the calibration, in which each picture has a line of its own, or by the first check."""
    chance = random.Random(2)

    def rule(width: int, height: int) -> tuple[float, float]:
        scale = chance.uniform(0.7, 1.0)
        return width * scale, height * scale

    server.answers = SeeingModel(resized=rule, noise=0.002)
    with pytest.raises((SpecError, SuspectBoxes), match=r"box_format"):
        offs(OpenAIServing(server.base_url, MODEL), [scene(tmp_path, (640, 480))])


def test_the_runs_own_shapes_are_asked_for(tmp_path: Path, server: LoopbackServer) -> None:
    """A rule that spares common shapes, and reduces only pictures of the run's own."""

    def rule(width: int, height: int) -> tuple[float, float]:
        share = 0.5 if max(width, height) > 5 * min(width, height) else 1.0
        return width * share, height * share

    server.answers = SeeingModel(resized=rule)
    [gap] = offs(OpenAIServing(server.base_url, MODEL), [scene(tmp_path, (1600, 200))])
    assert gap <= 0.01
    shapes = {round(max(size) / min(size)) for r in server.requests for size in r.image_sizes}
    assert 8 in shapes  # as the run's pictures are, when it was found out


@pytest.mark.parametrize("errs", [True, False])
def test_elongated_pictures_are_padded_where_that_helps(
    tmp_path: Path, server: LoopbackServer, errs: bool
) -> None:
    """Of a model whose format is known by its name: one or three requests, once, and the check;
    then boxes are mapped back.
    """
    server.answers = Elongated(3.5, ("wide",)) if errs else SeeingModel()
    grounder, row = PhraseGrounder(qwen(server)), scene(tmp_path, (1600, 200))
    for sent in (3 + 2 * errs, 4 + 2 * errs):  # the second time it is known
        assert off(grounder(row)) <= 0.01
        assert server.count() == sent
        assert server.requests[-1].image_sizes == ((1600, 534) if errs else (1600, 200),)
    grounder(scene(tmp_path, (600, 600)))
    assert server.requests[-1].image_sizes == ((600, 600),)


class Elongated(SeeingModel):
    """Errs in pictures more than `limit` times as wide as high, or as high as wide, or both."""

    def __init__(self, limit: float, errs: tuple[str, ...] = ("wide", "tall")) -> None:
        super().__init__()
        self.limit, self.errs = limit, errs

    def _numbers(self, bbox: Bbox, size: Size) -> list[float | int]:
        x, y = (
            0.7 if name in self.errs and size[axis] > self.limit * size[1 - axis] else 1.0
            for axis, name in enumerate(("wide", "tall"))
        )
        x1, y1, x2, y2 = bbox
        return super()._numbers((x1 * x, y1 * y, x2 * x, y2 * y), size)


def qwen(server: LoopbackServer) -> OpenAIServing:
    return OpenAIServing(server.base_url, "qwen3-vl-8b-instruct")


def test_padding_is_as_strong_as_it_has_to_be(tmp_path: Path, server: LoopbackServer) -> None:
    server.answers = Elongated(2.5)
    [gap] = offs(qwen(server), [scene(tmp_path, (1120, 300))])
    assert gap <= 0.01
    assert server.requests[-1].image_sizes == ((1120, 560),)


@pytest.mark.parametrize("wide_first", [True, False])
def test_wide_and_tall_pictures_are_found_out_about_each(
    tmp_path: Path, wide_first: bool, server: LoopbackServer
) -> None:
    """In one call, or the second kind in a later one: what is known of the first is no word on the
    other.
    """
    wide, tall = scene(tmp_path, (1200, 300)), scene(tmp_path, (300, 1200))
    server.answers = Elongated(3.5, ("tall",))
    serving = qwen(server)
    if wide_first:
        offs(serving, [wide])
    assert offs(serving, [wide, tall]) == [pytest.approx(0, abs=0.01)] * 2
    asked = [r for r in server.requests if not asks_for_rectangles(r)]
    assert {r.image_sizes[0] for r in asked[-2:]} == {(1200, 300), (400, 1200)}
    sent = server.count()
    [gap] = offs(serving, [scene(tmp_path, (1120, 300))])  # less elongated than is known
    assert gap <= 0.01
    checks = [r for r in server.requests[sent:] if asks_for_rectangles(r)]
    assert len(checks) <= 1


def test_one_probe_picture_that_misses_by_chance_pads_nothing(
    tmp_path: Path, server: LoopbackServer
) -> None:
    class OnceWrong(SeeingModel):
        asked = 0

        def __call__(self, request: ReceivedRequest) -> dict[str, Any]:
            self.asked += 1
            return super().__call__(request)

        def _numbers(self, bbox: Bbox, size: Size) -> list[float | int]:
            x1, y1, x2, y2 = bbox
            share = 0.7 if self.asked == 1 else 1.0
            return super()._numbers((x1 * share, y1, x2 * share, y2), size)

    server.answers = OnceWrong()
    [gap] = offs(qwen(server), [scene(tmp_path, (1200, 300))])
    assert gap <= 0.01
    assert {r.image_sizes for r in server.requests} == {((1200, 300),)}


def test_a_run_that_goes_on_pads_as_it_began_and_asks_for_no_probe_again(
    place: Workplace, server: LoopbackServer
) -> None:
    class Answering(Elongated):
        def __call__(self, request: ReceivedRequest) -> dict[str, Any]:
            if asks_for_rectangles(request):
                return super().__call__(request)
            return EchoAnswers("xyxy_1000")(request)

    place.settings |= {"vlm.openai.model_name": "qwen3-vl-8b-instruct", "vlm.box_format": "auto"}
    place.settings["vlm.check_every"] = None
    picture = place.picture(size=(1200, 300))
    rows = [{"image_path": picture, "caption": f"A mug {n}."} for n in range(3)]
    server.answers = Answering(3.5)
    place.rows(rows[:2])
    assert place.run().code == 0
    sent = server.count()
    place.rows(rows)
    done = place.run()
    assert done.code == 0, done
    assert "padded to 3:1" in done.err
    assert server.count() == sent + 1  # for the new caption; its phrase was asked before
    asked = [r for r in server.requests if r.images and not asks_for_rectangles(r)]
    assert {r.image_sizes for r in asked} == {((1200, 400),)}


def test_pictures_in_which_boxes_are_not_to_be_had_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], server: LoopbackServer
) -> None:
    rows = [scene(tmp_path, (1200, 300))]
    server.answers = Elongated(1.5)
    serving = qwen(server)
    for _ in range(2):  # the second time it is known
        with pytest.raises(
            SuspectBoxes, match=r"1200x300 are off by \d+% of the side.*leave such pictures out"
        ):
            offs(serving, rows)
        assert server.count() == 5  # as it is, twice, padded twice, and in a usual shape
    assert max(offs(serving, rows, on_suspect_boxes="warn")) > 0.2
    assert (
        "Warning: boxes of qwen3-vl-8b-instruct in pictures as elongated as 1200x300"
        in capsys.readouterr().err
    )
    assert offs(serving, [scene(tmp_path, (600, 500))]) == [pytest.approx(0, abs=0.01)]


def test_strips_that_are_refused_are_padded(tmp_path: Path, server: LoopbackServer) -> None:
    strips = on(
        faults.bad_request("absolute aspect ratio too large"),
        where=lambda r: any(max(size) > 3.5 * min(size) for size in r.image_sizes),
    )
    server.answers = SeeingModel()
    server.faults = [strips]
    rows = [scene(tmp_path, size) for size in ((1200, 300), (640, 480))]
    assert max(offs(qwen(server), rows)) <= 0.01


def test_probe_pictures_are_of_the_runs_own_types(tmp_path: Path, server: LoopbackServer) -> None:
    """Servers have rules for one type: a gateway that makes JPEGs smaller, say."""
    names = ["a.webp", "a.jpg"]
    row = scene(tmp_path, (640, 480))
    for name in names:
        with Image.open(row["image_path"]) as picture:
            picture.save(tmp_path / name, quality=95)
    rows = [{**row, "image_path": str(tmp_path / name)} for name in names]
    server.answers = SeeingModel(resized=reduced(edge=800))
    PhraseGrounder(OpenAIServing(server.base_url, MODEL))(rows)
    probes = [r for r in server.requests if r.image_sizes != ((640, 480),)]
    formats = {name.replace("jpg", "jpeg").partition(".")[2].upper() for name in names}
    assert {image.format for r in probes for image in r.images} == formats
