"""Asking an endpoint in each way, and keeping what it replied.

Each way is a pipeline that runs on the set's pictures in a separate folder, which has its replies.
"""

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from dataflow_grounding._util.errors import InputError, SpecError, errors_as
from dataflow_grounding._util.files import within
from dataflow_grounding._util.paths import bare_address
from dataflow_grounding._util.terminal import counted, say
from dataflow_grounding._util.version import __version__
from dataflow_grounding.bench.bench_set import PictureSet, shipped_set
from dataflow_grounding.bench.scoring import figures_of_way
from dataflow_grounding.bench.ways import WAYS
from dataflow_grounding.data.records import dump_line, dump_text, read_object
from dataflow_grounding.data.results_folder import CKPT, RUN_JSON
from dataflow_grounding.data.rows import write_text
from dataflow_grounding.engine.costs import paid_by_step
from dataflow_grounding.engine.keyed_log import read_lines, stores_of
from dataflow_grounding.engine.summary import Summary
from dataflow_grounding.jobs.executing import execute_spec
from dataflow_grounding.jobs.spec_run import SpecRun, ready_to_run
from dataflow_grounding.jobs.user_pipeline import UserBlock, UserWorkflow
from dataflow_grounding.spec import RowsData, Spec, VlmBlock
from dataflow_grounding.spec.schema import spec_with
from dataflow_grounding.trust.calibrating import CALIBRATION

# the keys of a document that are the same in calls that measure the same
_SAME = ("version", "set", "pictures", "model", "endpoint")
_ASKED_AT = "asked_at.json"  # of a bench's folder: the address that was asked last


class _Reason(NamedTuple):
    """Why a way is left out, and the error that says so, if there was one."""

    text: str
    error: SpecError | None = None


@dataclass(frozen=True)
class Bench:
    """What to measure; a second call goes on in `folder`."""

    vlm: VlmBlock
    folder: str
    ways: Sequence[str]  # names of WAYS
    max_workers: int = 8
    pictures: int | None = None  # how many of each kind; None for all
    own: PictureSet | None = None  # a user's own, in place of the package's

    @cached_property
    def set(self) -> PictureSet:
        """The pictures that are asked about. Raises InputError where the package lacks its own."""
        return self.own or shipped_set(self.pictures)

    def answerable_ways(self) -> list[str]:
        """Return the ways that the endpoint can answer; say which are left out."""
        if self.vlm.asking != "auto":
            raise SpecError(
                "bench has a way for each form of asking: leave out vlm.asking, and"
                " name the form in --ways"
            )
        answerable: list[str] = []
        reason_by_way: dict[str, _Reason] = {}
        for way in self.ways:
            reason = self._reason_against(way)
            if reason is None:
                answerable.append(way)
            else:
                reason_by_way[way] = reason
        if not answerable:
            for reason in reason_by_way.values():
                if reason.error is not None:  # it may be of all ways: a wrong key, say
                    raise reason.error
            raise SpecError("the endpoint can answer none of these ways: name others in --ways")
        for way, reason in reason_by_way.items():
            say(f"{way} is left out: {reason.text}.")
        return answerable

    def _reason_against(self, way: str) -> _Reason | None:
        """Return why the endpoint can't answer a way; None if it can."""
        try:
            why = _why_unanswerable(self.run_of(way))
        except SpecError as error:
            # If the model can't be told not to think, this way alone is left out. With a wrong key,
            # all ways are: then the caller raises the error.
            what_is_wrong, _, _what_to_do = str(error).partition(": ")
            return _Reason(what_is_wrong, error)
        return _Reason(why) if why else None

    def run_of(self, way: str) -> SpecRun:
        """Return the run of a way, whose questions are written next to its folder."""
        path = within(self.folder, f"{way}.jsonl")
        rows = WAYS[way].rows_of(self.set.records)
        with errors_as(InputError, f"can't write {path}"):
            os.makedirs(self.folder, exist_ok=True)
            write_text(path, "".join(map(dump_line, rows)))
        return ready_to_run(self._spec_of(way, path))

    def _spec_of(self, way: str, rows_path: str) -> Spec:
        pipeline = WAYS[way]
        block = UserBlock(
            vlm=self.vlm,
            workflow=UserWorkflow(max_workers=self.max_workers),
            data=RowsData(input_jsonl=rows_path, image_root=self.set.folder),
        )
        block_name = str(pipeline.name)
        block_by_name: dict[str, Any] = {block_name: block}
        spec_class = spec_with(block_name, UserBlock)  # a Spec with the pipeline's own key
        return spec_class(
            results_dir=within(self.folder, way),
            autolabel_type=f"{pipeline.__module__}:{pipeline.__name__}",
            **block_by_name,
        )


def measure(bench: Bench, earlier: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Ask in each way, and yield what `bench.json` holds after each; `earlier` is what it held."""
    ways = bench.answerable_ways()
    first = bench.run_of(ways[0])
    for way in ways:
        _refuse_other_models(bench, way, first.serving.model)
    document = _begun_document(bench, first, earlier)
    address_file = os.path.join(bench.folder, CKPT, _ASKED_AT)
    _tell_of_another_address(bench.folder, address_file, document, earlier)
    # Kept before the first request: a bench may be killed before it has any `bench.json`.
    with errors_as(InputError, f"can't write {address_file}"):
        write_text(address_file, dump_text({"endpoint": document["endpoint"]}) + "\n")
    for way in ways:
        # A run knows what was found out about the endpoint before it was made. So each is made when
        # its turn comes, the first one for a second time.
        run = bench.run_of(way)
        _measure_way(bench, way, run, document)  # puts the figures into the document
        yield document


def _begun_document(bench: Bench, first: SpecRun, earlier: Mapping[str, Any]) -> dict[str, Any]:
    """Return what `bench.json` holds before any way is measured."""
    document: dict[str, Any] = {
        "version": __version__,
        "when": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "set": bench.set.digest(),
        "pictures": bench.pictures,
        "model": first.serving.model,
        "endpoint": bare_address(first.serving.endpoint),
        "ways": {},
    }
    if all(earlier.get(name) == document[name] for name in _SAME):
        document["ways"].update(earlier["ways"])
    return document


def _measure_way(bench: Bench, way: str, run: SpecRun, document: dict[str, Any]) -> None:
    """Ask in a way, and put its figures into the document."""
    say(f"{way}: {WAYS[way].about}, of {run.who}.")
    summary = execute_spec(run)
    _tell_what_to_do_about(way, summary)
    # If no request was sent, because all replies were stored, earlier figures stay. Only the call
    # that sent the requests knows how many replies were unreadable.
    are_all_stored = not summary.requests["sent"]
    if are_all_stored and way in document["ways"]:
        return
    measured = {**document["ways"], way: _measured(bench, way, run, summary)}
    # The document has ways in the order of WAYS, in whichever order they were measured.
    document["ways"] = {name: measured[name] for name in WAYS if name in measured}


def _measured(bench: Bench, way: str, run: SpecRun, summary: Summary) -> dict[str, Any]:
    """Return what `bench.json` holds of a way, after its run."""
    box_format = None  # of a way that asks for no boxes
    if run.job.box_format is not None:
        box_format = run.job.box_format.format.name
    return {
        "box_format": box_format,
        "run": {**_paid_for(run), "seconds": _seconds_of(run)},
        "figures": figures_of_way(way, summary, bench.set.records),
    }


def _tell_what_to_do_about(way: str, summary: Summary) -> None:
    if summary.handover.passing_failures:
        pictures = counted(summary.handover.passing_failures, "picture")
        say(f"{way}: {pictures} may not fail again: the same command asks about them once more.")
    if summary.requests["kept"]:
        replies = counted(summary.requests["kept"], "reply")
        say(
            f"{way}: {replies} came from a gateway's cache, and may be older than the model:"
            " switch it off, and measure in another folder with -o."
        )


def _refuse_other_models(bench: Bench, way: str, model: str) -> None:
    for path in stores_of(within(bench.folder, way)):
        for line in read_lines(path):
            other = line.get("model")  # which gave the reply
            if isinstance(other, str) and other != model:
                raise SpecError(
                    f"{bench.folder} has replies of {other}: measure {model} in another folder,"
                    " with -o"
                )


def _tell_of_another_address(
    folder: str, address_file: str, document: Mapping[str, Any], earlier: Mapping[str, Any]
) -> None:
    endpoint = document["endpoint"]
    # The file has the address that was asked last. If the file is lost, the `earlier` document has
    # the address with which some way was measured.
    before = read_object(address_file).get("endpoint") or earlier.get("endpoint")
    if before and before != endpoint:
        say(
            f"Note: {folder} has replies from {before}. As {document['model']} is their model, too,"
            f" they count for {endpoint}, and are not asked for again: to measure another server,"
            " name another folder with -o."
        )


def _why_unanswerable(run: SpecRun) -> str:
    """Return "m1 can't answer box_check, missing_boxes", or "" for no such task."""
    answerable = run.serving.tasks
    if answerable is None:  # it answers any
        return ""
    unanswerable: dict[str, None] = {}  # each task once
    for operator in run.job.operators:
        for task in operator.tasks:
            if task not in answerable:
                unanswerable[task] = None
    if not unanswerable:
        return ""
    return f"{run.serving.model} can't answer {', '.join(unanswerable)}"


def _paid_for(run: SpecRun) -> dict[str, Any]:
    """Return requests, tokens and USD of all calls so far, by the stored replies."""
    steps = paid_by_step(run.spec.results_dir, run.options.prices)
    costs = [step["cost_usd"] for step in steps]
    tests = 0
    tokens = {"input": 0, "cached": 0, "output": 0}
    for step in steps:
        # Tests show rectangles of ours in place of a picture of the set. The calibration finds out
        # by them how the model writes boxes. Other steps check whether it still writes them so.
        if step["step"] == CALIBRATION:
            tests += step["requests"]  # all of them are tests
        else:
            tests += step["checks"]["requests"]
        for name in tokens:
            tokens[name] += step["tokens"][name]
    return {
        "requests": sum(step["requests"] for step in steps),
        "tests": tests,
        "tokens": tokens,
        "cost_usd": None if None in costs else round(sum(costs), 6),
    }


def _seconds_of(run: SpecRun) -> float:
    stated = read_object(os.path.join(run.spec.results_dir, RUN_JSON))
    return float(stated["summary"]["seconds"])


def write_document(document: dict[str, Any], path: str) -> None:
    write_text(path, dump_text(document, 1) + "\n")
