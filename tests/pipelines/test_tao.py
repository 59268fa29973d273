"""Coming from TAO: its spec with every key that it has, its seeds and results, its own results
folder.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from dataflow_grounding.testing import LoopbackServer
from tests.support.labelled import kitti
from tests.support.referring_place import ReferringPlace
from tests.support.workplace import command

NAME = "image_referring_expression"
VIDEO = {"long_video_threshold_sec": 60, "long_video_sample_fps": 0.5, "long_video_max_frames": 60}
VIDEO_ENDPOINT = {
    "tag": "",
    "base_urls": [],
    "frames_only": False,
    "reasoning_model": False,
    "top_p": -1,
    "top_k": -1,
}


@pytest.fixture
def place(tmp_path: Path, server: LoopbackServer) -> ReferringPlace:
    """Two pictures with three labels; `tao` is a results folder of TAO's for them."""
    made = ReferringPlace(tmp_path, server.base_url)
    for name, size in SIZES.items():
        made.picture(f"{name}.png", size)
        made.label(f"{name}.txt", [kitti(kind, *box) for *box, kind in BOXES[name]])
    return made


# --- the spec


def default_spec(folder: Path, base_url: str, **top: Any) -> Path:
    """What TAO's `default_specs module_name=auto_label` writes, an endpoint put in: all its blocks
    and keys.
    """
    gemini = {
        "api_key": "",
        "model": "gemini-3.1-flash-lite-preview",
        "media_resolution": "MEDIA_RESOLUTION_LOW",
        "temperature": 0.3,
        "max_output_tokens": 8192,
        "timeout": 120,
        "tag": "",
    }
    openai = {
        "api_key": "",
        "base_url": base_url,
        "model_name": "qwen2.5-vl-7b",
        "temperature": 0.7,
        "max_tokens": 4096,
        "timeout": 60,
        **VIDEO_ENDPOINT,
    }
    vlm = {"backend": "openai", "gemini": gemini, "openai": openai}
    flow = {"max_workers": 4, "force_reprocess": False, **VIDEO}
    steps = ["0", "1", "2", "3"]
    spec = {
        "gpu_ids": [0],
        "num_gpus": 1,
        "batch_size": 4,
        "num_workers": 8,
        "autolabel_type": "mal",
        "mal": {"dataset": {"type": "coco"}, "checkpoint": None, "results_dir": None},
        "grounding_dino": {"dataset": {"image_dir": None, "class_names": []}, "visualize": True},
        "video_reasoning_annotation": {
            "vlm": vlm,
            "workflow": {"steps": ["0", "1a"], **flow},
            "data": {"video_root": ""},
        },
        "image_grounding": {
            "vlm": vlm,
            "workflow": {"steps": ["0", "1"], **flow},
            "data": {"input_jsonl": "???", "image_root": ""},
        },
        NAME: {
            "vlm": vlm,
            "workflow": {"steps": steps, "output_format": "jsonl", **flow},
            "data": {"image_dir": "", "kitti_label_dir": "", "input_annotations_jsonl": ""},
        },
        "vllm_captioning": {"inference": {}, "model": {"llm": {"tensor_parallel_size": 1}}},
        "results_dir": "",
        "hydra": {"run": {"dir": "outputs/${now:%Y-%m-%d}"}},
        **top,
    }
    path = folder / "experiment.yaml"
    path.write_text(yaml.safe_dump(spec, sort_keys=False), encoding="utf-8")
    return path


PASSED_OVER = [
    *("batch_size", "gpu_ids", "grounding_dino", "hydra", "mal", "num_gpus", "num_workers"),
    *("video_reasoning_annotation", "vllm_captioning"),
]


def named(name: str, other: str) -> str:
    keys = [f"{name}.workflow.{key}" for key in VIDEO] + [
        f"{name}.vlm.openai.{key}" for key in VIDEO_ENDPOINT
    ]
    return ", ".join(sorted([*PASSED_OVER, other, *keys, f"{name}.vlm.gemini.tag"]))


def test_the_spec_that_tao_writes_runs_with_one_note_about_what_is_not_used(
    place: ReferringPlace, server: LoopbackServer
) -> None:
    spec = str(default_spec(place.folder, server.base_url))
    overrides = [
        f"autolabel_type={NAME}",
        f"results_dir={place.results}",
        f"{NAME}.data.image_dir={place.images}",
        f"{NAME}.data.kitti_label_dir={place.labels}",
        "hydra.run.dir=outputs/${now:%Y}",
        "hydra/job_logging=stdout",
    ]
    note = f"keys that {NAME} doesn't use are passed over: {named(NAME, 'image_grounding')}"
    checked = command(["check", "--experiment_spec_file", spec, *overrides])
    assert checked.code == 0, checked
    assert checked.out.count(f"{note}\n") == 1
    done = command(["generate", "-e", spec, *overrides])
    assert done.code == 0, done
    assert done.err.count("passed over") == done.err.count(f"Note: {note}.\n") == 1
    assert len(place.annotations()) == 2


MISSPELT = {
    f"{NAME}.workflow.max_worker=3": "max_worker is not a key of the spec; is it 'max_workers'?",
    f"{NAME}.workflow.long_video_treshold_sec=3": "treshold_sec is not a key of the spec",
    f"{NAME}.data.long_video_max_frames=3": "data.long_video_max_frames is not a key of the spec",
    "hydro.run.dir=x": "hydro is not a key of the spec",
    "results_dir=": "results_dir=…: give it a folder",
    "autolabel_type=mal": "autolabel_type 'mal' is not one of image_grounding, ",
}


def test_a_misspelt_key_is_refused_all_the_same(
    place: ReferringPlace, server: LoopbackServer
) -> None:
    spec = default_spec(
        place.folder, server.base_url, autolabel_type=NAME, results_dir=str(place.results)
    )
    inputs = [
        f"{NAME}.data.image_dir={place.images}",
        f"{NAME}.data.kitti_label_dir={place.labels}",
    ]
    for override, expected in MISSPELT.items():
        done = command(["generate", "-e", str(spec), *inputs, override])
        assert (done.code, server.count()) == (2, 0), done
        assert expected in done.err, done


def test_default_specs_refuses_a_module_that_it_does_not_know(tmp_path: Path) -> None:
    assert command(["default_specs", f"results_dir={tmp_path}", "module_name=auto_label"]).code == 0
    done = command(["default_specs", f"results_dir={tmp_path}", "module_name=augmentation"])
    assert (done.code, "module_name 'augmentation'" in done.err) == (2, True), done


# --- its records

SIZES = {"a": (200, 100), "b": (640, 480)}
BOXES: dict[str, list[list[Any]]] = {
    "a": [
        [14.24, 11.78, 127.31, 84.77, "Car"],
        [0.0, 50.5, 100.0, 99.0, "Van"],
        [20, 20, 30, 30, "DontCare"],
    ],
    "b": [[10, 10, 50, 50, "Car"]],
}
KEPT = [[14.24, 11.78, 127.31, 84.77], [0.0, 50.5, 100.0, 99.0], [10, 10, 50, 50]]


def seed(name: str, **more: Any) -> dict[str, Any]:
    """A line of TAO's seed_annotations.jsonl: the path is that of the container that it ran in."""
    width, height = SIZES[name]
    return {
        "image_id": name,
        "image_path": f"/data/images/{name}.png",
        "width": width,
        "height": height,
        "kitti_bboxes": BOXES[name],
        "source": NAME,
        "pipeline_steps": [],
        **more,
    }


STEPS = ["step0_region_expr", "step1_image_caption", "step2_grounding_expr", "step3_double_check"]


def finished(
    name: str, size: tuple[int, int] | None = None, cut: Callable[[float], int] = int
) -> dict[str, Any]:
    """A line of TAO's annotations.jsonl after all its steps: its boxes are thousandths of a size, by
    default the picture's.
    """
    size = size or SIZES[name]
    regions, expressions = [], []
    for number, (*box, kind) in enumerate(box for box in BOXES[name] if box[4] != "DontCare"):
        written = [cut(value / size[n % 2] * 1000) for n, value in enumerate(box)]
        told = {"type": kind.lower(), "color": "red", "description": f"the {kind}"}
        regions.append({"bbox_2d": written, "bbox": written, **told})
        instance = {"bbox": written, "bbox_score": 0.9, "bbox_id": f"box_0000{number}"}
        expressions.append(
            {
                "text": f"the {kind}",
                "instances": [instance],
                "expression_id": f"expr_0000{number}",
                "char_span": [0, 3],
                "verified": True,
            }
        )
    more = {"regions": regions, "expressions": expressions, "pipeline_steps": STEPS}
    width, height = size
    return seed(name, width=width, height=height, caption="A street  with the Car.", **more)


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def boxes(place: ReferringPlace) -> list[list[float]]:
    return [region["bbox"] for record in place.annotations() for region in record["regions"]]


def test_the_boxes_of_taos_seeds_become_regions(
    place: ReferringPlace, server: LoopbackServer
) -> None:
    """With no column of regions, an empty one, or no source."""
    without_source = {name: value for name, value in seed("a").items() if name != "source"}
    place.given(seed("a"), seed("b"), seed("a", regions=[]), without_source)
    done = place.run()
    assert done.code == 0, done
    assert boxes(place) == [*KEPT, *KEPT[:2], *KEPT[:2]]
    assert server.by_task["region_expression"] == 2
    assert all("kitti_bboxes" not in record for record in place.annotations())
    assert "TAO records taken over, with boxes in pixels: 4" in done.err
    assert {record["image_path"] for record in place.annotations()} == {"a.png", "b.png"}


@pytest.mark.parametrize(
    ("size", "cut"),
    [
        pytest.param(None, int, id="the files' sizes"),
        pytest.param((1920, 1080), round, id="TAO's default size"),
    ],
)
def test_taos_results_are_taken_over_whole(
    place: ReferringPlace,
    size: tuple[int, int] | None,
    cut: Callable[[float], int],
) -> None:
    place.given(*(finished(name, size, cut) for name in SIZES))
    done = place.run(**{"workflow.steps": ["3"]})
    assert done.code == 0, done
    assert "TAO records taken over, with boxes in pixels: 2" in done.err
    assert boxes(place) == KEPT
    records = place.annotations()
    assert "bbox_2d" not in json.dumps(records)
    for record in records:
        assert "kitti_bboxes" not in record, "else it would be taken for TAO's again"
        assert (record["width"], record["height"]) == SIZES[record["image_id"]]
        assert record["pipeline_steps"] == STEPS
    first, second = records[0]["expressions"]
    assert (first["status"], second["status"]) == ("grounded", "grounded")
    start, end = first["char_span"]
    assert records[0]["cleaned_caption"][start:end] == "the Car"
    assert second["char_span"] is None
    instances = [expression["instances"][0] for expression in (first, second)]
    assert [instance["region_id"] for instance in instances] == [1, 2]
    assert [instance["bbox"] for instance in instances] == KEPT[:2]
    assert instances[0]["score"] == 0.9


def test_regions_and_captions_of_taos_are_not_asked_for_again(
    place: ReferringPlace, server: LoopbackServer
) -> None:
    place.given(*map(finished, SIZES))
    assert place.run(**{"workflow.steps": ["2", "3"]}).code == 0
    assert set(server.by_task) == {"grounding_expression", "double_check"}


def test_a_box_of_taos_that_is_no_label_is_converted(place: ReferringPlace) -> None:
    row = finished("a")
    row["expressions"][0]["instances"] = [{"bbox": [100, 200, 500, 1000]}]
    row["regions"][1]["bbox"] = [500, 0, 1000, 501]
    place.given(row)
    assert place.run(**{"workflow.steps": ["3"]}).code == 0
    [record] = place.annotations()
    assert record["regions"][1]["bbox"] == [100, 0, 200, 50.1]
    assert record["expressions"][0]["instances"][0]["bbox"] == [20, 20, 100, 100]


OTHER_SIZE = {"width": 1920, "height": 1080}
UNCERTAIN: dict[str, tuple[dict[str, Any], str]] = {
    "labels that are others": ({"kitti_bboxes": [[1, 2, 3, 4, "Car"]]}, "no region matches"),
    "labels that are none": ({"kitti_bboxes": ["x"]}, "kitti_bboxes"),
    "another size, no labels": ({"kitti_bboxes": [], **OTHER_SIZE}, "no region matches"),
    "a region without a box": ({"regions": [{"bbox": [1, 2]}]}, "a region needs 'bbox'"),
    "a box that is no label, in another size": (
        finished("a", (1920, 1080), round)
        | {"expressions": [{"text": "it", "instances": [{"bbox": [100, 200, 500, 1000]}]}]},
        "is not a region, and the record's size is not the image's",
    ),
}


def test_what_can_not_be_told_for_certain_fails_and_is_not_guessed(
    place: ReferringPlace, server: LoopbackServer
) -> None:
    place.given(*(finished("a") | change for change, _ in UNCERTAIN.values()))
    done = place.run(**{"workflow.steps": ["3"]})
    assert (done.code, server.count()) == (4, 0), done
    failures = sorted(place.failures(), key=lambda failure: failure["line"])
    for failure, (name, (_, why)) in zip(failures, UNCERTAIN.items(), strict=True):
        assert why in failure["message"], name


def test_a_record_of_ours_is_never_taken_for_taos(place: ReferringPlace) -> None:
    row = finished("a") | {"image_path": "a.png"}
    del row["kitti_bboxes"]
    row["regions"] = [{"bbox": [71, 18, 137, 48], "type": "Car"}]
    place.given(row)
    assert place.run().code == 0
    assert place.annotations()[0]["regions"][0]["bbox"] == [71, 18, 137, 48]


def test_steps_that_are_made_anew_are_not_named_before_they_are(place: ReferringPlace) -> None:
    place.given(*map(finished, SIZES))
    assert place.run(**{"workflow.steps": ["0"]}).code == 0
    assert all(record["pipeline_steps"] == ["step0_region_expr"] for record in place.annotations())


def test_boxes_of_taos_that_have_no_area_are_left_out_with_a_warning(place: ReferringPlace) -> None:
    place.given(seed("a", kitti_bboxes=[[5, 5, 5, 9, "Pole"], [150, 5, 210, 50, "Car"]]))
    done = place.run()
    assert done.code == 0, done
    assert boxes(place) == [[150, 5, 210, 50]]
    assert "boxes without an area are left out: 1 (" in done.err
    assert "kept as they are: 1 (" in done.err


NO_BOXES: list[dict[str, Any]] = [
    {"kitti_bboxes": []},
    {"kitti_bboxes": [[1, 2, 3, 4, "DontCare"]]},
    {"kitti_bboxes": None, "boxes": [[1, 2, 30, 40]], "regions": []},
]


@pytest.mark.parametrize("more", NO_BOXES, ids=["none", "DontCare", "another column"])
def test_a_run_that_takes_over_no_box_is_refused_before_anything_is_sent(
    place: ReferringPlace, server: LoopbackServer, more: dict[str, Any]
) -> None:
    place.given(*[seed(name, **more) for name in SIZES])
    done = place.run()
    assert (done.code, server.count()) == (2, 0), done
    assert "none of the 2 images has a box: " in done.err
    assert "has none in 'regions', and none in TAO's 'kitti_bboxes'" in done.err
    assert not (place.results / "seed_annotations.jsonl").exists()


# --- its results folder


def test_in_taos_own_results_folder_one_sentence_says_how_to_go_on(
    place: ReferringPlace, server: LoopbackServer
) -> None:
    theirs = {
        "seed_annotations.jsonl": [seed(name) for name in SIZES],
        "step_0_region_expr/annotations.jsonl": [finished(name) for name in SIZES],
        "annotations.jsonl": [finished(name) for name in SIZES],
    }
    for name, rows in theirs.items():
        write(place.results / name, rows)
    before = {path: path.read_bytes() for path in place.results.rglob("*.jsonl")}
    refused = [
        place.run(**{"workflow.steps": steps})
        for steps in (["0", "1", "2", "3"], ["2", "3"], ["3"])
    ]
    said = str(place.results / "annotations.jsonl")
    for done in (*refused, command(["check", "-e", str(place.spec())])):
        assert (done.code, server.count()) == (2, 0), done
        assert "holds TAO's own results" in done.err
        assert f"data.input_annotations_jsonl={said}" in done.err
    assert {path: path.read_bytes() for path in place.results.rglob("*.jsonl")} == before
    place.results = place.folder / "another"
    place.settings |= {"data.kitti_label_dir": None, "data.input_annotations_jsonl": said}
    assert place.run(**{"workflow.steps": ["3"]}).code == 0
    assert boxes(place) == KEPT


def test_a_folder_of_ours_that_a_run_without_images_left_is_not_taken_for_taos(
    place: ReferringPlace,
) -> None:
    place.given(*map(seed, SIZES))
    done = place.run(**{"data.image_dir": None})
    assert done.code == 4, done
    assert (
        "images can't be opened, give data.image_dir their folder: 2 (/data/images/a.png; "
        in done.err
    )
    assert [failure["kind"] for failure in place.failures()] == ["image_missing"] * 2
    assert "kitti_bboxes" in (place.results / "seed_annotations.jsonl").read_text()
    assert place.run().code == 0
    assert boxes(place) == KEPT


def test_the_seeds_are_not_written_over_the_file_that_they_are_read_from(
    place: ReferringPlace,
) -> None:
    assert place.run().code == 0
    place.settings |= {"data.kitti_label_dir": None}
    done = place.run(
        **{"data.input_annotations_jsonl": str(place.results / "seed_annotations.jsonl")}
    )
    assert (done.code, "would overwrite its input" in done.err) == (2, True), done
