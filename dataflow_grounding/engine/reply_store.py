"""The store of a folder's replies: one file for all steps, made from an older layout's files, one per step."""

import glob
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from dataflow_grounding.engine.keyed_log import CHECK, MARK, Span, covers, read_lines
from dataflow_grounding.engine.shard import FOLDER
from dataflow_grounding.engine.vouching import entries_of


def store_path(folder: str) -> str:
    """The store in a checkpoint folder (`.ckpt`)."""
    return os.path.join(folder, "replies.jsonl")


def open_store(folder: str) -> str:
    """The path of a folder's store, which holds what an older layout held. Raises OSError."""
    path = store_path(folder)
    if not os.path.exists(path) and (old := _old_stores(folder)):
        part = f"{path}.part"
        _merge(old, part)
        os.replace(part, path)
    return path


def more_stores(results_dir: str) -> list[str]:
    """The stores of a run's shards, and those that other machines have filled for a folder elsewhere."""
    results = glob.escape(results_dir)
    folders = [os.path.join(results, ".ckpt"), os.path.join(results, FOLDER, "*", ".ckpt")]
    found = [path for folder in folders for path in glob.glob(os.path.join(folder, "replies", "*.jsonl"))]
    return sorted([*found, *glob.glob(store_path(folders[1]))])


def other_stores(folder: str) -> list[str]:
    """The stores of the other parts of the run that a checkpoint folder is of: its shards, and the folder of these."""
    results = os.path.dirname(os.path.abspath(folder))
    if os.path.basename(os.path.dirname(results)) == FOLDER:
        results = os.path.dirname(os.path.dirname(results))
    paths = [store_path(os.path.join(results, ".ckpt")), *more_stores(results)]
    return [path for path in paths if os.path.exists(path) and path != store_path(os.path.abspath(folder))]


@contextmanager
def readable_store(folder: str) -> Iterator[str]:
    """The path of a store to read, of either layout. Nothing in the folder is touched: a run may be at work there."""
    path = store_path(folder)
    if os.path.exists(path) or not (old := _old_stores(folder)):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="replies-") as aside:
        merged = os.path.join(aside, "replies.jsonl")
        _merge(old, merged)
        yield merged


def _old_stores(folder: str) -> list[str]:
    """Of a pipeline written by hand `.ckpt/*_step1.replies.jsonl`, of a results_dir `step_0_…/.ckpt/replies.jsonl`."""
    here, around = glob.escape(folder), glob.escape(os.path.dirname(folder) or ".")
    return sorted(glob.glob(f"{here}/*.replies.jsonl")) + sorted(glob.glob(f"{around}/*/.ckpt/replies.jsonl"))


def _merge(paths: list[str], target: str) -> None:
    """Write the lines of all, each with its step; what checks say of lines by place follows the new places."""
    entries: dict[str, dict[str, list[Span]]] = {}
    with open(target, "w", encoding="utf-8") as file:
        place = 0
        for path in paths:
            marks = [line for _, line in read_lines(path) if "checks" in line]
            told = entries_of(next(reversed(marks), None), os.path.getsize(path))
            spans = [(of, name, span) for of, entry in told.items() for name in entry for span in entry[name]]
            for at, line in read_lines(path):
                if "checks" in line:
                    continue
                key = line.pop("key")
                here = [(of, name) for of, name, span in spans if covers(span, at)]
                named = {"of": here[0][0]} if here and line.get("task") != CHECK else {}
                text = json.dumps({"key": key, "step": _step_of(path), **line, **named}) + "\n"
                for of, name in here:
                    known = entries.setdefault(of, {"open": [], "void": []})
                    known[name].append((place, place + len(text)))
                file.write(text)
                place += len(text)
        if entries:
            file.write(json.dumps({"key": MARK, "task": CHECK, "verdict": "merged", "checks": entries}) + "\n")
        file.flush()
        os.fsync(file.fileno())


def _step_of(path: str) -> str:
    name = os.path.basename(path)
    return path.split(os.sep)[-3] if name == "replies.jsonl" else name.removesuffix(".replies.jsonl")
