"""A stand-in that answers in no form but the one that it is asked in."""

from __future__ import annotations

import json
from typing import Any

from dataflow_grounding.testing import EchoAnswers, ReceivedRequest


class Heeding:
    """Boxes made up of the phrases, put only in the form that a request's words ask for.

    It has none of the library's own tables: it looks at the prompt as a model does.
    """

    def __call__(self, request: ReceivedRequest) -> Any:
        reply: Any = EchoAnswers("xyxy_1000")(request)
        if request.task != "phrase_grounding":
            return reply
        labels = {phrase["id"]: phrase["text"] for phrase in request.input["phrases"]}
        objects = reply["objects"]
        if "without JSON" in request.text:
            lines = [f"{item['id']}. {labels[item['id']]}: {item['bbox_2d']}" for item in objects]
            boxed = {item["id"] for item in objects}
            lines += [f"{n}. {label}: none" for n, label in labels.items() if n not in boxed]
            return "\n".join(lines)
        _, _, after = request.text.partition('under the key "')
        key = after.partition('"')[0]
        if "[[n, n, n, n]]" in request.text:
            boxes: dict[int, list[Any]] = {number: [] for number in labels}
            for item in objects:
                boxes[item["id"]].append(item["bbox_2d"])
            listed = [{"id": n, "label": labels[n], key: boxes[n]} for n in labels]
            return json.dumps({"objects": listed})
        for item in objects:
            item[key] = item.pop("bbox_2d")
        return json.dumps({"objects": objects})
