"""The records of what a command's argument RESULTS names, without what a person rejected."""

from collections.abc import Iterable, Iterator

from dataflow_grounding.data.records import Record
from dataflow_grounding.data.rejected import WithoutRejected
from dataflow_grounding.data.results_folder import annotations_of
from dataflow_grounding.data.rows import read_unbroken_rows


class RecordsOf(Iterable[Record]):
    """The records of RESULTS, which can be gone through more than once; what a person rejected is
    left out, unless `keep_rejected`.

    Raises InputError, with file and line, for one that can't be read.
    """

    def __init__(self, results: str, *, keep_rejected: bool = False) -> None:
        self.rejected = 0  # how many boxes were left out, when they were gone through last
        self._results = results
        self._keep_rejected = keep_rejected

    def __iter__(self) -> Iterator[Record]:
        without_rejected = WithoutRejected(self._keep_rejected)
        for line, data in read_unbroken_rows(annotations_of(self._results)):
            record = Record(data, place=line - 1)
            yield record.updated(without_rejected.of(record))
        self.rejected = without_rejected.boxes
