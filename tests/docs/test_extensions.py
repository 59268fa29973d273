"""The files of `extensions/`, each run as a reader would run it."""

from __future__ import annotations

import importlib.util
import json
import shutil
import textwrap
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from dataflow_grounding import (
    ExpressionExtractor,
    FileStorage,
    Instance,
    OpenAIServing,
    PhraseGrounder,
    Pipeline,
)
from dataflow_grounding.formats import write
from dataflow_grounding.testing import EchoAnswers, LoopbackServer, ReceivedRequest, on
from tests.formats.data import draw
from tests.support import faults
from tests.support.endpoint import Serves
from tests.support.workplace import REPOSITORY, Workplace, command

EXTENSIONS = REPOSITORY / "extensions"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXTENSIONS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Counting(EchoAnswers):
    """Answers the task of the extension, the first time in words."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[str] = []

    def __call__(self, request: ReceivedRequest) -> dict[str, Any]:
        if request.task != "count":
            return super().__call__(request)
        self.told.append(request.text)
        return {"count": "three"} if len(self.told) == 1 else {"count": 3}


def test_the_operator_works_in_a_pipeline_and_on_a_record(
    workplace: Workplace, serves: Serves
) -> None:
    share = load("operator_of_your_own").BoxShare()
    boxes = [{"bbox": [0, 0, 50, 20], "score": None}]
    record = share(
        {"expressions": [{"text": "a mug", "instances": boxes}], "width": 100, "height": 100}
    )
    assert record["expressions"][0]["box_share"] == 0.1
    workplace.many(2)
    server = serves(EchoAnswers())
    serving = OpenAIServing(server.base_url, "loopback", box_format="xyxy_px")

    class Mine(Pipeline):
        def __init__(self) -> None:
            self.storage = FileStorage(
                str(workplace.input), str(workplace.folder / "cache"), "mine"
            )
            self.extractor, self.grounder, self.share = (
                ExpressionExtractor(serving),
                PhraseGrounder(serving),
                share,
            )

        def forward(self) -> None:
            self.extractor.run(self.storage.step())
            self.grounder.run(self.storage.step())
            self.share.run(self.storage.step())

    pipeline = Mine()
    pipeline.compile()
    assert pipeline.forward().done == 2
    lines = (
        (workplace.folder / "cache" / "mine_step3.jsonl").read_text(encoding="utf-8").splitlines()
    )
    assert all(e["box_share"] > 0 for line in lines for e in json.loads(line)["expressions"])


def tiny_sam(folder: Path) -> Path:
    """SAM 2 with a hundred thousand random weights, which finds something anywhere."""
    import torch
    from transformers import Sam2Config, Sam2ImageProcessor, Sam2Model, Sam2Processor

    backbone = {
        "model_type": "sam2_hiera_det_model",
        "hidden_size": 8,
        "image_size": [64, 64],
        "blocks_per_stage": [1, 1, 2, 1],
        "embed_dim_per_stage": [8, 16, 32, 64],
        "num_attention_heads_per_stage": [1, 1, 1, 1],
        "window_size_per_stage": [8, 4, 4, 2],
        "global_attention_blocks": [3],
    }
    vision = {
        "backbone_config": backbone,
        "backbone_channel_list": [64, 32, 16, 8],
        "backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]],
        "fpn_hidden_size": 32,
    }
    decoder = {"hidden_size": 32, "mlp_dim": 32, "num_attention_heads": 2}
    torch.manual_seed(0)
    config = Sam2Config(
        vision_config=vision,
        prompt_encoder_config={"hidden_size": 32, "image_size": 64},
        mask_decoder_config={**decoder, "iou_head_hidden_dim": 16},
    )
    Sam2Model(config).save_pretrained(folder)
    processor = Sam2ImageProcessor(size={"height": 64, "width": 64})
    Sam2Processor(processor, target_size=64).save_pretrained(folder)
    return folder


@pytest.mark.slow
def test_the_outlines_are_of_the_upright_picture_and_go_into_coco(tmp_path: Path) -> None:
    for needed in ("torch", "torchvision", "transformers"):
        if find_spec(needed) is None:
            pytest.skip(f"needs {needed}")
    draw(tmp_path, [{"image_path": "a.jpg", "width": 90, "height": 60}], turn=6)
    outlines = load("outlines_of_your_own").BoxOutlines(str(tiny_sam(tmp_path / "tiny")))
    boxes = [{"bbox": [10, 5, 40, 45], "score": None}, {"bbox": [50, 10, 85, 55], "score": None}]
    expression = {"text": "a mug", "class": "mug", "instances": boxes}
    sides = {"width": 90, "height": 60}
    image = str(tmp_path / "a.jpg")
    found = outlines({"image_path": image, **sides, "expressions": [expression]})["expressions"]
    for box in found[0]["instances"]:
        xs, ys = box["outline"][::2], box["outline"][1::2]
        assert 0 <= min(xs) <= max(xs) < 90
        assert 0 <= min(ys) <= max(ys) < 60
    # Weights that nobody trained find what is no mug: the box is set to what they found.
    [first, _] = found[0]["instances"]
    xs, ys = first["outline"][::2], first["outline"][1::2]
    first["bbox"] = [min(xs), min(ys), max(xs), max(ys)]
    found[0]["instances"] = [first]
    record = {"image_path": image, **sides, "caption": None, "expressions": found}
    write([record], "coco", str(tmp_path / "out"))
    (written,) = json.loads((tmp_path / "out" / "annotations.json").read_text())["annotations"]
    assert written["segmentation"] == [first["outline"]]


def test_the_outline_is_that_of_the_largest_part() -> None:
    inside = np.zeros((60, 90), dtype=bool)
    inside[10:31, 20:51] = inside[50:53, 5:8] = True
    make = load("outlines_of_your_own")._with_outline
    given = Instance.from_json({"bbox": [20, 10, 50, 30], "outline": [1, 1, 2, 2, 3, 3]})
    box = make(given, inside)
    assert box.outline == [20, 10, 20, 30, 50, 30, 50, 10]
    assert make(box, np.zeros((60, 90), dtype=bool)).to_json() == {"bbox": [20, 10, 50, 30]}


def test_no_box_is_no_outline_and_loads_no_model(tmp_path: Path) -> None:
    draw(tmp_path, [{"image_path": "a.jpg", "width": 90, "height": 60}])
    outlines = load("outlines_of_your_own").BoxOutlines("no/such/model")
    nothing = [{"text": "a mug", "instances": []}]
    (expression,) = outlines({"image_path": str(tmp_path / "a.jpg"), "expressions": nothing})[
        "expressions"
    ]
    assert expression["instances"] == []


def test_the_task_is_asked_again_with_what_was_wrong(workplace: Workplace, serves: Serves) -> None:
    counter = load("task_of_your_own").ThingCounter
    answers = Counting()
    server = serves(answers)
    serving = OpenAIServing(server.base_url, "loopback", box_format="xyxy_px")
    record = counter(serving, "person")(
        {"image_path": str(workplace.folder / workplace.picture())}, output_count_key="people"
    )
    assert record["people"] == 3
    assert len(answers.told) == 2
    assert '"count" should be a whole number' in answers.told[1]


def test_the_serving_asks_the_second_what_the_first_refuses(workplace: Workplace) -> None:
    fallback = load("serving_of_your_own").WithFallback
    refusing = on(faults.bad_request("your input was flagged"), task="phrase_grounding")
    picture = str(workplace.folder / workplace.picture())
    with (
        LoopbackServer(EchoAnswers(), faults=[refusing]) as first,
        LoopbackServer(EchoAnswers()) as second,
    ):
        serving = fallback(
            *(OpenAIServing(s.base_url, "loopback", box_format="xyxy_px") for s in (first, second))
        )
        grounder = PhraseGrounder(serving, check_every=None)
        record = grounder({"image_path": picture, "expressions": ["a mug"]})
        assert record["expressions"][0]["status"] == "grounded"
        assert [len(second.requests), first.requests[-1].status_sent] == [1, 400]


def test_the_box_format_is_known_by_the_models_name(workplace: Workplace, serves: Serves) -> None:
    workplace.many(2)
    spec = str(EXTENSIONS / "box_format_of_your_own.yaml")
    server = serves(InPlaces())
    settings = {
        "vlm.openai.base_url": server.base_url,
        "vlm.openai.model_name": "my-finetune-3b",
        "vlm.box_format": "auto",
    }
    done = workplace.run("-e", spec, **settings)
    assert done.code == 0, done
    for row in workplace.annotations():
        for expression in row["expressions"]:
            assert [i["bbox"] for i in expression["instances"]] == [
                [row["width"] // 4, row["height"] // 4, row["width"] // 2, row["height"] // 2]
            ]


class InPlaces(EchoAnswers):
    """Writes the boxes as the file says: x, y, width, height of 512, under "place"."""

    def __call__(self, request: ReceivedRequest) -> dict[str, Any]:
        if request.task != "phrase_grounding":
            return super().__call__(request)
        phrases = request.input["phrases"]
        return {
            "objects": [
                {"id": p["id"], "label": p["text"], "place": [128, 128, 128, 128], "score": None}
                for p in phrases
            ]
        }


def test_the_pipeline_runs_from_the_spec_that_its_file_shows(
    workplace: Workplace, monkeypatch: pytest.MonkeyPatch, serves: Serves
) -> None:
    workplace.many(2)
    shutil.copy(EXTENSIONS / "pipeline_of_your_own.py", workplace.folder)
    lines = (EXTENSIONS / "pipeline_of_your_own.py").read_text(encoding="utf-8").split("\n\n")[2]
    (workplace.folder / "shares.yaml").write_text(textwrap.dedent(lines), encoding="utf-8")
    monkeypatch.chdir(workplace.folder)
    server = serves(EchoAnswers("xyxy_1000"))
    settings = [
        f"box_shares.vlm.openai.base_url={server.base_url}",
        "box_shares.vlm.box_format=xyxy_1000",
    ]
    for name in ("check", "estimate", "generate", "generate"):
        done = command([name, "-e", "shares.yaml", *settings, "box_shares.vlm.check_every=null"])
        assert done.code == 0, done
    assert "nothing to do" in done.err + done.out, "the second run sends nothing"
    records = (
        (workplace.folder / "out" / "annotations.jsonl").read_text(encoding="utf-8").splitlines()
    )
    assert [json.loads(line)["boxes"] > 0 for line in records] == [True, True]


@pytest.fixture
def results(workplace: Workplace, serves: Serves, monkeypatch: pytest.MonkeyPatch) -> str:
    """The results of a run, whose user's folder is the current one."""
    workplace.many(2)
    assert workplace.run(**{"vlm.openai.base_url": serves().base_url}).code == 0
    monkeypatch.chdir(workplace.folder)
    return str(workplace.results)


def test_the_format_is_written_and_read(workplace: Workplace, results: str) -> None:
    shutil.copy(EXTENSIONS / "export_format_of_your_own.py", workplace.folder)
    own = ["--format", "export_format_of_your_own:BoxTable"]
    done = command(["export", results, *own, "-o", "boxes"])
    assert done.code == 0, done
    lines = (workplace.folder / "boxes" / "boxes.csv").read_text().splitlines()
    assert lines[0] == "image,width,height,phrase,x1,y1,x2,y2"
    assert command(["import", "boxes", *own, "-o", "again"]).code == 0
    again = [
        json.loads(line)
        for line in (workplace.folder / "again" / "annotations.jsonl").read_text().splitlines()
    ]
    boxes = [e["instances"] for r in workplace.annotations() for e in r["expressions"]]
    count = sum(len(instances) for instances in boxes)
    assert len(lines) == 1 + count
    assert sum(len(e["instances"]) for r in again for e in r["expressions"]) == count


def test_what_is_no_format_is_told_in_words_of_formats(workplace: Workplace, results: str) -> None:
    base = "from dataflow_grounding.formats.format import Format\n"
    for number, (code, said) in enumerate(
        (
            ("def Mine(record): pass", "is no format: derive a class from"),
            (f"{base}class Mine(Format): pass", "lacks write() or read(), name, about, data_file"),
        )
    ):
        name = f"formats_of_nobody_{number}"
        (workplace.folder / f"{name}.py").write_text(code)
        done = command(["export", results, "--format", f"{name}:Mine", "-o", "out"])
        assert (done.code, done.err.count("\n")) == (2, 1), done
        assert f"format '{name}:Mine' {said}" in done.err


SERVING = """
from dataflow_grounding import Serving
class Fixed(Serving):
    model = "fixed"
    box_format = "xyxy_1000"
    tasks = ("expression_extraction", "phrase_grounding")
    takes_probes = False
    def __init__(self, phrase="a dog", timeout=1, url="http://here"):
        self.phrase = phrase
    async def answer(self, request):
        if request.task == "expression_extraction":
            return '{"expressions": ["%s"]}' % self.phrase
        return '{"objects": []}'
def nothing(): return 7
class Unnamed(Serving):
    async def answer(self, request): return "{}"
"""


def test_a_serving_of_ones_own_is_named_in_a_spec(workplace: Workplace) -> None:
    workplace.many(2)
    (workplace.folder / "own_servings.py").write_text(SERVING)
    workplace.settings = {"vlm.backend": "own_servings:Fixed", "vlm.settings": {"phrase": "mine"}}
    done = workplace.run()
    assert done.code == 0, done
    assert phrases(workplace) == ["mine"] * 2
    assert workplace.run().summary["already_complete"]
    for settings, said in (
        ({"vlm.settings": {"color": 1}}, "vlm.backend own_servings:Fixed can't be made with"),
        ({"vlm.backend": "own_servings:Fixd"}, "is it 'Fixed'?"),
        ({"vlm.backend": "own_servings:nothing", "vlm.settings": {}}, "which is no Serving"),
        ({"vlm.backend": "own_servings:Unnamed", "vlm.settings": {}}, "Unnamed has no model"),
        ({"vlm.backend": "nobodys"}, "or module:Class, a serving of your own"),
    ):
        done = workplace.run(**settings)
        assert done.code == 2, done
        assert said in done.err


SERVING_WITH_A_KEY = """
from dataflow_grounding import RequestRefused, Serving
from dataflow_grounding.serving import usable_key
class Keyed(Serving):
    model = "keyed"
    def __init__(self, api_key):
        self.api_key = usable_key(api_key)
    async def answer(self, request):
        raise RequestRefused("no access with " + self.api_key)
"""


def test_the_key_of_a_serving_of_ones_own_reaches_no_file_and_no_message(
    workplace: Workplace,
) -> None:
    workplace.many(1)
    (workplace.folder / "keyed_servings.py").write_text(SERVING_WITH_A_KEY)
    key = "mykey-93ab77d1c2"
    done = workplace.run(
        **{"vlm.backend": "keyed_servings:Keyed", "vlm.settings": {"api_key": key}}
    )
    assert "no access with ***" in (workplace.results / "failures.jsonl").read_text("utf-8")
    written = [path.read_text("utf-8") for path in workplace.results.rglob("*.json*")]
    assert written
    assert not any(key in text for text in [*written, done.err, done.out])


def phrases(workplace: Workplace) -> list[str]:
    return [row["text"] for record in workplace.annotations() for row in record["expressions"]]


def test_settings_of_ones_own_serving_that_change_are_asked_anew(workplace: Workplace) -> None:
    workplace.many(2)
    (workplace.folder / "own_servings.py").write_text(SERVING)
    workplace.settings = {"vlm.backend": "own_servings:Fixed"}
    ones = {"vlm.settings": {"phrase": "one"}}
    first = workplace.run(**ones)
    assert (first.code, phrases(workplace)) == (0, ["one"] * 2)
    for same in ({"timeout": 2}, {"url": "https://there"}, {}):
        settings = {"vlm.settings": {"phrase": "one", **same}}
        assert workplace.run(**settings).summary["already_complete"]
    asked = first.summary["requests"]
    for phrase, requests in (("two", asked), ("one", 0)):
        again = workplace.run(**{"vlm.settings": {"phrase": phrase}})
        assert (again.summary["requests"], phrases(workplace)) == (requests, [phrase] * 2)


LATER = """
from dataflow_grounding import ExpressionExtractor, PhraseGrounder, Pipeline, open_image
from task_of_your_own import ThingCounter, count_of
class FoundCounter(ThingCounter):
    input_keys = {"image": "image_path", "expressions": "expressions"}
    async def annotate(self, record, ask):
        image = open_image(record, self.keys.image, self.serving.image_limits)
        found = [e for e in record["expressions"] if e["status"] == "grounded"]
        return {self.keys.count: [await ask(count_of(image, e["text"])) for e in found]}
class Counts(Pipeline):
    name = "counts"
    def __init__(self, storage, serving, found=False):
        self.storage = storage
        self.extractor, self.grounder = ExpressionExtractor(serving), PhraseGrounder(serving)
        self.counter = (FoundCounter if found else ThingCounter)(serving, "person")
    def forward(self):
        self.extractor.run(self.storage.step(), input_caption_key="caption")
        self.grounder.run(self.storage.step())
        self.counter.run(self.storage.step())
"""


@pytest.mark.parametrize(
    ("backend", "model", "found"),
    [
        pytest.param("embedded", "embedded-opencv", True, id="of boxes"),
        pytest.param("own_servings:Fixed", "fixed", False, id="of the picture"),
    ],
)
def test_a_task_that_a_serving_has_no_answer_to_is_told_before_a_run(
    workplace: Workplace, backend: str, model: str, found: bool
) -> None:
    workplace.many(2)
    (workplace.folder / "own_servings.py").write_text(SERVING)
    task = (EXTENSIONS / "task_of_your_own.py").read_text()
    case = f"{found}".lower()  # a module is imported once
    (workplace.folder / f"task_{case}.py").write_text(task)
    later = LATER.replace("task_of_your_own", f"task_{case}")
    (workplace.folder / f"counts_{case}.py").write_text(later)
    spec = {
        "results_dir": "out",
        "autolabel_type": f"counts_{case}:Counts",
        "counts": {
            "vlm": {"backend": backend},
            "data": {"input_jsonl": "captions.jsonl"},
            "settings": {"found": found},
        },
    }
    path = workplace.folder / "own.yaml"
    path.write_text(json.dumps(spec))
    for name in ("check", "estimate"):
        done = command([name, "-e", str(path)])
        assert done.code == 2, done
        assert (
            f"step2_thing_counter asks count, which {model} can't answer: name another" in done.err
        )


ONE_WAY = """
from dataflow_grounding import Format
class Names(Format):
    name, about, data_file = "names", "The names of pictures", "names.txt"
    def write(self, samples, out):
        with out.file(self.data_file) as file:
            for sample in samples: file.write(sample.file_name)
class Listed(Format):
    name, about, data_file = "listed", "The names of pictures", "names.txt"
    def read(self, path, image_root):
        yield {"image_path": "a.jpg", "expressions": []}
"""


def test_a_format_may_go_one_way_only(workplace: Workplace, results: str) -> None:
    (workplace.folder / "one_way.py").write_text(ONE_WAY)
    done = command(["export", results, "--format", "one_way:Names", "-o", "out"])
    assert done.code == 0, done
    assert (workplace.folder / "out" / "names.txt").read_text().endswith(".jpg")
    done = command(["import", "out", "--format", "one_way:Names", "-o", "again"])
    assert (done.code, done.err) == (
        2,
        "Error: names can be written, but not read: choose another format\n",
    )
    done = command(["import", "out", "--format", "one_way:Listed", "-o", "listed"])
    assert done.code == 0, done
    done = command(["export", results, "--format", "one_way:Listed", "-o", "none"])
    assert done.code == 2, done
    assert "listed can be read, but not written: choose another format" in done.err
