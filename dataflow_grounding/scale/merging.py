"""The shards of a run put together: what one machine would have left, in the input's order.

`merge` first checks that all shards are there, finished, undamaged, and of one input and one model;
until then nothing is changed. Rows, failures and stored replies are counted as they are merged.

A shard's `run.json` has `spec`, `summary` (its counts) and `shard`, its part and its files:

    {"files": ["step_0_image_grounder/annotations.jsonl"], "digests": ["5e…"], "code": [null],
     "rows_of_all": 800, "digest_of_all": "a7…", "requests": {"answered": 400}, "notes": {}}
"""

import json
import os
import re
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from dataflow_grounding._util.errors import InputError
from dataflow_grounding._util.files import within
from dataflow_grounding._util.paths import absolute, is_absolute
from dataflow_grounding._util.results_names import CKPT, PICTURES, RUN_JSON, SHARDS
from dataflow_grounding._util.terminal import addressed, say
from dataflow_grounding.bucket import bucket
from dataflow_grounding.data.classes import names_stated_in
from dataflow_grounding.data.records import JsonObject, read_object
from dataflow_grounding.data.results_folder import stated_in
from dataflow_grounding.data.rows import copy_file, read_rows, write_text
from dataflow_grounding.engine.costs import paid_by_step, prices_of_judge, stated_prices, total_of
from dataflow_grounding.engine.keyed_log import storing
from dataflow_grounding.engine.run_lock import locked_folder, only_run
from dataflow_grounding.engine.shard import Shard, digest_of
from dataflow_grounding.engine.summary import Summary
from dataflow_grounding.scale.shard_files import write_joined

# The file of a step, from the results' folder: "step_0_image_grounder/annotations.jsonl".
_STEP_FILE = re.compile(r"(captions|step_\d+_[^/\\]+)/annotations\.jsonl")
_MAY_DIFFER = {  # keys of the spec that may differ from shard to shard
    "client",
    "api_key",
    "base_url",
    "endpoints",
    "timeout",
    "extra_headers",
    "prices",
    "service_tier",
    "check_every",
    "on_suspect_boxes",
    "max_workers",
    "force_reprocess",
    "stream",
    "budget_usd",
    "max_requests",
    "max_attempts",
    "max_wait",
    "results_dir",
}


class SeenInput(NamedTuple):
    """The whole input as a shard has seen it: how many rows it has, and a digest of it."""

    rows: int
    digest: object


class ShardRun(NamedTuple):
    """The run of a shard."""

    folder: str
    facts: JsonObject  # its run.json
    part: JsonObject  # what that says of the part and its files
    counts: JsonObject  # and of what was done
    started: str
    seen: SeenInput
    files: list[str]  # of its steps
    failures: str  # the file of its failures


def merge(results_dir: str) -> JsonObject:
    """Put the shards in a folder, or at its address, together; return what `run.json` says."""
    results_dir = bucket.local(results_dir)  # for an address, its working folder here
    # The lock would make this process the owner of an address, even if there is nothing to merge.
    # So the shards are looked for first.
    folders = _folders(results_dir, bucket.shards_in(results_dir))
    with ExitStack() as locks:
        # Neither the results nor a shard may be worked on meanwhile.
        locks.enter_context(locked_folder(os.path.join(results_dir, CKPT)))
        for folder in folders:
            locks.enter_context(only_run(os.path.join(folder, CKPT)))
        try:
            runs = [_finished_run_of(folder) for folder in folders]
            return _merge_locked(results_dir, runs)
        except (AttributeError, KeyError, TypeError) as error:
            raise InputError(
                f"a run.json in {os.path.dirname(folders[0])} holds what no run leaves there"
                f" ({error}): remove it, run its shard again, then merge"
            ) from None


def _merge_locked(results_dir: str, runs: list[ShardRun]) -> JsonObject:
    """Check everything, then write everything."""
    _check_belong_together(runs)
    run_path = os.path.join(results_dir, RUN_JSON)
    if str(read_object(run_path).get("started", "")) > max(run.started for run in runs):
        raise InputError(
            f"{run_path} is of a run that began after all shards: remove it to put the shards'"
            " results in its place all the same"
        )
    summary = _summary_of_all(results_dir, runs)
    facts = _facts_of_all(results_dir, runs, summary)
    _say_which_formats_are_not_merged(facts)

    _gather_pictures(results_dir, runs)
    # by the file to write, "results/step_0_…/annotations.jsonl", the shards' files of the same step
    files = {}
    for number, name in enumerate(runs[0].part["files"]):
        files[within(results_dir, name)] = [run.files[number] for run in runs]
    failures_of_shards = [run.failures for run in runs]
    written = write_joined(files, summary.failures_file, failures_of_shards, summary.done)
    if written:  # the last step's rows are the annotations
        copy_file(written[-1], summary.annotations)
    if summary.shown.classes.is_of_classes and summary.shown.classes.has_shared_pictures:
        # few runs have several rows of a picture
        from dataflow_grounding.evaluation.figures.counting import figures_of

        classes = figures_of([summary.annotations], read=False).classes  # a thing counts once
        classes.order = summary.shown.classes.order
        facts["summary"]["classes"] = classes.rows()
    # `addressed` puts the results' address in place of the working folder.
    write_text(run_path, addressed(json.dumps(facts, indent=1, ensure_ascii=False)) + "\n")
    return facts


def _say_which_formats_are_not_merged(facts: JsonObject) -> None:
    workflows = stated_in(facts, "workflow")
    formats = {workflow.get("output_format") or "jsonl" for workflow in workflows}
    merged_formats = {"unified", "jsonl"}  # both are the annotations
    for name in sorted(formats - merged_formats):
        say(
            f"Note: what workflow.output_format {name} writes in addition to the annotations is not"
            " merged: the same generate without --shard writes it, and asks nothing again."
        )


def _folders(results_dir: str, names: list[str]) -> list[str]:
    """Return all shards' folders in order; InputError unless they are those of one split."""
    shard_count = _shard_count(results_dir, names)
    shards = [Shard(number, shard_count) for number in range(1, shard_count + 1)]
    missing = [f"{shard.number}/{shard.of}" for shard in shards if str(shard) not in names]
    if missing:
        raise InputError(
            f"{results_dir}: {len(missing)} shards are missing: run --shard"
            f" {', '.join(missing[:5])} first"
        )
    return [shard.folder(results_dir) for shard in shards]


def _shard_count(results_dir: str, names: list[str]) -> int:
    """Return the 8 of "2-of-8", which has to be the same in all names."""
    texts_after_of = [name.partition("-of-")[2] for name in names]
    counts = {int(text) for text in texts_after_of if text.isdecimal()}
    if not counts:
        raise InputError(
            f"{results_dir} has no shards: first run generate --shard 1/N to N/N in this folder"
        )
    if len(counts) > 1:
        shards_of = " and of ".join(map(str, sorted(counts)))
        raise InputError(
            f"{results_dir} has shards of {shards_of}: move those of one split away from {SHARDS}/"
        )
    return counts.pop()


def _finished_run_of(folder: str) -> ShardRun:
    """Return a shard's run; InputError unless it has finished, with files of steps."""
    path = os.path.join(folder, RUN_JSON)
    facts = read_object(path)
    if facts.get("state") != "finished":
        state = "was stopped" if facts.get("state") == "stopped" else "isn't finished"
        raise InputError(f"shard {folder} {state}: run it again, then merge")
    part = facts["shard"]
    for name in part["files"]:  # a file of the same name is written to the results
        if not _STEP_FILE.fullmatch(name):
            raise InputError(
                f"{path}: {name!r:.200} is not the file of a step: run the shard again, then merge"
            )
    return ShardRun(
        folder,
        facts,
        part,
        facts["summary"],
        str(facts["started"]),
        SeenInput(part["rows_of_all"], part["digest_of_all"]),
        [within(folder, name) for name in part["files"]],
        os.path.join(folder, "failures.jsonl"),
    )


def _check_belong_together(runs: list[ShardRun]) -> None:
    """Raise InputError unless they are whole, and are all shards of one input and run."""
    # The shard that was started last has seen the input as it is now. Of two that were started at
    # the same moment, it is the one that has seen more rows.
    newest = max(runs, key=lambda run: (run.started, run.seen.rows))
    stated_first = _alike_in_all(runs[0])
    for run in runs:
        if run.seen != newest.seen:
            raise InputError(
                f"{run.folder} has seen another version of the input ({run.seen.rows} rows) than"
                f" {newest.folder} ({newest.seen.rows} rows): run both again, then merge; or run"
                " the same without --shard, which asks nothing again"
            )
        stated = _alike_in_all(run)
        names = stated.keys() | stated_first.keys()
        differing = [name for name in names if stated.get(name) != stated_first.get(name)]
        if differing:
            raise InputError(
                f"{run.folder} was run with another {min(differing)} than {runs[0].folder}: run"
                " it again as the others were"
            )
        if run.part["digests"] != [*map(digest_of, run.files)]:
            raise InputError(
                f"the files of {run.folder} are not those that its run left there: copy it again,"
                f" whole, or remove {run.folder}/{RUN_JSON} and run the shard again: nothing is"
                " asked twice"
            )
    rows_of_shards = sum(run.counts["images"] for run in runs)
    if rows_of_shards != newest.seen.rows:
        raise InputError(
            f"the shards have {rows_of_shards} rows, the input {newest.seen.rows}: it changed"
            " meanwhile, so run all again"
        )


def _alike_in_all(run: ShardRun) -> JsonObject:
    """Return what was stated, by a flat name: {"model": "qwen3-vl", "workflow.guidance": "…"}."""
    stated: dict[str, object] = {name: run.facts.get(name) for name in ("version", "model")}
    stated["box_format"] = (run.facts.get("box_format") or {}).get("name")
    stated["steps"] = run.part["files"]
    stated["code of an operator"] = run.part["code"]
    pending = list(run.facts["spec"].items())  # of the spec and of the objects within it
    while pending:
        key, value = pending.pop()
        # "….vlm.timeout" may differ, but names in an operator's `settings` are the user's own
        if not _MAY_DIFFER.isdisjoint(key.partition(".settings.")[0].split(".")):
            continue
        if isinstance(value, dict) and value:
            pending += [(f"{key}.{name}", inner) for name, inner in value.items()]
        elif not (isinstance(value, str) and is_absolute(value)):  # each machine has its own paths
            stated[key] = value
    return stated


def _gather_pictures(results_dir: str, runs: list[ShardRun]) -> None:
    """Put the pictures that shards have unpacked from their input into the results' folder."""
    target = os.path.join(results_dir, PICTURES)
    with storing(target):
        for run in runs:
            for path in Path(run.folder, PICTURES).glob("*"):
                # A file's name is made of its contents, so one of the same name is the same.
                copy = within(target, path.name)
                if os.path.exists(copy) or not path.is_file():
                    continue
                os.makedirs(target, exist_ok=True)
                try:
                    os.link(path, copy)
                except OSError:  # the file system has no hard links
                    copy_file(str(path), copy)


def _summary_of_all(results_dir: str, runs: list[ShardRun]) -> Summary:
    """Count rows, failures and stored replies, as one run would have."""
    summary = Summary(
        annotations=os.path.join(results_dir, "annotations.jsonl"),
        failures_file=os.path.join(results_dir, "failures.jsonl"),
    )
    summary.shown.classes.order = list(names_stated_in(runs[0].facts))
    for run in runs:
        if os.path.exists(run.files[-1]):  # no row may have got as far
            summary.count_rows(run.files[-1])
        for row in read_rows(run.failures):
            summary.failures[str((row.data or {}).get("kind"))] += 1
        # what neither rows nor replies tell, such as waits and what had to be mended in a reply
        summary.requests.update(run.part["requests"])
        summary.notes.update(run.part["notes"])
        summary.seconds += run.counts["seconds"]
        summary.models = list(dict.fromkeys([*summary.models, *run.counts["models"]]))
    summary.records = runs[0].seen.rows
    summary.failed = summary.records - summary.done
    return summary


def _facts_of_all(results_dir: str, runs: list[ShardRun], summary: Summary) -> JsonObject:
    """Return what run.json says of all shards: the first one's facts, and the counts of all."""
    first = {name: value for name, value in runs[0].facts.items() if name != "shard"}
    steps = paid_by_step(results_dir, stated_prices(first), prices_of_judge(first))
    counts = summary.to_json()
    if steps:  # the stores also have what was asked by runs that were stopped
        counts |= total_of(steps).to_json()
        counts["probes"] = sum(step["checks"]["requests"] for step in steps)
        counts["kept_replies"] = sum(step["kept"]["requests"] for step in steps)
    # `_gather_pictures` puts the shard's pictures into the results' folder
    shard_folder = os.path.join(SHARDS, str(Shard(1, len(runs))))  # "shards/1-of-8"
    image_folders = [
        absolute(results_dir) if folder.endswith(shard_folder) else folder
        for folder in first["image_folders"]
    ]
    return {
        **first,
        "started": min(run.started for run in runs),
        "endpoint": " + ".join(dict.fromkeys(str(run.facts.get("endpoint")) for run in runs)),
        "image_folders": image_folders,
        "summary": counts,
        "shards": len(runs),
        "steps": steps,
        "spec": {**first["spec"], "results_dir": results_dir},
    }
