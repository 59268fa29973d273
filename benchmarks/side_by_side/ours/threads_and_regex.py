from dataflow_grounding import FileStorage, PhraseGrounder, as_command, serving_from_environment

with as_command():
    serving = serving_from_environment(max_workers=4)
    grounder = PhraseGrounder(serving, phrases_per_request=1)
    grounder.run(FileStorage("rows.jsonl", "out", "boxes").step())
