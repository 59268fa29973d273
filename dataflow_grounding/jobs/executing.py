"""A spec's run, from its lock to its last file."""

import os
import time
from contextlib import suppress

from dataflow_grounding._util.errors import (
    InputError,
    RunStopped,
    SpecError,
    StorageFailed,
    errors_as,
)
from dataflow_grounding.data.classes import names_stated_in
from dataflow_grounding.data.rows import copy_file
from dataflow_grounding.engine.execute import MakeRun, execute
from dataflow_grounding.engine.run import Run
from dataflow_grounding.engine.run_lock import locked_folder
from dataflow_grounding.engine.summary import Summary
from dataflow_grounding.jobs.run_json import stated_spec, write_run_json
from dataflow_grounding.jobs.spec_run import SpecRun


def execute_spec(run: SpecRun, make_run: MakeRun = Run) -> Summary:
    """Run a spec, and return what was done; one that is stopped leaves only `run.json`."""
    steps = run.job.steps
    run.job.refuse_obstacles()
    _refuse_to_replace_a_models_results(run)
    folder = steps[0].storage.checkpoint_folder
    summary: Summary | None = None  # until all steps have ended
    with locked_folder(folder):
        started = time.time()
        try:
            run.job.input.prepare()
            if not run.before:
                # A run that is killed leaves no other: `cost` reads the spec's prices there. Where
                # there is no room for it, the run says so once it is short of room itself.
                with suppress(InputError):
                    write_run_json(run, started)
            summary = execute(
                steps, run.options, run.kind.pipeline.name, locked=folder, run=make_run
            )
            _write_results(run, started, summary)
            return summary
        except RunStopped as stopped:
            # Where run.json can't be written, either, what stopped the run is the better error.
            with suppress(InputError):
                write_run_json(run, started, summary, stopped)
            raise


def _write_results(run: SpecRun, started: float, summary: Summary) -> None:
    """Write what a run leaves when its steps have ended, and complete the summary."""
    if summary.done:
        _write_annotations(run)
    summary.annotations = run.annotations_path
    classes = summary.shown.classes  # the table that people see, in the order of the spec
    if classes.is_of_classes and classes.has_shared_pictures:  # a thing counts once, as in `stats`
        # few runs have several rows of a picture
        from dataflow_grounding.evaluation.figures.counting import figures_of

        classes = figures_of([run.annotations_path], read=False).classes
        summary.shown.classes = classes
    if classes.is_of_classes:
        classes.order = list(names_stated_in({"spec": stated_spec(run.spec)}))
    write_run_json(run, started, summary)
    for step in run.job.steps:
        if os.path.exists(step.storage.output_path):
            run.write_output(step)


def _refuse_to_replace_a_models_results(run: SpecRun) -> None:
    earlier_model = run.before.get("model")
    is_of_another_model = earlier_model not in (None, run.serving.model)
    # With `auto`, the embedded grounder runs if the environment names no endpoint: in a new
    # terminal that may be by mistake.
    if run.spec.block.vlm.backend == "auto" and is_of_another_model:
        results = f"{run.spec.results_dir} has results of {earlier_model}"
        way = "set DF_BASE_URL and DF_MODEL as then, or choose another results_dir"
        raise SpecError(f"{results}, and no endpoint is named now: {way}")


def _write_annotations(run: SpecRun) -> None:
    target = run.annotations_path
    with errors_as(StorageFailed, f"can't write {target}", again=True):
        paths = [step.storage.output_path for step in run.job.steps]
        # A step of another library's operator may have no file.
        written = [path for path in paths if os.path.exists(path)]
        copy_file(written[-1], target)
