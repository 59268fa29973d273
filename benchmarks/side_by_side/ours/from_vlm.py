from dataflow_grounding import FileStorage, PhraseGrounder, as_command, serving_from_environment

with as_command():
    storage = FileStorage("rows.jsonl", "out", "boxes")
    PhraseGrounder(serving_from_environment()).run(storage.step())
    for record in storage.step().read("dict"):
        for expression in record["expressions"]:
            xyxy = [instance["bbox"] for instance in expression["instances"]]
            print(expression["text"], xyxy)
