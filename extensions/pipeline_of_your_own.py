"""A pipeline: steps in an order of your own, from a script or from a spec.

The spec names it by module and class; the module is looked for in the spec's folder. Save it as
shares.yaml:

    results_dir: out
    autolabel_type: pipeline_of_your_own:BoxShares
    box_shares:
      vlm: {backend: openai, openai: {base_url: "http://localhost:8000/v1", model_name: my-model}}
      data: {input_jsonl: captions.jsonl}
      settings: {samples: 3}

`check`, `estimate`, `generate`, `report` and `cost` take it like any other:

    dataflowgrounding generate -e shares.yaml
"""

from __future__ import annotations

from typing import Any

from dataflow_grounding import (
    BoxRefiner,
    ExpressionExtractor,
    PhraseGrounder,
    Pipeline,
    Record,
    Update,
    operator,
)


@operator(reads=["expressions"], writes=["boxes"])
def boxes(record: Record) -> Update:
    """How many boxes the image has in all."""
    return {"boxes": sum(len(expression["instances"]) for expression in record["expressions"])}


class BoxShares(Pipeline):
    """Finds expressions and their boxes, looks again for small ones, and counts them."""

    name = "box_shares"

    def __init__(self, storage: Any, serving: Any, samples: int = 1) -> None:
        super().__init__(storage, serving)
        self.extractor = ExpressionExtractor(serving)
        self.grounder = PhraseGrounder(serving, samples=samples)
        self.refiner = BoxRefiner(serving, samples=samples)

    def forward(self) -> None:
        """The four steps."""
        self.extractor.run(self.storage.step(), input_caption_key="caption")
        self.grounder.run(self.storage.step())
        self.refiner.run(self.storage.step())
        boxes.run(self.storage.step())
