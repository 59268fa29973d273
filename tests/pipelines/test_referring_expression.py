"""`generate` for `image_referring_expression`: what a user gets for pictures with boxes."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from dataflow_grounding.testing import EchoAnswers, LoopbackServer
from tests.support import faults
from tests.support.labelled import kitti
from tests.support.referring_place import ReferringPlace
from tests.support.workplace import Done, command

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


class Street(NamedTuple):
    """A run over the street's pictures, by a model that answers in a format of its own."""

    place: ReferringPlace
    asked: dict[str, int]


@pytest.fixture(scope="module")
def ran(one_server: LoopbackServer, tmp_path_factory: pytest.TempPathFactory) -> Street:
    one_server.answers = EchoAnswers("yxyx_1000")
    place = ReferringPlace(tmp_path_factory.mktemp("street"), one_server.base_url)
    street(place)
    before = Counter(one_server.by_task)
    settings = {"vlm.box_format": "yxyx_1000", "workflow.output_format": "both"}
    done = place.run(**settings)
    assert done.code == 0, done
    return Street(place, dict(one_server.by_task - before))


TASKS = ("region_expression", "image_caption", "grounding_expression", "double_check")


def test_each_picture_is_asked_about_once_by_each_step(ran: Street) -> None:
    assert ran.asked == dict.fromkeys(TASKS, 2)


def test_boxes_are_the_label_files_numbers_whatever_the_model_is_told(ran: Street) -> None:
    records = ran.place.annotations()
    given = [[float(n) for n in corners] for corners in CARS]
    regions = [region for record in records for region in record["regions"]]
    assert [region["bbox"] for region in regions] == given
    assert [region["type"] for region in regions] == ["Car", "Van", "Person_sitting"]
    instances = [i for record in records for e in record["expressions"] for i in e["instances"]]
    assert [instance["bbox"] for instance in instances] == given
    assert [instance["region_id"] for instance in instances] == [1, 2, 1]
    assert all(instance["score"] is None for instance in instances)
    assert (records[0]["width"], records[0]["height"]) == (1242, 375)
    assert all(e["verified"] is True for record in records for e in record["expressions"])


def test_pictures_boxes_and_expressions_have_ids_of_their_own(ran: Street) -> None:
    records = ran.place.annotations()
    assert [record["image_id"] for record in records] == ["000", "night ä/000"]
    expressions = [expression for record in records for expression in record["expressions"]]
    ids = [e["expression_id"] for e in expressions]
    ids += [instance["bbox_id"] for e in expressions for instance in e["instances"]]
    assert len(set(ids)) == len(ids) == 6


def test_legacy_files_hold_boxes_in_0_to_1000_under_the_images_folder(ran: Street) -> None:
    [car, van] = json.loads(ran.place.legacy(0, "000"))
    told = {name: car[name] for name in ("color", "description")}
    assert car == {"bbox_2d": [495, 485, 586, 759], "type": "Car", **told}
    assert van["bbox_2d"] == [0, 268, 1000, 1000]
    first, second = ran.place.annotations()
    assert ran.place.legacy(1, "night ä/000") == second["caption"]
    boxes = ("[[495, 485, 586, 759]]", "[[0, 268, 1000, 1000]]")
    lines = [f"{e['text']}: {box}" for e, box in zip(first["expressions"], boxes, strict=True)]
    for step in (2, 3):
        assert ran.place.legacy(step, "000").splitlines() == lines


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


def test_ids_and_legacy_files_mirror_the_images_folder_whatever_the_paths(
    place: ReferringPlace,
) -> None:
    """Those of pictures outside of it say nothing of the folders of this machine."""
    outside = place.folder / "a machine's own"
    paths = [
        *("sub/x.png", str(place.images / "sub" / "y.png"), "../beside/x.png"),
        *(str(outside / name) for name in ("a/x.png", "b/x.png", "b/y.png")),
    ]
    for number, path in enumerate(paths):
        place.picture(path, color=(number, 20 * number, 90))
    regions = [{"bbox": [1, 2, 30, 40], "type": "Car"}]
    place.given(*({"image_path": path, "regions": regions} for path in paths))
    done = place.run(**{"workflow.output_format": "both"})
    assert done.code == 0, done
    ids = [record["image_id"] for record in place.annotations()]
    assert ids == ["sub/x", "sub/y", "_/beside/x", "x", "x~2", "y"]
    files = {str(path.relative_to(place.results)) for path in place.folder.rglob("*.txt.step0")}
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
    for steps in (["2"], ["1", "2", "3"]):
        spec = str(place.spec(**{"workflow.steps": steps}))
        for done in (place.run(**{"workflow.steps": steps}), command(["check", "-e", spec])):
            assert (done.code, server.count()) == (2, sent), done
            assert "run steps 0 and 1 first" in done.err
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
    assert server.by_task == dict.fromkeys(TASKS, 2), "nothing for those without"
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
    many(place, 3)
    assert place.run().code == 0
    assert server.count() == 12
    again = place.run()
    assert (again.code, server.count(), again.summary["already_complete"]) == (0, 12, True)
    before = place.annotations()
    place.label("01.txt", [kitti("Car", 3, 2, 61, 40)])
    assert place.run().code == 0
    assert server.count() == 12 + 3, "regions, expressions, check; the caption is known"
    same = [a == b for a, b in zip(place.annotations(), before, strict=True)]
    assert same == [True, False, True]


# --- steps


def test_steps_0_and_1_of_an_image_are_asked_side_by_side(
    place: ReferringPlace, server: LoopbackServer
) -> None:
    many(place, 3)
    server.latency = 0.15
    assert place.run(**{"workflow.max_workers": 32}).code == 0
    times = {(r.image_digests, r.task): (r.time, r.time_sent or 0.0) for r in server.requests}
    overlaps = []
    for image in {digests for digests, _ in times}:
        first, second = times[image, "region_expression"], times[image, "image_caption"]
        overlaps.append(max(first[0], second[0]) < min(first[1], second[1]))
        assert times[image, "grounding_expression"][0] > max(first[1], second[1])
    assert any(overlaps)


def test_steps_in_parts_give_what_one_run_gives(tmp_path: Path, server: LoopbackServer) -> None:
    records = []
    for number, runs in enumerate(([["3", "2", "1", "0"]], [[1], ["0"], ["2"], ["3"]])):
        place = ReferringPlace(tmp_path / f"{number}", server.base_url)
        many(place, 2)
        before = server.count()
        for steps in runs:
            done = place.run(**{"workflow.steps": steps})
            assert done.code == 0, done
        assert server.count() - before == 8
        records.append([{**record, "pipeline_steps": None} for record in place.annotations()])
    assert records[0] == records[1]


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


def test_many_boxes_are_all_described_in_groups_of_at_most_16(
    place: ReferringPlace, server: LoopbackServer
) -> None:
    place.picture("crowd.png", (1600, 900))
    corners = [
        (8 * n % 1500 + 0.5, 37 * n % 800, 8 * n % 1500 + 30, 37 * n % 800 + 50.25)
        for n in range(60)
    ]
    place.label("crowd.txt", [kitti("Pedestrian", *box) for box in corners])
    done = place.run()
    assert done.code == 0, done
    groups = [r.input["regions"] for r in server.requests if r.task == "region_expression"]
    for group in groups:
        assert [region["id"] for region in group] == [*range(1, len(group) + 1)]
    assert max(map(len, groups)) <= 16
    assert sum(map(len, groups)) == 60
    [record] = place.annotations()
    assert [tuple(region["bbox"]) for region in record["regions"]] == corners
    assert all(region["description"] for region in record["regions"])
    instances = [i for e in record["expressions"] for i in e["instances"]]
    assert sorted(instance["region_id"] for instance in instances) == [*range(1, 61)]
    assert all(i["bbox"] == list(corners[i["region_id"] - 1]) for i in instances)
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


@pytest.fixture(scope="module")
def merged(
    one_server: LoopbackServer, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Done, dict[str, Any]]:
    """How a run ended whose model says expressions of its own, and its only record."""
    said = {"two cars": ["2", 1, 1], "the van": 2, "the bike": [1, 9], "a ghost": [7], "": [1]}
    answers = {
        "image_caption": {"caption": "Two cars  and The Van."},
        "grounding_expression": {
            "expressions": [{"text": text, "region_ids": ids} for text, ids in said.items()]
        },
    }
    one_server.requests.clear()
    one_server.answers = lambda request: answers.get(request.task) or ECHO(request)
    place = ReferringPlace(tmp_path_factory.mktemp("merged"), one_server.base_url)
    many(place, 1)
    done = place.run()
    assert done.code == 0, done
    [request] = [r for r in one_server.requests if r.task == "grounding_expression"]
    assert request.input["caption"] == "Two cars and The Van."
    [record] = place.annotations()
    return done, record


def test_region_ids_that_were_not_asked_about_are_dropped(
    merged: tuple[Done, dict[str, Any]],
) -> None:
    done, record = merged
    found = {e["text"]: [i["region_id"] for i in e["instances"]] for e in record["expressions"]}
    assert found == {"two cars": [2, 1], "the van": [2], "the bike": [1]}
    assert done.summary["notes"]["dropped"] == 4


def test_spans_are_where_the_caption_has_the_words(merged: tuple[Done, dict[str, Any]]) -> None:
    _, record = merged
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


def test_each_group_of_regions_has_its_own_marks(
    place: ReferringPlace, server: LoopbackServer
) -> None:
    place.picture("row.png")
    place.label("row.txt", [kitti("Car", 30 * n, 10, 30 * n + 20, 60) for n in range(20)])
    assert place.run(**{"workflow.marks": "outline"}).code == 0
    pictures = [r.image_digests for r in server.requests if r.task == "region_expression"]
    assert len(set(pictures)) == len(pictures) == 2


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
