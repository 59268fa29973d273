import os

from dataflow_grounding import FileStorage, GeminiServing, PhraseGrounder, as_command

with as_command():
    key, address = os.environ["DF_API_KEY"], os.environ["DF_ADDRESS"]
    serving = GeminiServing(os.environ["DF_MODEL"], api_key=key, base_url=address)
    storage = FileStorage("rows.jsonl", "out", "boxes")
    PhraseGrounder(serving).run(storage.step())
