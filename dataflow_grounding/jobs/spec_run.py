"""From a spec to a run: the serving, the options, the pipeline, in the order of `ready_to_run`."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dataflow_grounding._util.errors import SpecError
from dataflow_grounding._util.paths import kind_of
from dataflow_grounding._util.results_names import CKPT, RUN_JSON
from dataflow_grounding.bucket import bucket
from dataflow_grounding.data.records import JsonObject, read_object
from dataflow_grounding.engine.budget import Prices
from dataflow_grounding.engine.execute import refuse_foreign, refuse_to_overwrite
from dataflow_grounding.engine.options import RunOptions
from dataflow_grounding.engine.plan import Step
from dataflow_grounding.engine.shard import Shard, divide_max_workers
from dataflow_grounding.jobs.job import Job, Kind
from dataflow_grounding.jobs.judge import servings_of
from dataflow_grounding.jobs.output_format import Writer, writer_of
from dataflow_grounding.jobs.pricing import price_others, pricing_of
from dataflow_grounding.jobs.registry import kind_named, load_spec
from dataflow_grounding.jobs.serving_of_spec import serving_of
from dataflow_grounding.jobs.telling import tell
from dataflow_grounding.operators import PhraseGrounder
from dataflow_grounding.serving.serving import Serving
from dataflow_grounding.spec import Spec, VlmBlock, WorkflowBlock
from dataflow_grounding.trust.choice import REQUESTS

ANY_MODEL = ("default", "local", "local-model", "loaded", "model", "vlm")
"""Names, in lower case, by which servers call any model that they have loaded."""


def grounder_of_spec(paths: str | Sequence[str]) -> PhraseGrounder:
    """Return a grounder with the serving that the `vlm` of spec files names."""
    spec = load_spec(paths, whole=False)
    vlm = spec.block.vlm
    serving = serving_of(vlm, spec.block.workflow, spec.folders)
    return PhraseGrounder(
        serving, on_suspect_boxes=vlm.on_suspect_boxes, check_every=vlm.check_every
    )


def options_of(vlm: VlmBlock, workflow: WorkflowBlock, **command: Any) -> RunOptions:
    """Return the options of a run; those of the command line go before the spec's unless None."""
    prices = None
    if vlm.prices is not None:
        prices = Prices(**vlm.prices.model_dump())
    # Keys of a spec's `workflow` that are options have the same names, such as `max_requests`.
    shared_names = WorkflowBlock.model_fields.keys() & RunOptions.__dataclass_fields__.keys()
    of_spec = workflow.model_dump(include=shared_names)
    of_command = {name: value for name, value in command.items() if value is not None}
    return RunOptions(**{**of_spec, "prices": prices, **of_command})


@dataclass
class SpecRun:
    """A spec made ready to run by `ready_to_run`."""

    spec: Spec
    kind: Kind
    job: Job
    write_output: Writer  # of `workflow.output_format`
    options: RunOptions
    before: JsonObject  # what `run.json` says of the folder's earlier run
    prices_from: str | None  # in words, who says what tokens cost
    judges_prices: dict[str, Prices | None]  # of each further serving that is asked, by its model
    remarks: list[str]  # what is good to know before the run

    @property
    def serving(self) -> Serving:
        """The spec's own, which answers most requests; a judge may answer others."""
        return self.job.servings[0]

    def plan(self) -> JsonObject:
        """Return what would run, as JSON, for `--dry-run`: who is asked, and each step's file."""
        format_asked = self.format_asked()
        return {
            "pipeline": self.spec.autolabel_type,
            "model": self.serving.model,
            "endpoint": self.serving.endpoint,
            "box_format": format_asked["name"],
            "box_format_from": format_asked["from"],
            "input": self.job.input.reads,
            "steps": [
                {"step": step.label, "writes": step.storage.output_path} for step in self.job.steps
            ],
        }

    def describe(self) -> str:
        plan = self.plan()
        if self.job.box_format is None:  # no step asks for boxes
            boxes = ""
        elif self.calibrates:
            boxes = f", boxes in a format that the run calibrates first, with {REQUESTS}"
        else:
            boxes = f", boxes in {plan['box_format']}"
        lines = [f"{plan['pipeline']} with {self.who}{boxes}", f"reads {plan['input']}"]
        lines += [f"{step['step']} writes {step['writes']}" for step in plan["steps"]]
        lines.append("Nothing was sent.")
        return "\n".join(lines)

    @property
    def who(self) -> str:
        """Who is asked, in words: model and address of each serving, joined by "and"."""
        names = []
        for serving in self.job.servings:
            address = serving.endpoint
            where = f"at {address}" if "://" in address else "on this machine"
            names.append(f"{serving.model} {where}")
        return " and ".join(dict.fromkeys(names))

    def format_asked(self) -> dict[str, str | None]:
        """Return the `name` of the box format that is asked for, and whom it is `from`."""
        choice = self.job.box_format
        if choice is None:
            return {"name": None, "from": None}
        if choice.pending:
            return {"name": None, "from": choice.origin}
        return {"name": choice.format.name, "from": choice.origin}

    @property
    def calibrates(self) -> bool:
        """Whether the run begins by finding out the model's box format."""
        return self.job.box_format is not None and self.job.box_format.pending

    @property
    def annotations_path(self) -> str:
        return os.path.join(self.spec.results_dir, "annotations.jsonl")


def ready_to_run(spec: Spec, kind: Kind | None = None, **command: Any) -> SpecRun:
    """Make a spec ready to run, and refuse what is wrong before the first request."""
    block = spec.block
    options = options_of(block.vlm, block.workflow, **command)
    spec = _in_folder_here(spec, options.shard)
    before = read_object(os.path.join(spec.results_dir, RUN_JSON))
    servings = servings_of(spec)
    kind = kind or kind_named(spec.autolabel_type, spec.folders)
    write_output = writer_of(block.workflow.output_format, spec.folders)
    job = kind.make_job(spec, servings, options.pilot)
    for choice in job.box_formats:  # an earlier run may have found out the model's format
        choice.recall(job.steps[0].storage.checkpoint_folder)
    tell(job.operators, block, servings)
    prices, prices_from = pricing_of(options.prices, servings[0])
    options = replace(options, prices=prices)
    # This also sets them in the judge's serving.
    judges_prices = price_others(servings, block.vlms, job.steps, options.budget_usd)
    remarks: list[str] = []
    if options.shard is not None:
        # This also sets the servings' max_workers.
        options, remarks = _part_of_limits(options.shard, options, servings)
        _refuse_to_shard_later_steps(job.steps[0], spec.results_dir)
    remarks += _remark_on_another_endpoint(before, servings[0], block.vlm)
    remarks += _remark_on_pilot_of_pipe(job, options.pilot)
    run = SpecRun(
        spec=spec,
        kind=kind,
        job=job,
        write_output=write_output,
        options=options,
        before=before,
        prices_from=prices_from,
        judges_prices=judges_prices,
        remarks=remarks,
    )
    _refuse_to_write_over_others_files(run)
    return run


def _in_folder_here(spec: Spec, shard: Shard | None) -> Spec:
    """Return the spec with a folder of this machine, which gets what a bucket has already."""
    folder_of_part = "" if shard is None else shard.folder("")  # such as shards/2-of-8
    folder = bucket.local(spec.results_dir, folder_of_part)
    bucket.fill(folder)
    return spec.model_copy(update={"results_dir": folder})


def _part_of_limits(
    shard: Shard, options: RunOptions, servings: Sequence[Serving]
) -> tuple[RunOptions, list[str]]:
    """Return the options with a shard's part of the run's limits, and a remark on them, if any."""
    if shard.of == 1:
        return options, []
    part = options
    in_words = []  # "max_requests 50 of 100"
    for serving, of_all in divide_max_workers(servings, shard):
        in_words.append(f"max_workers {serving.max_workers} of {of_all}")
    if options.max_requests is not None:
        part = replace(part, max_requests=shard.part_of(options.max_requests))
        in_words.append(f"max_requests {part.max_requests} of {options.max_requests}")
    if options.budget_usd is not None:
        part = replace(part, budget_usd=options.budget_usd / shard.of)
        in_words.append(f"budget_usd {part.budget_usd:g} of {options.budget_usd:g}")
    if not in_words:
        return options, []
    each_once = ", ".join(dict.fromkeys(in_words))  # a judge's max_workers may be the same
    remark = f"shard {shard.number}/{shard.of} has its part of the limits: {each_once}"
    return part, [remark]


def _refuse_to_shard_later_steps(first: Step, results_dir: str) -> None:
    path = os.path.relpath(first.storage.input_path, results_dir)
    top_folder = path.split(os.sep)[0]
    is_users_file = top_folder == os.pardir  # ../rows.jsonl
    is_made_of_rows = top_folder == CKPT  # .ckpt/input.jsonl
    is_made_of_labels = os.path.basename(path) == path  # seed_annotations.jsonl, in no folder
    # A step's file, such as step_0_grounding/annotations.jsonl, doesn't tell which rows of the
    # input it was made of.
    if not (is_users_file or is_made_of_rows or is_made_of_labels):
        way = "name the steps before in workflow.steps, too: what they were answered is kept"
        raise SpecError(f"a shard begins with the input, not with {path}: {way}")


def _remark_on_another_endpoint(
    earlier_run: JsonObject, serving: Serving, vlm: VlmBlock
) -> Iterator[str]:
    model = serving.model
    endpoint = earlier_run.get("endpoint")
    has_moved = endpoint not in (None, serving.endpoint)
    # With a name of the user's own, `vlm.openai.name`, replies are told apart by that.
    may_be_any_model = model.lower() in ANY_MODEL and not vlm.openai.name
    has_same_name = earlier_run.get("model") == model
    # Stored replies are found by the model's name, and not by the address.
    if has_moved and has_same_name and may_be_any_model:
        yield (
            f"replies of {endpoint} count for {serving.endpoint}, too, as both call their"
            f" model {model!r}: where these are two models, give this one a name in"
            " vlm.openai.name"
        )


def _remark_on_pilot_of_pipe(job: Job, pilot: int | None) -> Iterator[str]:
    if pilot is not None and kind_of(job.input.reads) == "pipe":  # else rows are spread over it
        yield f"{job.input.reads} can be read once only: the pilot takes its first {pilot} rows"


def _refuse_to_write_over_others_files(run: SpecRun) -> None:
    results_dir = run.spec.results_dir
    storage = run.job.steps[0].storage  # all steps have the same file of failures, and checkpoints
    outputs = [run.annotations_path]
    outputs += [step.storage.output_path for step in run.job.steps]
    outputs += [os.path.join(results_dir, RUN_JSON), storage.failures_path]
    outputs.append(os.path.join(results_dir, "report.html"))
    for path in run.job.files:
        refuse_to_overwrite(path, outputs)
    refuse_foreign(storage.checkpoint_folder, outputs)
