"""The shards of a run put together: what one machine would have left, row by row in the input's
order.
"""

import json
import os
import re
from contextlib import ExitStack
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from dataflow_grounding._util.errors import InputError
from dataflow_grounding._util.files import within
from dataflow_grounding._util.paths import absolute, is_absolute
from dataflow_grounding._util.terminal import say
from dataflow_grounding.data.records import read_object, whole_number
from dataflow_grounding.data.results_folder import stated_in
from dataflow_grounding.data.rows import copy_file, write_text
from dataflow_grounding.data.working_folder import CKPT, address_of, present, working_folder
from dataflow_grounding.engine.at_work import at_work
from dataflow_grounding.engine.execute import refuse_foreign
from dataflow_grounding.engine.keyed_log import storing
from dataflow_grounding.engine.run_lock import only_run
from dataflow_grounding.engine.shard import FOLDER, Shard, lines_path
from dataflow_grounding.extras.formats.pictures import FOLDER as PICTURES
from dataflow_grounding.extras.scale.mirror import Mirror
from dataflow_grounding.extras.scale.rolling import held_elsewhere
from dataflow_grounding.extras.scale.shard_files import bytes_of, digest_of, joined, pictures_of
from dataflow_grounding.jobs.costs import paid_by_step, stated_prices

_STEP_FILE = re.compile(r"(captions|step_\d+_[^/]+)/annotations\.jsonl")
MOST = 10**15
"""Of anything that a run counts: no sum of such numbers is too large for a double."""
_SAME = ("version", "model")
_OWN = {  # keys of the spec that each shard may have its own of
    *(
        "client",
        "api_key",
        "base_url",
        "endpoints",
        "azure",
        "timeout",
        "extra_headers",
        "prices",
        "check_every",
    ),
    *(
        "on_suspect_boxes",
        "max_workers",
        "force_reprocess",
        "stream",
        "budget_usd",
        "max_requests",
        "max_attempts",
    ),
    *("max_wait", "results_dir"),
}


def merge(results_dir: str, of: int | None = None) -> dict[str, Any]:
    """Put the shards in `results_dir` together there: step files, annotations, failures, `run.json`
    with the sums.

    Args:
        results_dir: The folder of which they are shards, or its address.
        of: How many shards make the whole, where there are some of several splits.

    Returns:
        What `run.json` says.

    Raises:
        InputError: A shard is missing, stopped or at work, or they aren't of one input and one
            model; or a file is damaged. Nothing is changed then.
        StorageFailed: The files can't be written.
    """
    results_dir = working_folder(results_dir)
    target = partial(os.path.join, results_dir)
    with ExitStack() as locks:
        mirror = locks.enter_context(at_work(target(CKPT)))
        folders = _folders(results_dir, _shards_there(results_dir, mirror), of)
        for folder in folders:
            shard = os.path.relpath(folder, results_dir)
            locks.enter_context(
                held_elsewhere(mirror, shard) if mirror else only_run(os.path.join(folder, CKPT))
            )
        runs = [_run_of(folder) for folder in folders]
        steps = list(runs[0]["shard"]["files"])
        files = {
            within(results_dir, name): [within(folder, name) for folder in folders]
            for name in steps
        }
        there = [path for paths in files.values() for path in paths]
        present(*there, *map(lines_path, there), anew=True)
        _check(folders, runs)
        _tell_replaced(folders, runs)
        _refuse_older(present(target("run.json"), anew=True), runs)
        failures, annotations = target("failures.jsonl"), target("annotations.jsonl")
        refuse_foreign(target(CKPT), [*files, failures, annotations])
        _gather_pictures(results_dir, folders, mirror)
        run = _sums(results_dir, runs)
        failed = [os.path.join(folder, "failures.jsonl") for folder in folders]
        if written := joined(files, failures, failed, run["summary"]["done"]):
            copy_file(written[-1], annotations)
        stated = (workflow.get("output_format") for workflow in stated_in(run, "workflow"))
        for named in {*stated} - {None, "", "unified", "jsonl"}:
            what = (
                f"what workflow.output_format {named} leaves beside the annotations is not put"
                " together"
            )
            say(
                f"Note: {what}: the same generate without --shard writes it, and asks nothing"
                " again."
            )
        write_text(target("run.json"), json.dumps(run, indent=1, ensure_ascii=False) + "\n")
    return run


def _shards_there(results_dir: str, mirror: Mirror | None) -> list[str]:
    """What the shards' folders are called; elsewhere of those there, and how their runs ended is
    brought.
    """
    if mirror is not None:
        names = [name for name in mirror.listed(FOLDER, "directory") if "-of-" in name]
        mirror.fetch(
            *(f"{FOLDER}/{one}/{file}" for one in names for file in ("run.json", "failures.jsonl"))
        )
        return names
    return [path.name for path in Path(results_dir, FOLDER).glob("[!.]*-of-*") if path.is_dir()]


def _folders(results_dir: str, names: list[str], of: int | None) -> list[str]:
    """The folders of all shards. Raises InputError where one is missing, or it can't be told which
    split is meant.
    """
    place = address_of(results_dir)
    counts = sorted(
        {int(count) for name in names if (count := name.partition("-of-")[2]).isdecimal()}
    )
    if not counts:
        raise InputError(f"{place} has no shards: run --shard 1/n to n/n there")
    if of is None and len(counts) > 1:
        found = f"shards of {' and of '.join(map(str, counts))}"
        raise InputError(
            f"{place} has {found}: name those to be put together, as with --of {counts[-1]}"
        )
    shards = [Shard(number, of or counts[0]) for number in range(1, (of or counts[0]) + 1)]
    if missing := [f"{shard.number}/{shard.of}" for shard in shards if str(shard) not in names]:
        first = ", ".join(missing[:5])
        raise InputError(f"{place}: {len(missing)} shards are missing: run --shard {first} first")
    return [shard.folder(results_dir) for shard in shards]


def _run_of(folder: str) -> dict[str, Any]:
    """What a shard's run.json says. Raises InputError where it isn't finished, or names other files
    than steps'.
    """
    run, path = (
        read_object(os.path.join(folder, "run.json")),
        address_of(os.path.join(folder, "run.json")),
    )
    parts = ("summary", "shard", "spec")
    told = all(isinstance(run.get(name), dict) for name in parts) and run["shard"].get("files")
    if run.get("state") != "finished" or not told:
        state = "was stopped" if run.get("state") == "stopped" else "isn't finished"
        raise InputError(f"shard {address_of(folder)} {state}: run it again, then merge")
    if not _is_of_ours(run):
        raise InputError(
            f"{path} holds what no run leaves there: remove it, run the shard again, then merge"
        )
    names = run["shard"]["files"]
    for name in names if isinstance(names, list) else [names]:
        within(folder, name, path)
        if not _STEP_FILE.fullmatch(name):
            raise InputError(
                f"{path}: {name!r:.200} is not the file of a step: run the shard again, then merge"
            )
    if len({name.casefold() for name in names}) < len(names):
        raise InputError(f"{path} names the file of a step twice: run the shard again, then merge")
    return run


def _is_of_ours(run: dict[str, Any]) -> bool:
    """Whether what is reckoned with in a `run.json` is of the kinds that a run leaves: it may be a
    stranger's.
    """
    box_format, folders, rows = (
        run.get("box_format"),
        run.get("image_folders"),
        run["shard"].get("rows_of_all"),
    )
    formats = (workflow.get("output_format") for workflow in stated_in(run, "workflow"))
    counts = [run["summary"].get("images"), run["summary"].get("done"), 0 if rows is None else rows]
    return (
        all(isinstance(count, int) and _kind(count) == "number" for count in counts)
        and all(_kind(value) for value in run["summary"].values())
        and (box_format is None or isinstance(box_format, dict))
        and (folders is None or _kind(folders) == "texts")
        and all(name is None or isinstance(name, str) for name in formats)
    )


def _kind(value: Any) -> str:
    """What a value of a summary is; empty for what no run leaves there."""
    if isinstance(value, bool) or value is None:
        return "word"
    if isinstance(value, (int, float)):
        return "number" if 0 <= value <= MOST else ""
    if isinstance(value, list):
        return "texts" if all(isinstance(item, str) for item in value) else ""
    if isinstance(value, dict):
        return "numbers" if all(_kind(item) == "number" for item in value.values()) else ""
    return "text" if isinstance(value, str) else ""


def _check_kinds(shown: list[str], runs: list[dict[str, Any]]) -> None:
    """Raises InputError where a shard's counts are of other kinds than the first one's: they could
    not be summed up.
    """
    first = _kinds_in(runs[0])
    for folder, run in zip(shown, runs, strict=True):
        if any(first.get(name, kind) != kind for name, kind in _kinds_in(run).items()):
            what = f"the run.json of {folder} holds counts of other kinds than that of {shown[0]}"
            raise InputError(f"{what}: remove it, run the shard again, then merge")


def _kinds_in(run: dict[str, Any]) -> dict[str, str]:
    return {name: _kind(value) for name, value in run["summary"].items() if value is not None}


def _check(folders: list[str], runs: list[dict[str, Any]]) -> None:
    read = [
        (run["shard"].get("rows_of_all") or 0, run["shard"].get("digest_of_all")) for run in runs
    ]
    first, shown = _stated(runs[0]), list(map(address_of, folders))
    last = max(range(len(runs)), key=lambda at: (str(runs[at].get("started")), read[at][0]))
    rows = read[last][0]
    _check_kinds(shown, runs)
    for folder, at, run, seen in zip(folders, shown, runs, read, strict=True):
        if seen != read[last]:
            what = f"another version of the input ({seen[0]} rows) than {shown[last]} ({rows} rows)"
            way = (
                "run both again, then merge; or run the same without --shard, which asks nothing"
                " again"
            )
            raise InputError(f"{at} has seen {what}: {way}")
        stated, done = _stated(run), run["summary"]["done"]
        if other := [
            key for key in stated.keys() | first.keys() if stated.get(key) != first.get(key)
        ]:
            with_other = f"another {min(other)} than {shown[0]}"
            raise InputError(f"{at} was run with {with_other}: run it again as the others were")
        files = [within(folder, name) for name in run["shard"]["files"]]
        left, digests = (
            [bytes_of(lines_path(file)) // 8 for file in files],
            run["shard"].get("digests"),
        )
        is_whole = left[-1] == done and left == sorted(left, reverse=True)
        is_whole &= run["shard"].get("bytes", sizes := list(map(bytes_of, files))) == sizes
        if not is_whole or digests not in (None, list(map(digest_of, files))):
            # earlier versions left none
            short = (
                f"{at} has {left} rows of its steps, and {done} were done, or not those that were"
                " left there"
            )
            way = (
                f"copy it again, whole, or remove {at}/run.json and run the shard again: nothing is"
                " asked twice"
            )
            raise InputError(f"{short}: {way}")
    if (own := sum(run["summary"]["images"] for run in runs)) != rows:
        raise InputError(
            f"the shards have {own} rows, the input {rows}: it changed meanwhile, so run all again"
        )


def _tell_replaced(folders: list[str], runs: list[dict[str, Any]]) -> None:
    """Warn where a shard's pictures are not those that it has seen, as far as they are on this
    machine.
    """
    for folder, run in zip(folders, runs, strict=True):
        within_reach = run.get("image_folders")
        last, seen = within(folder, run["shard"]["files"][-1]), run["shard"].get("pictures")
        if isinstance(seen, list) and isinstance(within_reach, list):
            now = pictures_of(last, within_reach)
            if now[:1] == seen[:1] and now != seen:
                what = f"pictures of {address_of(folder)} are not those that it has seen"
                say(
                    f"Warning: {what}: run that shard again, which asks about those alone, then"
                    " merge."
                )


def _refuse_older(path: str, runs: list[dict[str, Any]]) -> None:
    """Raises InputError where the `run.json` at the results' path is of a later run, or one of more
    rows.
    """
    there, last = read_object(path), max(str(run.get("started")) for run in runs)
    summary = there["summary"] if isinstance(there.get("summary"), dict) else {}
    images, rows = (
        whole_number(summary.get("images")) or 0,
        sum(run["summary"]["images"] for run in runs),
    )
    is_later = str(there.get("started", "")) > last
    if is_later or images > rows:
        what = (
            "began after all shards"
            if is_later
            else f"had {images} rows, and the shards have {rows}"
        )
        way = "remove it to put the shards' results in its place all the same"
        raise InputError(f"{address_of(path)} is of a run that {what}: {way}")


def _gather_pictures(results_dir: str, folders: list[str], mirror: Mirror | None) -> None:
    """Put pictures that the shards have unpacked from their input there, as links where the file
    system has them.
    """
    target = os.path.join(results_dir, PICTURES)
    with storing(target):
        for folder in (os.path.join(folder, PICTURES) for folder in folders):
            there = {path.name for path in Path(target).glob("*")}
            if mirror is not None:
                shard = os.path.relpath(folder, mirror.root)
                mirror.fetch(*(f"{shard}/{name}" for name in mirror.listed(shard).keys() - there))
            for path in (
                path for path in Path(folder).glob("*") if path.name not in there and path.is_file()
            ):
                os.makedirs(target, exist_ok=True)
                try:
                    os.link(path, within(target, path.name))
                except OSError:
                    copy_file(str(path), within(target, path.name))


def _stated(run: dict[str, Any]) -> dict[str, Any]:
    """What all shards must have alike, by name: paths are each machine's own, and what says how a
    run goes.
    """
    found = {key: run.get(key) for key in _SAME}
    found |= {
        "box_format": (run.get("box_format") or {}).get("name"),
        "steps": run["shard"]["files"],
    }
    found["code of an operator"] = run["shard"].get("code")
    left = list(run["spec"].items())
    while left:
        key, value = left.pop()
        if isinstance(value, dict) and value:
            left += [(f"{key}.{name}", inner) for name, inner in value.items()]
        elif not (isinstance(value, str) and is_absolute(value)):
            found[key] = value
    return {
        key: value
        for key, value in found.items()
        if _OWN.isdisjoint(key.partition(".settings.")[0].split("."))
    }


def _sums(results_dir: str, runs: list[dict[str, Any]]) -> dict[str, Any]:
    """The first run's `run.json` with what all did together, and the results' folder in place of
    its own.
    """
    own, folders = (
        os.path.join(FOLDER, str(Shard(1, len(runs)))),
        runs[0].get("image_folders") or [],
    )
    summaries = [run["summary"] for run in runs]
    summary = {name: _sum([one.get(name) for one in summaries]) for name in summaries[0]}
    for name, file in (("annotations", "annotations.jsonl"), ("failures_file", "failures.jsonl")):
        summary[name] = address_of(os.path.join(results_dir, file))
    return {
        **{name: value for name, value in runs[0].items() if name != "shard"},
        "started": min(str(run.get("started")) for run in runs),
        "endpoint": " + ".join(dict.fromkeys(str(run.get("endpoint")) for run in runs)),
        "image_folders": [
            address_of(absolute(results_dir)) if str(f).endswith(own) else f for f in folders
        ],
        "summary": summary,
        "shards": len(runs),
        "steps": paid_by_step(results_dir, stated_prices(runs[0])),
        "spec": {**runs[0]["spec"], "results_dir": address_of(results_dir)},
    }


def _sum(values: list[Any]) -> Any:
    """Of numbers and counts the sum, of lists what is in any; else the first value, and None with
    any None.
    """
    first = values[0]
    if None in values:
        return None
    if isinstance(first, dict):
        return {
            name: sum(value.get(name, 0) for value in values)
            for name in dict.fromkeys(chain.from_iterable(values))
        }
    if isinstance(first, list):
        return list(dict.fromkeys(chain.from_iterable(values)))
    if isinstance(first, (bool, str)):
        return first
    return sum(values)
