"""A `frontier.json` for people: lines of a terminal, and a page of one file."""

import json
import os
from collections.abc import Iterator, Mapping
from typing import Any

from dataflow_grounding._util.files import within
from dataflow_grounding._util.terminal import counted
from dataflow_grounding.data.records import dump_text
from dataflow_grounding.data.rows import write_text
from dataflow_grounding.data.working_folder import sent
from dataflow_grounding.extras.tuning.frontier import frontier_of, gold_for
from dataflow_grounding.extras.tuning.frontier_picture import NARROW, STYLE, picture_of
from dataflow_grounding.images.document import (
    Cell,
    TableRow,
    document_page,
    safe,
    section,
    spec_section,
    table,
)
from dataflow_grounding.jobs.spec_run import SpecRun

ENDS = "95 %"
"""The head of the column with the ends of F1's interval."""
_ABOUT_PICTURE = (
    "Ringed: the spec as it stands. Filled: no other way is as good and costs no more. A doubt is"
    " the least at which the next model is asked about a phrase: at 1 where the check couldn't"
    " decide, at 0 about every phrase."
)
_ABOUT_COST = (
    "from the replies that the pilot left. Boxes in doubt count. A model alone is asked for the"
    " boxes of the phrases that the first model found in the captions. Of a further model's"
    " requests at a doubt, all that is read is counted, and what it writes by the share of the"
    " phrases. Tests of models and formats, about one request in a hundred, aren't counted."
)
_STYLE = """
svg { display: block; width: 100%; height: auto; }
.of-wide { max-width: 54rem; margin: 0 auto; }
.of-narrow { display: none; }
@media (max-width: 40rem) { .of-wide { display: none; } .of-narrow { display: block; } }
"""
FEW = 20
"""With fewer pictures, intervals are so wide that a remark says so."""


def write_frontier(run: SpecRun, gold: str | None = None) -> dict[str, Any]:
    """Write `frontier.json`, `.svg` and `.html` of a pilot into its results folder.

    Args:
        run: The pilot, which has been run; with a cascade.
        gold: A file with the right boxes, if there is one.

    Returns:
        What `frontier.json` holds, and under `page` where the page is.

    Raises:
        InputError: No record of the pilot is whole, or none has gold.
    """
    document = frontier_of(run, gold)
    folder = run.spec.results_dir
    files = {
        "frontier.json": dump_text(document, 1) + "\n",
        "frontier.svg": picture_of(document),
        "frontier.html": page_of(document),
    }
    for name, text in files.items():
        write_text(within(folder, name), text)
    return {**document, "page": sent(os.path.join(folder, "frontier.html"))}


def check_gold(path: str) -> None:
    """Raise InputError where a file has no gold, before anything is asked."""
    gold_for(path)


def lines_of(document: Mapping[str, Any]) -> Iterator[list[str]]:
    """Yield the rows of the table for a terminal, the heads first."""
    yield ["way to run", *_heads(document)]
    for point in document["points"]:
        yield [point["name"], *_cells(point, document), _remark(point)]


def _heads(document: Mapping[str, Any]) -> list[str]:
    """Return the heads of the columns behind the name; the last one, of remarks, is empty.

    Costs are in USD where prices are known, else in requests; what all records come to is in a
    column of its own where their number is known.
    """
    if _has_prices(document):
        heads = ["F1", ENDS, "USD per 1,000"]
        if document["records"] is not None:
            heads.append(f"USD for all {document['records']:,}")
    else:
        heads = ["F1", ENDS, "requests per 1,000"]
        if document["records"] is not None:
            heads.append(f"for all {document['records']:,}")
    return [*heads, ""]


def _has_prices(document: Mapping[str, Any]) -> bool:
    """Return whether the costs are in USD: all points have them, or none."""
    return document["points"][0]["usd_per_1000"] is not None


def _cells(point: Mapping[str, Any], document: Mapping[str, Any]) -> list[str]:
    """Return the figures of a point as text, for the columns of `_heads` but the last.

    F1 and its interval are "-" where there is none.
    """
    ends = point["interval"]
    cells = [
        "-" if point["f1"] is None else f"{point['f1']:.3f}",
        "-" if ends is None else f"{ends[0]:.3f} to {ends[1]:.3f}",
    ]
    if _has_prices(document):
        cells.append(_usd(point["usd_per_1000"]))
        if document["records"] is not None:
            cells.append(_usd(point["usd_of_all"]))
        return cells
    by_model = point["requests_per_1000"].items()
    cells.append(" + ".join(f"{count:,} {model}" for model, count in by_model))
    if document["records"] is not None:
        cells.append(f"{point['requests_of_all']:,}")
    return cells


def _usd(value: float) -> str:
    """Return USD with cents; below 1, rounded to three significant digits.

    Example:
        >>> _usd(1234.5), _usd(0.01234), _usd(0.99951), _usd(0.00001234)
        ('1,234.50', '0.0123', '1.00', '0.0000123')
    """
    rounded = float(f"{value:.3g}")
    if rounded >= 1:
        return f"{value:,.2f}"
    return f"{rounded:.12f}".rstrip("0").rstrip(".")


def _remark(point: Mapping[str, Any]) -> str:
    """Return what is to be said of a point; empty for one that is neither own nor beaten."""
    parts = []
    if point["is_own"]:
        parts.append("as the spec stands")
    if point["better"]:
        parts.append(f"{point['better']} is no worse and costs no more")
    return "; ".join(parts)


def judged_in_words(document: Mapping[str, Any]) -> str:
    """Return in words what F1 is measured against, and on how many phrases and pictures."""
    phrases = counted(document["phrases"], "phrase")
    pictures = f"{phrases} of {counted(document['pictures_with_gold'], 'picture')}"
    if document["gold"]:
        text = f"F1 at IoU 0.5 against {document['gold']}, on {pictures} of the pilot."
        if document["phrases_not_asked"]:
            text += f" {document['phrases_not_asked']:,} of its phrases there were not asked about."
    else:
        model = document["judged_by"]
        text = (
            f"No gold was given: F1 is how far the boxes agree with {model}'s own, on {pictures}"
            f" of the pilot. So {model} alone has 1, and its errors count as right; --gold FILE"
            " names the right boxes."
        )
    if document["pictures_with_gold"] < FEW:
        text += f" Intervals of fewer than {FEW} pictures tell little."
    return text


def verdict_of(document: Mapping[str, Any]) -> str:
    """Return in words what the spec as it stands comes to, and what would be better."""
    own = next(point for point in document["points"] if point["is_own"])
    f1, ends, *costs = _cells(own, document)
    unit = " USD" if _has_prices(document) else ""
    text = (
        f"As the spec stands ({own['name']}), F1 is {f1} ({ends}), at {costs[0]}{unit} per 1,000"
        " pictures"
    )
    if document["records"] is not None:
        text += f", {costs[1]}{unit} for all {document['records']:,}"
    text += "."
    if own["better"]:
        text += f" {own['better']} is no worse and costs no more."
    return text


def page_of(document: Mapping[str, Any]) -> str:
    """Return the page as HTML. What comes from data is escaped, and keys are blotted out."""
    rows = []
    settings = []
    for number, point in enumerate(document["points"], 1):
        f1, ends, *costs = _cells(point, document)
        cells: list[Cell | str] = [Cell(f1, "" if ends == "-" else ends), *costs]
        name = f"{number}. {point['name']}"
        rows.append(TableRow(name, cells, _remark(point), is_own=point["is_own"]))
        shown = "\n".join(f"{key}: {_yaml(value)}" for key, value in point["set"].items())
        settings.append((point["name"], shown))
    heads = [head for head in _heads(document)[:-1] if head != ENDS]
    wide = picture_of(document, alone=False)
    narrow = picture_of(document, NARROW, alone=False)
    pictures = f'<div class="of-wide">{wide}</div><div class="of-narrow">{narrow}</div>'
    prices = "No known price: with vlm.prices, and those of the entries, cost is in USD."
    if document["prices"]:
        prices = f"Prices: {document['prices']}."
    return document_page(
        f"Cost and F1: {' → '.join(document['models'])}",
        f'<p class="sentence">{safe(verdict_of(document))}</p>'
        f'<p class="note">{safe(judged_in_words(document))}</p>',
        [
            section("What is paid, and what it brings", pictures, _ABOUT_PICTURE),
            section("Figures", table("way to run", heads, rows)),
            spec_section("What asks for each, below the pipeline's block in the spec", settings),
        ],
        f"{safe(prices)} Made by dataflow-grounding {safe(document['version'])} out of"
        f" frontier.json, {_ABOUT_COST}",
        style=_STYLE + STYLE,
    )


def _yaml(value: Any) -> str:
    """Return a value of a spec in one line: a text as it is, anything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
