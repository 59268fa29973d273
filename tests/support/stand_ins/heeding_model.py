"""A stand-in that answers in no form but the one that it is asked in."""

from __future__ import annotations

import json
from typing import Any

from dataflow_grounding.testing import EchoAnswers, ReceivedRequest
from dataflow_grounding.testing.answers import IMAGES


class Heeding:
    """Answers of another model, put only in the form that a request's words ask for.

    It has none of the library's own tables: it looks at the prompt as a model does.

    Args:
        usual: The other model; without one, boxes made up of the phrases.
    """

    def __init__(self, usual: Any = None) -> None:
        self.usual = usual or EchoAnswers("xyxy_1000")
        self.reads = getattr(self.usual, "reads", IMAGES)
        self.formats: list[Any] = []

    def __call__(self, request: ReceivedRequest) -> Any:
        reply = self.usual(request)
        if request.task != "phrase_grounding":
            return reply
        self.formats.append(request.settings.get("response_format"))
        labels = {phrase["id"]: phrase["text"] for phrase in request.input["phrases"]}
        objects = reply["objects"]
        names = {name for item in objects for name in item}
        [usual_key] = names - {"id", "label", "score"} or {"bbox_2d"}
        if "without JSON" in request.text:
            lines = [f"{item['id']}. {labels[item['id']]}: {item[usual_key]}" for item in objects]
            boxed = {item["id"] for item in objects}
            lines += [f"{n}. {label}: none" for n, label in labels.items() if n not in boxed]
            return "\n".join(lines)
        _, _, after = request.text.partition('under the key "')
        key = after.partition('"')[0]
        if "[[n, n, n, n]]" in request.text:
            boxes: dict[int, list[Any]] = {number: [] for number in labels}
            for item in objects:
                boxes[item["id"]].append(item[usual_key])
            listed = [{"id": n, "label": labels[n], key: boxes[n]} for n in labels]
            return json.dumps({"objects": listed})
        renamed = []
        for item in objects:
            renamed.append({key if n == usual_key else n: value for n, value in item.items()})
        return json.dumps({"objects": renamed})
