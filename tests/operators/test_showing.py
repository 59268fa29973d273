"""What help(), repr(), a notebook and one-sentence errors show of operators, servings, records and
pipelines.
"""

from __future__ import annotations

import base64
import io
import json
import pickle
import re
from functools import partial
from pathlib import Path
from typing import Any

import numpy
import pandas
import pytest
from PIL import Image

from dataflow_grounding import (
    BBoxVisualizer,
    BoxOperator,
    BoxRefiner,
    EmbeddedServing,
    ExpressionExtractor,
    FileStorage,
    GroundingError,
    OpenAIServing,
    Operator,
    PhraseGrounder,
    Pipeline,
    RunOptions,
    Serving,
    ground,
    operator,
)
from dataflow_grounding._util.errors import PlanError
from dataflow_grounding.engine.summary import Summary
from dataflow_grounding.formats.seed_records import seed_file
from dataflow_grounding.operators._calling import roles_by_role_argument
from dataflow_grounding.pipelines.shipped import ImageGroundingPipeline
from dataflow_grounding.testing import LoopbackServer
from tests.support.endpoint import serving_of
from tests.support.stand_ins.probe_model import ProbeModel
from tests.support.steps import Steps, storage_in
from tests.support.workplace import REPOSITORY, Workplace

PIXELS = numpy.full((30, 40, 3), 200, "uint8")
BOX = {"bbox": [1, 2, 30, 20], "score": 0.5}
EXPRESSIONS = [
    {"text": "a <b>mug</b>", "status": "grounded", "instances": [BOX]},
    {"text": "a dog", "status": "unsupported", "reason": "no <dogs>", "instances": []},
]


class Own(Operator):
    """A user's operator."""

    name = "own"
    input_keys = {"picture": "photo", "input": "text"}
    output_keys = {"output": "mine", "more": "more"}

    def __init__(self, api_key: str = "", level: int = 3, **rest: Any) -> None:
        self.level = level

    async def annotate(self, record: Any, ask: Any) -> dict[str, Any]:
        return {self.keys.output: self.level}


@operator(reads=["expressions"], writes=["count"])
def count(record: Any) -> dict[str, Any]:
    return {"count": len(record["expressions"])}


@pytest.mark.parametrize(
    "made", [PhraseGrounder(EmbeddedServing()), Own(), count], ids=["ours", "own", "function"]
)
def test_run_takes_a_name_for_each_column(made: Any, tmp_path: Path) -> None:
    storage = storage_in(tmp_path)
    for name in roles_by_role_argument(made):
        with pytest.raises(GroundingError, match="it has no rows"):
            made.run(storage.reset().step(), **{name: "other"})


def test_servings_and_operators_show_how_they_are_made() -> None:
    address = "http://host:8000/v1?api-version=3&sig=s3cr3t-t0ken"
    serving = OpenAIServing(address, "qwen3-vl", api_key="sk-1234567890abcdef")
    assert repr(serving) == "OpenAIServing('qwen3-vl', 'http://host:8000/v1')"
    grounder = PhraseGrounder(serving, box_format="xyxy_1000", samples=3, merge_iou=0.9)
    assert repr(grounder) == f"PhraseGrounder(serving={serving!r}, samples=3)"
    refiner = BoxRefiner(serving, box_format="qwen3-vl").bound(output_key="x")
    assert repr(refiner).startswith("BoxRefiner(serving=OpenAI")
    assert repr(BBoxVisualizer()) == "BBoxVisualizer()"
    assert repr(count) == "operator(count, reads=['expressions'], writes=['count'])"
    assert repr(Own(level=4, tone="warm")) == "Own(level=4)"
    assert "hunter2" not in repr(Own(api_key="hunter2"))
    copied = pickle.loads(pickle.dumps(PhraseGrounder(EmbeddedServing())))
    assert repr(copied).startswith("PhraseGrounder(serving=Emb")
    assert repr(type("Mine", (Serving,), {"model": "m", "answer": None})()) == "Mine('m')"


def test_storages_pipelines_and_what_they_give_show_themselves_in_a_line(tmp_path: Path) -> None:
    storage = FileStorage("in.jsonl", str(tmp_path))
    shown = f"FileStorage('in.jsonl', '{tmp_path}'"
    assert (repr(storage), repr(storage.step())) == (f"{shown})", f"{shown}, operator_step=0)")

    class Mine(Pipeline):
        def __init__(self, storage: Any) -> None:
            self.storage, self.count = storage, count
            self.more = [PhraseGrounder(EmbeddedServing())]

        def forward(self) -> None:
            self.count.run(self.storage.step())

    pipeline = Mine(storage_in(tmp_path, {"expressions": []}, {}))
    assert repr(pipeline).endswith("/cache'): FunctionOperator, PhraseGrounder)")
    assert repr(Mine(None)).startswith("Mine(None: ")
    told = repr(pipeline.run())
    assert told.startswith("Summary(2 images: 1 done, 1 failed, 0 requests, ")
    assert told.endswith(f" s: {tmp_path}/cache/x_step1.jsonl)")
    found = ground(PIXELS, ["a <dog>", "x" * 99, "the sky", "a cat"], serving=EmbeddedServing())
    told = "Grounded(None, 40×30 px, embedded-opencv: 'a <dog>' unsupported; 'xxx"
    assert repr(found).startswith(told)
    assert repr(found).endswith("; 4 phrases)")
    secret = "https://me:hunter2@example.org/in.jsonl"
    storage = FileStorage(secret, "cache")
    for one in (storage, Mine(storage), Summary(annotations=secret)):
        assert "hunter2" not in repr(one)
    for one in (pipeline, found, Summary(annotations="a" * 999), FileStorage("a" * 999, "b")):
        assert len(repr(one)) <= 300
        assert "\n" not in repr(one)


def test_a_record_draws_itself_and_shows_itself_in_a_notebook(tmp_path: Path) -> None:
    Image.fromarray(PIXELS).save(tmp_path / "a.png")
    for picture in (PIXELS, str(tmp_path / "a.png")):
        record = count({"image_path": picture, "expressions": EXPRESSIONS})
        assert dict(record) == {"image_path": picture, "expressions": EXPRESSIONS, "count": 2}
        drawn = record.draw()
        assert drawn.size == (40, 30)
        assert (numpy.array(drawn) != PIXELS).any(), "boxes are drawn"
        page = record._repr_html_() or ""
        [source] = re.findall(r'src="data:image/jpeg;base64,([^"]*)"', page)
        assert Image.open(io.BytesIO(base64.b64decode(source))).size == (40, 30)
        assert "a &lt;b&gt;mug&lt;/b&gt;" in page
        assert "<b>" not in page
        for cell in ("grounded", "1, 2, 30, 20", "0.5", "a dog", "unsupported: no &lt;dogs&gt;"):
            assert f"<td>{cell}</td>" in page


def test_region_captions_and_renamed_expressions_are_drawn_too() -> None:
    for row in (
        {"boxed": EXPRESSIONS},
        {"regions": [{"bbox": [1, 2, 30, 20], "description": "a mug"}]},
        {"region_captions": [{"bbox": [1, 2, 30, 20], "text": "a mug"}]},
    ):
        record = operator(lambda record: {})({"image_path": PIXELS, **row})
        assert (numpy.array(record.draw()) != PIXELS).any(), row
        assert "mug" in (record._repr_html_() or "")


SPOILT: dict[str, tuple[dict[str, Any], str | None]] = {
    "no picture: the table": ({"image_path": "gone.png"}, "<td>a dog</td>"),
    "no boxes: repr()": ({"expressions": [{"text": 5, "instances": 3}]}, None),
    "null": ({"expressions": None}, None),
    "nothing wrong": ({}, "<img"),
}


@pytest.mark.parametrize(("spoilt", "shows"), SPOILT.values(), ids=SPOILT)
def test_showing_never_fails(spoilt: dict[str, Any], shows: str | None) -> None:
    row = {"image_path": PIXELS, "expressions": EXPRESSIONS, **spoilt}
    page = operator(lambda record: {})(row)._repr_html_()
    assert page is None if shows is None else shows in (page or "")


def test_a_list_shows_its_records_and_its_failures() -> None:
    done = BBoxVisualizer("drawn")(
        [{"image_path": "<gone>.png", "expressions": []}], on_error="keep"
    )
    assert "&lt;gone&gt;.png" in done._repr_html_()
    counted = count([{"image_path": "a.png", "expressions": EXPRESSIONS}])
    assert "<td>a</td><td>2</td><td>1</td>" in counted._repr_html_()


def test_what_was_grounded_draws_and_shows_itself_and_is_plain_json(
    tmp_path: Path, server: LoopbackServer
) -> None:
    Image.fromarray(PIXELS).save(tmp_path / "a.png")
    server.answers = lambda request: {"objects": [{"id": 1, "bbox_2d": BOX["bbox"], "score": 0.5}]}
    serving = serving_of(server, "xyxy_px")
    phrases = [
        {"text": "a <mug>", "status": "grounded", "boxes": [BOX], "reason": None},
        {"text": "a dog", "status": "none", "boxes": [], "reason": None},
    ]
    known = {"width": 40, "height": 30, "model": "loopback", "phrases": phrases}
    for picture, path in ((PIXELS, None), (tmp_path / "a.png", str(tmp_path / "a.png"))):
        texts = (text for text in ["a <mug>", "a dog"])
        found = ground(picture, texts, serving=serving, check_every=None)
        assert json.loads(json.dumps(found.to_dict())) == {"image_path": path, **known}
        assert found.image_path == path
        assert (numpy.array(found.draw()) != PIXELS).any()
        page = found._repr_html_() or ""
        assert "<img" in page
        assert "a &lt;mug&gt;" in page
        told = "40×30 px, loopback: 'a <mug>' [1, 2, 30, 20]; 'a dog' none)"
        assert repr(found).endswith(told)
    (tmp_path / "a.png").unlink()
    page = found._repr_html_() or ""
    assert "<img" not in page
    assert "a dog" in page


SERVING = EmbeddedServing()
NEEDED = r"PhraseGrounder needs a serving, such as OpenAIServing\(.*not 'x'"
NO_STEP = r"run\(\) takes a FileStorage's step\(\), not dict: call the operator itself"
NO_SETTING = "takes no zooom: it has zoom, box_format"
NO_FORMAT = "box_format should be a name, such as xyxy_1000"
grounding: Any = partial(ground, PIXELS)
SENTENCES: dict[str, tuple[Any, str]] = {
    "a text": (lambda: PhraseGrounder("x"), NEEDED),  # type: ignore[arg-type]
    "None": (lambda: PhraseGrounder(None), "needs a serving, .*not None"),  # type: ignore[arg-type]
    "a dict": (lambda: ExpressionExtractor({}), "ExpressionExtractor needs a .*not dict"),  # type: ignore[arg-type]
    "in ground()": (lambda: grounding("x", serving=5), "needs a serving, .*not int"),
    "a record": (lambda: count.run({}), NO_STEP),
    "records": (lambda: count.run([{}]), "not list: call the operator itself"),
    "a table": (lambda: count.run(pandas.DataFrame()), "not DataFrame: call the operator itself"),
    "phrases: None": (lambda: grounding(None, serving=SERVING), "a text or several, not None"),
    "bytes": (lambda: grounding(b"x", serving=SERVING), "several, not bytes"),
    "a setting": (lambda: grounding("a", serving=SERVING, zooom=1), NO_SETTING),
    "a type": (lambda: grounding("a", serving=SERVING, samples="x"), "samples should be 1 or more"),
    "box_format": (lambda: grounding("a", serving=SERVING, box_format=5), NO_FORMAT),
}


@pytest.mark.parametrize(("wrong", "says"), SENTENCES.values(), ids=SENTENCES)
def test_one_sentence_says_what_is_wanted(wrong: Any, says: str) -> None:
    with pytest.raises(GroundingError, match=says) as caught:
        wrong()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("storage", [None, "captions.jsonl", 5], ids=repr)
def test_a_pipeline_without_a_storage_says_so(storage: Any) -> None:
    pipeline = ImageGroundingPipeline(storage, SERVING)
    for call in (pipeline.run, pipeline.forward, pipeline.compile):
        with pytest.raises(
            PlanError, match=r"ImageGroundingPipeline has .*storage: .* FileStorage\('captions"
        ):
            call()

    class Mine(Pipeline):
        def forward(self) -> None:
            count.run(self.storage.step())  # type: ignore[attr-defined]

    with pytest.raises(PlanError, match="Mine has no storage"):
        Mine().run()

    class Wrong(Pipeline):
        def forward(self) -> None:
            self.nothing  # type: ignore[attr-defined]  # noqa: B018

    with pytest.raises(AttributeError, match="nothing"):
        Wrong().run()


def test_run_is_forward_with_a_type(tmp_path: Path) -> None:
    storage = storage_in(tmp_path, {"expressions": []})
    assert Steps(storage, count).run().done == 1
    assert Steps(storage.reset(), count).forward(resume_step=0).done == 1  # type: ignore[call-arg]

    class Own(Steps):
        def run(self, *given: Any, **settings: Any) -> Any:
            return self.forward(*given, **settings)

    assert Own(storage.reset(), count).run().done == 1, "a user's own run() may call forward()"


FACE = (180, 60, 280, 190)  # of astronaut.jpg, in pixels


def test_the_operator_of_the_page_works_in_the_servings_own_format(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    server: LoopbackServer,
) -> None:
    page = (REPOSITORY / "docs" / "pipelines.md").read_text(encoding="utf-8")
    [block] = re.findall(r"```python\n(.*?class FaceFinder.*?)```", page, re.DOTALL)
    names: dict[str, Any] = {"__name__": "page"}
    monkeypatch.chdir(REPOSITORY)
    exec(block, names)
    boxes, question = capsys.readouterr().out.split("\n", 1)
    assert f"The first printed line is `{boxes}`." in page
    assert "find the boxes of the given phrases" in question
    operator_class = names["FaceFinder"]
    assert issubclass(operator_class, BoxOperator)
    photo = REPOSITORY / "example_data" / "images" / "astronaut.jpg"
    with Image.open(photo) as picture:
        size = picture.size
    shares = [edge / size[place % 2] for place, edge in enumerate(FACE)]
    written = [1000 * shares[place] for place in (1, 0, 3, 2)]
    server.answers = lambda request: {"objects": [{"id": 1, "box_2d": written}]}
    # by its name, the model would write 0-1000 in another order
    serving = OpenAIServing(server.base_url, "Qwen/Qwen3-VL-8B-Instruct", box_format="yxyx_1000")
    record = operator_class(serving, check_every=None)({"image_path": str(photo)})
    assert record["faces"] == [pytest.approx(FACE, abs=1)]


def serving_at(url: str, **settings: Any) -> OpenAIServing:
    return OpenAIServing(url, "m", **settings)


NAMED: list[tuple[str, Any, dict[str, Any], str, str]] = [
    (
        "unknown",
        lambda url: PhraseGrounder(serving_at(url), box_format="xyx"),
        {"vlm.box_format": "xyx"},
        "unknown box_format 'xyx'",
        "unknown vlm.box_format 'xyx'",
    ),
    (
        "a value",
        lambda url: PhraseGrounder(serving_at(url, box_format="xyxy_1000"))(
            {"image_path": PIXELS, "expressions": ["a"]}
        ),
        {"vlm.box_format": "xyxy_1000", "vlm.check_every": 100},
        "check box_format, or run dataflowgrounding calibrate and then set box_format='calibrated'",
        "check vlm.box_format, or run dataflowgrounding calibrate and then set vlm.box_format: calibrated",
    ),
    (
        "an address",
        lambda url: serving_at(url.removeprefix("http://")),
        {"vlm.openai.base_url": "host:8000"},
        "api_url should begin with http://",
        "vlm.openai.base_url should begin with http://",
    ),
    (
        "headers",
        lambda url: serving_at(url, extra_headers={"X-A": "\n"}),
        {"vlm.openai.extra_headers": {"X-A": "\n"}},
        "extra_headers holds characters",
        "vlm.openai.extra_headers holds characters",
    ),
]


@pytest.mark.parametrize(
    ("call", "settings", "in_python", "in_a_spec"),
    [c[1:] for c in NAMED],
    ids=[c[0] for c in NAMED],
)
def test_settings_are_called_as_their_reader_does(
    call: Any,
    settings: dict[str, Any],
    in_python: str,
    in_a_spec: str,
    workplace: Workplace,
    server: LoopbackServer,
) -> None:
    workplace.many(2)
    server.answers = ProbeModel("yxyx_1000")
    with pytest.raises(GroundingError) as caught:
        call(server.base_url)
    assert in_python in str(caught.value)
    assert "vlm." not in str(caught.value)
    done = workplace.run(**{"vlm.openai.base_url": server.base_url, **settings})
    assert in_a_spec in done.err
    with pytest.raises(GroundingError) as caught:
        call(server.base_url)
    assert in_python in str(caught.value), "also after a command in the same process"


def test_limits_are_called_as_in_python(tmp_path: Path) -> None:
    storage = storage_in(tmp_path, {"image_path": "a.png", "expressions": []})
    pipeline = ImageGroundingPipeline(storage, SERVING)
    with pytest.raises(
        GroundingError,
        match=r"^budget_usd needs the model's prices: set prices \(input and output\)$",
    ):
        pipeline.run(options=RunOptions(budget_usd=1))


def test_labels_are_called_as_in_python_and_files_as_they_are(tmp_path: Path) -> None:
    with pytest.raises(GroundingError, match=r"^image_dir: no folder /nowhere"):
        seed_file(str(tmp_path), "/nowhere", kitti=str(tmp_path))
    with pytest.raises(GroundingError, match=r"^kitti: no folder /nowhere"):
        seed_file(str(tmp_path), str(tmp_path), kitti="/nowhere")
    with pytest.raises(GroundingError, match=r"vlm\.box_format /x/vlm\.prices"):
        raise GroundingError("a file called vlm.box_format /x/vlm.prices")
