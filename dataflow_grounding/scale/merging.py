"""The shards of a run put together: what one machine would have left, in the input's order.

`merge` first checks that all shards are there, finished, undamaged, and of one input and one model;
until then nothing is changed.

`run` is here what a shard's `run.json` says: among others `spec`, `summary` (its counts) and
`shard`, what it says of its part and its files:

    {"files": ["step_0_image_grounder/annotations.jsonl"], "bytes": [1200], "digests": ["5e…"],
     "rows_of_all": 800, "digest_of_all": "a7…", "pictures": ["c1…", "09…"], "code": [null]}
"""

import json
import os
import re
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
from dataflow_grounding.data.records import STATUSES, read_object, whole_number
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
    digest: Any


def merge(results_dir: str) -> dict[str, Any]:
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
            return _merge_locked(results_dir, folders, runs)
        except (AttributeError, KeyError, TypeError) as error:
            raise InputError(
                f"a run.json in {os.path.dirname(folders[0])} holds what no run leaves there"
                f" ({error}): remove it, run its shard again, then merge"
            ) from None


def _merge_locked(
    results_dir: str, folders: list[str], runs: list[dict[str, Any]]
) -> dict[str, Any]:
    """Check everything, then write everything; `runs` has the folders' run.json files."""
    annotations = os.path.join(results_dir, "annotations.jsonl")
    failures = os.path.join(results_dir, "failures.jsonl")
    run_path = os.path.join(results_dir, "run.json")
    # by the file to write, "results/step_0_…/annotations.jsonl", the shards' files of the same step
    files: dict[str, list[str]] = {}
    for name in runs[0]["shard"]["files"]:
        files[within(results_dir, name)] = [within(folder, name) for folder in folders]
    failures_of_shards = [os.path.join(folder, "failures.jsonl") for folder in folders]
    _check_belong_together(folders, runs)
    _warn_of_changed_pictures(folders, runs)
    _refuse_to_replace_newer(run_path, runs)
    refuse_foreign(os.path.join(results_dir, CKPT), [*files, failures, annotations])
    *_, files_of_last_step = files.values()
    rows = _counted(runs[0], files_of_last_step, failures_of_shards)
    run = _run_of_all(results_dir, runs, rows)
    _say_which_formats_are_not_merged(run)

    _gather_pictures(results_dir, folders)
    written = write_joined(files, failures, failures_of_shards, rows.done)
    if written:  # the last step's rows are the annotations
        copy_file(written[-1], annotations)
    # `addressed` puts the results' address in place of the working folder.
    write_text(run_path, addressed(json.dumps(run, indent=1, ensure_ascii=False)) + "\n")
    return run


def _say_which_formats_are_not_merged(run: dict[str, Any]) -> None:
    formats = {workflow.get("output_format") or "jsonl" for workflow in stated_in(run, "workflow")}
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


def _finished_run_of(folder: str) -> dict[str, Any]:
    """Return what a shard's run.json says; InputError unless its run has finished."""
    path = os.path.join(folder, "run.json")
    run = read_object(path)
    is_complete = all(isinstance(run.get(name), dict) for name in ("summary", "shard", "spec"))
    has_files = is_complete and bool(run["shard"].get("files"))
    if run.get("state") != "finished" or not has_files:
        state = "was stopped" if run.get("state") == "stopped" else "isn't finished"
        raise InputError(f"shard {folder} {state}: run it again, then merge")
    _check_step_files(run["shard"]["files"], folder, path)
    return run


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


def _check_belong_together(folders: list[str], runs: list[dict[str, Any]]) -> None:
    """Raise InputError unless they are whole, and are all shards of one input and run."""
    # The shard that was started last has seen the input as it is now. Of two that were started at
    # the same moment, it is the one that has seen more rows.
    starts = [(str(run.get("started")), _input_seen_by(run).rows) for run in runs]
    newest = starts.index(max(starts))
    seen_last = _input_seen_by(runs[newest])
    stated_first = _alike_in_all(runs[0])
    for folder, run in zip(folders, runs, strict=True):
        seen = _input_seen_by(run)
        if seen != seen_last:
            raise InputError(
                f"{folder} has seen another version of the input ({seen.rows} rows) than"
                f" {folders[newest]} ({seen_last.rows} rows): run both again, then merge; or run"
                " the same without --shard, which asks nothing again"
            )
        stated = _alike_in_all(run)
        names = stated.keys() | stated_first.keys()
        differing = [name for name in names if stated.get(name) != stated_first.get(name)]
        if differing:
            raise InputError(
                f"{folder} was run with another {min(differing)} than {folders[0]}: run"
                " it again as the others were"
            )
        _check_whole(folder, run)
    rows_of_shards = sum(run["summary"]["images"] for run in runs)
    if rows_of_shards != seen_last.rows:
        raise InputError(
            f"the shards have {rows_of_shards} rows, the input {seen_last.rows}: it changed"
            " meanwhile, so run all again"
        )


def _input_seen_by(run: dict[str, Any]) -> SeenInput:
    shard = run["shard"]
    return SeenInput(shard.get("rows_of_all") or 0, shard.get("digest_of_all"))


def _check_whole(folder: str, run: dict[str, Any]) -> None:
    """Raise InputError where a shard's files are not those that its run left."""
    done = run["summary"]["done"]
    files = [within(folder, name) for name in run["shard"]["files"]]
    # The file of places next to a step's file has 8 bytes for each row.
    rows_of_steps = [bytes_of(lines_path(file)) // 8 for file in files]
    # Later steps have no more rows than earlier ones: [800, 790, 790].
    never_grow = rows_of_steps == sorted(rows_of_steps, reverse=True)
    has_all_rows = never_grow and rows_of_steps[-1] == done
    if has_all_rows and _are_as_left(files, run["shard"]):
        return
    raise InputError(
        f"{folder} has {rows_of_steps} rows of its steps, and {done} were done, or not those that"
        f" were left there: copy it again, whole, or remove {folder}/run.json and run the shard"
        " again: nothing is asked twice"
    )


def _are_as_left(files: list[str], shard: dict[str, Any]) -> bool:
    sizes = [bytes_of(file) for file in files]
    if shard.get("bytes") != sizes:
        return False  # without the digests, which take long
    digests = [digest_of(file) for file in files]
    return bool(shard.get("digests") == digests)


def _warn_of_changed_pictures(folders: list[str], runs: list[dict[str, Any]]) -> None:
    for folder, run in zip(folders, runs, strict=True):
        last_file = within(folder, run["shard"]["files"][-1])  # its rows name the pictures
        seen = run["shard"].get("pictures")  # a digest of all paths, and one of all contents
        image_folders = run.get("image_folders")
        if not isinstance(seen, list) or not isinstance(image_folders, list):
            continue
        now = pictures_of(last_file, image_folders, os.path.join(folder, CKPT))
        # Pictures that were moved can't be compared: then the digests of the paths differ.
        have_same_paths = now[:1] == seen[:1]
        if have_same_paths and now != seen:
            say(
                f"Warning: pictures of {folder} are not those that it has seen: run"
                " that shard again, which asks about those alone, then merge."
            )


def _refuse_to_replace_newer(path: str, runs: list[dict[str, Any]]) -> None:
    """Raise InputError where the run.json is of a later run, or of one with more rows."""
    run = read_object(path)  # {} where the results' folder has none
    summary = run["summary"] if isinstance(run.get("summary"), dict) else {}
    rows_of_run = whole_number(summary.get("images")) or 0
    rows = sum(shard_run["summary"]["images"] for shard_run in runs)
    last_started = max(str(shard_run.get("started")) for shard_run in runs)
    if str(run.get("started", "")) > last_started:
        what = "began after all shards"
    elif rows_of_run > rows:
        what = f"had {rows_of_run} rows, and the shards have {rows}"
    else:
        return
    raise InputError(
        f"{path} is of a run that {what}: remove it to put the shards' results in its"
        " place all the same"
    )


def _gather_pictures(results_dir: str, folders: list[str]) -> None:
    """Put the pictures that shards have unpacked from their input into the results' folder."""
    target = os.path.join(results_dir, PICTURES)
    with storing(target):
        for shard_folder in folders:
            folder = os.path.join(shard_folder, PICTURES)
            present_names = {path.name for path in Path(target).glob("*")}
            for path in Path(folder).glob("*"):
                # A file's name is made of its contents, so one of the same name is the same.
                if path.name in present_names or not path.is_file():
                    continue
                os.makedirs(target, exist_ok=True)
                try:
                    os.link(path, within(target, path.name))
                except OSError:  # the file system has no hard links
                    copy_file(str(path), within(target, path.name))


def _alike_in_all(run: dict[str, Any]) -> dict[str, Any]:
    """Return what was stated, by a flat name: {"model": "qwen3-vl", "workflow.guidance": "…"}."""
    stated: dict[str, Any] = {}
    for name in _SAME_IN_ALL:
        stated[name] = run.get(name)
    stated["box_format"] = (run.get("box_format") or {}).get("name")
    stated["steps"] = run["shard"]["files"]
    stated["code of an operator"] = run["shard"].get("code")
    pending = list(run["spec"].items())  # of the spec and of the objects within it
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
    first: dict[str, Any], files_of_last_step: list[str], failures_of_shards: list[str]
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


def _run_of_all(results_dir: str, runs: list[dict[str, Any]], rows: Summary) -> dict[str, Any]:
    """Return what run.json says of all shards: the first one's facts, and the counts of all."""
    first = runs[0]
    endpoints = dict.fromkeys(str(run.get("endpoint")) for run in runs)  # each once
    steps = paid_by_step(results_dir, stated_prices(first), prices_of_judge(first))
    unsplit = dict(first)
    del unsplit["shard"]
    return {
        **unsplit,
        "started": min(str(run.get("started")) for run in runs),
        "endpoint": " + ".join(endpoints),
        "image_folders": _image_folders_of_all(results_dir, runs),
        "summary": _summary_of_all(results_dir, runs, rows, steps),
        "shards": len(runs),
        "steps": steps,
        "spec": {**first["spec"], "results_dir": results_dir},
    }


def _image_folders_of_all(results_dir: str, runs: list[dict[str, Any]]) -> list[Any]:
    """Return the first run's, with the results' folder in place of its shard's."""
    # `_gather_pictures` puts the shard's pictures there
    shard_folder = os.path.join(SHARDS, str(Shard(1, len(runs))))  # "shards/1-of-8"
    image_folders: list[Any] = []
    for folder in runs[0].get("image_folders") or []:
        is_shard_folder = str(folder).endswith(shard_folder)
        image_folders.append(absolute(results_dir) if is_shard_folder else folder)
    return image_folders


def _summary_of_all(
    results_dir: str, runs: list[dict[str, Any]], rows: Summary, steps: list[dict[str, Any]]
) -> dict[str, Any]:
    """Return the counts of all shards: of rows and stored replies, else the sums of theirs."""
    rows.records = sum(run["summary"]["images"] for run in runs)
    rows.failed = rows.records - rows.done
    counted = rows.to_json()
    others = [
        {name: value for name, value in run["summary"].items() if name not in _OF_ROWS}
        for run in runs
    ]
    summary: dict[str, Any] = _sum(others)
    if steps:
        total = total_of(steps).to_json()  # requests, tokens, cost_usd
        summary |= total
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
