import os

from dataflow_grounding import FileStorage, GeminiServing, PhraseGrounder, as_command

with as_command():
    address, key = os.environ["DF_ADDRESS"], os.environ["DF_API_KEY"]
    serving = GeminiServing("gemini-2.5-flash", max_workers=4, base_url=address, api_key=key)
    storage = FileStorage("rows.jsonl", "out", "boxes")
    PhraseGrounder(serving).run(storage.step())
