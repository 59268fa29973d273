"""From a spec to a run: the serving, the options, the pipeline, and the files of its results folder."""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from typing import Any

from dataflow_grounding.coordinates import find_box_format
from dataflow_grounding.engine.budget import Prices
from dataflow_grounding.engine.execute import execute
from dataflow_grounding.engine.options import RunOptions
from dataflow_grounding.engine.plan import Step
from dataflow_grounding.engine.summary import Summary
from dataflow_grounding.errors import InputError, RunStopped, SpecError, StorageFailed
from dataflow_grounding.pipelines.image_grounding import STEPS, ImageGroundingPipeline
from dataflow_grounding.rows import copy_file, write_text
from dataflow_grounding.serving.base import Serving
from dataflow_grounding.spec import ImageGroundingBlock, Spec, VlmBlock, WorkflowBlock, load_spec
from dataflow_grounding.storage import ResultsStorage
from dataflow_grounding.version import __version__


def serving_of(vlm: VlmBlock, workflow: WorkflowBlock) -> Serving:
    """The serving that `vlm` names. Raises SpecError."""
    if vlm.backend == "embedded":
        from dataflow_grounding.serving.embedded import EmbeddedServing

        return EmbeddedServing()
    if vlm.backend == "gemini":
        raise SpecError(
            "vlm.backend gemini is not there yet: use openai with vlm.openai.base_url set to Gemini's OpenAI-compatible address"
        )
    from dataflow_grounding.serving.openai_compatible import OpenAIServing

    block = vlm.openai
    return OpenAIServing(
        api_url=block.base_url or None,
        model_name=block.model_name,
        key_name_of_api_key="OPENAI_API_KEY",
        max_workers=workflow.max_workers,
        timeout=block.timeout,
        api_key=block.api_key or None,
        temperature=block.temperature,
        max_tokens=block.max_tokens,
        box_format=vlm.box_format,
    )


def serving_of_spec(path: str) -> Serving:
    """The serving that a spec file's `vlm` names. Raises SpecError."""
    block = load_spec(path).image_grounding
    assert block is not None
    return serving_of(block.vlm, block.workflow)


def options_of(vlm: VlmBlock, workflow: WorkflowBlock, **command: Any) -> RunOptions:
    """The run options that the spec states; `command` has those of the command line."""
    prices = vlm.prices and Prices(vlm.prices.input, vlm.prices.output, vlm.prices.cached_input)
    settings: dict[str, Any] = {
        "max_attempts": workflow.max_attempts,
        "max_requests": workflow.max_requests,
        "budget_usd": workflow.budget_usd,
        "prices": prices,
        "force_reprocess": workflow.force_reprocess,
        "stream": workflow.stream,
    }
    return RunOptions(**{**settings, **{name: value for name, value in command.items() if value is not None}})


class SpecRun:
    """A spec made ready to run: everything that can be wrong before the first request has been looked at."""

    def __init__(self, spec: Spec, **command: Any) -> None:
        block = spec.image_grounding
        assert isinstance(block, ImageGroundingBlock)
        self.spec = spec
        self.block = block
        self.options = options_of(block.vlm, block.workflow, **command)
        self.serving = serving_of(block.vlm, block.workflow)
        self.box_format = find_box_format(self.serving.box_format, self.serving.model)
        storage = ResultsStorage(block.data.input_jsonl, spec.results_dir, STEPS, block.data.image_root or None)
        self.storage = storage
        self.steps = _chosen(ImageGroundingPipeline(storage, self.serving).steps(), block.workflow.steps)
        first = self.steps[0]
        if not os.path.exists(first.storage.input_path):
            if first.storage.operator_step:
                raise InputError(f"step {block.workflow.steps[0]} reads {first.storage.input_path}: run step 0 first")
            raise InputError(f"no input file {first.storage.input_path}: check data.input_jsonl")

    def execute(self) -> Summary:
        """Run it; leaves `annotations.jsonl` and `run.json`, the latter also when the run is stopped."""
        started = time.time()
        summary = None
        stopped: RunStopped | None = None
        try:
            summary = execute(self.steps, self.options, ImageGroundingPipeline.name)
            self._copy_last(summary)
            return summary
        except RunStopped as why:
            stopped = why
            raise
        finally:
            if stopped is not None:
                with suppress(InputError):  # what stopped the run is told, not that run.json has no room either
                    self._write_run_json(summary, stopped, started)
            elif summary is not None:
                self._write_run_json(summary, stopped, started)

    def _copy_last(self, summary: Summary) -> None:
        target = os.path.join(self.spec.results_dir, "annotations.jsonl")
        if summary.done:
            try:
                copy_file(self.steps[-1].storage.output_path, target)
            except OSError as error:
                raise StorageFailed(
                    f"can't write {target}: {error.strerror or error}. Run the same command again"
                ) from None
        summary.annotations = target

    def plan(self) -> dict[str, Any]:
        """What would run, for `--dry-run`."""
        return {
            "pipeline": self.spec.autolabel_type,
            "model": self.serving.model,
            "endpoint": self.serving.endpoint,
            "box_format": self.box_format.name,
            "input": self.steps[0].storage.input_path,
            "steps": [{"step": step.label, "writes": step.storage.output_path} for step in self.steps],
        }

    def describe(self) -> str:
        """The plan in words."""
        plan = self.plan()
        lines = [f"{plan['pipeline']} with {plan['model']} at {plan['endpoint']}, boxes in {plan['box_format']}"]
        lines += [f"reads {plan['input']}"]
        lines += [f"{step['step']} writes {step['writes']}" for step in plan["steps"]]
        return "\n".join([*lines, "Nothing was sent."])

    def _write_run_json(self, summary: Summary | None, stopped: RunStopped | None, started: float) -> None:
        """What ran, with which settings and results; API keys are left out."""
        if summary is not None and summary.already_complete:
            return
        spec = self.spec.model_dump()
        for backend in ("gemini", "openai"):
            spec["image_grounding"]["vlm"][backend].pop("api_key", None)
        run = {
            "state": "finished" if summary is not None else "stopped",
            "stopped_by": str(stopped) if stopped else None,
            "version": __version__,
            "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
            "model": self.serving.model,
            "endpoint": self.serving.endpoint,
            "box_format": {"name": self.box_format.name, "from": _format_origin(self.block.vlm, self.serving)},
            "summary": summary.to_json() if summary else stopped and stopped.summary,
            "spec": spec,
        }
        path = os.path.join(self.spec.results_dir, "run.json")
        write_text(path, json.dumps(run, indent=1, ensure_ascii=False) + "\n")


def _format_origin(vlm: VlmBlock, serving: Serving) -> str:
    if vlm.backend == "embedded":
        return "the embedded grounder's own"
    return "the model's name" if serving.box_format == "auto" else "vlm.box_format"


def _chosen(steps: list[Step], names: list[str]) -> list[Step]:
    """The steps that the spec asks for, in order. Raises SpecError for a name that no step has, or a gap."""
    known = [str(place) for place in range(len(steps))]
    wrong = [name for name in names if name not in known]
    if wrong or not names:
        raise SpecError(f"workflow.steps {names}: the steps are {', '.join(known)}")
    return [step for place, step in enumerate(steps) if str(place) in names]
