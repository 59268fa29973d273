from dataflow_grounding import FileStorage, PhraseGrounder, Pipeline, as_command
from dataflow_grounding import serving_from_environment as serving


class Step(Pipeline):
    def __init__(self) -> None:
        self.storage = FileStorage("rows.jsonl", "out", "boxes")
        self.grounder = PhraseGrounder(serving(max_workers=4))

    def forward(self) -> None:
        self.grounder.run(self.storage.step())


with as_command():
    print(Step().run())
