"""`image_region_caption`: pictures with boxes, or without, in; the boxes drawn and a text for each
out.
"""

from __future__ import annotations

import base64
import io
import json
import math
import os
import runpy
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from PIL import Image

from dataflow_grounding import EmbeddedServing, GroundingError, RegionCaptioner, RegionMarker
from dataflow_grounding.data.rows import read_records
from dataflow_grounding.errors import UnreadableReply
from dataflow_grounding.tasks.captions import read_marked_text
from dataflow_grounding.testing import EchoAnswers, LoopbackServer, ReceivedRequest
from tests.support.bytecode import instructions_of
from tests.support.endpoint import serving_of
from tests.support.labelled import Labelled, labelled
from tests.support.workplace import LONG_AGO, REPOSITORY, Done, Place, Rows, command, rows_of

SIZE = (1536, 832)  # that of the seed's example: 196 / 1536 = 0.128, 599 / 832 = 0.72
PROMPT = "Describe the content of each marked region in the image. There are {0} regions: <region1> to <region{0}>."


def picture(
    folder: Path, name: str = "20.png", size: tuple[int, int] = (640, 360), color: str = "teal"
) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, color).save(folder / name)
    return name


class CaptionPlace(Place):
    """A folder with pictures with boxes."""

    kind = "image_region_caption"

    def run(self, *rows: dict[str, Any], **settings: Any) -> Done:
        """A run over these rows."""
        lines = [json.dumps(row) + "\n" for row in rows]
        (self.folder / "in.jsonl").write_text("".join(lines))
        self.settings["data.input_jsonl"] = str(self.folder / "in.jsonl")
        spec = self.written({**self.settings, **settings})
        return command(["generate", "-e", str(spec), "--json", "--no-progress"])

    def captioned(self, row: dict[str, Any], **settings: Any) -> dict[str, Any]:
        """The record that a run makes of a row."""
        done = self.run(row, **settings)
        assert done.code == 0, done
        [record] = self.annotations()
        return record

    def annotations(self) -> Rows:
        return rows_of(self.results / "annotations.jsonl")


@pytest.fixture
def place(tmp_path: Path, server: LoopbackServer) -> CaptionPlace:
    server.answers = by_box
    return CaptionPlace(tmp_path, server.base_url)


def by_box(request: ReceivedRequest) -> Any:
    """A text that tells which box it is about."""
    if request.task != "region_caption":
        return EchoAnswers()(request)
    regions = request.input["regions"]
    return {"captions": [{"id": r["id"], "text": f"box {r['bbox_2d']}"} for r in regions]}


def test_a_coco_file_becomes_lines_as_the_page_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    boxes = [[40, 30, 160, 120], [300, 100, 200, 200], [10, 10, 50, 60]]
    entries = [{"bbox": box} for box in boxes]
    size = (640, 360)
    pictures = [Labelled("1.png", entries[:2], size), Labelled("2.png", entries[2:], size)]
    labelled(tmp_path, "coco", pictures)
    page = (REPOSITORY / "docs" / "image_region_caption.md").read_text("utf-8")
    [block] = [part for part in page.split("```python\n")[1:] if "annotations.json" in part]
    monkeypatch.chdir(tmp_path)
    exec(block.split("```")[0], {})
    one, two = ({"image": f"{n}.png", "bbox": b} for n, b in ((1, boxes[:2]), (2, boxes[2:])))
    assert read_records("boxes.jsonl") == [one, two]


class Ran(NamedTuple):
    """A run over several pictures: how it ended, what was asked, its records by their pictures."""

    place: CaptionPlace
    done: Done
    asked: dict[str, int]
    records: dict[str, dict[str, Any]]


EXAMPLE = {"image": "20.png", "bbox": [[196, 104, 310, 495]]}
MANY = [[10, 10, 5 + n % 7, 20] for n in range(14)]
ROWS: list[dict[str, Any]] = [
    EXAMPLE,
    {"image": "none.png"},
    {"image": "none.png", "bbox": []},
    {"image": "many.png", "bbox": MANY},
    {"image": "small.png", "bbox": [[50, 60, 70, 80], [9999, 1, 5, 5]]},
]


@pytest.fixture(scope="module")
def ran(one_server: LoopbackServer, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    place = CaptionPlace(tmp_path_factory.mktemp("ran"), one_server.base_url)
    picture(place.folder, size=SIZE)
    picture(place.folder, "small.png", (300, 200))
    for name, color in (("none.png", "navy"), ("many.png", "maroon")):
        picture(place.folder, name, color=color)
    one_server.answers = by_box
    one_server.by_task.clear()
    done = place.run(*ROWS)
    assert done.code == 0, done
    records = {record["image"]: record for record in place.annotations()}
    return Ran(place, done, dict(one_server.by_task), records)


def test_the_seeds_example_row_gives_its_nine_fields(ran: Ran) -> None:
    record, results = ran.records["20.png"], ran.place.results
    text = "box [196, 104, 506, 599]"
    nine = {
        **EXAMPLE,
        "type": "with_bbox",
        "normalized_bbox": [[0.128, 0.125, 0.329, 0.72], *[[0.0, 0.0, 0.0, 0.0]] * 9],
        "result_file": str(results),
        "image_with_bbox": str(results / "1_bbox_vis.jpg"),
        "valid_bboxes_num": 1,
        "prompt": PROMPT.format(1),
        "answer": f"<region1>: {text}",
    }
    assert {name: record[name] for name in nine} == nine
    [caption] = record["region_captions"]
    assert (caption["bbox"], caption["text"]) == ([196, 104, 506, 599], text)
    with Image.open(record["image_with_bbox"]) as drawn:
        assert drawn.size == SIZE


def test_its_records_have_regions_and_nobody_verified_captions(ran: Ran) -> None:
    record = ran.records["20.png"]
    assert [region["bbox"] for region in record["regions"]] == [[196, 104, 506, 599]]
    assert [caption["verified"] for caption in record["region_captions"]] == [None]


def test_of_more_boxes_than_max_boxes_the_largest_stay_in_their_order(ran: Ran) -> None:
    assert ran.done.summary["notes"]["over_max_boxes"] == 4
    record = ran.records["many.png"]
    kept = [caption["bbox"][2] - 10 for caption in record["region_captions"]]
    assert kept == [7, 8, 9, 10, 11, 7, 8, 9, 10, 11]
    assert len(record["normalized_bbox"]) == record["valid_bboxes_num"] == 10
    left_out = {p["box"] for p in record["bbox_problems"] if p["kind"] == "over_max_boxes"}
    assert left_out == {0, 1, 7, 8}
    assert record["bbox"] == MANY


def test_rows_without_boxes_get_the_models_proposals_labelled_as_such(ran: Ran) -> None:
    assert ran.asked["phrase_grounding"] == 1, "two equal rows are paid for once"
    without = [record for record in ran.place.annotations() if record["image"] == "none.png"]
    assert len(without) == 2
    for record in without:
        [caption] = record["region_captions"]
        [[x, y, w, h]] = record["bbox"]
        assert record["type"] == "without_bbox"
        assert caption["bbox"] == [x, y, x + w, y + h]
        assert caption["proposed_by"] == "loopback"


def test_the_report_shows_pictures_and_texts(ran: Ran) -> None:
    assert command(["report", str(ran.place.results)]).code == 0
    [data] = (ran.place.results / "report_files").glob("*/records-1.js")
    shown = data.read_text(encoding="utf-8")
    assert "box [50, 60, 120, 140]" in shown
    # a small picture is shown itself
    assert '"thumbnail":"../small.png"' in shown
    assert "not there" not in shown


def test_a_second_run_sends_nothing_and_check_names_each_bad_box(
    ran: Ran, server: LoopbackServer
) -> None:
    again = ran.place.run(*ROWS).summary
    assert (server.count(), again["already_complete"]) == (0, True)
    checked = command(["check", "-e", str(ran.place.folder / "spec.yaml")])
    assert checked.code == 2
    assert "line 5: box 1 lies outside of the image" in checked.out + checked.err


BAD_BOXES: dict[str, tuple[Any, list[str]]] = {
    "without width": ([[9, 9, 0, 5]], ["no_area"]),
    "negative width": ([[9, 9, -4, 5]], ["no_area"]),
    "beside the image": ([[200, 9, 4, 5]], ["outside"]),
    "NaN, as tables have it": ([[9, 9, 5, None]], ["not_finite"]),
    "a word for a number": ([[9, 9, 5, "x"]], ["not_numbers"]),
    "true for a number": ([[9, 9, True, 5]], ["not_numbers"]),
    "three numbers": ([[9, 9, 5]], ["not_numbers"]),
    "NaN, as CSV files have it": ([["NaN", 9, 5, 5]], ["not_finite"]),
    "beyond a double": ([[10**400, 9, 5, 5]], ["not_finite"]),
    "cut, where another box of the row is no corners": ([[60, 40, 95, 79], [50, 40, 10, 10]], []),
    "a little over the edge: cut": ([[50, 40, 51, 41]], []),
}
CORNERS: dict[str, Any] = {
    "corners that leave the image as a size": [[60, 40, 95, 79]],
    "a row of corners, some of which would fit": [[60, 40, 95, 79], [1, 1, 20, 20]],
}


@pytest.fixture
def marked(tmp_path: Path) -> Any:
    """Marks boxes of a picture of 100 x 80."""
    name = str(tmp_path / picture(tmp_path, size=(100, 80)))
    return lambda boxes: RegionMarker(tmp_path)({"image": name, "bbox": boxes})


@pytest.mark.parametrize(("boxes", "kinds"), BAD_BOXES.values(), ids=BAD_BOXES)
def test_what_is_wrong_with_a_box_is_told_apart(
    marked: Any, boxes: list[Any], kinds: list[str]
) -> None:
    record = marked([[2, 3, 30, 40], *boxes])
    assert [problem["kind"] for problem in record.get("bbox_problems", [])] == kinds
    assert record["valid_bboxes_num"] == 1 + len(boxes) - len(kinds)
    assert record["regions"][0]["bbox"] == [2, 3, 32, 43]
    assert all(0 <= n <= 1 for bbox in record["normalized_bbox"] for n in bbox)


@pytest.mark.parametrize("boxes", CORNERS.values(), ids=CORNERS)
def test_corners_in_place_of_sides_are_told(marked: Any, boxes: list[Any]) -> None:
    with pytest.raises(GroundingError, match=r"x1, y1, x2, y2"):
        marked(boxes)


def test_one_box_needs_no_list_around_it(marked: Any) -> None:
    assert marked([9, 9, 5, 5])["valid_bboxes_num"] == 1


def test_nan_in_python_fails_its_row_alone(tmp_path: Path) -> None:
    name = str(tmp_path / picture(tmp_path, size=(100, 80)))
    done = RegionMarker(tmp_path)(
        [{"image": name, "bbox": [[math.nan, 1, 2, 3]]}, {"image": name, "bbox": [[1, 1, 9, 9]]}]
    )
    assert [record["valid_bboxes_num"] for record in done] == [1]
    assert [place for place, _ in done.failures] == [0]


def test_all_boxes_go_out_in_several_requests_and_each_text_comes_back_to_its_box(
    place: CaptionPlace, server: LoopbackServer
) -> None:
    picture(place.folder, size=SIZE)
    boxes = [[(37 * n) % 1400, (91 * n) % 700, 40 + n, 50] for n in range(40)]
    record = place.captioned({"image": "20.png", "bbox": boxes}, **{"workflow.max_boxes": None})
    assert server.by_task["region_caption"] >= 3
    expected = [[x, y, x + w, y + h] for x, y, w, h in boxes]
    assert [c["bbox"] for c in record["region_captions"]] == expected
    assert [c["text"] for c in record["region_captions"]] == [f"box {bbox}" for bbox in expected]
    lines = [f"<region{number}>: box {box}" for number, box in enumerate(expected, 1)]
    assert sorted(record["answer"].splitlines()) == sorted(lines)


def test_opencv_proposes_what_stands_out(place: CaptionPlace, server: LoopbackServer) -> None:
    scene = Image.new("RGB", (400, 300), "white")
    scene.paste("red", (50, 60, 150, 160))
    scene.paste("blue", (250, 100, 350, 250))
    scene.save(place.folder / "scene.png")
    record = place.captioned({"image": "scene.png"}, **{"workflow.proposals": "opencv"})
    assert server.by_task["phrase_grounding"] == 0
    assert {caption["proposed_by"] for caption in record["region_captions"]} == {"opencv"}
    found = [caption["bbox"] for caption in record["region_captions"]]
    for known in ([50, 60, 150, 160], [250, 100, 350, 250]):
        assert any(bbox == pytest.approx(known, abs=4) for bbox in found), found


def test_nothing_to_propose_is_no_invention(tmp_path: Path) -> None:
    name = str(tmp_path / picture(tmp_path, size=(200, 200)))
    record = RegionCaptioner(EmbeddedServing())(RegionMarker(tmp_path)({"image": name}))
    assert (record["type"], record["answer"]) == ("without_bbox", None)
    assert record["bbox"] == record["region_captions"] == []


IN_WORDS = "In <region1>, there is a cup on a table. It is white.\nIn <region2>, the lower half of a person is visible."
IN_TURN = "<region1>: a thing\n<region2>: a thing"
REGIONS = [{"bbox": [10, 10, 60, 60], "type": ""}, {"bbox": [800, 500, 900, 600], "type": ""}]


@pytest.mark.parametrize(
    ("at_once", "said", "answer", "texts"),
    [
        (16, IN_WORDS, IN_WORDS, IN_WORDS.splitlines()),
        (1, "<region1>: a thing", IN_TURN, ["a thing", "a thing"]),
    ],
    ids=["one request", "a later request names the row's region"],
)
def test_an_answer_in_the_models_own_words_is_kept_and_divided(
    tmp_path: Path, server: LoopbackServer, at_once: int, said: str, answer: str, texts: list[str]
) -> None:
    name = str(tmp_path / picture(tmp_path, size=SIZE))
    server.answers = lambda request: said
    captioner = RegionCaptioner(serving_of(server, "xyxy_px"), regions_per_request=at_once)
    record = captioner({"image": name, "regions": REGIONS})
    assert record["answer"] == answer
    assert [caption["text"] for caption in record["region_captions"]] == texts


def test_a_reply_that_leaves_a_region_out_is_asked_again_and_then_fails(
    tmp_path: Path, server: LoopbackServer
) -> None:
    name = str(tmp_path / picture(tmp_path, size=SIZE))
    server.answers = lambda request: {"captions": [{"id": 1, "text": "a cup"}]}
    with pytest.raises(UnreadableReply, match="missing for id 2"):
        RegionCaptioner(serving_of(server, "xyxy_px"))({"image": name, "regions": REGIONS})
    assert server.count() == 3


def sent(request: ReceivedRequest) -> Image.Image:
    """The picture that a request carried."""
    parts = request.body["messages"][-1]["content"]
    [url] = [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]
    return Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))).convert("RGB")


def differs(shown: Image.Image, area: tuple[int, int, int, int]) -> bool:
    """Whether anything was drawn inside an area of a picture that was all teal."""
    return any(high - low > 40 for low, high in shown.crop(area).getextrema())


def captioned(
    folder: Path, server: LoopbackServer, row: dict[str, Any], marks: str = "outline"
) -> dict[str, Any]:
    """The record that the two operators make of a row, in memory."""
    server.answers = by_box
    record = RegionMarker(folder / "marked", marks=marks)(row)
    done: dict[str, Any] = RegionCaptioner(serving_of(server, "xyxy_px"), marks=marks)(record)  # type: ignore[arg-type]
    return done


@pytest.mark.parametrize(
    ("size", "marks"),
    [(SIZE, "outline"), (SIZE, "tag"), ((2200, 1000), "outline"), ((96, 64), "tag")],
    ids=["seed's", "seed's, tags", "reduced before it is sent", "tiny"],
)
def test_marks_stand_beside_the_region_and_not_in_it(
    tmp_path: Path, server: LoopbackServer, marks: str, size: tuple[int, int]
) -> None:
    box = [size[0] // 2, size[1] // 2, size[0] // 4, size[1] // 4]
    row = {"image": str(tmp_path / picture(tmp_path, size=size)), "bbox": [box]}
    captioned(tmp_path, server, row, marks)
    shown = sent(server.requests[0])
    w, h = shown.size
    assert max(w, h) <= 2048
    assert not differs(shown, (w // 2 + 3, h // 2 + 3, w * 3 // 4 - 3, h * 3 // 4 - 3))
    right = (w * 3 // 4 - 2, h * 5 // 8, w * 3 // 4 + max(8, w // 100), h * 5 // 8 + 4)
    assert differs(shown, right) is (marks == "outline")
    number = differs(shown, (w // 2 - w // 20, h // 2 - h // 4, w * 3 // 4, h // 2 - 1))
    assert number


def test_the_picture_that_is_sent_is_the_one_in_the_folder(
    tmp_path: Path, server: LoopbackServer
) -> None:
    name = str(tmp_path / picture(tmp_path, size=(300, 200)))
    record = captioned(tmp_path, server, {"image": name, "bbox": [[50, 60, 70, 80]]})
    shown = sent(server.requests[0])
    with Image.open(record["image_with_bbox"]) as drawn:
        assert shown.tobytes() == drawn.convert("RGB").tobytes()


def test_crops_are_pictures_of_their_own(place: CaptionPlace, server: LoopbackServer) -> None:
    scene = Image.new("RGB", (400, 300), "white")
    scene.paste("red", (50, 60, 150, 160))
    scene.save(place.folder / "scene.png")
    Image.new("RGB", (2300, 600), "blue").save(place.folder / "large.png")
    rows = [
        {"image": "scene.png", "bbox": [[50, 60, 100, 100], [300, 200, 50, 80]]},
        {"image": "large.png", "bbox": [[0, 0, 2200, 550]]},
    ]
    done = place.run(*rows, **{"workflow.marks": "crop"})
    assert done.code == 0, done
    pictures = [sent(request) for request in server.requests]
    sizes = sorted(shown.size for shown in pictures)
    assert [w / h for w, h in sizes] == pytest.approx([50 / 80, 1.0, 4.0], rel=0.01)
    assert max(side for size in sizes for side in size) <= 2048
    square = next(shown for shown in pictures if shown.width == shown.height)
    assert square.getpixel((5, 5)) == pytest.approx((255, 0, 0), abs=11)


def test_the_script_takes_the_seeds_arguments(
    tmp_path: Path, server: LoopbackServer, monkeypatch: Any
) -> None:
    monkeypatch.setenv("DF_BASE_URL", server.base_url)
    monkeypatch.setenv("DF_MODEL", "loopback")
    monkeypatch.setenv("DF_BOX_FORMAT", "xyxy_px")
    script = REPOSITORY / "api_pipelines" / "image_region_caption_api_pipeline.py"
    picture(tmp_path / "in", size=SIZE)
    entry = tmp_path / "in" / "rows.jsonl"
    entry.write_text(json.dumps({"photo": "20.png", "boxes": [[196, 104, 310, 495]]}) + "\n")
    pipeline = runpy.run_path(str(script))["ImageRegionCaptionPipeline"](
        first_entry_file=str(entry),
        cache_path=str(tmp_path / "cache"),
        file_name_prefix="mine",
        cache_type="jsonl",
        input_image_key="photo",
        input_bbox_key="boxes",
        max_boxes=3,
        output_image_with_bbox_path=str(tmp_path / "cache" / "image_with_bbox_result.jsonl"),
    )
    pipeline.compile()
    assert pipeline.forward().exit_code == 0
    [record] = read_records(str(tmp_path / "cache" / "mine_step2.jsonl"))
    assert record["normalized_bbox"] == [[0.128, 0.125, 0.329, 0.72], [0.0] * 4, [0.0] * 4]
    assert record["image_with_bbox"] == str(tmp_path / "cache" / "1_bbox_vis.jpg")


CUP_AND_SPOON = {1: "a cup", 2: "a spoon"}
BOTH = "<region1> and <region2> are cups."
DIVIDED: dict[str, tuple[str, dict[int, str]]] = {
    "one line": ("<region1>: a cup; <region2>: a spoon", CUP_AND_SPOON),
    "a list": ("- <region 1>: a cup\n- <Region2>: a spoon", CUP_AND_SPOON),
    "a sentence more": ("1. <region1> a cup.\nIt is red.", {1: "<region1> a cup. It is red."}),
    "both": (BOTH, {1: BOTH, 2: BOTH}),
    "a region that is not there": ("<region3>: not asked for\nand more of it", {}),
    "no region named": ("A kitchen with cups.", {}),
}


@pytest.mark.parametrize(("text", "expected"), DIVIDED.values(), ids=DIVIDED)
def test_a_text_is_divided_among_the_regions_that_it_names(
    text: str, expected: dict[int, str]
) -> None:
    assert read_marked_text(text, 2) == expected


@pytest.mark.slow
def test_a_runaway_text_about_many_regions_is_divided_in_linear_time() -> None:
    """A search over all of it from each of its characters would not come to an end."""
    regions = "".join(f"<region{number}>" for number in range(1, 51))

    def instructions(count: int) -> int:
        return instructions_of(lambda: read_marked_text(regions + " It is so. " * count, 50))

    assert len(read_marked_text(regions + " It is so. " * 5_000, 50)) == 50
    assert instructions(800) < 10 * instructions(100)


def test_proposed_boxes_in_another_format_are_told_and_may_go_on(
    place: CaptionPlace, server: LoopbackServer
) -> None:
    server.answers = EchoAnswers("yxyx_1000")
    colors = ("teal", "navy", "maroon")
    rows = [{"image": picture(place.folder, f"{c}.png", (320, 200), c)} for c in colors]
    settings = {"vlm.box_format": "xyxy_1000", "vlm.check_every": 100}
    assert place.run(*rows, **settings, **{"vlm.on_suspect_boxes": "warn"}).code == 0
    assert "yxyx_1000 would fit" in place.run_json()["suspect_boxes"]


def test_rows_with_a_prompt_of_their_own_keep_it(place: CaptionPlace) -> None:
    row = {"image": picture(place.folder), "bbox": [[9, 9, 90, 90]], "prompt": "mine"}
    refused = place.run(row)
    assert refused.code == 2, refused
    said = "column 'prompt' of the input: give it another name with output_prompt_key"
    assert said in refused.err
    assert "workflow.output_columns.prompt" in refused.err
    place.settings["workflow.output_columns"] = {"prompt": "asked", "answer": "said"}
    record = place.captioned({**row, "answer": "mine"})
    assert (record["prompt"], record["asked"]) == ("mine", PROMPT.format(1))
    assert (record["answer"], record["said"]) == ("mine", "<region1>: box [9, 9, 99, 99]")
    place.settings["workflow.output_columns"] = {"promt": "x"}
    wrong = place.run(row)
    assert "'promt' is not one of" in wrong.err
    assert "is it 'prompt'?" in wrong.err


def test_a_picture_that_comes_back_has_its_own_marked_picture_again(
    place: CaptionPlace, server: LoopbackServer
) -> None:
    corners = []
    for color in ("teal", "maroon", "teal"):
        picture(place.folder, color=color)
        os.utime(place.folder / "20.png", LONG_AGO)
        place.captioned({"image": "20.png", "bbox": [[50, 60, 70, 80]]})
        with Image.open(place.results / "1_bbox_vis.jpg") as drawn:
            corners.append(drawn.getpixel((5, 5)))
    assert corners[0] == corners[2] != corners[1]
    assert server.count() == 2
