import os

from dataflow_grounding import FileStorage, OpenAIServing, PhraseGrounder, as_command

with as_command():
    serving = OpenAIServing(os.environ["DF_BASE_URL"], os.environ["DF_MODEL"], max_workers=4)
    storage = FileStorage("rows.jsonl", "out", "boxes")
    PhraseGrounder(serving).run(storage.step())
