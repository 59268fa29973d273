"""From a spec to a run: the serving, the options, the pipeline, and the files of its results
folder.
"""

import json
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

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
from dataflow_grounding.calibration.choice import REQUESTS, RUN_FILE
from dataflow_grounding.data.records import read_object
from dataflow_grounding.data.rows import copy_file, write_text
from dataflow_grounding.data.working_folder import CKPT, address_of, present, working_folder
from dataflow_grounding.engine.at_work import at_work
from dataflow_grounding.engine.budget import Prices, listed_price
from dataflow_grounding.engine.execute import MakeRun, execute, refuse_foreign, refuse_to_overwrite
from dataflow_grounding.engine.limiter import limiter_of
from dataflow_grounding.engine.options import RunOptions
from dataflow_grounding.engine.run import Run
from dataflow_grounding.engine.shard import Shard
from dataflow_grounding.engine.summary import Summary
from dataflow_grounding.extras.scale.shard_files import bytes_of, digest_of, pictures_of
from dataflow_grounding.jobs.base import told
from dataflow_grounding.jobs.costs import FREE, paid_by_step
from dataflow_grounding.jobs.registry import JOBS, job_named, load_spec
from dataflow_grounding.jobs.serving_of_spec import serving_of
from dataflow_grounding.operators import Operator, PhraseGrounder
from dataflow_grounding.spec import Spec, VlmBlock, WorkflowBlock
from dataflow_grounding.spec.schema import SpecHead


def grounder_of_spec(paths: str | Sequence[str]) -> PhraseGrounder:
    """A grounder with the serving that the `vlm` of a spec file, or of several, names. Raises
    SpecError.
    """
    spec = load_spec(paths, whole=False)
    vlm = spec.block.vlm
    serving = serving_of(vlm, spec.block.workflow, spec.folders)
    return PhraseGrounder(
        serving, on_suspect_boxes=vlm.on_suspect_boxes, check_every=vlm.check_every
    )


def options_of(vlm: VlmBlock, workflow: WorkflowBlock, **command: Any) -> RunOptions:
    """The run options that the spec states; `command` has those of the command line."""
    prices = vlm.prices and Prices(**vlm.prices.model_dump())
    stated = workflow.model_dump(
        include=WorkflowBlock.model_fields.keys() & RunOptions.__dataclass_fields__
    )
    given = {name: value for name, value in command.items() if value is not None}
    return RunOptions(**{**stated, "prices": prices, **given})


class SpecRun:
    """A spec made ready to run: everything that can be wrong before the first request has been
    looked at.
    """

    def __init__(self, spec: Spec, **command: Any) -> None:
        self.options = options_of(spec.block.vlm, spec.block.workflow, **command)
        part = self.options.shard.folder("") if self.options.shard is not None else ""
        spec = spec.model_copy(update={"results_dir": working_folder(spec.results_dir, part)})
        present(
            *(os.path.join(spec.results_dir, name) for name in ("run.json", f"{CKPT}/{RUN_FILE}")),
            anew=True,
        )
        self.spec, self.block = spec, spec.block
        self.serving = serving_of(self.block.vlm, self.block.workflow, spec.folders)
        self.prices_from = "vlm.prices" if self.options.prices else None
        listed = listed_price(self.serving.model) if self.options.prices is None else None
        if listed is not None:
            self.options = replace(self.options, prices=listed.prices)
            self.prices_from = f"{listed.source}, {listed.date}"
        if self.serving.free:
            self.options, self.prices_from = (
                replace(self.options, prices=FREE),
                "it runs on this machine",
            )
        self.job = job_named(spec.autolabel_type, spec.folders)(spec, self.serving)
        self.job.pilot = self.options.pilot
        self.steps = self.job.steps
        self._refuse_to_begin_late()
        self.box_format = self.job.box_format
        self.annotations_path = os.path.join(spec.results_dir, "annotations.jsonl")
        written = [self.annotations_path, *(step.storage.output_path for step in self.steps)]
        written += [os.path.join(spec.results_dir, "run.json"), self.steps[0].storage.failures_path]
        for path in self.job.inputs:
            refuse_to_overwrite(path, written)
        written.append(os.path.join(spec.results_dir, "report.html"))
        refuse_foreign(self.steps[0].storage.checkpoint_folder, written)

    def _refuse_to_begin_late(self) -> None:
        """Raises SpecError for a shard that begins with a step's file, which doesn't tell what rows
        it was made of.
        """
        place = os.path.relpath(self.steps[0].storage.input_path, self.spec.results_dir)
        if self.options.shard is not None and place.split(os.sep)[0] not in (
            os.pardir,
            CKPT,
            os.path.basename(place),
        ):
            way = "name the steps before in workflow.steps, too: what they were answered is kept"
            raise SpecError(f"a shard begins with the input, not with {place}: {way}")

    def execute(self, run: MakeRun = Run) -> Summary:
        """Run it; leaves `annotations.jsonl` and `run.json`, the latter also when the run is
        stopped.

        `run` makes what takes the rows through the steps.
        """
        if obstacles := self.job.obstacles():
            raise SpecError("\n".join(obstacles))
        self._keep_a_models_results()
        folder = self.steps[0].storage.checkpoint_folder
        summary: Summary | None = None
        with at_work(folder):
            started = time.time()
            try:
                self.job.prepare()
                summary = execute(self.steps, self.options, self.job.source, locked=folder, run=run)
                self._copy_last(summary)
                self._write_run_json(summary, None, started)
                self.job.finish()
                return summary
            except RunStopped as stopped:
                with suppress(InputError):
                    # what stopped the run is told, not that run.json has no room either
                    self._write_run_json(summary, stopped, started)
                raise

    def _keep_a_models_results(self) -> None:
        """Raises SpecError where `auto` fell back to no model, in a folder with the
        results of one.
        """
        before = read_object(os.path.join(self.spec.results_dir, "run.json")).get("model")
        if self.block.vlm.backend == "auto" and before not in (None, self.serving.model):
            way = "set DF_BASE_URL and DF_MODEL as then, or choose another results_dir"
            raise SpecError(
                f"{self.spec.results_dir} has results of {before}, and no endpoint is named now:"
                f" {way}"
            )

    def _copy_last(self, summary: Summary) -> None:
        target = self.annotations_path
        if summary.done:
            with told_as(StorageFailed, f"can't write {target}", again=True):
                written = [
                    step.storage.output_path
                    for step in self.steps
                    if os.path.exists(step.storage.output_path)
                ]
                copy_file(written[-1], target)  # an operator from elsewhere may write nothing
        summary.annotations, summary.failures_file = (
            address_of(target),
            address_of(summary.failures_file),
        )

    def plan(self) -> dict[str, Any]:
        """What would run, for `--dry-run`."""
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
        """The plan in words."""
        plan = self.plan()
        boxes = plan["box_format"] or f"a format that the run calibrates first, with {REQUESTS}"
        in_format = f", boxes in {boxes}" if self.box_format else ""
        lines = [
            f"{plan['pipeline']} with {plan['model']} at {plan['endpoint']}{in_format}",
            f"reads {plan['input']}",
        ]
        lines += [f"{step['step']} writes {step['writes']}" for step in plan["steps"]]
        return "\n".join([*lines, "Nothing was sent."])

    @property
    def calibrates(self) -> bool:
        """Whether the run begins by finding out the model's box format."""
        return self.box_format is not None and self.box_format.pending

    @property
    def _format_asked(self) -> dict[str, str | None]:
        """The box format and how it is known; no name while it isn't, neither without boxes."""
        choice = self.box_format
        if choice is None:
            return {"name": None, "from": None}
        return {"name": None if choice.pending else choice.format.name, "from": choice.origin}

    @property
    def _image_folders(self) -> list[str]:
        return [address_of(absolute(folder)) for folder in self.steps[0].storage.image_folders]

    def _shard_facts(self, shard: Shard, summary: Summary | None) -> dict[str, Any]:
        """By which the shards' parts of one run are told to belong together."""
        files = [
            os.path.relpath(step.storage.output_path, self.spec.results_dir) for step in self.steps
        ]
        seen = {
            "rows_of_all": summary and summary.seen,
            "digest_of_all": summary and summary.digest,
        }
        sizes = [bytes_of(step.storage.output_path) for step in self.steps]
        code = [(step.operator.settings() or {}).get("source") for step in self.steps]
        digests = [digest_of(step.storage.output_path) for step in self.steps]
        pictures = summary and pictures_of(self.steps[-1].storage.output_path, self._image_folders)
        left = {"files": files, "bytes": sizes, "digests": digests, "pictures": pictures}
        return {"number": shard.number, "of": shard.of, **seen, **left, "code": code}

    def _write_run_json(
        self, summary: Summary | None, stopped: RunStopped | None, started: float
    ) -> None:
        path = os.path.join(self.spec.results_dir, "run.json")
        before = read_object(path) if summary is not None and summary.already_complete else {}
        if before.get("state") == "finished":  # else that run was killed before it came to this
            run = before | {"spec": self._stated()}
        else:
            run = self._facts(summary, stopped, started)
        text = json.dumps(masked(run), indent=1, ensure_ascii=False, default=str)
        if json.loads(text) != before:
            write_text(path, text + "\n")

    def _facts(
        self, summary: Summary | None, stopped: RunStopped | None, started: float
    ) -> dict[str, Any]:
        """What `run.json` says."""
        shard = self.options.shard
        return {
            "state": "finished" if summary is not None else "stopped",
            "stopped_by": str(stopped) if stopped else None,
            "version": __version__,
            "started": (
                time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(started))
                + f".{int(started * 1000) % 1000:03}Z"
            ),
            "model": self.serving.model,
            "endpoint": self.serving.endpoint,
            "box_format": self._format_asked,
            "image_folders": self._image_folders,
            **self.job.facts(),
            "serving": told(self.serving),
            "operators": {
                s.label: told(s.operator) for s in self.steps if isinstance(s.operator, Operator)
            },
            **({"shard": self._shard_facts(shard, summary)} if shard else {}),
            "sustained_concurrency": sum(
                limiter_of(one).level for one, _ in self.serving.endpoints()
            ),
            "summary": summary.to_json() if summary else stopped and stopped.summary,
            "prices": self.prices_from,
            # a stop should be quick
            "steps": summary and paid_by_step(self.spec.results_dir, self.options.prices),
            "spec": self._stated(),
        }

    def _stated(self) -> dict[str, Any]:
        own = {**self.spec.as_stated(), "results_dir": address_of(self.spec.results_dir)}
        return {**dict.fromkeys([*SpecHead.model_fields, *JOBS]), **own}
