"""The shards of a run put together: what one machine would have left, row by row in the input's order."""

import glob
import json
import os
from collections import Counter
from contextlib import ExitStack
from itertools import chain
from typing import Any

from dataflow_grounding.elsewhere import is_absolute
from dataflow_grounding.engine.execute import refuse_foreign
from dataflow_grounding.engine.rolling import at_work
from dataflow_grounding.engine.run_lock import held_elsewhere, only_run
from dataflow_grounding.engine.shard import FOLDER, Shard, lines_path
from dataflow_grounding.engine.shard_files import failed_lines, joined
from dataflow_grounding.errors import InputError
from dataflow_grounding.formats.pictures import FOLDER as PICTURES
from dataflow_grounding.jobs.costs import paid_by_step
from dataflow_grounding.mirror import CKPT, Mirror, address_of, working_folder
from dataflow_grounding.records import read_object
from dataflow_grounding.rows import copy_file, write_text

_SAME = ("version", "model", "box_format")
_OWN = {  # keys of the spec that each shard may have its own of
    *("client", "api_key", "base_url", "endpoints", "azure", "timeout", "extra_headers", "prices", "check_every"),
    *("on_suspect_boxes", "max_workers", "force_reprocess", "stream", "budget_usd", "max_requests", "max_attempts"),
    *("max_wait", "results_dir"),
}


def merge(results_dir: str) -> dict[str, Any]:
    """Put the shards in `results_dir` together there: step files, annotations, failures, `run.json` with the sums.

    Returns:
        What `run.json` says.

    Raises:
        InputError: A shard is missing, stopped or at work, or they aren't of one input and one model; or a file is
            damaged. Nothing is changed then.
    """
    results_dir = working_folder(results_dir)
    with ExitStack() as locks:
        mirror = locks.enter_context(at_work(os.path.join(results_dir, CKPT)))
        if mirror is not None:
            _fetch_shards(mirror)
        folders = _folders(results_dir)
        for folder in folders:
            shard = os.path.relpath(folder, results_dir)
            locks.enter_context(held_elsewhere(mirror, shard) if mirror else only_run(os.path.join(folder, CKPT)))
        runs = [_run_of(folder) for folder in folders]
        _check(folders, runs)
        steps = list(runs[0]["shard"]["files"])
        targets = [os.path.join(results_dir, name) for name in (*steps, "failures.jsonl", "annotations.jsonl")]
        refuse_foreign(os.path.join(results_dir, CKPT), targets)
        with ExitStack() as undo:
            writers = [joined(_in_all(folders, name), os.path.join(results_dir, name), undo) for name in steps]
            failures = _in_all(folders, "failures.jsonl")
            writers.append(joined(failures, os.path.join(results_dir, "failures.jsonl"), undo, failed_lines))
            for writer in writers:
                if writer.count or writer is writers[-1]:  # else the earlier file stays
                    writer.commit()
        if written := [writer.path for writer in writers[:-1] if writer.count]:
            copy_file(written[-1], targets[-1])
        run = _sums(results_dir, runs)
        write_text(os.path.join(results_dir, "run.json"), json.dumps(run, indent=1, ensure_ascii=False) + "\n")
    return run


def _fetch_shards(mirror: Mirror) -> None:
    """Bring what the shards of a folder elsewhere have left: run.json, failures, step files."""
    for shard in mirror.listed(FOLDER, "directory"):
        at = os.path.join(FOLDER, shard)
        names = [os.path.join(at, name) for name in ("run.json", "failures.jsonl")]
        for step in mirror.listed(at, "directory").keys() - {CKPT, PICTURES}:
            names += [os.path.join(at, step, name) for name in mirror.listed(os.path.join(at, step))]
        mirror.fetch(*names)


def _folders(results_dir: str) -> list[str]:
    """The folders of all shards. Raises InputError where one is missing, or there are some of several splits."""
    there = glob.glob(os.path.join(glob.escape(results_dir), FOLDER, "*-of-*"))
    names = [os.path.basename(path) for path in there if os.path.isdir(path)]
    counts = sorted({name.partition("-of-")[2] for name in names})
    if len(counts) != 1 or not counts[0].isdecimal():
        found = f"shards of {' and of '.join(counts)}" if counts else "no shards"
        raise InputError(f"{results_dir} has {found}: run --shard 1/n to n/n there")
    shards = [Shard(number, int(counts[0])) for number in range(1, int(counts[0]) + 1)]
    if missing := [f"{shard.number}/{shard.of}" for shard in shards if str(shard) not in names]:
        first = ", ".join(missing[:5])
        raise InputError(f"{results_dir}: {len(missing)} shards are missing: run --shard {first} first")
    return [shard.folder(results_dir) for shard in shards]


def _run_of(folder: str) -> dict[str, Any]:
    run = read_object(os.path.join(folder, "run.json"))
    parts = ("summary", "shard", "spec")
    told = all(isinstance(run.get(name), dict) for name in parts) and "files" in run["shard"]
    if run.get("state") != "finished" or not told:
        state = "was stopped" if run.get("state") == "stopped" else "isn't finished"
        raise InputError(f"shard {folder} {state}: run it again, then merge")
    return run


def _check(folders: list[str], runs: list[dict[str, Any]]) -> None:
    rows = [run["shard"]["rows_of_all"] for run in runs]
    for folder, seen in zip(folders, rows, strict=True):
        if seen != max(rows):
            raise InputError(f"{folder} has seen {seen} of the input's {max(rows)} rows: run it again, then merge")
    stated = [_stated(run) for run in runs]
    for folder, one, run in zip(folders, stated, runs, strict=True):
        for key in one.keys() | stated[0].keys():
            if one.get(key) != stated[0].get(key):
                other = f"another {key} than {folders[0]}"
                raise InputError(f"{folder} was run with {other}: run it again as the others were")
        left = [_size(lines_path(os.path.join(folder, name))) // 8 for name in run["shard"]["files"]]
        if left[-1] != (done := run["summary"]["done"]) or left != sorted(left, reverse=True):
            short = f"{folder} has {left} rows of its steps, and {done} were done"
            way = f"copy it again, whole, or remove {folder}/run.json and run the shard again: nothing is asked twice"
            raise InputError(f"{short}: {way}")
    own = sum(run["summary"]["images"] for run in runs)
    if own != rows[0]:
        raise InputError(f"the shards have {own} rows, the input {rows[0]}: it changed meanwhile, so run all again")


def _size(path: str) -> int:
    return os.path.getsize(path) if os.path.exists(path) else 0


def _stated(run: dict[str, Any]) -> dict[str, Any]:
    """What all shards must have alike, by name: paths are each machine's own, and what says how a run goes."""
    found = {key: run.get(key) for key in _SAME}
    found |= {"input (of other bytes)": run["shard"]["bytes_of_all"], "steps": run["shard"]["files"]}
    left = list(run["spec"].items())
    while left:
        key, value = left.pop()
        if isinstance(value, dict) and value:
            left += [(f"{key}.{name}", inner) for name, inner in value.items()]
        elif not (isinstance(value, str) and is_absolute(value)):
            found[key] = value
    return {key: value for key, value in found.items() if _OWN.isdisjoint(key.split("."))}


def _in_all(folders: list[str], name: str) -> list[str]:
    return [os.path.join(folder, name) for folder in folders]


def _sums(results_dir: str, runs: list[dict[str, Any]]) -> dict[str, Any]:
    summaries = [run["summary"] for run in runs]
    summary = dict(summaries[0])
    for name, value in summary.items():
        given = [one.get(name) for one in summaries]
        if isinstance(value, dict):
            summary[name] = dict(sum((Counter(one) for one in given), Counter[str]()))
        elif name == "models":
            summary[name] = list(dict.fromkeys(chain.from_iterable(given)))
        elif name == "cost_usd":
            summary[name] = None if None in given else sum(given)
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            summary[name] = sum(given)
    summary |= {"annotations": address_of(os.path.join(results_dir, "annotations.jsonl"))}
    summary |= {"failures_file": address_of(os.path.join(results_dir, "failures.jsonl"))}
    started = min(str(run.get("started")) for run in runs)
    endpoint = " + ".join(dict.fromkeys(str(run.get("endpoint")) for run in runs))
    kept = {name: value for name, value in runs[0].items() if name != "shard"}
    sums = {
        "started": started,
        "endpoint": endpoint,
        "summary": summary,
        "shards": len(runs),
        "steps": paid_by_step(results_dir, None),
    }
    return {**kept, **sums}
