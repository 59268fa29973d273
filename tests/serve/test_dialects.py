"""Requests as Label Studio's and X-AnyLabeling's own clients send them, and what they read."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest

from dataflow_grounding.testing import LoopbackServer
from tests.support.served import Served, paid_for

pytestmark = pytest.mark.slow

CONFIG = """<View>
  <Image name="photo" value="$image"/>
  <RectangleLabels name="box" toName="photo">
    <Label value="cup"/><Label value="Dog" background="red"/>
  </RectangleLabels>
  <TextArea name="words" toName="photo"/>
</View>"""
WRITTEN = {"type": "textarea", "to_name": "photo", "value": {"text": ["the left cup", "dog"]}}


def predict_request(*addresses: str, **more: Any) -> dict[str, Any]:
    # label_studio/ml/api_connector.py: MLApi.make_predictions
    tasks = [{"id": number, "data": {"image": one}} for number, one in enumerate(addresses)]
    return {
        "tasks": tasks,
        "project": "7.1764288000",
        "label_config": CONFIG,
        "params": {"login": None, "password": None, "context": more.get("context")},
    }


def labels_in(prediction: dict[str, Any]) -> list[str]:
    return [region["value"]["rectanglelabels"][0] for region in prediction["result"]]


def test_label_studio_connects_and_gets_boxes_of_its_labels(
    tmp_path: Path, pictures: Path, variables: dict[str, Any]
) -> None:
    # MLApi.setup
    setup = {
        "project": "7.1764288000",
        "schema": CONFIG,
        "hostname": "http://localhost:8080",
        "access_token": "0123456789abcdef",
        "extra_params": None,
    }
    with Served(tmp_path, "--root", str(pictures), **variables) as served:
        assert served.get("/health").body["status"] == "UP"
        version = served.post("/setup", setup).body["model_version"]
        by_storage = served.post("/predict", predict_request("/data/local-files/?d=0.png"))
        uploaded = served.post("/predict", predict_request("/data/0.png"))
        record = served.ground("0.png", "cup", "Dog").body
    assert version == "stand-in xyxy_px"
    [prediction] = by_storage.body["results"]
    assert prediction == uploaded.body["results"][0]
    assert prediction["model_version"] == by_storage.body["model_version"] == version
    assert labels_in(prediction) == ["cup", "Dog"]
    region = prediction["result"][0]
    x1, y1, x2, y2 = record["expressions"][0]["instances"][0]["bbox"]
    value = region["value"]
    assert [value["x"] * 3.2, value["y"] * 2.4] == pytest.approx([x1, y1])
    assert [value["width"] * 3.2, value["height"] * 2.4] == pytest.approx([x2 - x1, y2 - y1])
    assert (region["from_name"], region["to_name"], region["type"]) == (
        "box",
        "photo",
        "rectanglelabels",
    )
    assert (region["original_width"], region["original_height"]) == (320, 240)
    assert prediction["score"] == min(region["score"] for region in prediction["result"])


def test_texts_of_a_task_are_free_phrases(
    tmp_path: Path, pictures: Path, variables: dict[str, Any]
) -> None:
    stored = predict_request("/data/0.png")
    stored["tasks"][0]["annotations"] = [{"result": [WRITTEN]}]
    with Served(tmp_path, "--root", str(pictures), **variables) as served:
        # what a person has just written, in the interactive mode
        just_written = predict_request("/data/0.png", context={"result": [WRITTEN]})
        [now] = served.post("/predict", just_written).body["results"]
        [later] = served.post("/predict", stored).body["results"]
    assert labels_in(now) == ["cup", "Dog"]
    assert now["result"][0]["meta"] == {"text": ["the left cup"]}
    assert "meta" not in now["result"][1]
    assert labels_in(later) == ["cup", "Dog", "cup", "Dog"][: len(later["result"])]
    assert len(later["result"]) >= 3


def test_a_task_that_fails_alone_leaves_the_others_theirs(
    tmp_path: Path, pictures: Path, variables: dict[str, Any]
) -> None:
    (pictures / "broken.png").write_bytes(b"no picture")
    asked = predict_request("/data/broken.png", "/data/1.png", "/data/gone.png")
    asked["label_config"] = CONFIG.replace('value="Dog"', 'value="Cup"')
    with Served(tmp_path, "--root", str(pictures), **variables) as served:
        all_three = served.post("/predict", asked)
        alone = served.post("/predict", predict_request("/data/broken.png"))
        code, said = served.end()
    labels = [labels_in(one) for one in all_three.body["results"]]
    assert labels == [[], ["cup", "Cup"], []], "labels that differ in case alone are two"
    assert (alone.status, code) == (400, 0)
    assert "a task has no boxes" in said
    assert "broken.png" in alone.body["error"]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"label_config": "<View/>"}, "no RectangleLabels"),
        ({"label_config": "<View>"}, "no XML"),
        ({"label_config": "<!DOCTYPE a [<!ENTITY b 'c'>]><View/>"}, "can't be read"),
        ({"label_config": None}, "can't be read"),
        ({"tasks": "all"}, "`tasks`"),
        ({"tasks": [{"data": [1]}]}, "data.image"),
        ({"params": [1]}, "tasks"),
        ({"tasks": [{"data": {"image": 7}}]}, "data.image"),
        ({"tasks": [{"data": {"image": "/data/0.png"}, "drafts": [{"result": [7]}]}]}, "tasks"),
        ({"tasks": [{"data": {"image": "/data/../../etc/passwd"}}]}, "not the name of a file"),
        ({"tasks": [{"data": {"image": "/data/local-files/?d=/etc/passwd"}}]}, "not the name"),
        ({"params": {"context": {"result": [{**WRITTEN, "value": 7}]}}}, "tasks"),
    ],
)
def test_what_label_studio_would_never_send_is_refused_in_a_sentence(
    served: Served, change: dict[str, Any], sentence: str
) -> None:
    answer = served.post("/predict", {**predict_request("/data/0.png"), **change})
    assert answer.status == 400
    assert sentence in answer.body["error"]


def test_x_anylabeling_finds_the_model_and_gets_shapes(
    tmp_path: Path, pictures: Path, endpoint: LoopbackServer, variables: dict[str, Any]
) -> None:
    # services/auto_labeling/remote_server.py: get_available_models, predict_shapes
    encoded = base64.b64encode((pictures / "0.png").read_bytes()).decode()
    params = {
        "conf_threshold": 0.0,
        "iou_threshold": 0.0,
        "epsilon_factor": 0.001,
        "text_prompt": "cup, dog",
        "current_task": "detection",
    }
    body = {"model": "stand-in", "image": f"data:image/png;base64,{encoded}", "params": params}
    one = {**body, "params": {**params, "current_task": "grounding"}}
    unsure = {**body, "params": {**params, "conf_threshold": 1.1}}
    with Served(tmp_path, "--root", str(pictures), **variables) as served:
        models = served.get("/v1/models", Token="").body
        found = served.post("/v1/predict", body, Token="").body
        described = served.post("/v1/predict", one).body
        none = served.post("/v1/predict", unsure).body
        nothing = served.post("/v1/predict", {**body, "params": {}}).body
        record = served.ground("0.png", "cup", "dog").body
        wrong = served.post("/v1/predict", {**body, "model": "yolo"})
    [(name, facts)] = models["data"].items()
    assert (name, facts["display_name"]) == ("stand-in", "stand-in xyxy_px")
    assert [task["id"] for task in facts["available_tasks"]] == ["detection", "grounding"]
    shapes = found["data"]["shapes"]
    assert [shape["label"] for shape in shapes] == ["cup", "dog"]
    x1, y1, x2, y2 = record["expressions"][0]["instances"][0]["bbox"]
    assert shapes[0]["points"] == [[x1, y1], [x2, y1], [x2, y2], [x1, y2]]
    assert shapes[0]["shape_type"] == "rectangle"
    assert [shape["label"] for shape in described["data"]["shapes"]] == ["cup, dog"]
    assert none["data"]["shapes"] == nothing["data"]["shapes"] == []
    assert paid_for(endpoint) == 2
    # the client shows the reason, and not the body
    assert (wrong.status, wrong.reason) == (404, "no model 'yolo': the one here is 'stand-in'")
    assert wrong.body["success"] is False
    assert wrong.body["error"]["code"] == "NOT_FOUND"
