"""What is different for a shard of a run: its part of the limits, its beginning, its facts."""

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from dataflow_grounding._util.errors import SpecError
from dataflow_grounding.data.mirror import CKPT
from dataflow_grounding.engine.options import RunOptions
from dataflow_grounding.engine.plan import Step
from dataflow_grounding.engine.shard import Shard
from dataflow_grounding.engine.shard_facts import bytes_of, digest_of, pictures_of
from dataflow_grounding.engine.summary import Summary
from dataflow_grounding.serving.serving import Serving


def part_of_limits(
    shard: Shard, options: RunOptions, servings: Sequence[Serving]
) -> tuple[RunOptions, list[str]]:
    """Limit a shard to its part of the run's limits, so that all shards together keep to them.

    A model in this process isn't divided: each shard has one of its own.

    Args:
        shard: The shard.
        options: The run's options.
        servings: Those that the run asks; their limits are changed in place.

    Returns:
        The options with the shard's part, and a line for the user, if anything is divided.
    """
    if shard.of == 1:
        return options, []
    parts = []
    for serving in {id(each): each for each in servings}.values():
        if "://" not in serving.endpoint:
            continue
        of_all = serving.max_workers
        serving.max_workers = max(1, shard.part_of(of_all))
        for endpoint, _ in serving.endpoints():
            endpoint.max_workers = serving.max_workers
        parts.append(f"max_workers {serving.max_workers} of {of_all}")
    if options.max_requests is not None:
        requests = shard.part_of(options.max_requests)
        parts.append(f"max_requests {requests} of {options.max_requests}")
        options = replace(options, max_requests=requests)
    if options.budget_usd is not None:
        usd = options.budget_usd / shard.of
        parts.append(f"budget_usd {usd:g} of {options.budget_usd:g}")
        options = replace(options, budget_usd=usd)
    if not parts:
        return options, []
    in_words = ", ".join(dict.fromkeys(parts))
    return options, [f"shard {shard.number}/{shard.of} has its part of the limits: {in_words}"]


def refuse_to_begin_late(first: Step, results_dir: str) -> None:
    """Raise SpecError for a shard whose first step reads a step's file instead of the input.

    Such a file doesn't tell which rows of the input it was made of. Without a shard, any beginning
    will do.
    """
    path = os.path.relpath(first.storage.input_path, results_dir)
    top_folder = path.split(os.sep)[0]
    is_outside = top_folder == os.pardir  # the user's own file
    is_made_of_input = top_folder == CKPT  # our rows
    is_in_no_folder = os.path.basename(path) == top_folder  # the seeds; steps have folders
    if not (is_outside or is_made_of_input or is_in_no_folder):
        way = "name the steps before in workflow.steps, too: what they were answered is kept"
        raise SpecError(f"a shard begins with the input, not with {path}: {way}")


def facts_of_shard(
    shard: Shard,
    steps: Sequence[Step],
    results_dir: str,
    image_folders: list[str],
    summary: Summary | None,
) -> dict[str, Any]:
    """Return what `run.json` says of a shard, by which the shards are merged.

    Args:
        shard: The shard.
        steps: The run's.
        results_dir: The shard's folder.
        image_folders: Where the run's pictures are.
        summary: What was done; None where the run stopped.
    """
    paths = [step.storage.output_path for step in steps]
    seen_rows = None
    digest_of_rows = None
    pictures = None
    if summary is not None:
        seen_rows = summary.handover.seen
        digest_of_rows = summary.handover.digest
        pictures = pictures_of(paths[-1], image_folders)
    return {
        "number": shard.number,
        "of": shard.of,
        "rows_of_all": seen_rows,
        "digest_of_all": digest_of_rows,
        "files": [os.path.relpath(path, results_dir) for path in paths],
        "bytes": [bytes_of(path) for path in paths],
        "digests": [digest_of(path) for path in paths],
        "pictures": pictures,
        "code": [(step.operator.settings() or {}).get("source") for step in steps],
    }
