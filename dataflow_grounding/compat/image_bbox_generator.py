"""DataFlow's `ImageBboxGenerator`: RegionMarker under its name, between the two files that its settings name."""

import copy
from dataclasses import dataclass
from typing import Any

from dataflow_grounding.operators import OPERATOR_REGISTRY, RegionMarker
from dataflow_grounding.storage import FileStorage


@dataclass
class ExistingBBoxDataGenConfig:
    """`max_boxes` None keeps all boxes. Without a path the storage's own file is read, or written."""

    max_boxes: int | None = 10
    input_jsonl_path: str | None = None
    output_jsonl_path: str | None = None


@OPERATOR_REGISTRY.register()
class ImageBboxGenerator(RegionMarker):
    """Draws the boxes of each row, or regions that OpenCV proposes, into `{cache_path}/{n}_bbox_vis.jpg`."""

    name = "image_bbox"

    def __init__(self, config: ExistingBBoxDataGenConfig | None = None) -> None:
        self.cfg = config or ExistingBBoxDataGenConfig()
        super().__init__(max_boxes=self.cfg.max_boxes)

    def run(self, storage: Any, input_image_key: str = "image", input_bbox_key: str = "bbox", **keys: str) -> str:
        """Work through the rows; returns the column with the pictures' paths. `keys` are RegionMarker's others."""
        between = _Between(FileStorage.like(storage), self.cfg)
        here = copy.copy(self)
        here.output_dir = between.cache_path
        return super(ImageBboxGenerator, here).run(
            between, input_image_key=input_image_key, input_bbox_key=input_bbox_key, **keys
        )


class _Between(FileStorage):
    """A storage's step, with other files to read from and write to."""

    def __init__(self, storage: FileStorage, config: ExistingBBoxDataGenConfig) -> None:
        self.__dict__.update(vars(storage))
        self._reads = config.input_jsonl_path or storage.input_path
        self._writes = config.output_jsonl_path or storage.output_path
        self.first_entry_file_name = self._reads  # images are looked for beside it

    def path_of(self, step: int) -> str:
        """The file that is read for its own step, the one that is written for the next."""
        return self._reads if step == self.operator_step else self._writes
