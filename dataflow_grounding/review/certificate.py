"""The certificate of a reviewed sample: how much of a file of records is wrong, with bounds."""

import json
import os
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import sha256
from importlib import resources
from typing import Any, NamedTuple

from dataflow_grounding._util.errors import GroundingError, InputError
from dataflow_grounding._util.paths import joined
from dataflow_grounding._util.secrets import excerpt
from dataflow_grounding._util.terminal import counted
from dataflow_grounding._util.version import __version__
from dataflow_grounding.data.records import dump_text, path_of, read_object
from dataflow_grounding.data.results_folder import image_folders_of, run_of, stated_in
from dataflow_grounding.data.rows import write_text
from dataflow_grounding.review._certificate_page import (
    certificate_page,
    verdict_of,
    ways_to_settle,
    widened_bounds,
)
from dataflow_grounding.review._decisions import Decisions, review_files
from dataflow_grounding.review._record_view import path_of_picture
from dataflow_grounding.review._sampling import (
    figure,
    figures,
    gold_answers,
    groups_of,
    mixed_in,
    settled_of,
)
from dataflow_grounding.review.queues import Item, Reviewable, digest_of

_MOST_TOLD = 12
"""Groups of a kind, such as classes, that are listed in a line: those with the most boxes."""


class StatedSample(NamedTuple):
    """A sample that reviews.jsonl states of the file as it is.

    `about` is what the certificate says of it: `size`, `seed`, `when`, `who`, and in `gold` the
    digests of the gold files that were mixed in. `items` are those that it drew.
    """

    about: dict[str, Any]
    items: list[Item]


def certify(
    results: str,
    gold: str | None = None,
    max_error: float | None = None,
    working: str | None = None,
) -> dict[str, Any]:
    """Write and return the certificate of RESULTS: `certificate_of` and `when` it was written.

    It is written to `certificate.json` next to the records, for `x.jsonl` to `x.certificate.json`;
    the file has a `checksum` besides. Takes and raises what `certificate_of` does.
    """
    certificate = certificate_of(results, gold, max_error, working)
    certificate["when"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    signed = {**certificate, "checksum": _checksum(certificate)}
    write_text(_certificate_path(results), dump_text(signed, 1) + "\n")
    return certificate


def write_page(results: str, certificate: Mapping[str, Any]) -> str:
    """Write a certificate as a page next to the certificate's file, and return the page's path.

    Raises InputError where it can't be written.
    """
    certificate_path = _certificate_path(results)
    path = f"{os.path.splitext(certificate_path)[0]}.html"
    file_name = os.path.basename(certificate_path)
    write_text(path, certificate_page(certificate, results, file_name))
    return path


def changes_since(results: str) -> Iterator[str]:
    """Yield a line for each thing that has changed since the certificate was written.

    That is the certificate itself, a file that it names, or a figure: the certificate is worked out
    again and compared. If it can't be, as a file is gone or damaged, only the files are compared,
    and the error is given as the new `sentence`. The last line may name pictures that couldn't be
    checked. Raises InputError where there is no certificate.
    """
    path = _certificate_path(results)
    certificate = read_object(path)
    files = certificate.get("files")
    if not isinstance(files, dict):
        raise InputError(
            f"{path} is no certificate: `dataflowgrounding certify {results}` writes one"
        )
    with open(path, encoding="utf-8", newline="") as file:
        # The whole text: of a key that was written twice a checksum sees one value, a person both.
        is_as_written = file.read() == dump_text(certificate, 1) + "\n"
    if certificate.pop("checksum", None) != _checksum(certificate) or not is_as_written:
        yield f"{path}: edited since it was written"
    folder = os.path.dirname(path)
    try:
        now = _certificate_now(results, certificate, folder)
    except (GroundingError, KeyError, TypeError) as why:
        # the certificate's own folder counts first, then those where the run found its pictures
        folders = (*reversed(image_folders_of(results)), folder or os.curdir)
        digests = {name: digest_of(_file_in_last_folder(name, folders)) for name in files}
        now = {**certificate, "files": digests, "sentence": str(why)}
    yield from _differences(certificate, json.loads(json.dumps(now)))
    never_found = [
        name for name, digest in now["files"].items() if digest is None and files.get(name) is None
    ]
    if never_found:  # nobody can say whether these have changed
        yield (
            f"not checked: {counted(len(never_found), 'picture')}, not found when it was written"
            f" nor now: {never_found!r:.300}"
        )


def _certificate_now(results: str, certificate: Mapping[str, Any], folder: str) -> dict[str, Any]:
    # When it was written, and by which version if that makes no difference, is as it says, too.
    # `folder` is the certificate's, from which it names gold.
    gold = None
    if certificate.get("gold"):
        gold = os.path.join(folder, certificate["gold"]["file"])
    max_error = None
    if certificate.get("target"):
        max_error = certificate["target"]["max_error"]
    now = certificate_of(results, gold, max_error, certificate.get("working_folder"))
    now["when"] = certificate.get("when")
    if now["prompts"] is None:
        # Nothing of this package made the records, so that its version makes no difference.
        now["version"] = certificate.get("version")
    return now


def certificate_of(
    results: str,
    gold: str | None = None,
    max_error: float | None = None,
    working: str | None = None,
) -> dict[str, Any]:
    """Return what the reviewed sample says of RESULTS.

    All samples that `review --sample` stated for the file as it is count as one: none can be left
    out. With m of them bounds are at 1 - 0.05 / m, so that drawing samples until the figure pleases
    gains nothing.

    Args:
        results: A results folder, one of its steps', or a file of records.
        gold: Records with right boxes: how often reviewers were wrong on them.
        max_error: The share of wrong boxes that is accepted.
        working: The folder that relative paths of the run start from, from the results' own; None
            for the current one.

    Returns:
        JSON: `sentence`; what `figures` gives; `not_settled`, the items that are open, if any are;
            `samples`, `reviewers`, `gold`, `target`; `statuses`
            and `checks` of phrases and `run`, as the pipeline wrote them; `working_folder`; SHA-256
            of `files` (None for a picture that is not found) and `prompts` (None where no run.json
            says that prompts of ours were asked); `version`.

    Raises:
        InputError: No sample was stated for this file, one is not what its seed draws, or a file
            can't be read.
    """
    reviewable = Reviewable(results)
    decisions = reviewable.decisions
    decisions.tell_damaged()
    folder = os.path.dirname(reviewable.files.annotations) or "."
    working = working or os.path.relpath(os.curdir, folder)
    reviewable.folders += (os.path.normpath(os.path.join(os.path.abspath(folder), working)),)

    samples = _samples(reviewable, decisions)
    run_model = run_of(reviewable.files.annotations).get("model")
    groups, phrases = groups_of(reviewable, str(run_model or ""))
    drawn: dict[Item, None] = {}  # in the order in which they were drawn, each once
    for sample in samples:
        drawn.update(dict.fromkeys(sample.items))
    settled = settled_of(reviewable, drawn)
    certificate = figures(groups, len(phrases), settled, 1 - 0.05 / len(samples))
    certificate["samples"] = [sample.about for sample in samples]
    certificate["reviewers"] = _reviewers(reviewable, settled)
    unsettled = [item for item, is_right in settled.items() if is_right is None]
    if unsettled:
        certificate["not_settled"] = [
            [reviewable.keys[item.record], item.id, item.box] for item in unsettled
        ]
    certificate["gold"] = gold
    if gold:
        on_gold = _on_gold(reviewable, gold, samples)
        certificate["gold"] = {"file": os.path.relpath(gold, folder), **on_gold}
    certificate["target"] = max_error
    if max_error is not None:
        accepted = certificate["boxes"]["high"] <= max_error
        certificate["target"] = {"max_error": max_error, "accepted": accepted}
    certificate.update(_statuses_and_checks(phrases))
    certificate["working_folder"] = working
    certificate.update(_sources(reviewable, drawn, gold, folder))
    return {"sentence": _sentence(certificate), **certificate}


def _reviewers(reviewable: Reviewable, settled: Mapping[Item, bool | None]) -> dict[str, int]:
    # One who judged another box of a phrase didn't judge this one.
    counts = Counter[str]()
    for item, is_right in settled.items():
        if is_right is None:
            counts["None"] += 1
            continue
        outcome = reviewable.placed(item.record).outcomes[item.id]
        box = None if item.box is None else outcome.box_after(item.box)
        counts[str((box or {}).get("reviewed_by") or outcome.who)] += 1
    return dict(counts)


def _statuses_and_checks(phrases: Sequence[Mapping[str, str]]) -> dict[str, Any]:
    # The share of a check is of the phrases that were checked.
    statuses = Counter(own["status"] for own in phrases)
    checks = Counter(own["check"] for own in phrases if "check" in own)
    shares: dict[str, Any] = {}
    for check, number in checks.items():
        shares[check] = {"phrases": number, "share": round(number / checks.total(), 6)}
    return {"statuses": dict(statuses), "checks": shares}


def _samples(reviewable: Reviewable, decisions: Decisions) -> list[StatedSample]:
    # Return the samples that were stated of the file as it is, each size and seed once. Those
    # stated of another version of the file, and what is no sample, are passed over. The folders in
    # which their reviewers had pictures looked for are put before those of `reviewable`.
    samples: dict[tuple[int, int], StatedSample] = {}
    for stated in decisions.samples:
        size = stated.get("size")
        seed = stated.get("seed")
        if type(size) is not int or type(seed) is not int or size <= 0:
            continue
        drawn, items = reviewable.draw_sample(size, seed)
        if stated.get("annotations") != drawn["annotations"] or stated.get("of") != drawn["of"]:
            continue  # it is of another version of the file, or of one that counted otherwise
        if any(stated.get(name) != value for name, value in drawn.items()):
            raise InputError(
                f"{decisions.path}: the sample of seed {seed} is not what it draws: it was edited"
            )
        if stated.get("image_root"):
            # A relative one starts from the file of decisions. Earlier versions always stated an
            # absolute one.
            pictures = joined(os.path.dirname(decisions.path), str(stated["image_root"]))
            reviewable.folders = (pictures, *reviewable.folders)
        if (size, seed) not in samples:
            about = {name: stated[name] for name in ("size", "seed", "when", "who")}
            samples[size, seed] = StatedSample({**about, "gold": []}, items)
        if stated.get("gold"):
            samples[size, seed].about["gold"].append(stated["gold"])
    if not samples:
        since = "has none"
        size = 200
        further = ""
        if decisions.samples:
            since = "has changed since one was stated"
            further = ": what was judged and is as it was still counts, only the rest is asked for"
            stated_size = decisions.samples[-1].get("size")
            size = stated_size if type(stated_size) is int and stated_size > 0 else size
        command = f"dataflowgrounding review {reviewable.files.annotations} --sample {size}"
        raise InputError(
            f"no sample to certify: {reviewable.files.annotations} {since}. Run `{command}`"
            f"{further}"
        )
    return list(samples.values())


def _on_gold(reviewable: Reviewable, gold: str, samples: Iterable[StatedSample]) -> dict[str, Any]:
    # All items count that the gold has an answer for and somebody decided. Those that were mixed
    # into a sample and aren't settled count besides, and as wrong: else leaving hard ones open
    # would look better.
    answers = gold_answers(reviewable, gold)
    digest = digest_of(gold)
    shown: set[Item] = set()
    for sample in samples:
        if digest in sample.about["gold"]:
            shown.update(mixed_in(answers, sample.items))
    settled = settled_of(reviewable, answers)
    agreements: list[bool | None] = []
    for item, answer in answers.items():
        verdict = settled[item]
        if verdict is not None:
            agreements.append(verdict == answer)
        elif item in shown:
            agreements.append(None)
    return figure(agreements)


def _sources(
    reviewable: Reviewable, drawn: Iterable[Item], gold: str | None, folder: str
) -> dict[str, Any]:
    # Files are those of the review, of the run's data, and the pictures of the drawn items. They
    # are called by their paths from `folder`, or as run and records name them, so that the folder
    # may be moved. A picture that isn't found has the digest None.
    # The folder's own run.json counts before the one above it.
    run_path = _file_in_last_folder("run.json", (os.path.join(folder, ".."), folder))
    run = read_object(run_path)  # empty where there is no run.json: then the path is ""
    paths: dict[str, str] = {}  # where each file is, by what it is called
    annotations, decisions, _ = reviewable.files
    for path in (annotations, decisions, run_path, gold):
        if path:
            paths[os.path.relpath(path, folder)] = path
    for data in stated_in(run, "data"):
        for name in map(str, data.values()):
            path = _file_in_last_folder(name, reviewable.folders)
            if path:
                paths[name] = path
    for index in sorted({item.record for item in drawn}):
        record = reviewable.record(index)
        name = path_of(record)
        try:
            paths[name] = path_of_picture(record)
        except GroundingError:
            paths[name] = ""  # no file, so it gets the digest None
    prompts = sorted(resources.files("dataflow_grounding.tasks.prompts").iterdir(), key=str)
    texts = [prompt.read_text("utf-8") for prompt in prompts if prompt.name.endswith(".txt")]
    facts = ("model", "box_format", "version", "started", "summary")
    return {
        "run": {name: run.get(name) for name in facts},
        "files": {name: digest_of(path) for name, path in paths.items() if name},
        "prompts": _checksum(texts) if run else None,
        "version": __version__,
    }


def _file_in_last_folder(path: str, folders: Sequence[str]) -> str:
    for folder in reversed(folders):
        candidate = os.path.join(folder, path)
        if os.path.isfile(candidate):
            return candidate
    return ""


def _certificate_path(results: str) -> str:
    return review_files(results).decisions.removesuffix("reviews.jsonl") + "certificate.json"


def _checksum(value: Any) -> str:
    return sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _differences(before: Any, now: Any, name: str = "") -> Iterator[str]:
    # Lists are compared as a whole. `name` are the keys that lead to both pieces.
    if isinstance(before, dict) and isinstance(now, dict):
        for key in dict.fromkeys([*before, *now]):
            yield from _differences(
                before.get(key), now.get(key), f"{name}: {key}" if name else key
            )
    elif before != now:
        yield f"{name}: {before!r:.300}, now {now!r:.300}"


def _sentence(certificate: Mapping[str, Any]) -> str:
    boxes = certificate["boxes"]
    missed = certificate["phrases_missed"]
    gold = certificate["gold"]
    target = certificate["target"]
    text = _in_percent(boxes, f" of {boxes['of']:,} boxes wrong") + ", "
    text += _in_percent(missed, f" of {missed['phrases']:,} phrases missed")
    unsettled = boxes["unsettled"] + missed["unsettled"]
    looked_at = boxes["looked_at"] + missed["looked_at"]
    if looked_at and set(certificate["reviewers"]) == {"None"}:
        text = f"Nobody has judged this sample of {looked_at} yet; {text}"
    elif unsettled:
        text += f"; {unsettled} of {looked_at} not settled, counted as wrong"
    not_found = list(certificate["files"].values()).count(None)
    if not_found:
        text += f"; {counted(not_found, 'picture')} not found, and so in no digest"
    if gold:
        text += "; reviewers wrong on " + _in_percent(gold, f" of {gold['looked_at']} gold items")
    if target:
        text += f"; {verdict_of(target, boxes)}"
    return text


def certificate_lines(certificate: Mapping[str, Any], results: str) -> Iterator[str]:
    """Yield a certificate in lines for people.

    These are its sentence, how to settle what isn't, the shares by group, and what the pipeline's
    checks said of phrases. `results` is what the certified results are called.
    """
    yield certificate["sentence"]
    yield from ways_to_settle(certificate, results)
    for name, groups in certificate["by"].items():
        largest = sorted(groups, key=lambda group: -groups[group]["of"])[:_MOST_TOLD]
        shares = [_in_percent(groups[group], f" of {excerpt(group, 80)}") for group in largest]
        if len(groups) > len(largest):
            shares.append(f"{len(groups) - len(largest)} more in certificate.json")
        yield f"by {name}: " + "; ".join(shares)
    for check, counts in certificate["checks"].items():
        yield f"check {excerpt(check, 80)}: {100 * counts['share']:.1f}% of phrases"


def _in_percent(figure: Mapping[str, Any], of_what: str) -> str:
    # Where nothing was judged, as nothing was looked at or all of it is unsettled, there are bounds
    # alone. `of_what` is put after the figure: ` of 452 boxes wrong`.
    low, high = widened_bounds(figure)
    all_unsettled = figure["looked_at"] > 0 and figure["unsettled"] == figure["looked_at"]
    if figure["share"] is None or all_unsettled:
        return f"not judged: {low:.1f} to {high:.1f}%{of_what}"
    return f"{100 * figure['share']:.1f}%{of_what} (95%: {low:.1f}–{high:.1f}%)"
