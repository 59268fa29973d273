"""Region captions: images with boxes in, a text for each box out. Copy this file and make it yours.

Set DF_API_KEY, DF_BASE_URL and DF_MODEL to use a VLM; without them the embedded serving tells
colour, size and place.
"""

from pathlib import Path

from dataflow_grounding import (
    FileStorage,
    Pipeline,
    RegionCaptioner,
    RegionMarker,
    as_command,
    copy_file,
    publish,
    serving_from_environment,
)

HERE = Path(__file__).resolve().parent.parent
CACHE_PATH = HERE / "cache" / "image_region_caption"


class ImageRegionCaptionPipeline(Pipeline):
    def __init__(
        self,
        first_entry_file: str = str(HERE / "example_data" / "image_region_caption.jsonl"),
        cache_path: str = str(CACHE_PATH),
        file_name_prefix: str = "region_caption",
        cache_type: str = "jsonl",
        input_image_key: str = "image",
        input_bbox_key: str = "bbox",
        max_boxes: int | None = 10,
        output_image_with_bbox_path: str = str(CACHE_PATH / "image_with_bbox_result.jsonl"),
    ) -> None:
        self.storage = FileStorage(first_entry_file, cache_path, file_name_prefix, cache_type)
        self.serving = serving_from_environment(max_workers=16, timeout=60)
        # proposes boxes where a row has none
        self.marker = RegionMarker(cache_path, max_boxes, serving=self.serving)
        self.captioner = RegionCaptioner(self.serving, marks="outline")  # or "tag", or "crop"
        self.keys = {"input_image_key": input_image_key, "input_bbox_key": input_bbox_key}
        self.output_image_with_bbox_path = output_image_with_bbox_path

    def forward(self) -> None:
        self.marker.run(self.storage.step(), **self.keys)
        self.captioner.run(self.storage.step(), input_image_key=self.keys["input_image_key"])


if __name__ == "__main__":
    with as_command():  # errors and Ctrl-C: one line; the exit code that `generate` has
        pipeline = ImageRegionCaptionPipeline()
        pipeline.compile()  # checks the plan; then records stream through both steps
        summary = pipeline.run()
        if summary.done:
            # what the first step wrote, under the name that DataFlow's pipeline gives it
            Path(pipeline.output_image_with_bbox_path).parent.mkdir(parents=True, exist_ok=True)
            copy_file(pipeline.storage.path_of(1), pipeline.output_image_with_bbox_path)
        # annotations.jsonl and report.html next to the step files
        publish(summary, pipeline.storage)
        print(summary)
