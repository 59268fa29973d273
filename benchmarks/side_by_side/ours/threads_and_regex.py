from dataflow_grounding import FileStorage, PhraseGrounder, as_command, serving_from_environment

with as_command():
    grounder = PhraseGrounder(serving_from_environment(), phrases_per_request=1)
    grounder.run(FileStorage("rows.jsonl", "out", "boxes").step())
