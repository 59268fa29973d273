"""A folder with pictures, labels, spec and results for `image_referring_expression`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.support.workplace import Done, Rows, command

STEPS = (
    "step_0_region_expr",
    "step_1_image_caption",
    "step_2_grounding_expr",
    "step_3_double_check",
)

NULL = object()
"""A setting that the spec has as null."""


class ReferringPlace:
    """Everything under one folder; `settings` are dotted spec keys below
    `image_referring_expression` for every run.
    """

    def __init__(self, folder: Path, base_url: str = "", **settings: Any) -> None:
        self.folder = folder
        self.images = folder / "images"
        self.labels = folder / "labels"
        self.results = folder / "results"
        self.settings: dict[str, Any] = {
            "vlm.backend": "openai",
            "vlm.box_format": "xyxy_px",
            "vlm.check_every": NULL,  # what is counted are the requests of records
            "vlm.openai.base_url": base_url,
            "vlm.openai.model_name": "loopback",
            "data.image_dir": str(self.images),
            "data.kitti_label_dir": str(self.labels),
            **settings,
        }
        self.labels.mkdir(parents=True, exist_ok=True)
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
        block: dict[str, Any] = {}
        for key, value in {**self.settings, **settings}.items():
            *outer, last = key.split(".")
            inner = block
            for name in outer:
                inner = inner.setdefault(name, {})
            if value is not None:
                inner[last] = None if value is NULL else value
        name = "image_referring_expression"
        path = self.folder / "spec.yaml"
        path.write_text(
            json.dumps({"results_dir": str(self.results), "autolabel_type": name, name: block}),
            encoding="utf-8",
        )
        return path

    def run(self, *arguments: str, **settings: Any) -> Done:
        """`generate` within this process, through the command line's own entry."""
        return command(
            ["generate", "-e", str(self.spec(**settings)), "--json", "--no-progress", *arguments]
        )

    def annotations(self, step: int | None = None) -> Rows:
        """The records of `annotations.jsonl`, or of a step's."""
        folder = self.results if step is None else self.results / STEPS[step]
        return _read(folder / "annotations.jsonl")

    def seeds(self) -> Rows:
        """The seed records."""
        return _read(self.results / "seed_annotations.jsonl")

    def failures(self) -> Rows:
        """The lines of `failures.jsonl`."""
        return _read(self.results / "failures.jsonl")

    def run_json(self) -> dict[str, Any]:
        """What `run.json` says."""
        found: dict[str, Any] = json.loads((self.results / "run.json").read_text(encoding="utf-8"))
        return found

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


def _read(path: Path) -> Rows:
    return [json.loads(line) for line in path.read_bytes().splitlines()] if path.exists() else []
