"""In which sizes the endpoint is checked: a server that begins to reduce, or to pad, pictures is
found whatever their sizes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from benchmarks.places.workplace import Workplace, caption, command
from dataflow_grounding import PhraseGrounder
from dataflow_grounding._util.errors import SuspectBoxes
from dataflow_grounding.boxes.geometry import Size
from dataflow_grounding.extras.testing import EchoAnswers, LoopbackServer, ReceivedRequest
from dataflow_grounding.extras.testing.answers import asks_for_rectangles, probe_in
from dataflow_grounding.serving import OpenAIServing

pytestmark = pytest.mark.slow

PX, REDUCED = "xyxy_px", "xyxy_px@long_edge_1000"
SMALL, LARGE = (640, 480), (1600, 1200)


class Server:
    """Answers as EchoAnswers do, in the format that `chosen` names for the n-th
    answer with boxes.
    """

    def __init__(self, chosen: Callable[[int], str]) -> None:
        self.chosen = chosen
        self.boxes = 0
        self.probed: list[Size] = []

    def __call__(self, request: ReceivedRequest) -> dict[str, Any]:
        answer = EchoAnswers(self.chosen(self.boxes))(request)
        probe = probe_in(request)
        if probe is not None:
            self.probed.append(probe.size)
        self.boxes += request.task == "phrase_grounding" and not asks_for_rectangles(request)
        return answer


def pictures(place: Workplace, sizes: Sequence[Size]) -> None:
    for n, size in enumerate(sizes):
        place.picture(f"p{n}.jpg", size)
    place.rows({"image_path": f"p{n}.jpg", "caption": caption(n)} for n in range(len(sizes)))


def run(place: Workplace, server: LoopbackServer, asked: str, **settings: Any) -> Any:
    place.settings |= {"vlm.check_every": 100, "workflow.max_workers": 2}
    return place.run(
        **{"vlm.openai.base_url": server.base_url, "vlm.box_format": asked, **settings}
    )


@pytest.mark.parametrize("largest", [LARGE, (700, 2000), (2000, 300)])
def test_pixels_are_checked_in_the_largest_size_that_will_be_sent(
    workplace: Workplace, largest: Size
) -> None:
    pictures(workplace, [SMALL] * 4 + [largest] + [SMALL] * 4)
    with LoopbackServer(model := Server(lambda _: REDUCED)) as server:
        done = run(workplace, server, PX)
    assert (done.code, model.boxes, sorted(model.probed)) == (
        2,
        0,
        sorted([SMALL, largest, largest]),
    ), done
    assert f"2 probe pictures of {largest[0]}x{largest[1]} px" in done.err


def test_larger_pictures_than_can_be_sent_are_checked_as_they_are_sent(
    workplace: Workplace,
) -> None:
    pictures(workplace, [SMALL, SMALL, (3000, 2000)])
    with LoopbackServer(model := Server(lambda _: PX)) as server:
        assert run(workplace, server, PX).code == 0
    assert sorted(model.probed) == [SMALL, (2048, 1365)]


def test_every_check_in_pixels_asks_in_the_largest_sizes(workplace: Workplace) -> None:
    # many: which check comes to the large ones depends on the order in which pictures are sent
    pictures(workplace, [SMALL, SMALL, LARGE, SMALL, (480, 640)] * 16)
    with LoopbackServer(model := Server(lambda n: PX if n < 22 else REDUCED)) as server:
        done = run(workplace, server, PX, **{"vlm.check_every": 15})
    assert (done.code, (workplace.results / "annotations.jsonl").exists()) == (2, False), done
    assert sorted(model.probed[:3]) == [(480, 640), SMALL, LARGE]
    assert model.probed[-1] == LARGE


def test_a_script_that_comes_to_larger_pictures_gets_no_boxes_that_are_wrong(
    workplace: Workplace,
) -> None:
    paths = [
        str(workplace.folder / workplace.picture(f"{w}.jpg", (w, h)))
        for w, h in (SMALL, (620, 480), LARGE)
    ]
    with LoopbackServer(model := Server(lambda _: REDUCED)) as server:
        serving = OpenAIServing(server.base_url, "loopback", box_format=PX)
        for path in paths[:2]:
            assert PhraseGrounder(serving)({"image_path": path, "expressions": ["a mug"]})[
                "expressions"
            ][0]["instances"]
        with pytest.raises(SuspectBoxes, match="1600x1200"):
            PhraseGrounder(serving)({"image_path": paths[2], "expressions": ["a mug"]})
    assert model.probed.count(SMALL) <= 2


def test_where_most_pictures_are_square_padding_is_found_in_the_others(
    workplace: Workplace,
) -> None:
    pictures(workplace, [(400, 400)] * 6 + [(400, 300)])
    with LoopbackServer(model := Server(lambda _: "xyxy_1000@pad_square")) as server:
        done = run(workplace, server, "xyxy_1000")
    assert (done.code, model.boxes, sorted(model.probed)) == (
        2,
        0,
        [(400, 300), (400, 300), (400, 400)],
    ), done
    assert "seems to resize or pad pictures" in done.err


def test_parts_of_the_side_are_checked_in_the_commonest_size_of_each_orientation(
    workplace: Workplace,
) -> None:
    pictures(workplace, [LARGE, *[SMALL] * 6, (1200, 500), (400, 400)])
    with LoopbackServer(model := Server(lambda _: "xyxy_1000")) as server:
        assert run(workplace, server, "xyxy_1000").code == 0
    assert sorted(model.probed) == [(400, 400), SMALL], "squares are an orientation of their own"


def test_a_long_run_goes_through_its_shapes(workplace: Workplace) -> None:
    shapes: list[Size] = [(640, 480), (640, 480), (640, 320), (640, 400), (640, 560)]
    pictures(workplace, shapes * 30)
    with LoopbackServer(model := Server(lambda _: "xyxy_1000")) as server:
        done = run(workplace, server, "xyxy_1000", **{"vlm.check_every": 30})
    assert done.code == 0, done
    assert model.probed[0] == (640, 480)
    assert set(model.probed) == set(shapes)


def test_what_a_calibration_did_not_see_leads_to_no_second_one(workplace: Workplace) -> None:
    """The server pads a size that those which were calibrated seem to stand for."""
    pictures(workplace, [SMALL, SMALL, (480, 640)] * 4)

    def answers(request: ReceivedRequest) -> dict[str, Any]:
        padded = request.image_sizes and request.image_sizes[0] == (480, 640)
        return EchoAnswers("xyxy_1000@pad_square" if padded else "xyxy_1000")(request)

    with LoopbackServer(answers) as server:
        stated = run(workplace, server, "xyxy_1000")
        assert (stated.code, "then set vlm.box_format: calibrated" in stated.err) == (2, True), (
            stated
        )
        assert (
            command(["calibrate", "--base-url", server.base_url, "--model", "loopback"]).code == 0
        )
        done = run(workplace, server, "calibrated")
    assert (done.code, "dataflowgrounding calibrate" in done.err) == (2, False), done
    assert "leave pictures like those out, or go on with vlm.on_suspect_boxes: warn" in done.err


def test_a_calibration_of_pictures_that_disagree_says_what_helps(workplace: Workplace) -> None:
    def answers(request: ReceivedRequest) -> dict[str, Any]:
        [(width, height)] = request.image_sizes
        return EchoAnswers("yxyx_1000" if height > width else "xyxy_1000")(request)

    with LoopbackServer(answers) as server:
        done = command(["calibrate", "--base-url", server.base_url, "--model", "loopback"])
    assert (done.code, "the pictures disagree" in done.err) == (2, True), done
    assert "leave out what differs, or set vlm.on_suspect_boxes: warn" in done.err
