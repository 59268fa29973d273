"""The certificate of a reviewed sample: how much of a file of records is wrong, with bounds, and
what that rests on.
"""

import json
import math
import os
import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from hashlib import sha256
from importlib import resources
from typing import Any

from dataflow_grounding._util.errors import GroundingError, InputError
from dataflow_grounding._util.secrets import excerpt
from dataflow_grounding._util.terminal import counted
from dataflow_grounding._util.version import __version__
from dataflow_grounding.data.records import dump_text, path_of, read_object
from dataflow_grounding.data.results_folder import stated_in
from dataflow_grounding.data.rows import write_text
from dataflow_grounding.extras.review._decisions import Decisions, review_files
from dataflow_grounding.extras.review._record_view import path_of_picture
from dataflow_grounding.extras.review._sampling import (
    figure,
    figures,
    gold_answers,
    groups_of,
    mixed_in,
    settled_of,
)
from dataflow_grounding.extras.review.queues import Item, Reviewable, digest_of


def certify(results: str, **how: Any) -> dict[str, Any]:
    """Write what `certificate_of` says, with the time and a checksum: `certificate.json` beside the
    records, of `x.jsonl` `x.certificate.json`. Raises InputError.
    """
    found = {
        **certificate_of(results, **how),
        "when": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    write_text(_path(results), dump_text({**found, "checksum": _checksum(found)}, 1) + "\n")
    return found


def changes_since(results: str) -> Iterator[str]:
    """What has changed since the certificate was written: itself, files or figures, a line each;
    all is reckoned anew.

    Raises InputError where there is no certificate.
    """
    told = read_object(path := _path(results))
    if not isinstance(files := told.get("files"), dict):
        raise InputError(
            f"{path} is no certificate: `dataflowgrounding certify {results}` writes one"
        )
    with open(path, encoding="utf-8", newline="") as file:
        # of two values under one key a reader sees the other
        as_written = file.read() == dump_text(told, 1) + "\n"
    if told.pop("checksum", None) != _checksum(told) or not as_written:
        yield f"{path}: edited since it was written"
    gold, target, folder = told.get("gold"), told.get("target"), os.path.dirname(path)
    try:
        gold = gold and os.path.join(folder, gold["file"])
        error = target and target["max_error"]
        now = {
            **certificate_of(results, gold, error, told.get("working_folder")),
            "when": told.get("when"),
        }
    except (GroundingError, KeyError, TypeError) as why:
        now = {
            **told,
            "files": {name: digest_of(os.path.join(folder, name)) for name in files},
            "sentence": str(why),
        }
    yield from _differences(told, json.loads(json.dumps(now)))
    if unread := [
        name for name, digest in now["files"].items() if digest is files.get(name) is None
    ]:
        yield (
            f"not checked: {counted(len(unread), 'picture')}, not found when it was written nor"
            f" now: {unread!r:.300}"
        )


def certificate_of(
    results: str,
    gold: str | None = None,
    max_error: float | None = None,
    working: str | None = None,
) -> dict[str, Any]:
    """What the reviewed sample says of RESULTS.

    The sample is all that `review --sample` stated for the file as it is: none can be left out.
    Where m samples were stated they count as one, and bounds are at 1 - 0.05 / m: to go on until
    the figure pleases gains nothing.

    Args:
        results: A results folder, one of its steps', or a file of records.
        gold: Records with right boxes: how often reviewers were wrong on them.
        max_error: The share of wrong boxes that is accepted.
        working: The folder that relative paths of the run start from, from the results' own; None
            for the current one.

    Returns:
        JSON: `sentence`; what `figures` gives; `samples`, `reviewers`, `gold`, `target`; `statuses`
            and `checks` of
        phrases and `run`, as the pipeline told them; SHA-256 of `files` (None of a picture that is
        not found) and `prompts`; `version`.

    Raises:
        InputError: No sample was stated for this file, one is not what its seed draws, or a file
            can't be read.
    """
    reviewable = Reviewable(results)
    decisions, folder = (
        Decisions(reviewable.files.decisions),
        os.path.dirname(reviewable.files.annotations) or ".",
    )
    decisions.tell_damaged()
    working = working or os.path.relpath(os.curdir, folder)
    reviewable.folders += (os.path.normpath(os.path.join(os.path.abspath(folder), working)),)
    sampled, groups = _sampled(reviewable, decisions), groups_of(reviewable)
    samples, drawn = (
        [told for told, _ in sampled],
        dict.fromkeys(item for _, items in sampled for item in items),
    )
    found = figures(groups, settled_of(reviewable, decisions, drawn), 1 - 0.05 / len(samples))
    phrases = [item for item in groups if not item.box]  # each by its first box, or none
    checks = Counter(groups[item]["check"] for item in phrases if "check" in groups[item])
    found |= {
        "samples": samples,
        "reviewers": {
            **Counter(str(decisions.by.get((reviewable.keys[i.record], i.id))) for i in drawn)
        },
        "gold": (
            gold
            and {
                "file": os.path.relpath(gold, folder),
                **_on_gold(reviewable, decisions, gold, sampled),
            }
        ),
        "target": (
            max_error and {"max_error": max_error, "accepted": found["boxes"]["high"] <= max_error}
        ),
        "statuses": {**Counter(item.status for item in phrases)},
        "checks": {
            said: {"phrases": n, "share": round(n / checks.total(), 6)}
            for said, n in checks.items()
        },
        "working_folder": working,
        **_rests_on(reviewable, drawn, gold, folder),
    }
    return {"sentence": _sentence(found), **found}


def _sampled(
    reviewable: Reviewable, decisions: Decisions
) -> list[tuple[dict[str, Any], list[Item]]]:
    """The samples of the file as it is, each with what it drew; their pictures are found then.
    Raises InputError.
    """
    samples = dict[Any, tuple[dict[str, Any], list[Item]]]()
    for one in decisions.samples:
        size, seed = one.get("size"), one.get("seed")
        if not (type(size) is type(seed) is int and size > 0):
            continue
        drawn, items = reviewable.sample(size, seed)
        if one.get("annotations") == drawn["annotations"]:
            if {**one, **drawn} != one:
                raise InputError(
                    f"{decisions.path}: the sample of seed {seed} is not what it draws: it was"
                    " edited"
                )
            known = {**{name: one[name] for name in ("size", "seed", "when", "who")}, "gold": []}
            if one.get("image_root"):
                reviewable.folders = (str(one["image_root"]), *reviewable.folders)
            told, _ = samples.setdefault((size, seed), (known, items))
            told["gold"] += [one["gold"]] if one.get("gold") else []
    if not samples:
        since = "has changed since one was stated" if decisions.samples else "has none"
        command = f"dataflowgrounding review {reviewable.files.annotations} --sample 200"
        raise InputError(
            f"no sample to certify: {reviewable.files.annotations} {since}. Run `{command}`"
        )
    return [*samples.values()]


def _on_gold(
    reviewable: Reviewable,
    decisions: Decisions,
    gold: str,
    sampled: Iterable[tuple[Mapping[str, Any], list[Item]]],
) -> dict[str, Any]:
    """How often reviewers said otherwise than the gold; what was mixed in and not settled counts as
    wrong.
    """
    answers, digest = gold_answers(reviewable, gold), digest_of(gold)
    shown = {
        item for one, drawn in sampled if digest in one["gold"] for item in mixed_in(answers, drawn)
    }
    said = settled_of(reviewable, decisions, answers)
    told = {
        item: None if said[item] is None else said[item] == right for item, right in answers.items()
    }
    return figure([right for item, right in told.items() if right is not None or item in shown])


def _rests_on(
    reviewable: Reviewable, drawn: Collection[Item], gold: str | None, folder: str
) -> dict[str, Any]:
    """What `run.json` told, and digests of all that was read, by paths from the folder; of the
    run's files and pictures as they are named, so that the folder may be moved.
    """
    run = read_object(at := _found("run.json", (os.path.join(folder, ".."), folder)))
    paths = {
        os.path.relpath(path, folder): path for path in (*reviewable.files[:2], at, gold) if path
    }
    named = [str(value) for data in stated_in(run, "data") for value in data.values()]
    paths |= {path: file for path in named if (file := _found(path, reviewable.folders))}
    for record in map(reviewable.record, sorted({item.record for item in drawn})):
        paths[path_of(record)] = ""
        with suppress(GroundingError):
            paths[path_of(record)] = path_of_picture(record)
    prompts = sorted(resources.files("dataflow_grounding.tasks.prompts").iterdir(), key=str)
    return {
        "run": {
            name: run.get(name) for name in ("model", "box_format", "version", "started", "summary")
        },
        "files": {name: digest_of(path) for name, path in paths.items() if name},
        "prompts": _checksum(
            [one.read_text("utf-8") for one in prompts if one.name.endswith(".txt")]
        ),
        "version": __version__,
    }


def _found(path: str, folders: Sequence[str]) -> str:
    return next(filter(os.path.isfile, (os.path.join(at, path) for at in reversed(folders))), "")


def _path(results: str) -> str:
    return review_files(results).decisions.removesuffix("reviews.jsonl") + "certificate.json"


def _checksum(value: Any) -> str:
    return sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _differences(told: Any, now: Any, name: str = "") -> Iterator[str]:
    if isinstance(told, dict) and isinstance(now, dict):
        for key in dict.fromkeys([*told, *now]):
            yield from _differences(told.get(key), now.get(key), f"{name}: {key}" if name else key)
    elif told != now:
        yield f"{name}: {told!r:.300}, now {now!r:.300}"


def _sentence(found: Mapping[str, Any]) -> str:
    boxes, missed, target, gold = (
        found[name] for name in ("boxes", "phrases_missed", "target", "gold")
    )
    text = _told(boxes, f" of {boxes['of']:,} boxes wrong") + ", "
    text += _told(missed, f" of {missed['phrases']:,} phrases missed")
    if unsettled := boxes["unsettled"] + missed["unsettled"]:
        text += (
            f"; {unsettled} of {boxes['looked_at'] + missed['looked_at']} not settled, counted as"
            " wrong"
        )
    if unread := [*found["files"].values()].count(None):
        text += f"; {counted(unread, 'picture')} not found, and so in no digest"
    if gold:
        text += "; reviewers wrong on " + _told(gold, f" of {gold['looked_at']} gold items")
    if target:
        text += (
            f"; {'accepted' if target['accepted'] else 'not accepted'}: at most"
            f" {100 * target['max_error']:g}%"
        )
    return text


def told_lines(found: Mapping[str, Any]) -> Iterator[str]:
    """A certificate for people: its sentence, the shares by group, and what the pipeline's checks
    said of phrases.
    """
    yield found["sentence"]
    for name, groups in found["by"].items():
        yield f"by {name}: " + "; ".join(
            _told(one, f" of {excerpt(group, 80)}") for group, one in groups.items()
        )
    for said, one in found["checks"].items():
        yield f"check {excerpt(said, 80)}: {100 * one['share']:.1f}% of phrases"


def _told(figure: Mapping[str, Any], what: str) -> str:
    """A share of something in percent, and its bounds, rounded outwards."""
    share = "unknown" if figure["share"] is None else f"{100 * figure['share']:.1f}%"
    low, high = (
        math.floor(round(1000 * figure["low"], 3)) / 10,
        math.ceil(round(1000 * figure["high"], 3)) / 10,
    )
    return f"{share}{what} (95%: {low:.1f}–{high:.1f}%)"
