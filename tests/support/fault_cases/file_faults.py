"""Faults of files: caches and manifests that are damaged or odd, inputs that change under a run."""

from __future__ import annotations

import functools
import itertools
import json
import os
from collections.abc import Iterator, Mapping
from typing import Any

from dataflow_grounding.testing.received import ReceivedRequest
from tests.support.fault_cases.fault_case import WHOLE_PARTS, Case, Outcome, at_work, calm, goes_on
from tests.support.workplace import Workplace, caption, command, ended


def damaged_memory(place: Workplace, full: bool) -> Outcome:
    """What is remembered of each image is damaged in a way of its own."""
    names = [f"{number}.jpg" for number in range(40)]
    with at_work(place, 0) as witness:
        for number, name in enumerate(names):
            place.picture(name, (64 + number, 48))
            os.utime(place.folder / name, (1e9, 1e9))  # a younger file is not remembered
        place.rows(
            {"image_path": name, "image_id": name, "caption": caption(n)}
            for n, name in enumerate(names)
        )
        assert place.run().code == 0
        files, kept = place.files(), place.results / ".ckpt" / "images.jsonl"
        lines = [json.loads(text) for text in kept.read_text().splitlines()]
        parts = [name for name in lines[0] if name != "key"]
        for line, (part, wrong) in zip(
            lines, itertools.product(parts, (None, "x", 640, "gone")), strict=False
        ):
            line[part] = wrong
            if wrong == "gone":
                del line[part]
        damaged = [json.dumps(line, separators=(",", ":")) for line in lines]
        kept.write_text("\n".join([*damaged, "[]", "7"]) + "\n")
        (place.results / ".ckpt" / "facts.json").unlink()
        again = ended(place.start())  # another process: this one knows the images
        calm(again)
        assert again.code == 0, again
        assert again.summary["requests"] == 0, again
        assert place.files() == files
        return Outcome(witness.sent, witness.twice, len(names) - len(place.annotations()))


def spoilt(whole: str) -> Iterator[str]:
    """A JSON file damaged in every way: cut off, of other types, each of its values gone or
    another.
    """
    yield from (
        "",
        whole[: len(whole) // 2],
        "[1]",
        "7",
        "null",
        '"x"',
        "[" * 5000,
        '{"a":' * 5000,
        "\0" * 100,
    )
    for place in places(json.loads(whole)):
        for wrong in WRONG:
            yield replaced(whole, {place: wrong})


def spoilt_together(whole: str) -> Iterator[str]:
    """The same quickly, with many values wrong at once: of those at one depth that hold others, and
    of a share of all that hold none.
    """
    yield from ("", whole[: len(whole) // 2], "[1]", "null", '{"a":' * 5000)
    at = [*places(json.loads(whole))]
    outer = {place[:-1] for place in at}
    wrong = dict(zip(at, itertools.cycle(WRONG), strict=False))
    for depth in sorted({len(place) for place in outer} - {0}):
        yield replaced(whole, {p: wrong[p] for p in at if p in outer and len(p) == depth})
    leaves = [place for place in at if place not in outer]
    for share in range(6):
        yield replaced(whole, {place: wrong[place] for place in leaves[share::6]})


def replaced(whole: str, values: Mapping[tuple[Any, ...], Any]) -> str:
    changed = json.loads(whole)
    for (*outer, last), value in values.items():
        inner = changed
        for name in outer:
            inner = inner[name]
        inner[last] = value
    return json.dumps(changed)


WRONG = (None, [1, 2], "x", -5, 1e300, {"zzz": 1})


def places(value: Any) -> Iterator[tuple[Any, ...]]:
    items: Any = value.items() if isinstance(value, dict) else ()
    if isinstance(value, list):
        items = enumerate(value)
    for name, item in items:
        yield (name,)
        yield from ((name, *inner) for inner in places(item))


def odd_file(name: str, place: Workplace, full: bool) -> Outcome:
    """A file left for later runs is damaged: nothing is asked again; what reads it fails with a
    one-line error.
    """
    is_read = name == "run.json"
    with at_work(place, 3) as witness:
        assert place.run().code == 0
        files, path, lost = place.files(), place.results / name, 0
        for text in (spoilt if full else spoilt_together)(path.read_text()):
            path.write_text(text)
            for arguments in (["report"], ["cost"], ["cost", "--json"]) if is_read else ():
                done = command([*arguments, str(place.results)])
                calm(done)
                assert done.code == 0, (done, text)
            done = place.run()
            calm(done)
            assert (done.code, place.files()) == (0, files), (done, text)
            lost += 3 - len(place.annotations())
        assert witness.sent == 6
        return Outcome(witness.sent, witness.twice, lost)


def changed_input(by_rename: bool, place: Workplace, full: bool) -> Outcome:
    """While rows are read, some are added: in place, or by another file in its place."""
    count, more = (100, 30) if full else (15, 5)

    def change(request: ReceivedRequest) -> None:
        if request.index != 10:
            return
        if by_rename:
            place.input.rename(place.folder / "earlier.jsonl")
        place.rows(
            {"image_path": "a.jpg", "image_id": f"r{n}", "caption": caption(n)}
            for n in range(count + more)
        )

    with at_work(place, count) as witness:
        witness.rules.append(change)
        done = place.run()
        calm(done)
        assert done.code == 0, done
        assert done.summary["notes"]["input_changed"] == 1
        return goes_on(place, witness, count + more)


CHANGED = "The run warns of it. The same command adds what is new."

FILES: list[Case] = [
    Case("damaged: image notes", WHOLE_PARTS, damaged_memory),
    Case("damaged: facts.json", WHOLE_PARTS, functools.partial(odd_file, ".ckpt/facts.json")),
    Case("damaged: run.json", WHOLE_PARTS, functools.partial(odd_file, "run.json")),
    Case("an input, while read: appended to", CHANGED, functools.partial(changed_input, False)),
    Case("an input, while read: replaced", CHANGED, functools.partial(changed_input, True)),
]
