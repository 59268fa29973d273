"""Where replies are stored: in one file for all steps of a folder, each part of a run in its own."""

import glob
import os

from dataflow_grounding.engine.shard import FOLDER


def store_path(folder: str) -> str:
    """The store in a checkpoint folder (`.ckpt`)."""
    return os.path.join(folder, "replies.jsonl")


def stores_of(results_dir: str) -> list[str]:
    """The stores of a run, of its shards, and those that other machines have filled for a folder elsewhere."""
    results = glob.escape(results_dir)
    folders = [os.path.join(results, ".ckpt"), os.path.join(results, FOLDER, "*", ".ckpt")]
    patterns = [os.path.join(folder, names) for folder in folders for names in ("replies.jsonl", "replies/*.jsonl")]
    return sorted(path for pattern in patterns for path in glob.glob(pattern))


def other_stores(folder: str) -> list[str]:
    """The stores of the other parts of the run that a checkpoint folder is of: its shards, and the folder of these."""
    results = os.path.dirname(os.path.abspath(folder))
    if os.path.basename(os.path.dirname(results)) == FOLDER:
        results = os.path.dirname(os.path.dirname(results))
    return [path for path in stores_of(results) if path != store_path(os.path.abspath(folder))]
