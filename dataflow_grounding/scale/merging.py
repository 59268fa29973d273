"""The shards of a run put together: what one machine would have left, in the input's order.

`merge` first checks that all shards are there, finished, undamaged, and of one input and one model;
until then nothing is changed.

A shard's `run.json` has `spec`, `summary` (its counts) and `shard`, its part and its files:

    {"files": ["step_0_image_grounder/annotations.jsonl"], "bytes": [1200], "digests": ["5e…"],
     "rows_of_all": 800, "digest_of_all": "a7…", "pictures": ["c1…", "09…"], "code": [null]}
"""

import json
import os
import re
from collections.abc import Sequence
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from dataflow_grounding._util.errors import InputError
from dataflow_grounding._util.files import within
from dataflow_grounding._util.paths import absolute, is_absolute
from dataflow_grounding._util.results_names import CKPT, PICTURES, SHARDS
from dataflow_grounding._util.terminal import addressed, say
from dataflow_grounding.bucket import bucket
from dataflow_grounding.data.classes import names_stated_in
from dataflow_grounding.data.records import STATUSES, JsonObject, read_object, whole_number
from dataflow_grounding.data.results_folder import stated_in
from dataflow_grounding.data.rows import copy_file, read_rows, write_text
from dataflow_grounding.engine.costs import paid_by_step, prices_of_judge, stated_prices, total_of
from dataflow_grounding.engine.execute import refuse_foreign
from dataflow_grounding.engine.keyed_log import storing
from dataflow_grounding.engine.run_lock import locked_folder, only_run
from dataflow_grounding.engine.shard import Shard, lines_path
from dataflow_grounding.engine.shard_facts import bytes_of, digest_of, pictures_of
from dataflow_grounding.engine.summary import Summary
from dataflow_grounding.scale.shard_files import write_joined

# The file of a step, from the results' folder: "step_0_image_grounder/annotations.jsonl".
_STEP_FILE = re.compile(r"(captions|step_\d+_[^/]+)/annotations\.jsonl")
# What a summary says of rows, which is counted in them: remarks that are rare in each shard may be
# common in all. A remark is what a model says next to its answer.
_OF_ROWS = (
    "images",
    "done",
    "failed",
    "expressions",
    *STATUSES,
    "failures",
    "classes",
    "remarks",
    "remarks_rare",
)

_SAME_IN_ALL = ("version", "model")  # names of a run.json that are alike in all shards
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
    """The run of a shard, and what its run.json says."""

    folder: str
    facts: JsonObject

    @property
    def part(self) -> JsonObject:
        """What it says of the part and its files."""
        part: JsonObject = self.facts["shard"]
        return part

    @property
    def counts(self) -> JsonObject:
        counts: JsonObject = self.facts["summary"]
        return counts

    @property
    def files(self) -> list[str]:
        """The files of its steps."""
        return [within(self.folder, name) for name in self.part["files"]]

    @property
    def started(self) -> str:
        return str(self.facts.get("started"))

    @property
    def seen(self) -> SeenInput:
        return SeenInput(self.part.get("rows_of_all") or 0, self.part.get("digest_of_all"))


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
    annotations = os.path.join(results_dir, "annotations.jsonl")
    failures = os.path.join(results_dir, "failures.jsonl")
    run_path = os.path.join(results_dir, "run.json")
    # by the file to write, "results/step_0_…/annotations.jsonl", the shards' files of the same step
    files: dict[str, list[str]] = {}
    for name in runs[0].part["files"]:
        files[within(results_dir, name)] = [within(run.folder, name) for run in runs]
    failures_of_shards = [os.path.join(run.folder, "failures.jsonl") for run in runs]
    _check_belong_together(runs)
    _warn_of_changed_pictures(runs)
    _refuse_to_replace_newer(run_path, runs)
    refuse_foreign(os.path.join(results_dir, CKPT), [*files, failures, annotations])
    *_, files_of_last_step = files.values()
    rows = _counted(runs[0].facts, files_of_last_step, failures_of_shards)
    facts = _facts_of_all(results_dir, runs, rows)
    _say_which_formats_are_not_merged(facts)

    _gather_pictures(results_dir, runs)
    written = write_joined(files, failures, failures_of_shards, rows.done)
    if written:  # the last step's rows are the annotations
        copy_file(written[-1], annotations)
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
    """Return a shard's run; InputError unless it has finished."""
    path = os.path.join(folder, "run.json")
    facts = read_object(path)
    is_complete = all(isinstance(facts.get(name), dict) for name in ("summary", "shard", "spec"))
    has_files = is_complete and bool(facts["shard"].get("files"))
    if facts.get("state") != "finished" or not has_files:
        state = "was stopped" if facts.get("state") == "stopped" else "isn't finished"
        raise InputError(f"shard {folder} {state}: run it again, then merge")
    _check_step_files(facts["shard"]["files"], folder, path)
    return ShardRun(folder, facts)


def _check_step_files(names: Any, folder: str, path: str) -> None:
    """Check the names that a run.json, perhaps a stranger's, lists."""
    listed = names if isinstance(names, list) else [names]  # no list is checked as one name
    for name in listed:
        within(folder, name, path)  # refuses a path out of the folder, and what is no text
        if not _STEP_FILE.fullmatch(name):
            raise InputError(
                f"{path}: {name!r:.200} is not the file of a step: run the shard again, then merge"
            )
    # Some file systems don't tell `A` from `a`.
    if len({name.casefold() for name in names}) < len(names):
        raise InputError(f"{path} names the file of a step twice: run the shard again, then merge")


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
        _check_whole(run)
    rows_of_shards = sum(run.counts["images"] for run in runs)
    if rows_of_shards != newest.seen.rows:
        raise InputError(
            f"the shards have {rows_of_shards} rows, the input {newest.seen.rows}: it changed"
            " meanwhile, so run all again"
        )


def _check_whole(run: ShardRun) -> None:
    """Raise InputError where a shard's files are not those that its run left."""
    done = run.counts["done"]
    # The file of places next to a step's file has 8 bytes for each row.
    rows_of_steps = [bytes_of(lines_path(file)) // 8 for file in run.files]
    # Later steps have no more rows than earlier ones: [800, 790, 790].
    never_grow = rows_of_steps == sorted(rows_of_steps, reverse=True)
    has_all_rows = never_grow and rows_of_steps[-1] == done
    has_all_bytes = has_all_rows and run.part.get("bytes") == [*map(bytes_of, run.files)]
    # last, because digests take long
    if has_all_bytes and run.part.get("digests") == [*map(digest_of, run.files)]:
        return
    raise InputError(
        f"{run.folder} has {rows_of_steps} rows of its steps, and {done} were done, or not those"
        f" that were left there: copy it again, whole, or remove {run.folder}/run.json and run the"
        " shard again: nothing is asked twice"
    )


def _warn_of_changed_pictures(runs: list[ShardRun]) -> None:
    for run in runs:
        seen = run.part.get("pictures")  # a digest of all paths, and one of all contents
        image_folders = run.facts.get("image_folders")
        if not isinstance(seen, list) or not isinstance(image_folders, list):
            continue
        # the last file's rows name the pictures
        now = pictures_of(run.files[-1], image_folders, os.path.join(run.folder, CKPT))
        # Pictures that were moved can't be compared: then the digests of the paths differ.
        have_same_paths = now[:1] == seen[:1]
        if have_same_paths and now != seen:
            say(
                f"Warning: pictures of {run.folder} are not those that it has seen: run"
                " that shard again, which asks about those alone, then merge."
            )


def _refuse_to_replace_newer(path: str, runs: list[ShardRun]) -> None:
    """Raise InputError where the run.json is of a later run, or of one with more rows."""
    facts = read_object(path)  # {} where the results' folder has none
    summary = facts["summary"] if isinstance(facts.get("summary"), dict) else {}
    rows_of_run = whole_number(summary.get("images")) or 0
    rows = sum(run.counts["images"] for run in runs)
    if str(facts.get("started", "")) > max(run.started for run in runs):
        what = "began after all shards"
    elif rows_of_run > rows:
        what = f"had {rows_of_run} rows, and the shards have {rows}"
    else:
        return
    raise InputError(
        f"{path} is of a run that {what}: remove it to put the shards' results in its"
        " place all the same"
    )


def _gather_pictures(results_dir: str, runs: list[ShardRun]) -> None:
    """Put the pictures that shards have unpacked from their input into the results' folder."""
    target = os.path.join(results_dir, PICTURES)
    with storing(target):
        for run in runs:
            present_names = {path.name for path in Path(target).glob("*")}
            for path in Path(run.folder, PICTURES).glob("*"):
                # A file's name is made of its contents, so one of the same name is the same.
                if path.name in present_names or not path.is_file():
                    continue
                os.makedirs(target, exist_ok=True)
                try:
                    os.link(path, within(target, path.name))
                except OSError:  # the file system has no hard links
                    copy_file(str(path), within(target, path.name))


def _alike_in_all(run: ShardRun) -> JsonObject:
    """Return what was stated, by a flat name: {"model": "qwen3-vl", "workflow.guidance": "…"}."""
    stated: dict[str, object] = {name: run.facts.get(name) for name in _SAME_IN_ALL}
    stated["box_format"] = (run.facts.get("box_format") or {}).get("name")
    stated["steps"] = run.part["files"]
    stated["code of an operator"] = run.part.get("code")
    pending = list(run.facts["spec"].items())  # of the spec and of the objects within it
    while pending:
        key, value = pending.pop()
        if isinstance(value, dict) and value:
            for name, inner in value.items():
                pending.append((f"{key}.{name}", inner))
        elif not (isinstance(value, str) and is_absolute(value)):  # each machine has its own paths
            stated[key] = value
    return {key: value for key, value in stated.items() if not _may_differ(key)}


def _may_differ(key: str) -> bool:
    """Return whether a key of the spec may differ from shard to shard."""
    # "….vlm.timeout" may, but names in an operator's `settings` are the user's own
    names = key.partition(".settings.")[0].split(".")
    return not _MAY_DIFFER.isdisjoint(names)


def _counted(
    first: JsonObject, files_of_last_step: list[str], failures_of_shards: list[str]
) -> Summary:
    """Count the shards' rows, as one run would have; `first` is the first one's run.json."""
    rows = Summary()
    rows.shown.classes.order = list(names_stated_in(first))
    for file in files_of_last_step:
        if os.path.exists(file):  # no row may have got as far
            rows.count_rows(file)
    for file in failures_of_shards:
        for row in read_rows(file):
            if row.data is not None:
                rows.failures[str(row.data.get("kind"))] += 1
    return rows


def _facts_of_all(results_dir: str, runs: list[ShardRun], rows: Summary) -> JsonObject:
    """Return what run.json says of all shards: the first one's facts, and the counts of all."""
    first = dict(runs[0].facts)
    endpoints = dict.fromkeys(str(run.facts.get("endpoint")) for run in runs)  # each once
    steps = paid_by_step(results_dir, stated_prices(first), prices_of_judge(first))
    return {
        **{name: value for name, value in first.items() if name != "shard"},
        "started": min(run.started for run in runs),
        "endpoint": " + ".join(endpoints),
        "image_folders": _image_folders_of_all(results_dir, runs),
        "summary": _summary_of_all(results_dir, runs, rows, steps),
        "shards": len(runs),
        "steps": steps,
        "spec": {**first["spec"], "results_dir": results_dir},
    }


def _image_folders_of_all(results_dir: str, runs: list[ShardRun]) -> list[object]:
    """Return the first run's, with the results' folder in place of its shard's."""
    # `_gather_pictures` puts the shard's pictures there
    shard_folder = os.path.join(SHARDS, str(Shard(1, len(runs))))  # "shards/1-of-8"
    image_folders: list[object] = []
    for folder in runs[0].facts.get("image_folders") or []:
        is_shard_folder = str(folder).endswith(shard_folder)
        image_folders.append(absolute(results_dir) if is_shard_folder else folder)
    return image_folders


def _summary_of_all(
    results_dir: str, runs: list[ShardRun], rows: Summary, steps: Sequence[JsonObject]
) -> JsonObject:
    """Return the counts of all shards: of rows and stored replies, else the sums of theirs."""
    rows.records = sum(run.counts["images"] for run in runs)
    rows.failed = rows.records - rows.done
    counted = rows.to_json()
    others = []
    for run in runs:
        others.append({name: run.counts[name] for name in run.counts if name not in _OF_ROWS})
    summary = _sum(others)
    if steps:
        summary |= total_of(steps).to_json()  # requests, tokens, cost_usd
        summary["probes"] = sum(step["checks"]["requests"] for step in steps)
        summary["kept_replies"] = sum(step["kept"]["requests"] for step in steps)
    return {
        **{name: counted[name] for name in _OF_ROWS if name in counted},
        **summary,
        "annotations": os.path.join(results_dir, "annotations.jsonl"),
        "failures_file": os.path.join(results_dir, "failures.jsonl"),
    }


def _sum(values: list[Any]) -> Any:
    """Return one value for those that shards have under a name; TypeError for several kinds."""
    first = values[0]
    if None in values:  # such as a cost without prices
        return None
    if isinstance(first, dict):  # counts by name
        names = dict.fromkeys(chain.from_iterable(values))
        return {name: _sum([value[name] for value in values if name in value]) for name in names}
    if isinstance(first, list):  # texts, which are kept once each
        return list(dict.fromkeys(chain.from_iterable(values)))
    if isinstance(first, (bool, str)):
        return first
    return sum(values)
