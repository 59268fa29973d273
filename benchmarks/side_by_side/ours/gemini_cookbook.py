import os

from dataflow_grounding import FileStorage, GeminiServing, PhraseGrounder, as_command

with as_command():
    address = {"api_key": os.environ["DF_API_KEY"], "base_url": os.environ["DF_ADDRESS"]}
    serving = GeminiServing(os.environ["DF_MODEL"], max_workers=4, **address)
    storage = FileStorage("rows.jsonl", "out", "boxes")
    PhraseGrounder(serving).run(storage.step())
