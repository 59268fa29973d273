"""Writing a report: one pass over the records, with all that is not needed at the end kept on disk."""

import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from itertools import chain
from typing import IO, Any

from dataflow_grounding.review.door_html import door_html
from dataflow_grounding.review.record_data import view_data
from dataflow_grounding.review.record_index import FLAGS, RecordIndex, rank_of
from dataflow_grounding.review.record_view import FIRST, MEANING, view_of
from dataflow_grounding.review.report_files import PER_FILE, ReportFiles, script_json
from dataflow_grounding.review.thumbnails import Thumbnails
from dataflow_grounding.review.versions import Version, with_versions
from dataflow_grounding.secrets import blotted_message

FindImage = Callable[[Mapping[str, Any]], "str | None"]

_MOST_KINDS = 20  # of failures that have a filter of their own; the others share one


def write_report(
    records: Iterable[Mapping[str, Any]],
    *,
    find_image: FindImage,
    out_path: str | os.PathLike[str],
    failures: Iterable[Mapping[str, Any]] = (),
    versions: Sequence[Version] = (),
    called: str = "",
    single: bool = False,
    **head: Any,
) -> int:
    """Write the report of records and failures, which are read once: all of it or nothing.

    Args:
        find_image: Gives the path of a record's image file, or None.
        out_path: The page. Data and small pictures are in a folder beside it, `report_files` for `report.html`.
        versions, called: Earlier versions of the records, and what these are called among them.
        single: Whether the page is to hold everything.
        head: `title`, `summary` and `plots`, as for `door_html`.

    Returns:
        How many records it shows.

    Raises:
        InputError, OSError: It is too large for a single file; a file can't be written, or its name is taken.
    """
    with ExitStack() as stack:
        files = stack.enter_context(ReportFiles(out_path, single))
        kinds = _write_failures(files, failures)
        rows, index, thumbnails = (
            _Sorted(stack, files.folder),
            RecordIndex(),
            Thumbnails(files.folder, files.thumbnails),
        )
        counts = Counter(failures=kinds.total())
        views = ((item, find_image(item[0].record)) for item in with_versions(map(view_of, records), versions, called))
        for (view, more), picture in thumbnails.along(views):
            data = {**view_data(view, picture), **more}
            rows.add(rank_of(view), script_json(index.row(view, data)), script_json(data))
            counts.update({**view.counts, "changed": "changes" in more})
        files.write_parts("records", rows.texts(1))
        words = script_json({"heads": [*index.heads], "models": [*index.models]})
        files.write("index", chain([words], rows.texts(0)))
        about = {
            "files": files.address,
            "perFile": PER_FILE,
            "flags": FLAGS,
            "marked": index.marked,
            "meaning": MEANING,
        }
        about |= {"marked": index.marked, "kinds": kinds, "records": counts["images"], "failures": counts["failures"]}
        files.put(door_html(counts, kinds, about, files.inline(), **head))
        thumbnails.remove_others()
    return counts["images"]


def _write_failures(files: ReportFiles, failures: Iterable[Mapping[str, Any]]) -> Counter[str]:
    """Write them, and count their kinds."""
    kinds = Counter[str]()

    def rows() -> Iterator[str]:
        for failure in failures:
            kind = str(failure.get("kind") or "unknown")
            shared = kind if kind in kinds or len(kinds) < _MOST_KINDS else "other"
            kinds[shared] += 1
            cells = [failure.get(key) for key in ("id", "message", "kind", "step")]
            if cells[0] is None and failure.get("line") is not None:
                cells[0] = f"line {failure['line']}"
            texts = ["" if cell is None else blotted_message(str(cell)) for cell in cells]
            yield script_json([*texts, shared])

    files.write_parts("failures", rows())
    return kinds


class _Sorted:
    """Pairs of texts kept on disk, which come out by rank, then as they came."""

    def __init__(self, files: ExitStack, folder: str) -> None:
        new = partial(tempfile.TemporaryFile, "w+", encoding="utf-8", newline="\n", dir=folder)
        self._files: list[IO[str]] = [files.enter_context(new()) for _ in range(2 * len(FIRST) + 2)]

    def add(self, rank: int, *texts: str) -> None:
        for which, text in enumerate(texts):
            self._files[2 * rank + which].write(f"{text}\n")

    def texts(self, which: int) -> Iterator[str]:
        for file in self._files[which::2]:
            file.seek(0)
            yield from (line.rstrip("\n") for line in file)
