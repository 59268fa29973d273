"""Datature Vi's JSON lines for phrase grounding: one of a picture, its caption, and its phrases with their boxes.

Boxes are `[x1, y1, x2, y2]` in parts of the sides. `startTokenIndex` and `endTokenIndex` are not explained anywhere:
characters are written. Sources: vi.developers.datature.com/docs/upload-annotations; vi-sdk's
vi/dataset/loaders/types/{annotations,assets}.py, where `id` is a text.
"""

import os
from collections.abc import Iterator
from typing import Any

from dataflow_grounding.errors import InputError
from dataflow_grounding.formats.base import Format, Sample
from dataflow_grounding.formats.data_lines import broken, read_lines
from dataflow_grounding.formats.export_folder import ExportFolder

_DECIMALS = 6  # of a pixel


class Vi(Format):
    """Phrase grounding as Datature Vi imports it; it knows pictures by their file's name alone."""

    def write(self, samples: Iterator[Sample], out: ExportFolder) -> None:
        paths: dict[int, int] = {}  # name → path, as hashes: there may be millions
        with out.lines(self.data_file) as put:
            for number, sample in enumerate(samples):
                path, name = sample.file_name, os.path.basename(sample.file_name)
                if paths.setdefault(hash(name), hash(path)) != hash(path):
                    raise InputError(f"two pictures are called {name!r}, and Vi tells them apart by name: rename one")
                width, height = sample.size
                asset = {"type": "Image", "filename": name, "width": width, "height": height, "filepath": path}
                said = []
                for phrase in sample.phrases:
                    start, end = phrase.span or (0, 0)
                    bounds = [[n / sample.size[i % 2] for i, n in enumerate(box)] for box in phrase.boxes]
                    place = {"startTokenIndex": start, "endTokenIndex": end}
                    said.append({"phrase": phrase.text, **place, "bounds": bounds})
                contents = {"type": "PhraseGrounding", "caption": sample.caption, "groundedPhrases": said}
                put({"id": str(number), "asset": asset, "contents": contents})

    def read(self, path: str, image_root: str) -> Iterator[dict[str, Any]]:
        for where, line in read_lines(path, self.data_file):
            with broken(where):
                asset, contents = line["asset"], line["contents"]
                size = {"width": asset["width"], "height": asset["height"]}
                sides, said = [*size.values()], []
                for one in contents["groundedPhrases"]:
                    boxes = [[round(n * sides[i % 2], _DECIMALS) for i, n in enumerate(box)] for box in one["bounds"]]
                    place = {"char_span": [one.get("startTokenIndex"), one.get("endTokenIndex")]}
                    said.append({"text": one["phrase"], **place, "instances": [{"bbox": box} for box in boxes]})
                facts = {"image_path": asset.get("filepath") or asset["filename"], "caption": contents["caption"]}
                yield {**facts, **size, "expressions": said}
