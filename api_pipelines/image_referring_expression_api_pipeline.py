"""Referring expressions: images with boxes in, verified expressions of the boxes out. Copy this
file and make it yours.

Set DF_API_KEY, DF_BASE_URL and DF_MODEL to use a VLM; without them the embedded serving uses label,
colour and place.
"""

from pathlib import Path

from dataflow_grounding import (
    BBoxVisualizer,
    CaptionGenerator,
    DoubleChecker,
    FileStorage,
    Merger,
    Pipeline,
    RegionExpressionGenerator,
    as_command,
    publish,
    seed_file,
    serving_from_environment,
)

HERE = Path(__file__).resolve().parent.parent
# labels/a/b.txt is for a/b.jpg
IMAGES, LABELS = HERE / "example_data", HERE / "example_data" / "labels"
CACHE_PATH = HERE / "cache" / "image_referring_expression"


class ImageReferringExpressionAPIPipeline(Pipeline):
    name = "image_referring_expression"

    def __init__(
        self, first_entry_file: str, images: str = str(IMAGES), cache_path: str = str(CACHE_PATH)
    ) -> None:
        self.storage = FileStorage(
            first_entry_file, cache_path, "image_referring_expression", image_root=images
        )
        self.serving = serving_from_environment(max_workers=16, timeout=60)
        self.describer = RegionExpressionGenerator(self.serving)
        self.captioner = CaptionGenerator(self.serving)
        self.merger = Merger(self.serving)
        self.checker = DoubleChecker(self.serving)
        self.visualizer = BBoxVisualizer(output_dir=f"{cache_path}/images_with_bbox")

    def forward(self) -> None:
        self.describer.run(
            self.storage.step(), input_image_key="image_path", input_regions_key="regions"
        )
        self.captioner.run(self.storage.step(), input_image_key="image_path")
        self.merger.run(
            self.storage.step(), input_regions_key="regions", input_caption_key="cleaned_caption"
        )
        self.checker.run(
            self.storage.step(), input_regions_key="regions", input_expressions_key="expressions"
        )
        self.visualizer.run(
            self.storage.step(), input_image_key="image_path", input_expressions_key="expressions"
        )


if __name__ == "__main__":
    with as_command():  # errors and Ctrl-C: one line; the exit code that `generate` has
        pipeline = ImageReferringExpressionAPIPipeline(
            seed_file(str(CACHE_PATH), str(IMAGES), kitti=str(LABELS))
        )
        pipeline.compile()  # checks the plan; then records stream through all steps
        summary = pipeline.run()
        # annotations.jsonl and report.html next to the step files
        publish(summary, pipeline.storage)
        print(summary)
