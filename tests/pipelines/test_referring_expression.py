"""`generate` for `image_referring_expression`: what a user gets for pictures with boxes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dataflow_grounding.testing import EchoAnswers, LoopbackServer, faults
from tests.support.labelled import kitti
from tests.support.referring_place import ReferringPlace
from tests.support.workplace import command

SEED_PAGE = Path(__file__).resolve().parents[3] / "shared" / "seeds" / "tao_2d_grounding_docs.txt"
ECHO = EchoAnswers()
CARS = [
    ("614.24", "181.78", "727.31", "284.77"),
    ("0.00", "100.5", "1242", "375.00"),
    ("1", "2", "30.125", "41.0001"),
]


@pytest.fixture
def place(tmp_path: Path, server: LoopbackServer) -> ReferringPlace:
    return ReferringPlace(tmp_path / "work", server.base_url)


def street(place: ReferringPlace) -> None:
    """Two pictures of one stem, and a KITTI label file for each."""
    place.picture("000.png", (1242, 375))
    place.picture("night ä/000.png", (1242, 375), "black")
    dont_care = kitti("DontCare", 503.89, 169.71, 590.61, 190.13)
    place.label(
        "000.txt",
        [kitti("Car", *CARS[0]), dont_care, "", f"  {kitti('Van', *CARS[1], score='0.93')}  "],
        "\r\n",
    )
    place.label("night ä/000.txt", [kitti("Person_sitting", *CARS[2]).replace(" ", "   ")])


# --- boxes, ids, legacy files


@pytest.mark.slow
@pytest.mark.parametrize("box_format", ["yxyx_1000", "xywh_1"])
def test_boxes_are_the_label_files_numbers_whatever_the_model_is_told(
    tmp_path: Path, box_format: str
) -> None:
    with LoopbackServer(EchoAnswers(box_format)) as server:
        place = ReferringPlace(tmp_path, server.base_url, **{"vlm.box_format": box_format})
        street(place)
        done = place.run()
        assert done.code == 0, done
        assert server.by_task == {
            "region_expression": 2,
            "image_caption": 2,
            "grounding_expression": 2,
            "double_check": 2,
        }
    records = place.annotations()
    assert [record["image_id"] for record in records] == ["000", "night ä/000"]
    given = [[float(n) for n in corners] for corners in CARS]
    assert [region["bbox"] for record in records for region in record["regions"]] == given
    assert [r["type"] for record in records for r in record["regions"]] == [
        "Car",
        "Van",
        "Person_sitting",
    ]
    instances = [i for record in records for e in record["expressions"] for i in e["instances"]]
    assert [instance["bbox"] for instance in instances] == given
    assert [instance["region_id"] for instance in instances] == [1, 2, 1]
    assert all(instance["score"] is None for instance in instances)
    ids = [i["bbox_id"] for i in instances] + [
        e["expression_id"] for r in records for e in r["expressions"]
    ]
    assert len(set(ids)) == len(ids) == 6
    assert (records[0]["width"], records[0]["height"]) == (1242, 375)
    assert all(e["verified"] is True for record in records for e in record["expressions"])


def test_legacy_files_hold_boxes_in_0_to_1000_under_the_images_folder(
    place: ReferringPlace,
) -> None:
    street(place)
    assert place.run(**{"workflow.output_format": "both"}).code == 0
    [car, van] = json.loads(place.legacy(0, "000"))
    assert car == {
        "bbox_2d": [495, 485, 586, 759],
        "type": "Car",
        "color": car["color"],
        "description": car["description"],
    }
    assert van["bbox_2d"] == [0, 268, 1000, 1000]
    assert place.legacy(1, "night ä/000") == place.annotations()[1]["caption"]
    for step in (2, 3):
        lines = [line.rsplit(": ", 1) for line in place.legacy(step, "000").splitlines()]
        assert [json.loads(boxes) for _, boxes in lines] == [
            [[495, 485, 586, 759]],
            [[0, 268, 1000, 1000]],
        ]
        assert [text for text, _ in lines] == [
            e["text"] for e in place.annotations()[0]["expressions"]
        ]


def test_going_back_to_the_unified_format_leaves_no_legacy_files_and_costs_nothing(
    place: ReferringPlace, server: LoopbackServer
) -> None:
    street(place)
    assert place.run(**{"workflow.output_format": "both"}).code == 0
    sent = server.count()
    kept = place.results / "mine" / "labels" / "a.txt"
    kept.parent.mkdir(parents=True)
    kept.write_text("not ours")
    assert place.run(**{"workflow.output_format": "unified"}).code == 0
    assert list(place.results.rglob("labels")) == [kept.parent]
    assert place.run(**{"workflow.output_format": "legacy"}).code == 0
    assert len(list(place.results.rglob("*.txt.step*"))) == 8
    assert len(place.annotations()) == 2
    assert server.count() == sent
    (place.images / "000.png").unlink()  # its legacy files go too
    assert place.run(**{"workflow.output_format": "legacy"}).code == 0
    assert [path.name for path in place.results.rglob("*.txt.step0")] == ["000.txt.step0"]


def test_legacy_files_have_no_phrase_without_a_box(
    place: ReferringPlace, server: LoopbackServer
) -> None:
    def several(request: Any) -> Any:
        answer = ECHO(request)
        for check in answer.get("checks", [])[:1]:
            check |= {"matches": False, "region_ids": [1, 2]}
        return answer

    server.answers = several
    many(place, 1)
    done = place.run(**{"workflow.output_format": "both"})
    assert done.code == 0, done
    [first, second] = place.annotations()[0]["expressions"]
    assert (first["status"], second["status"]) == ("ambiguous", "grounded")
    assert [line.split(":")[0] for line in place.legacy(3, "00").splitlines()] == [second["text"]]
    assert len(place.legacy(2, "00").splitlines()) == 2


@pytest.mark.slow
def test_ids_and_legacy_files_mirror_the_images_folder_whatever_the_paths(tmp_path: Path) -> None:
    """On two machines: the pictures lie in folders of other names, one of them outside of the
    images' folder.
    """
    found = []
    for machine in ("here", "there"):
        with LoopbackServer() as server:
            place = ReferringPlace(tmp_path / machine, server.base_url)
            outside = [
                tmp_path / f"{machine}s pictures" / name
                for name in ("a/x.png", "b/x.png", "b/y.png")
            ]
            paths = [
                "sub/x.png",
                str(place.images / "sub" / "y.png"),
                "../beside/x.png",
                *map(str, outside),
            ]
            rows = []
            for number, path in enumerate(paths):
                place.picture(path, color=(number, 20 * number, 90))
                rows.append(
                    {"image_path": path, "regions": [{"bbox": [1, 2, 30, 40], "type": "Car"}]}
                )
            place.given(*rows)
            done = place.run(**{"workflow.output_format": "both"})
        assert done.code == 0, done
        files = {str(p.relative_to(place.results)) for p in place.results.rglob("*.txt.step0")}
        found.append(([record["image_id"] for record in place.annotations()], files))
        assert len(list((tmp_path / machine).rglob("*.step0"))) == len(files)
    ids, files = found[0]
    assert found[1] == (ids, files)
    assert ids == ["sub/x", "sub/y", "_/beside/x", "x", "x~2", "y"]
    assert files == {f"step_0_region_expr/labels/{image_id}.txt.step0" for image_id in ids}


# --- what fails alone, what is reported


def test_a_box_that_reaches_beyond_its_picture_is_kept_and_told(place: ReferringPlace) -> None:
    boxes = [[-3, 2, 30, 40], [600, 400, 640.75, 480], [700, 2, 800, 40], [0, 0, 640.25, 480]]
    place.picture("a.png")
    place.label("a.txt", [kitti("Car", *box) for box in boxes])
    done = place.run()
    assert done.code == 0, done
    assert [region["bbox"] for region in place.annotations()[0]["regions"]] == boxes
    # a part of a pixel is none
    assert f"kept as they are: 3 (a.png: {boxes[0]} in 640 x 480 px" in done.err


def test_labels_without_a_single_box_are_refused_before_anything_is_sent(
    place: ReferringPlace, server: LoopbackServer
) -> None:
    place.picture("a.png")
    place.label("a.txt", [kitti("DontCare", 1, 2, 3, 4)])
    for done in (place.run(), command(["check", "-e", str(place.spec())])):
        assert (done.code, server.count()) == (2, 0), done
        assert done.err.count("none of the 1 images has a box: ") == 1
    assert place.run(**{"workflow.steps": ["1"]}).code == 0, "a caption needs no box"


def test_a_step_whose_input_lacks_what_it_needs_is_refused(
    place: ReferringPlace, server: LoopbackServer
) -> None:
    many(place, 2)
    assert place.run(**{"workflow.steps": ["1"]}).code == 0
    sent = server.count()
    for steps in (["2"], ["2", "3"], ["1", "2"], ["1", "2", "3"]):
        done = place.run(**{"workflow.steps": steps})
        assert (done.code, server.count()) == (2, sent), done
        assert "step 2 needs regions with a description" in done.err
        assert "run steps 0 and 1 first" in done.err
        checked = command(["check", "-e", str(place.spec(**{"workflow.steps": steps}))])
        assert (checked.code, "run steps 0 and 1 first" in checked.err) == (2, True), checked
    assert place.run(**{"workflow.steps": ["0"]}).code == 0
    assert place.run(**{"workflow.steps": ["1", "2"]}).code == 0


def test_missing_and_spare_labels_are_reported_and_fail_nothing(
    place: ReferringPlace, server: LoopbackServer
) -> None:
    street(place)
    place.picture("bare.png")
    place.picture("empty.png", color="red")
    place.label("empty.txt", [])
    place.label("stray/x.txt", [kitti("Car", 1, 2, 30, 40)])
    done = place.run()
    assert done.code == 0, done
    assert "images without a label: 1 (bare.png)" in done.err
    assert "labels without an image: 1 (stray/x.txt)" in done.err
    known = place.run_json()["input"]
    assert known["images_without_label"] == {"count": 1, "first": ["bare.png"]}
    assert known["labels_without_image"] == {"count": 1, "first": ["stray/x.txt"]}
    without = {r["image_id"]: r for r in place.annotations() if not r["regions"]}
    assert set(without) == {"bare", "empty"}
    assert all(r["expressions"] == [] and r["caption"] is None for r in without.values())
    tasks = ("region_expression", "image_caption", "grounding_expression", "double_check")
    assert [server.by_task[task] for task in tasks] == [2, 2, 2, 2], "nothing for those without"
    assert place.run(**{"workflow.steps": ["1"]}).code == 0  # captions are all that is asked for
    assert all(record["caption"] for record in place.annotations(1))
    assert server.by_task["image_caption"] == 4


# --- never lose, never pay twice


def many(place: ReferringPlace, count: int) -> None:
    for n in range(count):
        place.picture(f"{n:02}.png", color=(n, 2 * n, 90))
        place.label(
            f"{n:02}.txt", [kitti("Car", n, 2, 60.5 + n, 40), kitti("Van", 100, 200, 300 + n, 400)]
        )


def test_a_finished_run_sends_nothing_and_a_changed_label_asks_for_its_image_alone(
    place: ReferringPlace, server: LoopbackServer
) -> None:
    many(place, 6)
    assert place.run().code == 0
    assert server.count() == 24
    again = place.run()
    assert (again.code, server.count(), again.summary["already_complete"]) == (0, 24, True)
    before = place.files()
    place.label("03.txt", [kitti("Car", 3, 2, 61, 40)])
    assert place.run().code == 0
    assert server.count() == 24 + 3, "regions, expressions, check; the caption is known"
    after = [json.loads(line) for line in place.files()["annotations.jsonl"].splitlines()]
    earlier = [json.loads(line) for line in before["annotations.jsonl"].splitlines()]
    assert [a == b for a, b in zip(after, earlier, strict=True)] == [n != 3 for n in range(6)]


# --- steps


def test_steps_0_and_1_of_an_image_are_asked_side_by_side(
    place: ReferringPlace, server: LoopbackServer
) -> None:
    many(place, 5)
    server.latency = 0.3
    assert place.run(**{"workflow.max_workers": 32}).code == 0
    times = {(r.image_digests, r.task): (r.time, r.time_sent or 0.0) for r in server.requests}
    overlaps = []
    for image in {digests for digests, _ in times}:
        first, second = times[image, "region_expression"], times[image, "image_caption"]
        overlaps.append(max(first[0], second[0]) < min(first[1], second[1]))
        assert times[image, "grounding_expression"][0] > max(first[1], second[1])
    assert any(overlaps)


PARTS: tuple[list[list[Any]], ...] = (
    [["0"], ["1"], ["2"], ["3"]],
    [[1], [0], [2, 3]],
    [["3", "2", "1", "0"]],
)


def test_steps_in_parts_give_what_one_run_gives(tmp_path: Path, server: LoopbackServer) -> None:
    whole = ReferringPlace(tmp_path / "whole", server.base_url)
    many(whole, 2)
    assert whole.run().code == 0
    for number, runs in enumerate(PARTS):
        place = ReferringPlace(tmp_path / f"{number}", server.base_url)
        many(place, 2)
        sent = server.count()
        for steps in runs:
            done = place.run(**{"workflow.steps": steps})
            assert done.code == 0, done
        assert server.count() - sent == 8
        plain, expected = (
            [{k: v for k, v in r.items() if k != "pipeline_steps"} for r in p.annotations()]
            for p in (place, whole)
        )
        assert plain == expected, runs


WRONG = [
    ({"workflow.steps": ["2"]}, "run steps 0 and 1 first"),
    ({"workflow.steps": ["3"]}, "run step 2 first"),
    ({"workflow.steps": ["4"]}, "the steps are 0, 1, 2, 3"),
    (
        {"data.kitti_label_dir": None},
        "give one of kitti_label_dir, coco_json, yolo_label_dir or input_annotations_jsonl",
    ),
    ({"data.image_dir": None}, "image_dir is missing"),
    ({"data.image_dir": "/nowhere"}, "data.image_dir: no folder /nowhere"),
    ({"data.kitti_label_dir": "/nowhere"}, "kitti_label_dir: no folder /nowhere"),
    ({"data.coco_json": "/nowhere.json"}, "kitti_label_dir and coco_json are given"),
    ({"data.input_annotations_jsonl": "/nowhere.jsonl"}, "no input file /nowhere.jsonl"),
    ({"double_check.method": "guess"}, "double_check.method"),
    ({"double_check.iou": 0}, "double_check.iou"),
    ({"workflow.marks": "circles"}, "workflow.marks"),
    ({"data.kitti_labels": "x"}, "kitti_labels is not a key of the spec; is it 'kitti_label_dir'?"),
]


def test_what_is_wrong_is_found_before_the_first_request(
    place: ReferringPlace, server: LoopbackServer
) -> None:
    street(place)
    for settings, expected in WRONG:
        done = place.run(**settings)
        assert (done.code, server.count()) == (2, 0), done
        assert expected in done.err, done
        assert "Traceback" not in done.err


def test_labels_that_mirror_nothing_are_refused(place: ReferringPlace) -> None:
    place.picture("a.png")
    place.label("other/b.txt", [kitti("Car", 1, 2, 30, 40)])
    done = place.run()
    assert done.code == 2
    assert "the label of sub/a.jpg is sub/a.txt" in done.err


# --- many regions


def test_200_boxes_are_all_described_in_groups_of_at_most_16(
    place: ReferringPlace, server: LoopbackServer
) -> None:
    place.picture("crowd.png", (1600, 900))
    corners = [
        (8 * n % 1500 + 0.5, 37 * n % 800, 8 * n % 1500 + 30, 37 * n % 800 + 50.25)
        for n in range(200)
    ]
    place.label("crowd.txt", [kitti("Pedestrian", *box) for box in corners])
    done = place.run()
    assert done.code == 0, done
    groups = [r.input["regions"] for r in server.requests if r.task == "region_expression"]
    assert max(map(len, groups)) <= 16
    assert all(
        [region["id"] for region in group] == list(range(1, len(group) + 1)) for group in groups
    )
    assert sum(map(len, groups)) == 200
    [record] = place.annotations()
    assert [tuple(region["bbox"]) for region in record["regions"]] == corners
    assert all(region["description"] for region in record["regions"])
    named = sorted(i["region_id"] for e in record["expressions"] for i in e["instances"])
    assert named == list(range(1, 201))
    assert all(
        i["bbox"] == list(corners[i["region_id"] - 1])
        for e in record["expressions"]
        for i in e["instances"]
    )
    checks = [r.input for r in server.requests if r.task == "double_check"]
    assert max(len(check["expressions"]) for check in checks) <= 16


def items_of(request: Any) -> int:
    """How many answers a request asks for."""
    return len(request.input.get("expressions") or request.input.get("regions") or ())


def test_a_reply_that_is_cut_off_is_asked_for_in_halves(
    place: ReferringPlace, server: LoopbackServer
) -> None:
    place.picture("row.png")
    place.label("row.txt", [kitti("Car", 40 * n, 10, 40 * n + 30, 60) for n in range(12)])
    server.faults = [lambda request: faults.truncated() if items_of(request) > 5 else None]
    done = place.run()
    assert done.code == 0, done
    [record] = place.annotations()
    assert len(record["regions"]) == len(record["expressions"]) == 12
    assert all(e["verified"] for e in record["expressions"])


# --- replies that leave something out


def test_the_users_types_stay_and_the_models_fill_empty_ones(
    place: ReferringPlace, server: LoopbackServer
) -> None:
    def renaming(request: Any) -> Any:
        answer = ECHO(request)
        for region in answer.get("regions", ()):
            region["type"] = "lorry"
        return answer

    server.answers = renaming
    place.picture("a.png")
    regions = [{"bbox": [1, 2, 30, 40], "type": "Car"}, {"bbox": [5, 6, 70.5, 80]}]
    place.given({"image_path": "a.png", "regions": regions})
    assert place.run().code == 0
    assert [region["type"] for region in place.annotations()[0]["regions"]] == ["Car", "lorry"]


def test_region_ids_that_were_not_asked_about_are_dropped(
    place: ReferringPlace, server: LoopbackServer
) -> None:
    said = {"the car": [1, 9], "a ghost": [7], "both": ["2", 1, 1], "": [1], "the van": 2}
    merged = [{"text": text, "region_ids": ids} for text, ids in said.items()]
    server.answers = lambda request: (
        {"expressions": merged} if request.task == "grounding_expression" else ECHO(request)
    )
    many(place, 1)
    done = place.run()
    assert done.code == 0, done
    [record] = place.annotations()
    found = {e["text"]: [i["region_id"] for i in e["instances"]] for e in record["expressions"]}
    assert found == {"the car": [1], "both": [2, 1], "the van": [2]}
    assert done.summary["notes"]["dropped"] == 4


def test_spans_are_where_the_caption_has_the_words(
    place: ReferringPlace, server: LoopbackServer
) -> None:
    said = {"two cars": [1, 2], "the van": [2], "the bike": [1]}
    merged = [{"text": text, "region_ids": ids} for text, ids in said.items()]

    def speaking(request: Any) -> Any:
        if request.task == "image_caption":
            return {"caption": "Two cars  and The Van."}
        if request.task == "grounding_expression":
            assert request.input["caption"] == "Two cars and The Van."
            return {"expressions": merged}
        return ECHO(request)

    server.answers = speaking
    many(place, 1)
    assert place.run().code == 0
    [record] = place.annotations()
    assert [e["char_span"] for e in record["expressions"]] == [[0, 8], [13, 20], None]
    assert record["cleaned_caption"][13:20] == "The Van"


# --- marks


def test_marks_are_drawn_in_the_picture_of_the_steps_that_show_regions(
    place: ReferringPlace, server: LoopbackServer
) -> None:
    many(place, 1)
    assert place.run().code == 0
    plain = {r.task: r.image_digests for r in server.requests}
    assert len(set(plain.values())) == 1
    assert place.run(**{"workflow.marks": "outline"}).code == 0
    marked = {r.task: r.image_digests for r in list(server.requests)[4:]}
    assert marked["region_expression"] != plain["region_expression"]
    assert "image_caption" not in marked, "its picture has no marks: its reply is known"
    assert all(size == (640, 480) for r in server.requests for size in r.image_sizes)
    sent = server.count()
    assert place.run(**{"workflow.marks": "outline"}).code == 0
    assert server.count() == sent


def test_each_group_of_regions_has_its_own_marks(
    place: ReferringPlace, server: LoopbackServer
) -> None:
    place.picture("row.png")
    place.label("row.txt", [kitti("Car", 30 * n, 10, 30 * n + 20, 60) for n in range(20)])
    assert place.run(**{"workflow.marks": "outline"}).code == 0
    pictures = [r.image_digests for r in server.requests if r.task == "region_expression"]
    assert len(set(pictures)) == len(pictures) == 2


# --- next to the other pipeline


@pytest.mark.skipif(not SEED_PAGE.exists(), reason="the seed pages are not here")
@pytest.mark.slow
def test_the_seed_pages_spec_runs_unchanged_on_an_openai_endpoint(tmp_path: Path) -> None:
    page = SEED_PAGE.read_text(encoding="utf-8")
    for name in ("image_dir", "kitti_label_dir", "input_annotations_jsonl"):
        assert name in page
    with LoopbackServer(EchoAnswers("qwen2.5-vl"), key="k") as server:
        place = ReferringPlace(tmp_path)
        many(place, 2)
        spec = tmp_path / "tao.yaml"
        spec.write_text(TAO_SPEC.format(url=server.base_url, folder=tmp_path), encoding="utf-8")
        done = command(
            ["generate", "-e", str(spec), f"results_dir={place.results}", "module_name=auto_label"]
        )
    assert done.code == 0, done
    assert len(place.annotations()) == 2


TAO_SPEC = """\
results_dir: /path/to/results
autolabel_type: "image_referring_expression"

image_grounding:
  data:
    input_jsonl: ???
image_referring_expression:
  vlm:
    backend: "openai"
    gemini:
      api_key: ""
      model: "gemini-3.1-flash-lite-preview"
      media_resolution: "MEDIA_RESOLUTION_HIGH"
      temperature: 0.3
      max_output_tokens: 8192
      timeout: 120
    openai:
      api_key: "k"
      base_url: "{url}"
      model_name: "qwen2.5-vl-7b"
      temperature: 0.7
      max_tokens: 4096
      timeout: 60
  workflow:
    steps: ["0", "1", "2", "3"]
    max_workers: 4
    force_reprocess: false
    output_format: "unified"
  data:
    image_dir: "{folder}/images"
    kitti_label_dir: "{folder}/labels"
    input_annotations_jsonl: ""
"""


def test_pictures_that_differ_in_their_ending_have_ids_and_labels_of_their_own(
    place: ReferringPlace,
) -> None:
    for name in ("000.jpg", "000.png"):
        place.picture(name, (1242, 375), "black" if name == "000.png" else "white")
    place.label("000.txt", [kitti("Car", *CARS[0])])
    done = place.run(**{"workflow.output_format": "both"})
    assert done.code == 0, done
    records = place.annotations()
    assert [record["image_id"] for record in records] == ["000", "000.png"]
    assert not any("row_of_image" in record for record in records)
    ids = [e["expression_id"] for record in records for e in record["expressions"]]
    assert len(set(ids)) == len(ids) == 2
    assert len(list(place.results.rglob("*.txt.step0"))) == 2
