"""Small facts that a run leaves in its checkpoint folder for the next one: `facts.json`.

Without the file, or if it is damaged, all of them are found out again.
"""

import json
import os
import zlib
from typing import Any

from dataflow_grounding._util.errors import StorageFailed, errors_as
from dataflow_grounding._util.files import write_bytes
from dataflow_grounding.data.records import JsonObject, as_json, read_object

NAME = "facts.json"


def fact(folder: str, name: str) -> Any:
    """Return what is kept under a name; None for nothing."""
    return _facts_in(folder).get(name)


def keep_fact(folder: str, name: str, value: Any) -> None:
    """Keep a value, plain JSON, under a name. Raises StorageFailed."""
    facts = {**_facts_in(folder), name: as_json(value)}
    path = os.path.join(folder, NAME)
    text = json.dumps({"facts": facts, "sum": _sum(facts)}, indent=1)
    with errors_as(StorageFailed, f"can't write {path}"):
        os.makedirs(folder, exist_ok=True)
        write_bytes(path, text.encode())


def _facts_in(folder: str) -> JsonObject:
    file = read_object(os.path.join(folder, NAME))
    facts = file.get("facts")
    if isinstance(facts, dict) and file.get("sum") == _sum(facts):
        return facts
    return {}


def _sum(facts: JsonObject) -> int:
    return zlib.crc32(json.dumps(facts, sort_keys=True).encode())
