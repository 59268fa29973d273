"""The static report: pages with the failures, and each picture with its boxes and its caption in the boxes' colours."""

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from itertools import islice
from typing import Any

from dataflow_grounding.review.page_html import Report, failure_html, page_html
from dataflow_grounding.review.pages import Pieces, write_pages
from dataflow_grounding.review.record_html import FindImage, record_html
from dataflow_grounding.review.record_view import FIRST, view_of

_MOST_KINDS = 20  # of failures that have a filter of their own; the others share one


def write_report(
    records: Iterable[Mapping[str, Any]],
    *,
    find_image: FindImage,
    out_path: str | os.PathLike[str],
    title: str,
    summary: Mapping[str, Any],
    failures: Iterable[Mapping[str, Any]] = (),
    per_page: int = 500,
) -> int:
    """Write the report, one HTML page or several, all or none.

    A page loads nothing, runs no script, and shows all text as text. Failures come first, then suspect, doubtful and
    unverified records. Further pages are beside the first, as `report-2.html` and so on; those of a longer report go.

    Args:
        records: Read once, one at a time.
        find_image: Gives the path of a record's image file, or None. An image that can't be opened is left out.
        out_path: The first page.
        title: The heading: what ran, and on which data.
        summary: Shown of it: `model` and `seconds`. All counts are of `records` and `failures`.
        failures: Rows with `id`, `line`, `step`, `kind` and `message`.
        per_page: How many records, and how many failures, a page has at most.

    Returns:
        How many records it shows.

    Raises:
        OSError: A page can't be written, or its name is taken by a file that is not a page of a report.
    """
    folder, name = os.path.split(os.path.abspath(out_path))
    with ExitStack() as files:
        report = Report(name, title, summary, Pieces(folder, files), Pieces(folder, files, FIRST), per_page)
        for failure in failures:
            kind, known = str(failure.get("kind") or "unknown"), report.failures.marks
            report.failures.add(failure_html(failure), [kind if kind in known or len(known) < _MOST_KINDS else "other"])
        for record in records:
            view = view_of(record)
            report.include(view)
            report.records.add(record_html(view, find_image, folder), view.marks)
        write_pages(folder, name, _pages(report))
    return report.records.count


def _pages(report: Report) -> Iterator[Iterator[str]]:
    failures, records = iter(report.failures), iter(report.records)
    for number in range(1, report.pages + 1):
        failed, shown = list(islice(failures, report.per_page)), list(islice(records, report.per_page))
        yield page_html(report, number, failed, shown)
