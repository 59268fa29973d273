"""A folder with pictures, labels, spec and results for `image_referring_expression`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.support.workplace import Done, Place, Rows, command, rows_of

STEPS = (
    "step_0_region_expr",
    "step_1_image_caption",
    "step_2_grounding_expr",
    "step_3_double_check",
)


class ReferringPlace(Place):
    """Everything for `image_referring_expression` under one folder."""

    kind = "image_referring_expression"

    def __init__(self, folder: Path, base_url: str = "", **settings: Any) -> None:
        self.images = folder / "images"
        self.labels = folder / "labels"
        data = {"data.image_dir": str(self.images), "data.kitti_label_dir": str(self.labels)}
        super().__init__(folder, base_url, **{**data, **settings})
        self.labels.mkdir(exist_ok=True)
        self.images.mkdir(exist_ok=True)

    def picture(
        self,
        name: str,
        size: tuple[int, int] = (640, 480),
        color: str | tuple[int, int, int] = "navy",
    ) -> Path:
        """Write a picture."""
        from PIL import Image

        path = self.images / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, color).save(path)
        return path

    def label(self, name: str, lines: Sequence[str], end: str = "\n") -> Path:
        """Write a label file."""
        path = self.labels / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes("".join(line + end for line in lines).encode("utf-8", "surrogateescape"))
        return path

    def given(self, *rows: dict[str, Any] | str) -> Path:
        """Let runs begin from these annotations, of which texts are lines as they are."""
        path = self.folder / "given.jsonl"
        lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
        path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
        self.settings |= {"data.kitti_label_dir": None, "data.input_annotations_jsonl": str(path)}
        return path

    def spec(self, **settings: Any) -> Path:
        """Write the spec; returns its path. A setting that is None is left out."""
        given = {**self.settings, **settings}
        left_out = {key for key, value in given.items() if value is None} - {"vlm.check_every"}
        return self.written({key: given[key] for key in given if key not in left_out})

    def run(self, *arguments: str, **settings: Any) -> Done:
        """`generate` within this process, through the command line's own entry."""
        return command(
            ["generate", "-e", str(self.spec(**settings)), "--json", "--no-progress", *arguments]
        )

    def annotations(self, step: int | None = None) -> Rows:
        """The records of `annotations.jsonl`, or of a step's."""
        folder = self.results if step is None else self.results / STEPS[step]
        return rows_of(folder / "annotations.jsonl")

    def seeds(self) -> Rows:
        """The seed records."""
        return rows_of(self.results / "seed_annotations.jsonl")

    def legacy(self, step: int, stem: str) -> str:
        """The old layout's file of an image and step."""
        return (self.results / STEPS[step] / "labels" / f"{stem}.txt.step{step}").read_text(
            encoding="utf-8"
        )

    def files(self) -> dict[str, bytes]:
        """The annotation files of all steps."""
        return {
            str(p.relative_to(self.results)): p.read_bytes()
            for p in sorted(self.results.rglob("annotations.jsonl"))
        }
