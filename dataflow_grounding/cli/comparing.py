"""`eval`: compare results with gold annotations."""

import os

import click

from dataflow_grounding._util.errors import SpecError
from dataflow_grounding._util.files import within
from dataflow_grounding.cli.arguments import (
    Range,
    answer,
    any_path,
    image_root_option,
    json_option,
)
from dataflow_grounding.data.records import dump_text
from dataflow_grounding.data.results_folder import image_folders_of
from dataflow_grounding.data.rows import write_rows, write_text
from dataflow_grounding.evaluation.metrics import (
    Evaluation,
    Rules,
    evaluate,
    read_annotations,
)
from dataflow_grounding.evaluation.metrics.showing import page, worst_cases
from dataflow_grounding.review import report_results


@click.command("eval")
@click.argument("results", nargs=-1, required=True, metavar="PRED [PRED2]", type=any_path)
@click.option(
    "--gold",
    required=True,
    metavar="FILE",
    type=any_path,
    help="Records with the right boxes, in the record schema.",
)
@click.option(
    "--iou",
    "threshold",
    type=Range(0, 1, min_open=True),
    default=0.5,
    help="The IoU from which a box counts as right; 0.5.",
)
@click.option(
    "--score-cut", type=Range(0, 1), help="Leave out lower scores in measures that count boxes."
)
@click.option(
    "-o",
    "out",
    metavar="FOLDER",
    type=any_path,
    help="Write figures and a page of the worst cases into FOLDER.",
)
@image_root_option
@json_option
def eval_command(
    results: tuple[str, ...],
    gold: str,
    threshold: float,
    score_cut: float | None,
    out: str | None,
    image_root: str | None,
    as_json: bool,
) -> None:
    """Compare PRED (a folder or an annotations file) with gold annotations of the same images.

    With a second PRED: what it does better or worse, with intervals. docs/measures.md says what
    each figure means.
    """
    if len(results) > 2:
        raise SpecError(f"eval takes one or two PRED, not {len(results)}")
    rules = Rules(threshold, score_cut)
    truth = read_annotations(gold)
    evaluations = []
    for path in results:
        answers = read_annotations(path, keep_rejected=False)
        evaluations.append(evaluate(answers, truth, rules))
    first = evaluations[0]
    figures = first.to_json()
    if len(evaluations) == 2:
        second = evaluations[1]
        figures["compared"] = {"figures": second.to_json(), **first.against(second)}
    if out:
        write_text(within(out, "figures.json"), dump_text(figures, indent=1) + "\n")
        write_text(within(out, "figures.md"), page(figures, results) + "\n")
        _write_worst_cases(out, results[0], first, image_root)
    answer(as_json, figures, [page(figures, results, short=True)])


def _write_worst_cases(out: str, results: str, run: Evaluation, image_root: str | None) -> None:
    records = os.path.join(out, "worst.jsonl")
    folders = image_folders_of(results, image_root)
    write_rows(records, worst_cases(run))
    report_results(
        records,
        os.path.join(out, "worst.html"),
        summary={},
        image_folders=folders,
        title=f"Worst cases of {os.path.basename(os.path.abspath(results))}",
    )
