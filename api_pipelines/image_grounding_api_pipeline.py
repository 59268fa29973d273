"""Image grounding: captions in, boxed phrases out. Copy this file and make it yours.

Set DF_API_KEY, DF_BASE_URL and DF_MODEL to use a VLM; without them it runs on the embedded OpenCV
grounder.
"""

from pathlib import Path

from dataflow_grounding import (
    BBoxVisualizer,
    ExpressionExtractor,
    FileStorage,
    PhraseGrounder,
    Pipeline,
    as_command,
    publish,
    serving_from_environment,
)

HERE = Path(__file__).resolve().parent.parent
FIRST_ENTRY_FILE = HERE / "example_data" / "captions.jsonl"
CACHE_PATH = HERE / "cache" / "image_grounding"


class ImageGroundingAPIPipeline(Pipeline):
    name = "image_grounding"

    def __init__(
        self, first_entry_file: str = str(FIRST_ENTRY_FILE), cache_path: str = str(CACHE_PATH)
    ) -> None:
        self.storage = FileStorage(
            first_entry_file, cache_path, file_name_prefix="image_grounding", cache_type="jsonl"
        )
        self.serving = serving_from_environment(max_workers=16, timeout=60)
        self.extractor = ExpressionExtractor(self.serving)
        self.grounder = PhraseGrounder(self.serving)
        self.visualizer = BBoxVisualizer(output_dir=f"{cache_path}/images_with_bbox")

    def forward(self) -> None:
        self.extractor.run(
            self.storage.step(), input_image_key="image_path", input_caption_key="caption"
        )
        self.grounder.run(
            self.storage.step(), input_image_key="image_path", input_expressions_key="expressions"
        )
        self.visualizer.run(
            self.storage.step(), input_image_key="image_path", input_expressions_key="expressions"
        )


if __name__ == "__main__":
    with as_command():  # errors and Ctrl-C: one line; the exit code that `generate` has
        pipeline = ImageGroundingAPIPipeline()
        pipeline.compile()  # checks the plan; then records stream through all steps
        summary = pipeline.run()
        # annotations.jsonl and report.html next to the step files
        publish(summary, pipeline.storage)
        print(summary)
