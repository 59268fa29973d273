from dataflow_grounding import FileStorage, PhraseGrounder, as_command, serving_from_environment

with as_command():
    serving = serving_from_environment(max_workers=4)
    storage = FileStorage("rows.jsonl", "out", "boxes")
    PhraseGrounder(serving).run(storage.step())
    for record in storage.step().read("dict"):
        for phrase in record["expressions"]:
            print(phrase["text"], [instance["bbox"] for instance in phrase["instances"]])
