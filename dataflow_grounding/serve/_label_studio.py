"""The dialect of Label Studio's ML backends: pre-annotations for RectangleLabels.

Sources: labelstud.io/guide/ml_create, labelstud.io/guide/predictions; the client in label-studio,
label_studio/ml/api_connector.py, and what it does with results, label_studio/ml/models.py.
"""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import parse_qs, unquote
from xml.etree import ElementTree

from aiohttp import web

from dataflow_grounding._util.addresses import is_web
from dataflow_grounding._util.errors import ImageMissing, InputError, RecordError
from dataflow_grounding._util.terminal import say
from dataflow_grounding.data.expressions import read_expressions
from dataflow_grounding.data.records import JsonObject, Record
from dataflow_grounding.formats.label_studio import area_of, box_facts
from dataflow_grounding.serve.engine import Engine
from dataflow_grounding.serve.requests import Picture, Pictures, WrongRequest, read_json


class _Config(NamedTuple):
    """What a labelling configuration says of boxes."""

    control: str  # the name of its RectangleLabels
    image: str  # the name of the image that they are drawn on
    column: str  # the key of a task's data with the image's address
    labels: Sequence[str]

    def label_of(self, phrase: str) -> str:
        """Return the label that says the same as a phrase, else the first, else the phrase."""
        if phrase in self.labels:  # another label may differ from it in case alone
            return phrase
        for label in self.labels:
            if label.casefold() == phrase.casefold():
                return label
        return self.labels[0] if self.labels else phrase


def routes(engine: Engine) -> list[web.RouteDef]:
    backend = _Backend(engine)
    return [
        web.get("/health", backend.health),
        web.post("/setup", backend.setup),
        web.post("/predict", backend.predict),
        web.get("/versions", backend.versions),
    ]


class _Backend:
    """Answers what Label Studio asks of an ML backend."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def health(self, _: web.Request) -> web.Response:
        return web.json_response({"status": "UP", "model_class": self._engine.model})

    async def setup(self, request: web.Request) -> web.Response:
        body = read_json(request)
        _config_of(body.get("schema"))  # raises for one that no boxes can be made for
        return web.json_response({"model_version": self._engine.model_version})

    async def versions(self, _: web.Request) -> web.Response:
        return web.json_response({"versions": [self._engine.model_version]})

    async def predict(self, request: web.Request) -> web.Response:
        body = read_json(request)
        tasks = body.get("tasks")
        if not isinstance(tasks, list) or not all(isinstance(task, Mapping) for task in tasks):
            raise WrongRequest("`tasks` should be a list of objects")
        config = _config_of(body.get("label_config"))
        # An error of a single task is answered. Among others, it mustn't cost them their boxes.
        regions_of = self._regions_of_task if len(tasks) == 1 else self._regions_or_empty
        params = body.get("params")
        # All tasks at once: the engine limits how many are at work.
        regions = await asyncio.gather(
            *[regions_of(request, config, task, params) for task in tasks]
        )
        version = self._engine.model_version
        results = [_prediction(version, regions_of_task) for regions_of_task in regions]
        return web.json_response({"results": results, "model_version": version})

    async def _regions_or_empty(
        self, request: web.Request, config: _Config, task: JsonObject, params: Any
    ) -> list[JsonObject]:
        """After an error Label Studio stores no task of its request: a failing one has no boxes."""
        try:
            return await self._regions_of_task(request, config, task, params)
        except (RecordError, InputError, WrongRequest) as error:
            # ImageMissing is `passing`, because a later run looks for the picture again. Here it is
            # taken for lasting.
            is_passing = bool(getattr(error, "passing", False))
            if is_passing and not isinstance(error, ImageMissing):
                raise  # Label Studio is to ask for all again
            say(f"Warning: a task has no boxes: {error}")
            return []

    async def _regions_of_task(
        self, request: web.Request, config: _Config, task: JsonObject, params: Any
    ) -> list[JsonObject]:
        phrases = _phrases(config, task, params)
        if not phrases:
            return []
        picture = _picture(self._engine.pictures, config, task)
        record = await self._engine.ground(request, picture, phrases)
        return list(_regions(config, record))


def _prediction(model_version: str, regions: list[JsonObject]) -> JsonObject:
    scores = [region["score"] for region in regions if "score" in region]
    score = min(scores, default=0)  # a task is as sure as its least sure box
    return {"model_version": model_version, "score": score, "result": regions}


def _picture(pictures: Pictures, config: _Config, task: JsonObject) -> Picture:
    """`/data/` begins an upload's path; a local storage's is the query's `d`: both below --root."""
    data = task.get("data")
    address = data.get(config.column) if isinstance(data, Mapping) else None
    if not isinstance(address, str) or not address:
        raise WrongRequest(f"a task has no picture in data.{config.column}")
    if address.startswith("data:"):
        return pictures.of_base64(address)
    if is_web(address):
        return pictures.of_address(address)
    path, _, query = address.partition("?")
    if path.rstrip("/") == "/data/local-files":  # /data/local-files/?d=cups/1.jpg
        [picture_path, *_] = parse_qs(query).get("d", [""])
        return pictures.of_path(picture_path)
    return pictures.of_path(unquote(path).removeprefix("/data/"))


def _regions(config: _Config, record: Record) -> Iterator[JsonObject]:
    """{"id": "p0b0", …, "from_name": "boxes", "to_name": "image", "value": …, "score": 0.9}"""
    size = record["width"], record["height"]
    names = {"from_name": config.control, "to_name": config.image, "type": "rectanglelabels"}
    for number, expression in enumerate(read_expressions(record, "expressions")):
        phrase = expression.text  # where no label says the same, `meta` has it
        label = config.label_of(phrase)
        for place, instance in enumerate(expression.instances):
            value = {**area_of(instance.bbox, size), "rectanglelabels": [label]}
            region = {**box_facts(f"p{number}b{place}", size), **names, "value": value}
            if instance.score is not None:
                region["score"] = instance.score
            if label.casefold() != phrase.casefold():
                region["meta"] = {"text": [phrase]}  # shown where the region is looked at
            yield region


def _phrases(config: _Config, task: JsonObject, params: Any) -> list[str]:
    """Where a person has just written a text, that text alone; else labels and stored texts."""
    try:
        context = (params or {}).get("context")
        stored = [*(task.get("annotations") or []), *(task.get("drafts") or [])]
        texts = _texts(config, [context])
        if not texts:
            texts = [*config.labels, *_texts(config, stored)]
    except (AttributeError, KeyError, TypeError):
        raise WrongRequest("the texts of tasks are not as Label Studio sends them") from None
    return list(dict.fromkeys(texts))  # each once


def _texts(config: _Config, holders: Sequence[Any]) -> list[str]:
    """Return what people wrote about the image in annotations, drafts or a request's context."""
    texts: list[str] = []
    for holder in holders:
        regions = holder.get("result") if isinstance(holder, Mapping) else None
        # a region: {"type": "textarea", "to_name": "image", "value": {"text": ["a cup"]}}
        for region in regions or []:
            is_of_image = region.get("to_name") == config.image
            if region.get("type") != "textarea" or not is_of_image:
                continue
            text = region["value"].get("text") or []
            if isinstance(text, str):
                texts.append(text)
            else:
                texts += text
    return [text.strip() for text in texts if text.strip()]


def _config_of(text: Any) -> _Config:
    """The first RectangleLabels of an Image counts."""
    # <View><Image name="image" value="$image"/><RectangleLabels name="boxes" toName="image">
    # <Label value="cup"/>…
    root = _parsed(text)
    column_of_image = {}  # value="$image" is the column `image` of a task's data
    for image_tag in root.iter("Image"):
        column_of_image[image_tag.get("name")] = image_tag.get("value", "").lstrip("$")
    for control in root.iter("RectangleLabels"):
        image = control.get("toName", "")
        if image in column_of_image:
            values = [label.get("value", "").strip() for label in control.iter("Label")]
            labels = [value for value in values if value]
            return _Config(control.get("name", ""), image, column_of_image[image], labels)
    raise WrongRequest("the labelling configuration has no RectangleLabels of an Image")


def _parsed(text: Any) -> ElementTree.Element:
    """A DOCTYPE is refused: it could define entities that grow without end."""
    if not isinstance(text, str) or "<!DOCTYPE" in text.upper():
        raise WrongRequest("the labelling configuration can't be read")
    try:
        return ElementTree.fromstring(text)
    except (ElementTree.ParseError, ValueError):
        raise WrongRequest("the labelling configuration is no XML") from None
