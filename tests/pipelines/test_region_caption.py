"""`image_region_caption`: pictures with boxes, or without, in; the boxes drawn and a text for each
out.
"""

from __future__ import annotations

import io
import json
import math
import os
import runpy
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dataflow_grounding import (
    EmbeddedServing,
    GroundingError,
    OpenAIServing,
    RegionCaptioner,
    RegionMarker,
)
from dataflow_grounding.data.rows import read_records
from dataflow_grounding.tasks.captions import read_marked_text
from dataflow_grounding.testing import EchoAnswers, LoopbackServer, ReceivedRequest
from tests.support.bytecode import instructions_of
from tests.support.labelled import Labelled, labelled
from tests.support.workplace import LONG_AGO, REPOSITORY, command

SIZE = (1536, 832)  # that of the seed's example: 196 / 1536 = 0.128, 599 / 832 = 0.72
PROMPT = "Describe the content of each marked region in the image. There are {0} regions: <region1> to <region{0}>."


def picture(
    folder: Path, name: str = "20.png", size: tuple[int, int] = (640, 360), color: str = "teal"
) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, color).save(folder / name)
    return name


@pytest.mark.slow
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
    rows = read_records("boxes.jsonl")
    assert rows == [
        {"image": "1.png", "bbox": boxes[:2]},
        {"image": "2.png", "bbox": boxes[2:]},
    ]
    with LoopbackServer() as server:
        code, summary = generate(tmp_path, server.base_url, rows)
    assert (code, summary["done"]) == (0, 2)
    captioned = read_records("out/annotations.jsonl")
    assert [row["type"] for row in captioned] == ["with_bbox", "with_bbox"]
    assert [len(row["region_captions"]) for row in captioned] == [2, 1]


def generate(
    folder: Path, url: str, rows: list[dict[str, Any]], *overrides: str
) -> tuple[int, dict[str, Any]]:
    (folder / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    vlm = {
        "backend": "openai",
        "box_format": "xyxy_px",
        "openai": {"base_url": url, "model_name": "loopback", "api_key": "k"},
    }
    spec = {
        "results_dir": "out",
        "autolabel_type": "image_region_caption",
        "image_region_caption": {"vlm": vlm, "data": {"input_jsonl": "in.jsonl"}},
    }
    (folder / "spec.yaml").write_text(json.dumps(spec))
    keys = [f"image_region_caption.{key}" for key in overrides]
    done = command(["generate", "-e", str(folder / "spec.yaml"), "--json", "--no-progress", *keys])
    return done.code, done.summary


def annotations(folder: Path) -> list[dict[str, Any]]:
    return read_records(str(folder / "out" / "annotations.jsonl"))


def captioned(
    folder: Path, server: LoopbackServer, row: dict[str, Any], *overrides: str
) -> dict[str, Any]:
    """The record that a run makes of a row."""
    code, _ = generate(folder, server.base_url, [row], *overrides)
    assert code == 0
    [record] = annotations(folder)
    return record


def by_box(request: ReceivedRequest) -> dict[str, Any]:
    """A text that tells which box it is about."""
    return {
        "captions": [
            {"id": r["id"], "text": f"box {r['bbox_2d']}"} for r in request.input["regions"]
        ]
    }


def test_the_seeds_example_row_gives_its_nine_fields(
    tmp_path: Path, server: LoopbackServer
) -> None:
    picture(tmp_path, size=SIZE)
    record = captioned(tmp_path, server, {"image": "20.png", "bbox": [[196, 104, 310, 495]]})
    nine = {
        "image": "20.png",
        "type": "with_bbox",
        "bbox": [[196, 104, 310, 495]],
        "normalized_bbox": [[0.128, 0.125, 0.329, 0.72], *[[0.0, 0.0, 0.0, 0.0]] * 9],
        "result_file": str(tmp_path / "out"),
        "image_with_bbox": str(tmp_path / "out" / "1_bbox_vis.jpg"),
        "valid_bboxes_num": 1,
        "prompt": PROMPT.format(1),
        "answer": record["answer"],
    }
    assert {name: record[name] for name in nine} == nine
    [caption] = record["region_captions"]
    assert caption["bbox"] == [196, 104, 506, 599]
    assert caption["text"]
    assert record["answer"] == f"<region1>: {caption['text']}"
    assert Image.open(record["image_with_bbox"]).size == SIZE


@pytest.mark.parametrize(
    ("boxes", "kinds"),
    [
        pytest.param([[9, 9, 0, 5]], ["no_area"], id="without width"),
        pytest.param([[9, 9, -4, 5]], ["no_area"], id="negative width"),
        pytest.param([[200, 9, 4, 5]], ["outside"], id="beside the image"),
        pytest.param([[9, 9, 5, None]], ["not_finite"], id="NaN, as tables have it"),
        pytest.param([[9, 9, 5, "x"]], ["not_numbers"], id="a word for a number"),
        pytest.param([[9, 9, True, 5]], ["not_numbers"], id="true for a number"),
        pytest.param([[9, 9, 5]], ["not_numbers"], id="three numbers"),
        pytest.param([["NaN", 9, 5, 5]], ["not_finite"], id="NaN, as CSV files have it"),
        pytest.param([[10**400, 9, 5, 5]], ["not_finite"], id="beyond a double"),
        pytest.param([[60, 40, 95, 79]], ["xyxy"], id="corners that leave the image as a size"),
        pytest.param(
            [[60, 40, 95, 79], [1, 1, 20, 20]],
            ["xyxy", "xyxy"],
            id="a row of corners, some of which would fit",
        ),
        pytest.param(
            [[60, 40, 95, 79], [50, 40, 10, 10]],
            [],
            id="cut, where another box of the row is no corners",
        ),
        pytest.param([[50, 40, 51, 41]], [], id="a little over the edge: cut"),
        pytest.param([9, 9, 5, 5], [], id="one box without its list"),
    ],
)
def test_what_is_wrong_with_a_box_is_told_apart(
    tmp_path: Path, boxes: list[Any], kinds: list[str]
) -> None:
    name = str(tmp_path / picture(tmp_path, size=(100, 80)))
    good = [2, 3, 30, 40]
    marker = RegionMarker(tmp_path)
    if "xyxy" not in kinds and isinstance(boxes[0], list):
        record = marker({"image": name, "bbox": [good, *boxes]})
        assert [problem["kind"] for problem in record.get("bbox_problems", [])] == kinds
        assert record["valid_bboxes_num"] == 1 + len(boxes) - len(kinds)
        assert record["regions"][0]["bbox"] == [2, 3, 32, 43]
        assert all(0 <= n <= 1 for bbox in record["normalized_bbox"] for n in bbox)
    elif kinds:
        with pytest.raises(GroundingError, match=r"x1, y1, x2, y2"):
            marker({"image": name, "bbox": boxes})
    else:
        assert marker({"image": name, "bbox": boxes})["valid_bboxes_num"] == 1


def test_nan_in_python_fails_its_row_alone(tmp_path: Path) -> None:
    name = str(tmp_path / picture(tmp_path, size=(100, 80)))
    done = RegionMarker(tmp_path)(
        [{"image": name, "bbox": [[math.nan, 1, 2, 3]]}, {"image": name, "bbox": [[1, 1, 9, 9]]}]
    )
    assert [record["valid_bboxes_num"] for record in done] == [1]
    assert [place for place, _ in done.failures] == [0]


def test_of_more_boxes_than_max_boxes_the_largest_stay_in_their_order(
    tmp_path: Path, server: LoopbackServer
) -> None:
    picture(tmp_path)
    rows = [{"image": "20.png", "bbox": [[10, 10, 5 + n % 7, 20] for n in range(14)]}]
    server.answers = by_box
    code, summary = generate(tmp_path, server.base_url, rows, "workflow.max_boxes=4")
    assert code == 0
    assert summary["notes"]["over_max_boxes"] == 10
    [record] = annotations(tmp_path)
    # boxes 5, 6, 12, 13
    assert [c["bbox"][2] for c in record["region_captions"]] == [20, 21, 20, 21]
    assert len(record["normalized_bbox"]) == record["valid_bboxes_num"] == 4
    assert {p["box"] for p in record["bbox_problems"]} == set(range(14)) - {5, 6, 12, 13}
    assert len(record["bbox"]) == 14


def test_all_boxes_go_out_in_several_requests_and_each_text_comes_back_to_its_box(
    tmp_path: Path, server: LoopbackServer
) -> None:
    picture(tmp_path, size=SIZE)
    boxes = [[(37 * n) % 1400, (91 * n) % 700, 40 + n, 50] for n in range(40)]
    server.answers = by_box
    row = {"image": "20.png", "bbox": boxes}
    record = captioned(tmp_path, server, row, "workflow.max_boxes=null")
    assert server.by_task["region_caption"] >= 3
    expected = [[x, y, x + w, y + h] for x, y, w, h in boxes]
    assert [c["bbox"] for c in record["region_captions"]] == expected
    assert [c["text"] for c in record["region_captions"]] == [f"box {bbox}" for bbox in expected]
    assert sorted(record["answer"].splitlines()) == sorted(
        f"<region{n}>: box {b}" for n, b in enumerate(expected, 1)
    )


def test_rows_without_boxes_get_the_models_proposals_labelled_as_such(
    tmp_path: Path, server: LoopbackServer
) -> None:
    picture(tmp_path)
    code, _ = generate(
        tmp_path, server.base_url, [{"image": "20.png"}, {"image": "20.png", "bbox": []}]
    )
    assert code == 0
    # the check; two equal rows are paid for once
    assert server.by_task["phrase_grounding"] == 1 + 1
    for record in annotations(tmp_path):
        [caption] = record["region_captions"]
        [[x, y, w, h]] = record["bbox"]
        assert record["type"] == "without_bbox"
        assert caption["bbox"] == [x, y, x + w, y + h]
        assert caption["proposed_by"] == "loopback"


def test_opencv_proposes_what_stands_out(tmp_path: Path, server: LoopbackServer) -> None:
    scene = Image.new("RGB", (400, 300), "white")
    scene.paste("red", (50, 60, 150, 160))
    scene.paste("blue", (250, 100, 350, 250))
    scene.save(tmp_path / "scene.png")
    record = captioned(tmp_path, server, {"image": "scene.png"}, "workflow.proposals=opencv")
    assert server.by_task["phrase_grounding"] == 0
    assert {caption["proposed_by"] for caption in record["region_captions"]} == {"opencv"}
    found = [caption["bbox"] for caption in record["region_captions"]]
    for known in ([50, 60, 150, 160], [250, 100, 350, 250]):
        assert any(
            max(abs(a - b) for a, b in zip(known, bbox, strict=True)) <= 4 for bbox in found
        ), found


@pytest.mark.slow
def test_nothing_to_propose_is_no_invention(tmp_path: Path) -> None:
    name = str(tmp_path / picture(tmp_path, size=(200, 200)))
    record = RegionCaptioner(EmbeddedServing())(RegionMarker(tmp_path)({"image": name}))
    assert (record["type"], record["bbox"], record["region_captions"], record["answer"]) == (
        "without_bbox",
        [],
        [],
        None,
    )


IN_WORDS = "In <region1>, there is a cup on a table. It is white.\nIn <region2>, the lower half of a person is visible."


@pytest.mark.parametrize(
    ("at_once", "said", "answer", "texts"),
    [
        pytest.param(16, IN_WORDS, IN_WORDS, IN_WORDS.splitlines(), id="one request"),
        pytest.param(
            1,
            "<region1>: a thing",
            "<region1>: a thing\n<region2>: a thing",
            ["a thing", "a thing"],
            id="a later request names the row's region",
        ),
    ],
)
def test_an_answer_in_the_models_own_words_is_kept_and_divided(
    tmp_path: Path, server: LoopbackServer, at_once: int, said: str, answer: str, texts: list[str]
) -> None:
    name = str(tmp_path / picture(tmp_path, size=SIZE))
    server.answers = lambda request: said
    regions = [{"bbox": [10, 10, 60, 60], "type": ""}, {"bbox": [800, 500, 900, 600], "type": ""}]
    serving = OpenAIServing(server.base_url, "loopback", box_format="xyxy_px")
    captioner = RegionCaptioner(serving, regions_per_request=at_once)
    record = captioner({"image": name, "regions": regions})
    assert record["answer"] == answer
    assert [caption["text"] for caption in record["region_captions"]] == texts


def test_a_reply_that_leaves_a_region_out_is_asked_again_and_then_fails(
    tmp_path: Path, server: LoopbackServer
) -> None:
    picture(tmp_path)
    server.answers = lambda request: {"captions": [{"id": 1, "text": "a cup"}]}
    code, summary = generate(
        tmp_path, server.base_url, [{"image": "20.png", "bbox": [[1, 1, 9, 9], [20, 20, 9, 9]]}]
    )
    assert code == 4
    assert summary["requests"] == 3
    [failure] = read_records(str(tmp_path / "out" / "failures.jsonl"))
    assert "missing for id 2" in failure["message"]


def sent(request: ReceivedRequest) -> Image.Image:
    """The picture that a request carried."""
    import base64

    parts = request.body["messages"][-1]["content"]
    [url] = [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]
    return Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))).convert("RGB")


def differs(shown: Image.Image, area: tuple[int, int, int, int]) -> bool:
    """Whether anything was drawn inside an area of a picture that was all teal."""
    return any(high - low > 40 for low, high in shown.crop(area).getextrema())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("size", "marks"),
    [(SIZE, "outline"), (SIZE, "tag"), ((2200, 1000), "outline"), ((96, 64), "tag")],
    ids=["seed's", "seed's, tags", "reduced before it is sent", "tiny"],
)
def test_marks_stand_beside_the_region_and_not_in_it(
    tmp_path: Path, marks: str, size: tuple[int, int]
) -> None:
    picture(tmp_path, size=size)
    with LoopbackServer(by_box, keep_bodies=True) as server:
        box = [size[0] // 2, size[1] // 2, size[0] // 4, size[1] // 4]
        captioned(tmp_path, server, {"image": "20.png", "bbox": [box]}, f"workflow.marks={marks}")
        shown = sent(server.requests[0])
    w, h = shown.size
    assert max(w, h) <= 2048
    assert not differs(shown, (w // 2 + 3, h // 2 + 3, w * 3 // 4 - 3, h * 3 // 4 - 3))
    right = (w * 3 // 4 - 2, h * 5 // 8, w * 3 // 4 + max(8, w // 100), h * 5 // 8 + 4)
    assert differs(shown, right) is (marks == "outline")
    number = differs(shown, (w // 2 - w // 20, h // 2 - h // 4, w * 3 // 4, h // 2 - 1))
    assert number


@pytest.mark.slow
def test_crops_are_pictures_of_their_own(tmp_path: Path) -> None:
    scene = Image.new("RGB", (400, 300), "white")
    scene.paste("red", (50, 60, 150, 160))
    scene.save(tmp_path / "scene.png")
    Image.new("RGB", (2300, 600), "blue").save(tmp_path / "large.png")
    rows = [
        {"image": "scene.png", "bbox": [[50, 60, 100, 100], [300, 200, 50, 80]]},
        {"image": "large.png", "bbox": [[0, 0, 2200, 550]]},
    ]
    with LoopbackServer(keep_bodies=True) as server:
        code, _ = generate(tmp_path, server.base_url, rows, "workflow.marks=crop")
        assert code == 0
        pictures = {str(r.input["regions"]): sent(r) for r in server.requests}
    sizes = sorted(shown.size for shown in pictures.values())
    assert [w / h for w, h in sizes] == pytest.approx([50 / 80, 1.0, 4.0], rel=0.01)
    assert max(side for size in sizes for side in size) <= 2048
    square = next(shown for shown in pictures.values() if shown.width == shown.height)
    assert all(abs(a - b) < 12 for a, b in zip(square.getpixel((5, 5)), (255, 0, 0), strict=True))


def test_a_second_run_sends_nothing_and_check_names_each_bad_box(
    tmp_path: Path, server: LoopbackServer
) -> None:
    picture(tmp_path)
    rows = [{"image": "20.png", "bbox": [[1, 1, 90, 90], [9999, 1, 5, 5]]}, {"image": "20.png"}]
    assert generate(tmp_path, server.base_url, rows)[0] == 0
    _, again = generate(tmp_path, server.base_url, rows)
    assert (again["requests"], again["already_complete"]) == (0, True)
    checked = command(["check", "-e", str(tmp_path / "spec.yaml")])
    assert checked.code == 2
    assert "line 1: box 1 lies outside of the image" in checked.out + checked.err


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


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(
            "<region1>: a cup; <region2>: a spoon", {1: "a cup", 2: "a spoon"}, id="one line"
        ),
        pytest.param(
            "- <region 1>: a cup\n- <Region2>: a spoon", {1: "a cup", 2: "a spoon"}, id="a list"
        ),
        pytest.param(
            "1. <region1> a cup.\nIt is red.",
            {1: "<region1> a cup. It is red."},
            id="a sentence more",
        ),
        pytest.param(
            "<region1> and <region2> are cups.",
            dict.fromkeys((1, 2), "<region1> and <region2> are cups."),
            id="both",
        ),
        pytest.param(
            "<region3>: not asked for\nand more of it", {}, id="a region that is not there"
        ),
        pytest.param("A kitchen with cups.", {}, id="no region named"),
    ],
)
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


@pytest.mark.slow
def test_the_picture_that_is_sent_is_the_one_in_the_folder(tmp_path: Path) -> None:
    picture(tmp_path, size=(300, 200))
    with LoopbackServer(by_box, keep_bodies=True) as server:
        record = captioned(tmp_path, server, {"image": "20.png", "bbox": [[50, 60, 70, 80]]})
        shown = sent(server.requests[0])
    assert shown.tobytes() == Image.open(record["image_with_bbox"]).convert("RGB").tobytes()


def test_the_report_shows_pictures_and_texts(tmp_path: Path, server: LoopbackServer) -> None:
    picture(tmp_path, size=(300, 200))
    server.answers = by_box
    captioned(tmp_path, server, {"image": "20.png", "bbox": [[50, 60, 70, 80]]})
    assert command(["report", str(tmp_path / "out")]).code == 0
    (data,) = (tmp_path / "out" / "report_files").glob("*/records-1.js")
    assert "box [50, 60, 120, 140]" in data.read_text(encoding="utf-8")
    # a small picture is shown itself
    assert '"thumbnail":"../20.png"' in data.read_text(encoding="utf-8")
    assert "not there" not in data.read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize(("on_suspect", "code"), [("stop", 2), ("warn", 0)])
def test_proposed_boxes_in_another_format_stop_the_run(
    tmp_path: Path, on_suspect: str, code: int
) -> None:
    colors = ("teal", "navy", "maroon")
    rows = [{"image": picture(tmp_path, f"{c}.png", (320, 200), c)} for c in colors]
    with LoopbackServer(EchoAnswers("yxyx_1000")) as server:
        settings = ("vlm.box_format=xyxy_1000", f"vlm.on_suspect_boxes={on_suspect}")
        assert generate(tmp_path, server.base_url, rows, *settings)[0] == code
    run = json.loads((tmp_path / "out" / "run.json").read_text())
    assert "yxyx_1000 would fit" in run["suspect_boxes"]


def test_rows_with_a_prompt_of_their_own_keep_it(tmp_path: Path, server: LoopbackServer) -> None:
    row = {"image": picture(tmp_path), "bbox": [[9, 9, 90, 90]]}
    spec = tmp_path / "spec.yaml"
    with pytest.raises(json.JSONDecodeError):  # nothing ran, so there is no summary
        captioned(tmp_path, server, {**row, "prompt": "mine"})
    refused = command(["check", "-e", str(spec)])
    assert "column 'prompt' of the input: give it another name with output_prompt_key" in (
        refused.err
    )
    assert "workflow.output_columns.prompt" in refused.err
    columns = "workflow.output_columns"
    record = captioned(
        tmp_path, server, {**row, "prompt": "mine"}, f"{columns}.prompt=region_prompt"
    )
    assert (record["prompt"], record["region_prompt"]) == ("mine", PROMPT.format(1))
    record = captioned(
        tmp_path, server, {**row, "answer": "mine"}, f"{columns}.answer=region_answer"
    )
    assert record["answer"] == "mine"
    assert record["region_answer"]
    wrong = command(
        ["check", "-e", str(spec), "image_region_caption.workflow.output_columns.promt=x"]
    )
    assert "'promt' is not one of" in wrong.err
    assert "is it 'prompt'?" in wrong.err


@pytest.mark.slow
def test_a_picture_that_comes_back_has_its_own_marked_picture_again(tmp_path: Path) -> None:
    row = {"image": "20.png", "bbox": [[50, 60, 70, 80]]}
    marked = tmp_path / "out" / "1_bbox_vis.jpg"
    corners = []
    with LoopbackServer(answers=EchoAnswers()) as server:
        for color in ("teal", "maroon", "teal"):
            picture(tmp_path, color=color)
            os.utime(tmp_path / "20.png", LONG_AGO)
            captioned(tmp_path, server, row)
            with Image.open(marked) as drawn:
                corners.append(drawn.getpixel((5, 5)))
    assert corners[0] == corners[2] != corners[1]
    assert server.count() == 2
