"""From a spec to a run: the serving, the options, the pipeline, and the files of its results."""

import json
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from dataflow_grounding._util.errors import (
    InputError,
    RunStopped,
    SpecError,
    StorageFailed,
    told_as,
)
from dataflow_grounding._util.paths import absolute
from dataflow_grounding._util.secrets import masked
from dataflow_grounding._util.version import __version__
from dataflow_grounding.data.classes import names_stated_in
from dataflow_grounding.data.mirror import CKPT
from dataflow_grounding.data.records import read_object
from dataflow_grounding.data.results_folder import stated_in
from dataflow_grounding.data.rows import copy_file, write_text
from dataflow_grounding.data.working_folder import CALIBRATION, address_of, present, working_folder
from dataflow_grounding.engine.budget import Prices
from dataflow_grounding.engine.costs import paid_by_step
from dataflow_grounding.engine.execute import MakeRun, execute, refuse_foreign, refuse_to_overwrite
from dataflow_grounding.engine.limiter import share_of
from dataflow_grounding.engine.options import RunOptions
from dataflow_grounding.engine.results_elsewhere import at_work
from dataflow_grounding.engine.run import Run
from dataflow_grounding.engine.shard_facts import bytes_of, digest_of, pictures_of
from dataflow_grounding.engine.summary import Summary
from dataflow_grounding.jobs.earlier_run import RUN_JSON, EarlierRun
from dataflow_grounding.jobs.pricing import pricing_of
from dataflow_grounding.jobs.registry import JOBS, job_named, load_spec
from dataflow_grounding.jobs.serving_of_spec import serving_of
from dataflow_grounding.jobs.spec_job import facts_of
from dataflow_grounding.operators import Operator, PhraseGrounder
from dataflow_grounding.spec import Spec, VlmBlock, WorkflowBlock
from dataflow_grounding.spec.schema import SpecHead
from dataflow_grounding.trust.choice import REQUESTS

if TYPE_CHECKING:
    from dataflow_grounding.engine.shard import Shard

ANY_MODEL = ("default", "local", "local-model", "loaded", "model", "vlm")
"""Names, in lower case, by which servers call whatever model they have loaded."""


def grounder_of_spec(paths: str | Sequence[str]) -> PhraseGrounder:
    """Return a grounder with the serving that the `vlm` of spec files names.

    `data` and `results_dir` may be missing. Raises SpecError.
    """
    spec = load_spec(paths, whole=False)
    vlm = spec.block.vlm
    serving = serving_of(vlm, spec.block.workflow, spec.folders)
    return PhraseGrounder(
        serving, on_suspect_boxes=vlm.on_suspect_boxes, check_every=vlm.check_every
    )


def options_of(vlm: VlmBlock, workflow: WorkflowBlock, **command: Any) -> RunOptions:
    """Return the options of a run.

    Args:
        vlm: The spec's `vlm`, which has the prices.
        workflow: The spec's `workflow`, which has the other options.
        command: Options of the command line, which go before the spec's unless they are None.
    """
    prices = vlm.prices and Prices(**vlm.prices.model_dump())
    of_spec = workflow.model_dump(
        include=WorkflowBlock.model_fields.keys() & RunOptions.__dataclass_fields__.keys()
    )
    of_command = {name: value for name, value in command.items() if value is not None}
    return RunOptions(**{**of_spec, "prices": prices, **of_command})


def _in_working_folder(spec: Spec, shard: "Shard | None") -> Spec:
    # A shard has a folder of its own.
    part = "" if shard is None else shard.folder("")
    return spec.model_copy(update={"results_dir": working_folder(spec.results_dir, part)})


def _bring_earlier_results(results_dir: str) -> None:
    run_json = os.path.join(results_dir, RUN_JSON)
    box_format = os.path.join(results_dir, f"{CKPT}/{CALIBRATION}")
    present(run_json, box_format, anew=True)


class SpecRun:
    """A spec made ready to run: what can be wrong before the first request has been looked at.

    Args:
        spec: The spec.
        command: Options of the command line, as for `options_of`.

    Raises:
        SpecError, InputError, MissingExtra: Something is wrong with the spec or what it names.
    """

    def __init__(self, spec: Spec, **command: Any) -> None:
        options = options_of(spec.block.vlm, spec.block.workflow, **command)
        self.spec = _in_working_folder(spec, options.shard)
        _bring_earlier_results(self.spec.results_dir)
        self.block = self.spec.block
        self.serving = serving_of(self.block.vlm, self.block.workflow, self.spec.folders)
        self._before = EarlierRun(self.spec, self.serving)
        self._before.lend_replies(self.serving)
        pricing = pricing_of(options.prices, self.serving)
        self.options = replace(options, prices=pricing.prices)
        self.prices_from = pricing.source
        make_job = job_named(self.spec.autolabel_type, self.spec.folders)
        self.job = make_job(self.spec, self.serving)
        self.job.put_in_words()
        self.judges_prices = self._price_others()
        self._part_of_limits = self._take_part_of_limits()
        self.job.pilot = self.options.pilot
        self.steps = self.job.steps
        self.box_format = self.job.box_format
        self.annotations_path = os.path.join(self.spec.results_dir, "annotations.jsonl")
        self._refuse_to_begin_late()
        self._refuse_to_write_over_others_files()

    def _price_others(self) -> dict[str, Prices | None]:
        # Set the prices of each further serving that a step asks, and return them by its model.
        # They are None where they aren't known; with a budget in USD, that raises SpecError. A
        # serving of the first serving's model isn't among them.
        prices: dict[str, Prices | None] = {}
        further = zip(self.block.vlms[1:], self.job.servings[1:], strict=False)
        for vlm, serving in further:
            is_asked = any(step.operator.serving is serving for step in self.job.steps)
            if not is_asked or serving.model == self.serving.model:
                continue
            stated: Prices | None = None
            if vlm.prices is not None:
                stated = Prices(**vlm.prices.model_dump())
            serving.prices = pricing_of(stated, serving).prices
            prices[serving.model] = serving.prices
            if serving.prices is None and self.options.budget_usd is not None:
                raise SpecError(
                    f"workflow.budget_usd needs the prices of {serving.model}, too: set"
                    " vlm.check.prices"
                )
        return prices

    def _take_part_of_limits(self) -> list[str]:
        # Limit a shard to its part of the run's limits; return a line for the user, if any. So all
        # shards together keep to them without a word. A model in this process isn't divided: each
        # shard has one of its own.
        shard = self.options.shard
        if shard is None or shard.of == 1:
            return []
        parts = []
        for serving in {id(each): each for each in self.job.servings}.values():
            if "://" not in serving.endpoint:
                continue
            of_all = serving.max_workers
            serving.max_workers = max(1, shard.part_of(of_all))
            for endpoint, _ in serving.endpoints():
                endpoint.max_workers = serving.max_workers
            parts.append(f"max_workers {serving.max_workers} of {of_all}")
        options = self.options
        if options.max_requests is not None:
            requests = shard.part_of(options.max_requests)
            parts.append(f"max_requests {requests} of {options.max_requests}")
            options = replace(options, max_requests=requests)
        if options.budget_usd is not None:
            usd = options.budget_usd / shard.of
            parts.append(f"budget_usd {usd:g} of {options.budget_usd:g}")
            options = replace(options, budget_usd=usd)
        self.options = options
        if not parts:
            return []
        in_words = ", ".join(dict.fromkeys(parts))
        return [f"shard {shard.number}/{shard.of} has its part of the limits: {in_words}"]

    def _refuse_to_begin_late(self) -> None:
        # Raise SpecError for a shard that begins with a step's file instead of the input. Such a
        # file doesn't tell which rows of the input it was made of. Without a shard, any beginning
        # will do.
        if self.options.shard is None:
            return
        path = os.path.relpath(self.steps[0].storage.input_path, self.spec.results_dir)
        top_folder = path.split(os.sep)[0]
        is_outside = top_folder == os.pardir  # the user's own file
        is_made_of_input = top_folder == CKPT  # our rows
        is_in_no_folder = os.path.basename(path) == top_folder  # the seeds; steps have folders
        if not (is_outside or is_made_of_input or is_in_no_folder):
            way = "name the steps before in workflow.steps, too: what they were answered is kept"
            raise SpecError(f"a shard begins with the input, not with {path}: {way}")

    def _refuse_to_write_over_others_files(self) -> None:
        first = self.steps[0].storage
        written = [self.annotations_path]
        written += [step.storage.output_path for step in self.steps]
        written += [os.path.join(self.spec.results_dir, RUN_JSON), first.failures_path]
        for path in self.job.inputs:
            refuse_to_overwrite(path, written)
        written.append(os.path.join(self.spec.results_dir, "report.html"))
        refuse_foreign(first.checkpoint_folder, written)

    def execute(self, run: MakeRun = Run) -> Summary:
        """Run the spec, and return what was done.

        It leaves `annotations.jsonl`, if a record got through, and `run.json`; a run that is
        stopped leaves the latter.

        Args:
            run: Makes what takes the rows through the steps: in this process, others, or on Ray.

        Raises:
            SpecError: The servings can't be asked, or the folder has results of another model and
                `auto` found none.
            InputError: The input can't be read, or another run is at work in the folder.
            RunStopped: The run could not be finished; what was paid for is stored.
        """
        obstacles = self.job.obstacles()
        if obstacles:
            raise SpecError("\n".join(obstacles))
        self._refuse_to_replace_a_models_results()
        folder = self.steps[0].storage.checkpoint_folder
        summary: Summary | None = None
        with at_work(folder):
            started = time.time()
            try:
                self.job.prepare()
                summary = execute(self.steps, self.options, self.job.source, locked=folder, run=run)
                if summary.shown.classes.is_of_classes:
                    summary.shown.classes.order = list(names_stated_in({"spec": self._stated()}))
                if summary.done:
                    self._write_annotations()
                summary.annotations = address_of(self.annotations_path)
                summary.failures_file = address_of(summary.failures_file)
                self._write_run_json(summary, None, started)
                self.job.finish()
                return summary
            except RunStopped as stopped:
                with suppress(InputError):
                    # The user is told what stopped the run, not that run.json has no room either.
                    self._write_run_json(summary, stopped, started)
                raise

    def _refuse_to_replace_a_models_results(self) -> None:
        before = self._before.model
        if self.block.vlm.backend == "auto" and before not in (None, self.serving.model):
            way = "set DF_BASE_URL and DF_MODEL as then, or choose another results_dir"
            raise SpecError(
                f"{self.spec.results_dir} has results of {before}, and no endpoint is named now:"
                f" {way}"
            )

    def _write_annotations(self) -> None:
        # A step of another library's operator may have none.
        target = self.annotations_path
        with told_as(StorageFailed, f"can't write {target}", again=True):
            paths = [step.storage.output_path for step in self.steps]
            written = [path for path in paths if os.path.exists(path)]
            copy_file(written[-1], target)

    def plan(self) -> dict[str, Any]:
        """Return what would run, as JSON, for `--dry-run`: who is asked, and each step's file."""
        return {
            "pipeline": self.spec.autolabel_type,
            "model": self.serving.model,
            "endpoint": self.serving.endpoint,
            "box_format": self._format_asked["name"],
            "box_format_from": self._format_asked["from"],
            "input": self.job.reads,
            "steps": [
                {"step": step.label, "writes": address_of(step.storage.output_path)}
                for step in self.steps
            ],
        }

    def describe(self) -> str:
        """Return the plan in words: who is asked, what is read, what each step writes, in lines."""
        plan = self.plan()
        boxes = plan["box_format"] or f"a format that the run calibrates first, with {REQUESTS}"
        in_format = f", boxes in {boxes}" if self.box_format else ""
        lines = [
            f"{plan['pipeline']} with {self.who}{in_format}",
            f"reads {plan['input']}",
        ]
        lines += [f"{step['step']} writes {step['writes']}" for step in plan["steps"]]
        return "\n".join([*lines, "Nothing was sent."])

    @property
    def who(self) -> str:
        """Who is asked, in words: model and address of each serving, joined by "and"."""
        names = []
        for serving in self.job.servings:
            address = serving.endpoint
            where = f"at {address}" if "://" in address else "on this machine"
            names.append(f"{serving.model} {where}")
        return " and ".join(dict.fromkeys(names))

    def remarks(self) -> list[str]:
        """Return what is good to know before a run, one line each.

        That is a shard's part of the limits, and a warning where another endpoint was asked before
        under a name, such as "default", that may be any model's.
        """
        model = self.serving.model
        has_moved = self._before.endpoint not in (None, self.serving.endpoint)
        may_be_any_model = model.lower() in ANY_MODEL and not self.block.vlm.openai.name
        if has_moved and may_be_any_model and self._before.model == model:
            return [
                *self._part_of_limits,
                f"replies of {self._before.endpoint} count for {self.serving.endpoint}, too, as"
                f" both call their model {model!r}: where these are two models, give this one a"
                " name in"
                " vlm.openai.name",
            ]
        return self._part_of_limits

    @property
    def calibrates(self) -> bool:
        """Whether the run begins by finding out the model's box format."""
        return self.box_format is not None and self.box_format.pending

    @property
    def _format_asked(self) -> dict[str, str | None]:
        # The name is None as long as it isn't known; both are where no boxes are asked for.
        choice = self.box_format
        if choice is None:
            return {"name": None, "from": None}
        if choice.pending:
            return {"name": None, "from": choice.origin}
        return {"name": choice.format.name, "from": choice.origin}

    @property
    def _image_folders(self) -> list[str]:
        return [address_of(absolute(folder)) for folder in self.steps[0].storage.image_folders]

    def _shard_facts(self, shard: "Shard", summary: Summary | None) -> dict[str, Any]:
        paths = [step.storage.output_path for step in self.steps]
        seen_rows = None
        digest_of_rows = None
        pictures = None
        if summary is not None:
            seen_rows = summary.handover.seen
            digest_of_rows = summary.handover.digest
            pictures = pictures_of(paths[-1], self._image_folders)
        return {
            "number": shard.number,
            "of": shard.of,
            "rows_of_all": seen_rows,
            "digest_of_all": digest_of_rows,
            "files": [os.path.relpath(path, self.spec.results_dir) for path in paths],
            "bytes": [bytes_of(path) for path in paths],
            "digests": [digest_of(path) for path in paths],
            "pictures": pictures,
            "code": [(step.operator.settings() or {}).get("source") for step in self.steps],
        }

    def _write_run_json(
        self, summary: Summary | None, stopped: RunStopped | None, started: float
    ) -> None:
        # Where this run had nothing to do, the file keeps what the earlier run did, and only the
        # spec is the present one.
        path = os.path.join(self.spec.results_dir, RUN_JSON)
        before: dict[str, Any] = {}
        if summary is not None and summary.already_complete:
            before = read_object(path)
        if before.get("state") == "finished":
            run = before | {"spec": self._stated()}
        else:  # also after a run that was killed before it wrote this file
            run = self._facts(summary, stopped, started)
        text = json.dumps(masked(run), indent=1, ensure_ascii=False, default=str)
        if json.loads(text) != before:
            write_text(path, text + "\n")

    def _settings_facts(self) -> dict[str, Any]:
        if not self.serving.stated_settings and not self._before.settings:
            return {}
        return {"settings_before": self._before.settings}

    def _facts(
        self, summary: Summary | None, stopped: RunStopped | None, started: float
    ) -> dict[str, Any]:
        # The arguments are those of `_write_run_json`.
        facts: dict[str, Any] = {
            "state": "stopped" if summary is None else "finished",
            "stopped_by": str(stopped) if stopped else None,
            "version": __version__,
            "started": _in_utc(started),
            "model": self.serving.model,
            "endpoint": self.serving.endpoint,
            "endpoints_before": self._before.addresses,
            "box_format": self._format_asked,
            **self._settings_facts(),
            "image_folders": self._image_folders,
        }
        for model, prices in self.judges_prices.items():  # one at the most
            facts["judge"] = {"model": model, "prices": None if prices is None else vars(prices)}
        facts |= self.job.facts()
        facts["serving"] = facts_of(self.serving)
        if summary is not None and summary.handover.takes:
            facts["serving"].setdefault("takes", summary.handover.takes)
        facts["operators"] = {
            step.label: facts_of(step.operator)
            for step in self.steps
            if isinstance(step.operator, Operator)
        }
        if self.options.shard:
            facts["shard"] = self._shard_facts(self.options.shard, summary)
        shares = [share_of(endpoint) for endpoint, _ in self.serving.endpoints()]
        facts["sustained_concurrency"] = sum(share.level for share in shares)
        facts["summary"] = stopped.summary if stopped else None
        facts["prices"] = self.prices_from
        # A stopped run has none: stores may be large, and a stop should be quick.
        facts["steps"] = None
        if summary is not None:
            facts["summary"] = summary.to_json()
            facts["steps"] = paid_by_step(
                self.spec.results_dir, self.options.prices, self.judges_prices
            )
        facts["spec"] = self._stated()
        return facts

    def _stated(self) -> dict[str, Any]:
        # Return the spec as `run.json` has it. It begins with the keys of every spec and of all
        # shipped pipelines, None where this one lacks them. It is as the files state it, but for
        # `data.classes`: a reference such as `${oc.env:NAME}` is filled in there, as exports number
        # by the classes.
        own = {**self.spec.as_stated(), "results_dir": address_of(self.spec.results_dir)}
        classes = self.spec.block.data.model_dump().get("classes")
        if classes:
            for data in stated_in({"spec": own}, "data"):
                if "classes" in data:
                    data["classes"] = classes
        return {**dict.fromkeys([*SpecHead.model_fields, *JOBS]), **own}


def _in_utc(seconds: float) -> str:
    whole_seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return f"{whole_seconds}.{int(seconds * 1000) % 1000:03}Z"
