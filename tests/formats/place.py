"""A place where a test imports a tool's files, changes what came of them, and exports it again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from dataflow_grounding.formats import read, write
from dataflow_grounding.formats.samples import Exported
from tests.formats.data import facts_of, records_of, review
from tests.support.labelled import saved

Records = list[dict[str, Any]]
Change = Callable[[Records], object]


class Place:
    """A folder where something is imported to `results` and exported to `out`."""

    def __init__(self, folder: Path, pictures: Path) -> None:
        self.folder, self.pictures = folder, pictures
        self.results, self.out = folder / "results", folder / "out"

    def imported(self, source: Path, format: str, code: int = 0) -> dict[str, Any]:
        """What `import` says."""
        arguments = ("import", source, "--format", format, "-o", self.results)
        return facts_of(*arguments, "--image-root", self.pictures, code=code)

    def records(self) -> Records:
        """What was imported."""
        return records_of(self.results)

    def change(self, *records: dict[str, Any]) -> None:
        """Put these records in the place of those that were imported."""
        saved(self.results / "annotations.jsonl", [*records])

    def reviewed(self, change: Callable[[list[Any]], object]) -> dict[str, Any]:
        """What `apply` says, once a reviewer has changed the boxes of the first phrase; what it
        writes is exported then.
        """
        review(self.results, change)
        facts = facts_of("apply", self.results)
        self.results = self.results / "annotations.reviewed.jsonl"
        return facts

    def exported(self, format: str, *options: object) -> dict[str, Any]:
        """What `export` says."""
        arguments = ("export", self.results, "--format", format, "-o", self.out)
        return facts_of(*arguments, "--image-root", self.pictures, *options)

    def back(
        self,
        source: Path,
        format: str,
        change: Change = len,
        *options: object,
    ) -> Path:
        """The export of what is imported and changed by a function."""
        self.imported(source, format)
        records = self.records()
        change(records)
        self.change(*records)
        self.exported(format, *options)
        return self.out

    def written(self, *rows: dict[str, Any], format: str = "coco", **options: Any) -> Exported:
        """What an export of records says that nothing imported."""
        return write([*rows], format, str(self.out), folders=[str(self.pictures)], **options)

    def rows(self, format: str, source: Path | None = None) -> Records:
        """What is read of the export, or of a source."""
        return list(read(str(source or self.out), format, image_root=str(self.pictures)))
