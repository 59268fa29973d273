"""The certificate of a reviewed sample: how much of a file of records is wrong, with bounds, and what that rests on."""

import json
import math
import os
import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from hashlib import sha256
from importlib import resources
from typing import Any

from dataflow_grounding.errors import GroundingError, InputError
from dataflow_grounding.images import find_image
from dataflow_grounding.records import dump_text, read_object
from dataflow_grounding.review.decisions import Decisions, review_files
from dataflow_grounding.review.queues import Item, Reviewable
from dataflow_grounding.review.sampling import figure, figures, gold_answers, groups_of, ratio, settled_of
from dataflow_grounding.rows import write_text
from dataflow_grounding.version import __version__

_OF_RUN = ("model", "box_format", "version", "started")
_OF_SUMMARY = ("images", "done", "failed", "notes", "failures")


def certify(results: str, **how: Any) -> dict[str, Any]:
    """Write what `certificate_of` says, with the time and a checksum: `certificate.json` beside the records, of
    `x.jsonl` `x.certificate.json`. Raises InputError.
    """
    found = {**certificate_of(results, **how), "when": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
    write_text(_path(results), dump_text({**found, "checksum": _checksum(found)}, 1) + "\n")
    return found


def changes_since(results: str) -> list[str]:
    """What has changed since the certificate was written: files, figures or itself, a line each; all is reckoned anew.

    Raises InputError where there is no certificate.
    """
    folder, told = os.path.dirname(path := _path(results)), read_object(path)
    if not isinstance(files := told.get("files"), dict):
        raise InputError(f"{path} is no certificate: `dataflowgrounding certify {results}` writes one")
    found = [] if told.pop("checksum", None) == _checksum(told) else [f"{path}: edited since it was written"]
    now: dict[str, Any] = {**told, "files": {name: _digest(os.path.join(folder, name)) for name in files}}
    with suppress(KeyError, TypeError):  # edited so that it no longer says how it was made
        gold, target = told["gold"], told["target"]
        try:
            how = {"gold": gold and os.path.join(folder, gold["file"]), "max_error": target and target["max_error"]}
            now = {**certificate_of(results, **how), "when": told["when"]}
        except GroundingError as why:
            now["sentence"] = str(why)
    return [*found, *_differences(told, json.loads(json.dumps(now)))]


def certificate_of(results: str, gold: str | None = None, max_error: float | None = None) -> dict[str, Any]:
    """What the reviewed sample says of RESULTS.

    The sample is all that `review --sample` stated for the file as it is: none can be left out. Where m samples were
    stated they count as one, and bounds are at 1 - 0.05 / m: to go on until the figure pleases gains nothing.

    Args:
        results: A results folder, one of its steps', or a file of records.
        gold: Records with right boxes: how often reviewers were wrong on them.
        max_error: The share of wrong boxes that is accepted.

    Returns:
        JSON: `sentence`; what `figures` gives; `samples`, `reviewers`, `gold`, `target`; `statuses` and `checks` of
        phrases and `run`, as the pipeline told them; SHA-256 of `files` and `prompts`; `version`.

    Raises:
        InputError: No sample was stated for this file, one is not what its seed draws, or a file can't be read.
    """
    reviewable = Reviewable(results)
    decisions, folder = Decisions(reviewable.files.decisions), os.path.dirname(reviewable.files.annotations) or "."
    stated, groups = _stated(reviewable, decisions), groups_of(reviewable)
    places = {(reviewable.keys[item.record], item.id, item.box): item for item in reviewable.items}
    drawn = dict.fromkeys(places[key, id, box] for one in stated for key, id, box in one["items"])
    found = figures(groups, settled_of(reviewable, decisions, drawn), 1 - 0.05 / len(stated))
    by = Counter(str(decisions.by.get((reviewable.keys[item.record], item.id))) for item in drawn)
    checks: dict[str, Counter[str]] = {}
    for item, own in groups.items():
        if "check" in own and not item.box:  # the phrase's first
            checks.setdefault(own["check"].rpartition(": ")[0], Counter())[own["check"].rpartition(": ")[2]] += 1
    rejected = {name: ratio(n["not verified"], n["not verified"] + n["verified"]) for name, n in checks.items()}
    found |= {
        "samples": [{name: one[name] for name in ("size", "seed", "when", "who")} for one in stated],
        "reviewers": {**by},
        "gold": gold and {"file": os.path.relpath(gold, folder), **_on_gold(reviewable, decisions, gold)},
        "target": max_error and {"max_error": max_error, "accepted": found["boxes"]["high"] <= max_error},
        "statuses": {**Counter(item.status for item in groups if not item.box)},
        "checks": {name: {**counts, "rejected": rejected[name]} for name, counts in checks.items()},
        **_rests_on(reviewable, drawn, gold, folder),
    }
    return {"sentence": _sentence(found), **found}


def _stated(reviewable: Reviewable, decisions: Decisions) -> list[dict[str, Any]]:
    """The samples of the file as it is, each once. Raises InputError."""
    found = dict[Any, dict[str, Any]]()
    for one in decisions.samples:
        size, seed = one.get("size"), one.get("seed")
        drawn = reviewable.sample(size, seed) if type(size) is type(seed) is int and size > 0 else {}
        if one.get("annotations") == drawn.get("annotations"):
            if {**one, **drawn} != one:
                raise InputError(
                    f"{decisions.path}: a sample stated there is not what seed {seed} draws: it was edited"
                )
            found.setdefault((size, seed), one)
    if not found:
        since = "has changed since one was stated" if decisions.samples else "has none"
        command = f"dataflowgrounding review {reviewable.files.annotations} --sample 200"
        raise InputError(f"no sample to certify: {reviewable.files.annotations} {since}. Run `{command}`")
    return [*found.values()]


def _on_gold(reviewable: Reviewable, decisions: Decisions, gold: str) -> dict[str, Any]:
    """How often reviewers said otherwise than the gold."""
    answers = gold_answers(reviewable, gold)
    said = settled_of(reviewable, decisions, answers)
    return figure([said[item] == right for item, right in answers.items() if said[item] is not None])


def _rests_on(reviewable: Reviewable, drawn: Collection[Item], gold: str | None, folder: str) -> dict[str, Any]:
    """What `run.json` told, and digests of all that was read, by paths from the folder."""
    at = next(filter(os.path.exists, (os.path.join(folder, up, "run.json") for up in ("", ".."))), "")
    run = read_object(at)
    summary, spec = (run[name] if isinstance(run.get(name), dict) else {} for name in ("summary", "spec"))
    data = [block.get("data") for block in spec.values() if isinstance(block, dict)]
    inputs = [str(path) for block in data if isinstance(block, dict) for path in block.values()]
    paths = [*reviewable.files[:2], at, gold or "", *filter(os.path.isfile, inputs)]
    for place in sorted({item.record for item in drawn}):
        record = reviewable.record(place)
        with suppress(GroundingError):
            paths.append(find_image(record, "image_path" if "image_path" in record else "image").path)
    prompts = sorted(resources.files("dataflow_grounding.prompts").iterdir(), key=str)
    return {
        "run": {name: run.get(name) for name in _OF_RUN} | {name: summary.get(name) for name in _OF_SUMMARY},
        "files": {os.path.relpath(path, folder): _digest(path) for path in paths if path},
        "prompts": _checksum([one.read_text("utf-8") for one in prompts if one.name.endswith(".txt")]),
        "version": __version__,
    }


def _path(results: str) -> str:
    return review_files(results).decisions.removesuffix("reviews.jsonl") + "certificate.json"


def _digest(path: str) -> str | None:
    """Of a file's bytes; None where it can't be read."""
    digest = sha256()
    with suppress(OSError), open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
        return digest.hexdigest()
    return None


def _checksum(value: Any) -> str:
    return sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _differences(told: Any, now: Any, name: str = "") -> Iterator[str]:
    """Where two JSON values differ, a line each."""
    if isinstance(told, dict) and isinstance(now, dict):
        for key in dict.fromkeys([*told, *now]):
            yield from _differences(told.get(key), now.get(key), f"{name}: {key}" if name else key)
    elif told != now:
        yield f"{name}: {told!r:.100}, now {now!r:.100}"


def _sentence(found: Mapping[str, Any]) -> str:
    boxes, missed, target, gold = (found[name] for name in ("boxes", "phrases_missed", "target", "gold"))
    text = f"{shown(boxes)} of {boxes['of']:,} boxes wrong {bounds(boxes)}"
    text += f", {shown(missed)} of {missed['phrases']:,} phrases missed {bounds(missed)}"
    if open_ones := boxes["unsettled"] + missed["unsettled"]:
        text += f"; {open_ones} of {boxes['looked_at'] + missed['looked_at']} not settled, counted as wrong"
    if gold:
        text += f"; reviewers wrong on {gold['wrong']} of {gold['looked_at']} of the gold {bounds(gold)}"
    if target:
        text += f"; {'accepted' if target['accepted'] else 'not accepted'}: at most {100 * target['max_error']:g}%"
    return text


def told_lines(found: Mapping[str, Any]) -> Iterator[str]:
    """A certificate for people: its sentence, the shares by group, and what the pipeline's checks rejected."""
    yield found["sentence"]
    for name, groups in found["by"].items():
        yield f"by {name}: " + "; ".join(f"{group} {shown(one)} {bounds(one)}" for group, one in groups.items())
    for name, check in found["checks"].items():
        yield f"{name} rejected {shown({'share': check['rejected']})} of phrases that it judged"


def shown(figure: Mapping[str, Any]) -> str:
    """The share of a figure in percent."""
    return "unknown" if figure["share"] is None else f"{100 * figure['share']:.1f}%"


def bounds(figure: Mapping[str, Any]) -> str:
    """The bounds of a figure in percent, rounded outwards."""
    low, high = math.floor(round(1000 * figure["low"], 3)) / 10, math.ceil(round(1000 * figure["high"], 3)) / 10
    return f"(95%: {low:.1f}–{high:.1f}%)"
