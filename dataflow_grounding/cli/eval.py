"""`eval`, `agree`: compare results with gold annotations, and two annotators."""

import os
from typing import Any

import click
import numpy as np

from dataflow_grounding._util.errors import SpecError
from dataflow_grounding._util.files import within
from dataflow_grounding.cli.arguments import Range, answer, rarely_collect_garbage
from dataflow_grounding.data.records import dump_text
from dataflow_grounding.data.results_folder import image_folders_of
from dataflow_grounding.data.rows import write_rows, write_text
from dataflow_grounding.extras.evaluation.metrics import (
    Rules,
    agreement,
    evaluate,
    read_annotations,
)
from dataflow_grounding.extras.evaluation.metrics.pairs import THRESHOLDS
from dataflow_grounding.extras.evaluation.metrics.showing import (
    figures_page,
    line_chart,
    worst_cases,
)
from dataflow_grounding.extras.review import report_results


@click.command("eval")
@click.argument("results", nargs=-1, required=True, metavar="PRED [PRED2]")
@click.option(
    "--gold",
    required=True,
    metavar="FILE",
    help="Records with the right boxes, in the record schema.",
)
@click.option(
    "--iou",
    "threshold",
    type=Range(0, 1, min_open=True),
    default=0.5,
    help="What makes a box right; 0.5.",
)
@click.option(
    "--strict-iou", "strict", is_flag=True, help="IoU above a threshold counts, not at it (Ref-L4)."
)
@click.option(
    "--giou", is_flag=True, help="Hold generalised IoU against thresholds (MDETR's code)."
)
@click.option(
    "--plus-one", is_flag=True, help="x2 and y2 are pixels that belong to the box (PhraseCut)."
)
@click.option(
    "--score-cut", type=Range(0, 1), help="Where boxes are counted, leave out lower scores."
)
@click.option(
    "-o",
    "out",
    metavar="FOLDER",
    help="Write figures, plots and a page of the worst cases into FOLDER.",
)
@click.option(
    "--image-root",
    metavar="DIR",
    help="Where the page's images are, if not where the run found them.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the figures as one JSON object.")
def of_eval(
    results: tuple[str, ...],
    gold: str,
    out: str | None,
    image_root: str | None,
    as_json: bool,
    **rules: Any,
) -> None:
    """Compare PRED (a folder or an annotations file) with gold annotations of the same images and
    captions.

    With a second PRED: what it does better or worse, with intervals and McNemar's test.
    docs/measures.md says what each figure means.
    """
    if len(results) > 2:
        raise SpecError(f"eval takes one or two PRED, not {len(results)}")
    rarely_collect_garbage()
    truth = read_annotations(gold)
    runs = [evaluate(path, truth, Rules(**rules)) for path in results]
    figures = runs[0].to_json()
    if len(runs) == 2:
        figures["compared"] = {"figures": runs[1].to_json(), **runs[0].against(runs[1])}
    page = figures_page(figures, results)
    if out:
        texts = {"figures.json": dump_text(figures, indent=1) + "\n", "figures.md": page + "\n"}
        accuracy, kept = dict[str, Any](), dict[str, Any]()
        for name, run in zip(results, runs, strict=True):
            held = run.columns["held"][run.columns["boxed"] > 0]
            accuracy[name] = (
                [(t, float(np.mean(run.rules.passes(held, t)))) for t in THRESHOLDS]
                if len(held)
                else []
            )
            kept |= {
                f"{name}: right": run.curve[:, [0, 2]].tolist(),
                f"{name}: kept": run.curve[:, :2].tolist(),
            }
        texts["accuracy.svg"] = line_chart(
            "Accuracy of first boxes", "IoU from", "share of phrases", accuracy
        )
        texts["precision.svg"] = line_chart(
            "What a cut keeps", "score from", "share of boxes", kept
        )
        for name, text in texts.items():
            write_text(within(out, name), text)
        title = f"Worst cases of {os.path.basename(os.path.abspath(results[0]))}"
        worst, folders = os.path.join(out, "worst.jsonl"), image_folders_of(results[0], image_root)
        write_rows(worst, worst_cases(runs[0]))
        report_results(
            worst, os.path.join(out, "worst.html"), summary={}, image_folders=folders, title=title
        )
    answer(as_json, figures, [page])


@click.command("agree")
@click.argument("first", metavar="A")
@click.argument("second", metavar="B")
@click.option("--plus-one", is_flag=True, help="x2 and y2 are pixels that belong to the box.")
@click.option("--json", "as_json", is_flag=True, help="Print the figures as one JSON object.")
def of_agree(first: str, second: str, plus_one: bool, as_json: bool) -> None:
    """Show how far two annotators agree: A and B are folders or annotations files of the same
    images and captions.
    """
    figures = agreement(first, second, Rules(plus_one=plus_one))
    rows = (
        (name.replace("_", " "), "-" if value is None else value) for name, value in figures.items()
    )
    answer(as_json, figures, (f"{name:28} {value}" for name, value in rows))
