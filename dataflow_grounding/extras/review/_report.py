"""Writing a report: one pass over the records, with all that is not needed at the end
kept on disk.
"""

import os
from bisect import bisect
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from itertools import islice
from multiprocessing.pool import ThreadPool
from typing import IO, Any, TypeVar

from dataflow_grounding._util.paths import is_elsewhere
from dataflow_grounding._util.secrets import blotted_message
from dataflow_grounding._util.threads import at_once
from dataflow_grounding.boxes.geometry import area, box_of
from dataflow_grounding.data.records import STATUSES
from dataflow_grounding.extras.evaluation.metrics.annotations import head_of
from dataflow_grounding.extras.review._door_html import door_html
from dataflow_grounding.extras.review._record_view import FIRST, MEANING, Picture, View, view_of
from dataflow_grounding.extras.review._report_files import PER_FILE, ReportFiles, script_json
from dataflow_grounding.extras.review._versions import Version, beside, with_versions

T = TypeVar("T")

_SIZES = ("small", "medium", "large")  # COCO's
FLAGS = (*MEANING, "verified", *_SIZES, "changed", "without picture")
"""What a record may have, by the bit that says so: the filters, and sizes of boxes below 32² and
96² pixels.
"""
AT_ONCE = 256  # records whose pictures are looked for together
TOLD_EVERY = 100  # records between two words on how far it is
_MOST_KINDS = 20  # of failures that have a filter of their own; the others share one


def write_report(
    records: Iterable[Mapping[str, Any]],
    *,
    find_image: Callable[[Mapping[str, Any]], str | None],
    out_path: str | os.PathLike[str],
    failures: Iterable[Mapping[str, Any]] = (),
    versions: Sequence[Version] = (),
    called: str = "",
    single: bool = False,
    copies: bool = False,
    figures: Callable[[], Mapping[str, Any] | None] = lambda: None,
    on_progress: Callable[[int], None] = lambda _: None,
    **head: Any,
) -> int:
    """Write the report of records and failures, which are read once: all of it or nothing. Returns
    how many it shows.

    Args:
        find_image: Gives the path of a record's image file, or None.
        out_path: The page. Data and small pictures are in a folder beside it, `report_files` for
            `report.html`.
        versions, called: Earlier versions of the records, and what these are called among them.
        single, copies: Whether the page is to hold everything; whether all pictures are to have a
            small copy.
        figures: Gives those of the data set, as `figures_of` does, once all records were read.
        on_progress: Told how many records are done, now and then.
        head: `title` and `summary`, as for `door_html`.

    Raises:
        InputError, OSError: It is too large for a single file; a file can't be written, or its name
            is taken.
    """
    kinds, counts, marked = Counter[str](), Counter[str](), Counter[str]()
    with ExitStack() as stack:
        files = stack.enter_context(closing(ReportFiles(out_path, single, copies)))
        files.write_parts("failures", _failure_rows(failures, kinds))
        ranks = [stack.enter_context(files.spool()) for _ in range(len(FIRST) + 1)]
        shown = _with_pictures(with_versions(records, versions, called), find_image, files)
        for record, earlier, picture in _told(shown, on_progress):
            view = view_of(record, picture)
            view |= beside(view, earlier, called)
            marks = marks_of(record, view)
            _write_row(ranks, view, marks)
            if view.get("only", called) == called:
                counts.update(_counts_of(record, view, marks))
            counts["shown"] += 1
            marked.update(marks)
        counts.update(changed=marked["changed"], failures=kinds.total())
        files.write_parts("records", _lines(ranks, 1))
        files.write("index", _lines(ranks, 0))
        about = {"files": files.address, "perFile": PER_FILE, "flags": FLAGS, "marked": marked}
        about |= {
            "meaning": MEANING,
            "kinds": kinds,
            "records": counts["shown"],
            "failures": counts["failures"],
        }
        files.put(door_html(counts, kinds, about, files.inline, plots=figures(), **head))
    return counts["shown"]


def _with_pictures(
    items: Iterable[tuple[Mapping[str, Any], Any]],
    find_image: Callable[[Mapping[str, Any]], str | None],
    files: ReportFiles,
) -> Iterator[tuple[Mapping[str, Any], Any, Picture]]:
    """The records with their earlier versions and pictures, in order.

    Stores are waited for by many threads. Pictures on this machine want a core each, and a decoded
    one its memory.
    """
    found = ((record, earlier, find_image(record)) for record, earlier in items)
    with ThreadPool(os.cpu_count()) as cores:
        while some := list(islice(found, AT_ONCE)):
            paths = [path for _, _, path in some]
            if any(path is not None and is_elsewhere(path) for path in paths):
                pictures = at_once(files.picture, paths)
            else:
                pictures = cores.map(files.picture, paths)
            for (record, earlier, _), picture in zip(some, pictures, strict=True):
                yield record, earlier, picture


def _told(items: Iterable[T], on_progress: Callable[[int], None]) -> Iterator[T]:
    """The items, and a word on how many there were, now and then."""
    for number, item in enumerate(items, 1):
        yield item
        if number % TOLD_EVERY == 0:
            on_progress(number)


def _failure_rows(failures: Iterable[Mapping[str, Any]], kinds: Counter[str]) -> Iterator[str]:
    """What the page has of each failure; `kinds` counts them."""
    for failure in failures:
        kind = str(failure.get("kind") or "unknown")
        shared = kind if kind in kinds or len(kinds) < _MOST_KINDS else "other"
        kinds[shared] += 1
        cells = [failure.get(key) for key in ("id", "message", "kind", "step")]
        if cells[0] is None and failure.get("line") is not None:
            cells[0] = f"line {failure['line']}"
        texts = ["" if cell is None else blotted_message(str(cell)) for cell in cells]
        yield script_json([*texts, shared])


def _write_row(ranks: Sequence[IO[str]], view: View, marks: Collection[str]) -> None:
    """Write a record's line of the index and its own to the file of its rank, the doubtful ones'
    first.
    """
    rank = next((rank for rank, mark in enumerate(FIRST) if mark in marks), len(FIRST))
    ranks[rank].write(f"{script_json(_index_row(view, marks))}\n{script_json(view)}\n")


def _lines(ranks: Sequence[IO[str]], which: int) -> Iterator[str]:
    for file in ranks:
        file.seek(0)
        yield from (line.rstrip("\n") for line in islice(file, which, None, 2))


def marks_of(record: Mapping[str, Any], view: View) -> set[str]:
    """Those of FLAGS that a record has."""
    expressions, checks = view["expressions"], {e["check"] for e in view["expressions"]}
    found = {
        "suspect": record.get("suspect_boxes") is True,
        "doubtful": record.get("doubtful") is True
        or view["problem"]
        or any(e["disputed"] for e in expressions),
        "unverified": checks - {"", "verified"},
        "verified": "verified" in checks,
        "changed": view.get("changes") or view.get("only"),
        "without picture": view["missing"],
        **{e["status"]: view["kind"] == "expressions" for e in expressions},
        **{
            _SIZES[bisect((32**2, 96**2), area(box_of(i["bbox"])))]: True
            for e in expressions
            for i in e["instances"]
        },
    }
    return {name for name, applies in found.items() if applies}


def _index_row(view: View, marks: Collection[str]) -> list[Any]:
    """What the page filters and orders a record by: id; flags as a number; of each expression its
    text in lower case, head noun and number of boxes; lowest and highest score in hundredths, or
    -1; model.
    """
    expressions = view["expressions"]
    phrases = [
        (" ".join(e["text"].lower().split()), head_of(e["text"]), len(e["instances"]))
        for e in expressions
    ]
    scores = [i["score"] for e in expressions for i in e["instances"] if i["score"] is not None]
    low, high = (round(100 * min(max(edge(scores), 0), 1)) if scores else -1 for edge in (min, max))
    bits = sum(1 << bit for bit, flag in enumerate(FLAGS) if flag in marks)
    return [view["id"], bits, phrases, low, high, view["model"]]


def _counts_of(record: Mapping[str, Any], view: View, marks: Collection[str]) -> Counter[str]:
    """What a record adds to the figures; a key with 0 says that it has such things at all."""
    found = Counter(["images", *(mark for mark in ("doubtful", "suspect") if mark in marks)])
    regions = record.get("regions", record.get("region_captions"))
    if isinstance(regions, list):
        found["regions"] = len(regions)
    if view["kind"] == "region_captions":
        captions = record["region_captions"] if view["expressions"] else []
        found["captions"] = sum(isinstance(c, Mapping) and bool(c.get("text")) for c in captions)
    if view["kind"] == "expressions":
        found.update({"expressions": len(view["expressions"]), **dict.fromkeys(STATUSES, 0)})
        found.update(e["status"] for e in view["expressions"])
    found.update(
        "verified" if e["check"] == "verified" else "unverified"
        for e in view["expressions"]
        if e["check"]
    )
    return found
