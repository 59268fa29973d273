"""The ways of asking that `bench` compares, each a pipeline as a user would write it."""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from dataflow_grounding.bench import bench_set
from dataflow_grounding.data.storage import FileStorage
from dataflow_grounding.operators import (
    BoxChecker,
    BoxRefiner,
    ExpressionExtractor,
    MissingFinder,
    Operator,
    PhraseGrounder,
)
from dataflow_grounding.pipelines.pipeline import Pipeline
from dataflow_grounding.serving.serving import Serving


class Plain(Pipeline):
    """One request a picture: where is each phrase?"""

    name = "bench"
    about: ClassVar[str] = "each picture's phrases in one request"  # what the way does, in words
    # The keys of a spec by which a run asks in this way. A subclass states those that differ.
    keys: ClassVar[dict[str, Any]] = {
        "vlm.asking": "auto",
        "workflow.phrases_per_request": 16,
        "workflow.samples": 1,
        "workflow.zoom": False,
        "workflow.check": False,
    }
    # classes of the operators that look at the boxes again, in order
    then: ClassVar[Sequence[Callable[[Serving], Operator]]] = ()
    rows_of = staticmethod(bench_set.questions)

    def __init__(self, storage: FileStorage, serving: Serving) -> None:
        self.storage = storage
        keys = {**Plain.keys, **self.keys}  # the keys of zoom and check are heeded by `then`
        grounder = PhraseGrounder(
            serving,
            phrases_per_request=keys["workflow.phrases_per_request"],
            samples=keys["workflow.samples"],
        )
        if keys["vlm.asking"] != "auto":
            grounder = grounder.with_words(asking=keys["vlm.asking"])
        self.operators = [grounder, *[operator_class(serving) for operator_class in self.then]]

    def forward(self) -> None:
        for operator in self.operators:
            operator.run(
                self.storage.step(),
                input_image_key="image_path",
                input_expressions_key="expressions",
            )


class Samples(Plain):
    about = "three answers to the same question, merged"
    keys: ClassVar[dict[str, Any]] = {"workflow.samples": 3}


class Zoom(Plain):
    about = "small boxes asked for again, enlarged"
    keys: ClassVar[dict[str, Any]] = {"workflow.zoom": True}
    then = (BoxRefiner,)


class Check(Plain):
    about = "the same model judges its boxes, as by workflow.check: true"
    keys: ClassVar[dict[str, Any]] = {"workflow.check": True}
    then = (BoxChecker, MissingFinder)


class InJson(Plain):
    about = "no schema: JSON by the prompt's words alone"
    keys: ClassVar[dict[str, Any]] = {"vlm.asking": "json"}


class InLines(Plain):
    about = "a line of text for each box"
    keys: ClassVar[dict[str, Any]] = {"vlm.asking": "lines"}


class InLists(Plain):
    about = "JSON by words, with one list of boxes for each phrase"
    keys: ClassVar[dict[str, Any]] = {"vlm.asking": "json_lists"}


class WithoutThinking(Plain):
    about = "the model is told not to think first"
    keys: ClassVar[dict[str, Any]] = {"vlm.asking": "no_thinking"}


class InJsonWithoutThinking(Plain):
    about = "JSON by words, and no thinking"
    keys: ClassVar[dict[str, Any]] = {"vlm.asking": "json_no_thinking"}


class ByFour(Plain):
    about = "four phrases in a request"
    keys: ClassVar[dict[str, Any]] = {"workflow.phrases_per_request": 4}


class Spans(Pipeline):
    name = "bench"
    about: ClassVar[str] = "referring expressions of each caption, without boxes"
    rows_of = staticmethod(bench_set.captions)

    def __init__(self, storage: FileStorage, serving: Serving) -> None:
        self.storage = storage
        self.extractor = ExpressionExtractor(serving)

    def forward(self) -> None:
        self.extractor.run(
            self.storage.step(), input_image_key="image_path", input_caption_key="caption"
        )


WAYS: dict[str, type[Plain] | type[Spans]] = {
    "plain": Plain,
    "samples": Samples,
    "zoom": Zoom,
    "check": Check,
    "spans": Spans,
    "json": InJson,
    "lines": InLines,
    "json_lists": InLists,
    "no_thinking": WithoutThinking,
    "json_no_thinking": InJsonWithoutThinking,
    "by_four": ByFour,
}
"""The ways that `--ways` may name."""
USUAL = ("plain", "samples", "zoom", "check", "spans")
"""The ways that are measured unless others are named."""
OWN_USUAL = ("plain", "json", "lines", "json_lists", "by_four")
"""The same, where the pictures are a user's own."""
