"""A place where a test imports a tool's files, changes what came of them, and exports it again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dataflow_grounding.formats import read, write
from dataflow_grounding.formats.samples import Exported
from tests.formats.data import facts_of, records_of
from tests.support.labelled import saved


class Place:
    """A folder where something is imported to `results` and exported to `out`."""

    def __init__(self, folder: Path, pictures: Path) -> None:
        self.folder, self.pictures = folder, pictures
        self.results, self.out = folder / "results", folder / "out"

    def imported(self, source: Path, format: str, code: int = 0) -> dict[str, Any]:
        """What `import` says."""
        arguments = ("import", source, "--format", format, "-o", self.results)
        return facts_of(*arguments, "--image-root", self.pictures, code=code)

    def records(self) -> list[dict[str, Any]]:
        """What was imported."""
        return records_of(self.results)

    def change(self, *records: dict[str, Any]) -> None:
        """Put these records in the place of those that were imported."""
        text = "".join(f"{json.dumps(record)}\n" for record in records)
        saved(self.results / "annotations.jsonl", text)

    def exported(
        self, format: str, *options: object, results: Path | None = None
    ) -> dict[str, Any]:
        """What `export` says."""
        arguments = ("export", results or self.results, "--format", format, "-o", self.out)
        return facts_of(*arguments, "--image-root", self.pictures, *options)

    def written(self, *rows: dict[str, Any], format: str = "coco", **options: Any) -> Exported:
        """What an export of records says that nothing imported."""
        return write([*rows], format, str(self.out), folders=[str(self.pictures)], **options)

    def rows(self, format: str, source: Path | None = None) -> list[dict[str, Any]]:
        """What is read of the export, or of a source."""
        return list(read(str(source or self.out), format, image_root=str(self.pictures)))
