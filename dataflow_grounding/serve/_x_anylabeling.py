"""The dialect of X-AnyLabeling's remote server: detection and grounding with a text prompt.

Source: the API of X-AnyLabeling-Server (docs/openapi.json), and its client in X-AnyLabeling,
engines/auto_labeling/remote_server.py.
"""

import re
from collections.abc import Iterator, Mapping

from aiohttp import web

from dataflow_grounding.data.expressions import read_expressions
from dataflow_grounding.data.records import JsonObject, Record
from dataflow_grounding.serve.engine import Engine
from dataflow_grounding.serve.requests import WrongRequest, read_json

_SEPARATORS = re.compile(r"[,.\n;]")  # between categories, as the tool's own server has them
# The parts of the tool's window that a user of these tasks needs, and how it labels many pictures:
# with the text that the user typed.
_WIDGETS = ("edit_text", "button_send", "toggle_preserve_existing_annotations")
_BATCH_MODE = "text_prompt"
_TASKS = {
    "detection": "Boxes of several things: a cup, a red car",
    "grounding": "Boxes of one description: the cup to the left of the car",
}


def routes(engine: Engine) -> list[web.RouteDef]:
    async def models(_: web.Request) -> web.Response:
        return web.json_response({"success": True, "data": {engine.model: _model_facts(engine)}})

    async def predict(request: web.Request) -> web.Response:
        body = read_json(request)
        if body.get("model") != engine.model:
            name = str(body.get("model"))[:100]
            raise WrongRequest(f"no model {name!r}: the one here is {engine.model!r}", 404)
        params = body.get("params") or {}
        if not isinstance(params, Mapping):
            raise WrongRequest("`params` should be an object")
        phrases = _phrases(params)
        shapes: list[JsonObject] = []
        if phrases:  # else the user typed nothing
            picture = engine.pictures.of_base64(body.get("image"))
            shapes += _shapes(await engine.ground(request, picture, phrases), params)
        data = {"shapes": shapes, "description": ""}
        return web.json_response({"success": True, "data": data})

    return [web.get("/v1/models", models), web.post("/v1/predict", predict)]


def _model_facts(engine: Engine) -> JsonObject:
    """What the tool is told of the model: its name, its tasks, and what to show for each."""
    tasks = []
    for task_id, description in _TASKS.items():
        task = {
            "id": task_id,
            "name": task_id.capitalize(),
            "description": description,
            "batch_processing_mode": _BATCH_MODE,
            "active_widgets": {name: {} for name in _WIDGETS},
        }
        tasks.append(task)
    widget_names = ("remote_task_select_combobox", *_WIDGETS)
    return {
        "display_name": engine.model_version,
        "widgets": [{"name": name, "value": None} for name in widget_names],
        "batch_processing_mode": _BATCH_MODE,
        "available_tasks": tasks,
    }


def _phrases(params: JsonObject) -> list[str]:
    text = params.get("text_prompt") or ""
    if not isinstance(text, str):
        raise WrongRequest("`text_prompt` should be a text")
    parts = _SEPARATORS.split(text)
    if params.get("current_task") == "grounding":
        parts = [text]  # one description, which may hold commas
    return list(dict.fromkeys(part.strip() for part in parts if part.strip()))  # each once


def _shapes(record: Record, params: JsonObject) -> Iterator[JsonObject]:
    """Boxes below the user's threshold are left out; those without a score stay."""
    threshold = params.get("conf_threshold")
    least = threshold if isinstance(threshold, (int, float)) else 0
    for expression in read_expressions(record, "expressions"):
        for instance in expression.instances:
            if instance.score is not None and instance.score < least:
                continue
            x1, y1, x2, y2 = instance.bbox
            points = [[x1, y1], [x2, y1], [x2, y2], [x1, y2]]
            shape = {"label": expression.text, "shape_type": "rectangle", "points": points}
            yield {**shape, "score": instance.score}
