"""Figures of a `bench.json`: of its replies alone, without a model, the same bytes each time."""

import contextlib
import io
import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from dataflow_grounding._util.errors import InputError, RecordError, RequestRefused, RunStopped
from dataflow_grounding._util.files import within
from dataflow_grounding._util.secrets import excerpt
from dataflow_grounding.bench.bench_set import PictureSet, shipped_set
from dataflow_grounding.bench.choosing import interval_of_mean
from dataflow_grounding.bench.own_pictures import KIND, mean_f1
from dataflow_grounding.bench.ways import WAYS, Spans
from dataflow_grounding.data.records import dump_line
from dataflow_grounding.data.rows import write_text
from dataflow_grounding.data.storage import FileStorage
from dataflow_grounding.engine.options import RunOptions, current_options
from dataflow_grounding.engine.summary import Summary
from dataflow_grounding.engine.unreadable import unreadable_facts
from dataflow_grounding.evaluation.metrics import evaluate
from dataflow_grounding.images.image import ImageLimits
from dataflow_grounding.serving.recorded import RecordedServing
from dataflow_grounding.serving.serving import Reply
from dataflow_grounding.tasks.request import Request

OF_BOXES = ("precision_at_iou_0.5", "recall_at_iou_0.5", "miou", "n_acc", "il_mcc", "gprec_f1")
OF_SPANS = ("span_exact_f1", "span_overlap_f1")
"""The figures of a way, of boxes and of spans, by the names that `eval` has for them."""
_OF_KINDS = ("precision_at_iou_0.5", "recall_at_iou_0.5", "n_acc")
_DIGITS = 4


def scored(
    document: Mapping[str, Any], own: PictureSet | None = None, path: str = "bench.json"
) -> dict[str, Any]:
    """Return the document with the `figures` that its replies come to.

    A way that has figures already keeps them.

    Args:
        document: What `measure` yielded, or `read_document` returned.
        own: The user's own pictures that were asked about; None for the package's.
        path: What the document is called in errors.

    Raises:
        InputError: It is of another set, or no reply of a way answers what is asked.
    """
    pictures = own or shipped_set(document["pictures"])
    gold = pictures.records
    if pictures.digest() != document["set"]:
        version = excerpt(str(document["version"]), 40)
        raise InputError(
            f"{path}: set: these replies are about other pictures, or other gold, than this"
            f" version's: score them with the dataflow-grounding {version} that asked"
        )
    ways = {}
    for way, of_way in document["ways"].items():
        if "figures" in of_way:
            ways[way] = of_way
            continue
        records, summary = _replayed(way, of_way, pictures, f"{path}: ways.{way}")
        counts = _counts(summary, len(gold))
        figures = _figures(way, records, gold)
        ways[way] = {**of_way, "figures": {"counts": counts, **figures}}
    return {**document, "ways": ways}


def _replayed(
    way: str, of_way: Mapping[str, Any], pictures: PictureSet, where: str
) -> tuple[list[dict[str, Any]], Summary]:
    # Return the records that got through all steps with the replies that are kept, and the run's
    # counts.
    with tempfile.TemporaryDirectory(prefix="bench") as folder:
        serving = _playing_back(of_way, os.path.join(folder, "recording.jsonl"))
        rows = os.path.join(folder, "questions.jsonl")
        whole = []
        for record in pictures.records:
            path = within(pictures.folder, record["image_path"])
            whole.append({**record, "image_path": path})
        write_text(rows, "".join(map(dump_line, WAYS[way].rows_of(whole))))
        storage = FileStorage(rows, os.path.join(folder, "cache"), "bench")
        pipeline = WAYS[way](storage, serving)
        try:
            with _in_silence():
                summary = pipeline.run()
        except RunStopped as stopped:
            raise InputError(f"{where}: the replies can't be scored: {stopped}") from None
        if of_way["replies"] and not serving.answered:
            raise InputError(
                f"{where}: none of the replies answers what this version asks: score them with the"
                " one that asked"
            )
        if not summary.done:
            return [], summary
        with open(summary.annotations, encoding="utf-8") as file:
            return [json.loads(line) for line in file], summary


@contextlib.contextmanager
def _in_silence() -> Iterator[None]:
    token = current_options.set(RunOptions(progress=False))
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        current_options.reset(token)


class _KeptReplies(RecordedServing):
    """The replies of one way. A picture with a question that has none fails, as it did in the run.

    A recording would refuse such a question, and a run ends where an endpoint refuses many.

    Attributes:
        answered: How many questions there was a reply to.
    """

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.answered = 0

    async def answer(self, request: Request[Any]) -> Reply:
        try:
            reply = await super().answer(request)
        except RequestRefused:
            raise RecordError(f"no reply is kept to this {request.task} request") from None
        self.answered += 1
        return reply


def _playing_back(of_way: Mapping[str, Any], path: str) -> _KeptReplies:
    lines = [of_way["recording"], *of_way["replies"]]
    write_text(path, "".join(map(dump_line, lines)))
    serving = _KeptReplies(path)
    # The format is known by now; a judge's answers to what is known are among the replies.
    serving.exact_boxes = True
    serving.takes_probes = True
    limits = {**of_way["image_limits"]}
    limits["media_types"] = tuple(limits["media_types"])
    limits["frames"] = tuple(map(tuple, limits.get("frames", ())))
    serving.image_limits = ImageLimits(**limits)
    return serving


def _counts(summary: Summary, pictures: int) -> dict[str, Any]:
    judge = None
    if summary.notes["judge_not_tested"]:
        judge = "not tested"
    elif summary.notes["judge_not_obeyed"]:
        judge = "not obeyed"
    counts = {
        "pictures": pictures,
        "failed": pictures - summary.done,
        "unreadable": summary.requests["unreadable"],
        "unchecked": summary.expressions["not checked"],
        "judge": judge,
    }
    # Without any, the figures of a file stay those that earlier versions state.
    return counts | unreadable_facts(summary.requests) if counts["unreadable"] else counts


def _figures(
    way: str, records: Sequence[dict[str, Any]], gold: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    answered = [_by_id(record) for record in records]
    right = [_by_id(record) for record in gold]
    answered_paths = {record["image_path"] for record in answered}
    for record in right:
        if record["image_path"] not in answered_paths:
            # The picture failed: no phrase of it was found.
            missed = {name: record[name] for name in ("image_path", "caption")}
            answered.append({**missed, "expressions": []})
    if issubclass(WAYS[way], Spans):
        in_captions = [_with_caption_phrases(record) for record in right]
        figures = _evaluated(answered, in_captions, OF_SPANS)
        for name in OF_SPANS:
            if figures[name]["value"] is None:
                # No phrase was found in any caption, which `eval` takes for none being looked for.
                figures[name]["value"] = 0.0
        return {"all": figures}
    if gold[0]["kind"] == KIND:
        return _figures_of_own(answered, right)
    kinds: dict[str, Any] = {}
    for kind in dict.fromkeys(record["kind"] for record in gold):
        of_kind = [record for record in right if record["kind"] == kind]
        kinds[kind] = _evaluated(answered, of_kind, _OF_KINDS)
    return {"all": _evaluated(answered, right, OF_BOXES), "kinds": kinds}


def _figures_of_own(
    answered: Sequence[dict[str, Any]], gold: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    answers = {record["image_path"]: record for record in answered}
    scores = []
    for record in gold:
        score = mean_f1(record["expressions"], answers[record["image_path"]])
        scores.append(round(score, _DIGITS))
    ends = interval_of_mean(np.array(scores))
    mean = {
        "value": round(sum(scores) / len(scores), _DIGITS),
        "interval": None if ends[0] == ends[1] else [round(end, _DIGITS) for end in ends],
    }
    return {
        "all": {"mean_f1": mean, **_evaluated(answered, gold, OF_BOXES)},
        "kinds": {},
        "scores": scores,
    }


def _by_id(record: Mapping[str, Any]) -> dict[str, Any]:
    return {**record, "image_path": f"{record['image_id']}.jpg"}


def _with_caption_phrases(record: Mapping[str, Any]) -> dict[str, Any]:
    placed = [expression for expression in record["expressions"] if expression["char_span"]]
    return {**record, "expressions": placed}


def _evaluated(
    answered: Sequence[dict[str, Any]], gold: Sequence[dict[str, Any]], names: Sequence[str]
) -> dict[str, Any]:
    # There is no interval where all bootstrap samples come to the same, as those of one picture do,
    # or of a figure that is 1 in each: it would look sure of what nobody knows.
    evaluation = evaluate(list(answered), list(gold)).to_json()
    figures: dict[str, Any] = {"phrases": evaluation["expressions"]}
    for name in names:
        value = evaluation.get(name)
        interval = evaluation["intervals"].get(name)
        if interval is not None and interval[0] == interval[1]:
            interval = None
        figures[name] = {
            "value": None if value is None else round(value, _DIGITS),
            "interval": None if interval is None else [round(end, _DIGITS) for end in interval],
        }
    return figures
