"""The commands `import` and `export`: from another format, to another one."""

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from typing import Any

import click

from dataflow_grounding._util.errors import InputError, errors_as
from dataflow_grounding._util.paths import absolute, joined, names_in
from dataflow_grounding._util.terminal import counted, say, say_json
from dataflow_grounding.cli.arguments import (
    Range,
    answer,
    any_path,
    completed_from,
    image_root_option,
    json_option,
    mention_reviewed_file,
)
from dataflow_grounding.data.bad_entries import BadEntries, skipped_lines
from dataflow_grounding.data.classes import (
    CLASSES_FILE,
    ClassList,
    classes_of,
    file_of_classes,
    parts_of,
    split_of,
)
from dataflow_grounding.data.records import JsonObject, Update, dump_text, path_of
from dataflow_grounding.data.results import RecordsOf
from dataflow_grounding.data.results_folder import image_folders_of, run_of
from dataflow_grounding.data.rows import RowWriter, write_text
from dataflow_grounding.data.shared_stems import SharedStems
from dataflow_grounding.formats import (
    READ,
    WRITTEN,
    folder_of,
    format_to_read,
    has_option,
    read,
    write,
)
from dataflow_grounding.formats.class_tables import UNLISTED
from dataflow_grounding.formats.format import Format
from dataflow_grounding.formats.reading import Doubts, with_sizes
from dataflow_grounding.formats.samples import Exported
from dataflow_grounding.formats.selection import Selection
from dataflow_grounding.images.image import waits


class _ClassScore(click.ParamType):  # type: ignore[type-arg]
    """The type of `--min-score`: a class, "" for all, and the score, from `0.5` or `person=0.3`."""

    name = "class_score"
    _score = Range(0, 1)

    def convert(self, value: Any, *where: Any) -> tuple[str, float]:
        name, _, score = str(value).rpartition("=")
        return name.strip(), self._score.convert(score, *where)


def _parse_options(
    ctx: click.Context, parameter: click.Parameter, texts: tuple[str, ...]
) -> dict[str, int | str]:
    """("offset=1",) → {"offset": 1}"""
    options: dict[str, int | str] = {}
    for text in texts:
        name, _, value = text.partition("=")
        is_name_value = "=" in text and name
        is_repeated = name in options
        is_given_by_command = name in ("path", "format", "image_root")  # as arguments of its own
        if not is_name_value or is_repeated or is_given_by_command:
            raise click.BadParameter(
                "should be an option of the format, as offset=1, and each once", ctx, parameter
            )
        options[name] = int(value) if value.isdecimal() else value
    return options


_ANNOTATIONS_FILE = "annotations.jsonl"
_RUN_FILE = "run.json"
_UNPACKED = ".unpacked"  # pictures of the data, until all records are read
_ROOT_TO_NAME = "name the right folder as --image-root"


@click.command("import")
@click.argument("path", type=click.Path(exists=True))
@click.option(
    "--format",
    "format",
    required=True,
    metavar="F",
    shell_complete=completed_from(READ),
    help=f"{', '.join(READ)}, or your module:Class.",
)
@click.option(
    "-o",
    "out",
    required=True,
    metavar="RESULTS",
    type=any_path,
    help="The results folder to write.",
)
@click.option(
    "--image-root",
    metavar="DIR",
    type=any_path,
    help="Where the pictures are, if not next to PATH.",
)
@click.option(
    "--set",
    "options",
    multiple=True,
    callback=_parse_options,
    metavar="NAME=VALUE",
    help="An option of the source format.",
)
@click.option(
    "--strict",
    is_flag=True,
    help=(
        "Stop at the first entry that can't be read, or picture that isn't found or has no label"
        " file."
    ),
)
@json_option
def import_(
    path: str,
    format: str,
    out: str,
    image_root: str | None,
    options: dict[str, int | str],
    strict: bool,
    as_json: bool,
) -> int:
    """Turn PATH, a file or folder in another tool's format, into a results folder for `report`,
    `eval`, `export`. Entries that can't be read are left out and named.
    """
    annotations = os.path.join(out, _ANNOTATIONS_FILE)
    folder = image_root or folder_of(path)
    # The folder may be the user's own, with a list of classes that isn't this import's.
    for name in (_ANNOTATIONS_FILE, _RUN_FILE, CLASSES_FILE):
        file = os.path.join(out, name)
        if os.path.exists(file):
            raise InputError(f"{file} is there already: choose another folder")
    source = format_to_read(format, **options)
    source.bad = BadEntries(stops=strict)
    source.strict = strict
    # Reading the records also sets `preamble`, `passed_over`, `bad` and `remarks` of `source`.
    count, remarks_on_records = _import_records(path, source, folder, annotations)
    _write_about_import(path, format, source, folder, out)
    passed_over = +source.passed_over  # those above 0
    remarks = [*source.remarks, *remarks_on_records]
    facts = {
        "annotations": annotations,
        "records": count,
        "left_out": passed_over,
        "left_out_first": {what: source.passed_over.first[what] for what in passed_over},
        "bad": _bad_facts(source.bad),
        "remarks": remarks,
    }
    lines = [f"{annotations}: {counted(count, 'record')}"]
    lines += [*source.passed_over.lines(), *skipped_lines(source.bad), *remarks]
    answer(as_json, facts, lines)
    return int(source.bad.count > 0 or count == 0)


def _import_records(
    path: str, source: Format, folder: str, annotations: str
) -> tuple[int, list[str]]:
    """Write the records into `annotations`; return their number, and remarks on them."""
    out = os.path.dirname(annotations)
    is_new_folder = not os.path.exists(out)
    # Outside of the `try`: if this fails, another import is at work there, and its folder stays.
    with errors_as(InputError, f"can't write {annotations}"):
        writer = RowWriter(annotations)
    try:
        with closing(writer):  # which removes the file, unless it was committed
            with _pictures_at_end(source, out):
                remarks = _write_records(writer, path, source, folder)
                # What was passed over is printed: then a source without records is all right.
                if not writer.count and not +source.passed_over:
                    raise InputError(
                        f"{path} holds nothing to read: no picture, line or entry of this format"
                    )
            writer.commit()
    except BaseException:  # also Ctrl-C
        if is_new_folder:
            with suppress(OSError):  # it may have something of others by now
                os.rmdir(out)
        raise
    return writer.count, remarks


@contextmanager
def _pictures_at_end(source: Format, out: str) -> Iterator[None]:
    """Let `source` unpack pictures into a folder aside, and put them in place after the block."""
    target = source.pictures or out
    aside = os.path.join(out, _UNPACKED)
    shutil.rmtree(aside, ignore_errors=True)  # of an import that was killed
    source.pictures = aside
    try:
        yield
        with errors_as(InputError, f"can't write into {target}"):
            for name in names_in(aside):
                place = os.path.join(target, name)
                os.makedirs(os.path.dirname(place), exist_ok=True)
                shutil.move(os.path.join(aside, name), place)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _write_records(writer: RowWriter, path: str, source: Format, folder: str) -> list[str]:
    """Write the records, and return remarks on them."""
    doubts = Doubts()
    stems = SharedStems()  # remarks on a.jpg next to a.png: both would have the label file a.txt
    missing_count = 0
    first_missing = ""
    folders = (folder, source.pictures, ".")  # `source.pictures`: those that came in the data
    records = read(path, source, image_root=folder)
    for record in with_sizes(records, folder, doubts):
        picture = path_of(record)
        stems.add(picture)
        if _is_missing(picture, folders):
            if source.strict:
                raise InputError(f"no picture {picture} in {folder}: {_ROOT_TO_NAME}")
            missing_count += 1
            first_missing = first_missing or picture
        writer.write(_with_classes(record, source.class_names))
    remarks = [*doubts.remarks(), *stems.remarks()]
    if missing_count:
        remarks.append(
            f"no picture in {folder} for {missing_count:,} of {writer.count:,}, the first is"
            f" {first_missing}: {_ROOT_TO_NAME}"
        )
    return remarks


def _write_about_import(path: str, format: str, source: Format, folder: str, out: str) -> None:
    """Write run.json, where `export` finds preamble and pictures' folder, and the classes."""
    imported: dict[str, object] = {
        "format": format,
        "path": os.path.abspath(path),
        "preamble": dict(source.preamble),
    }
    if source.bad.count:
        imported["bad"] = _bad_facts(source.bad)
    run = {"imported": imported, "image_folders": [absolute(folder)]}
    write_text(os.path.join(out, _RUN_FILE), dump_text(run, 2) + "\n")
    if source.class_names:
        names = "".join(f"{' '.join(name.split())}\n" for name in source.class_names)
        write_text(os.path.join(out, CLASSES_FILE), names)


def _bad_facts(bad: BadEntries) -> JsonObject:
    return {"count": bad.count, "entries": bad.named}


def _is_missing(path: str, folders: Sequence[str]) -> bool:
    if waits(path, folders):  # a store isn't asked
        return False
    return not path or not any(os.path.exists(joined(folder, path)) for folder in folders)


def _with_classes(record: Update, names: Sequence[str]) -> Update:
    """Give each phrase that is a class's name that class, unless it states one already."""
    expressions = []
    for expression in record.get("expressions") or ():
        is_class_name = expression.get("text") in names
        if is_class_name and "class" not in expression:
            expression = {**expression, "class": expression["text"]}
        expressions.append(expression)
    return {**record, "expressions": expressions} if expressions else record


@click.command("export")
@click.argument("results", metavar="RESULTS", type=any_path)
@click.option(
    "--format",
    "format",
    required=True,
    metavar="F",
    shell_complete=completed_from(WRITTEN),
    help=f"{', '.join(WRITTEN)}, or your module:Class.",
)
@click.option(
    "-o",
    "out",
    required=True,
    metavar="PATH",
    type=any_path,
    help="A folder, or only the data file if PATH has its ending.",
)
@click.option(
    "--images",
    type=click.Choice(["copy", "link", "reference"]),
    help=(
        "Copy the pictures, upright (into a folder: the default), link to them, or leave them"
        " where they are."
    ),
)
@image_root_option
@click.option("--strict", is_flag=True, help="Stop if anything would be lost or left out.")
@click.option(
    "--min-score",
    type=_ClassScore(),
    multiple=True,
    metavar="[CLASS=]SCORE",
    help="Only boxes with at least this score; CLASS=SCORE is for one class.",
)
@click.option("--verified-only", is_flag=True, help="Only boxes that a check confirmed.")
@click.option(
    "--partly-verified",
    is_flag=True,
    help=(
        "For detectors: also pictures in which a box may be missing, such as those with an"
        " undecided class."
    ),
)
@click.option("--keep-rejected", is_flag=True, help="Also boxes that a reviewer rejected.")
@click.option(
    "--target",
    metavar="MODEL",
    help="The model family to train, for formats that write numbers as text.",
)
@click.option(
    "--classes",
    metavar="HOW",
    help="The categories: class (default), phrase, head, one, or a YAML file with a mapping.",
)
@click.option(
    "--flat",
    is_flag=True,
    default=None,
    help="YOLO, VOC, KITTI, DOTA: all pictures in one folder, with their folders as prefixes.",
)
@json_option
def export(
    results: str,
    format: str,
    image_root: str | None,
    out: str,
    as_json: bool,
    min_score: tuple[tuple[str, float], ...],
    verified_only: bool,
    partly_verified: bool,
    keep_rejected: bool,
    **options: Any,
) -> int:
    """Write RESULTS (a run's folder, a file of records, a folder of `split`) in a format that a
    trainer reads; say what is lost in it.
    """
    mention_reviewed_file(results)
    split_folder = split_of(results)
    if split_folder:
        say(
            f"Note: this is one part of a split. `dataflowgrounding export {split_folder}` writes"
            " all of them in one go."
        )
    parts = parts_of(results)  # {} where `results` isn't a split
    options = {name: value for name, value in options.items() if value is not None}
    if has_option(format, "class_list"):
        options["class_list"] = _classes_of_all(results, parts)
    if has_option(format, "preamble"):
        options["preamble"] = _preamble_of(results, format)
    # All of them: what is rejected in one record of a picture is so in its others, too.
    records: Any = RecordsOf(results, keep_rejected=True)
    if parts:
        records = {name: RecordsOf(path, keep_rejected=True) for name, path in parts.items()}
    score_of_class = dict(min_score)
    score_of_other_classes = score_of_class.pop("", None)
    select = Selection(
        min_score=score_of_other_classes,
        min_scores=score_of_class,
        verified_only=verified_only,
        keep_rejected=keep_rejected,
        partly_verified=partly_verified,
    )
    folders = image_folders_of(results, image_root)
    exported = write(records, format, out, folders=folders, select=select, **options)
    for name in sorted(select.unmet):  # classes that `write` hasn't come across
        exported.remarks.append(f"--min-score {name}=…: there is no phrase of this class")
    list_file = file_of_classes(results)
    have_unlisted_classes = any(UNLISTED in remark for remark in exported.remarks)
    if list_file and have_unlisted_classes:
        exported.remarks.append(f"the list is {list_file}: remove it if it isn't these records'")
    if as_json:
        say_json(_facts_of_export(exported, format))
    else:
        _say_exported(exported, format)
    return int(exported.left_out > 0)


def _preamble_of(results: str, format: str) -> JsonObject:
    """Empty where the results weren't imported from this format."""
    imported = run_of(results).get("imported")
    if not isinstance(imported, dict) or imported.get("format") != format:
        return {}
    preamble = imported.get("preamble")
    return preamble if isinstance(preamble, dict) else {}


def _classes_of_all(results: str, parts: Mapping[str, str]) -> list[str]:
    """The list's classes, then others of the parts: so all parts have the same, in one order."""
    classes = ClassList(classes_of(results))
    for path in parts.values():
        for record in RecordsOf(path, keep_rejected=True):
            classes.add(record)
    return classes.names


def _counts(written: Mapping[str, int]) -> str:
    counts = ", ".join(f"{count:,} {what}" for what, count in written.items())
    return counts or "nothing to write"


def _facts_of_export(exported: Exported, format: str) -> JsonObject:
    facts: dict[str, object] = {"path": exported.path, "format": format, **exported.written}
    facts["lost"] = dict(exported.lost)
    if exported.parts:
        facts["parts"] = exported.parts
    facts["left_out"] = exported.left_out
    facts["reasons"] = exported.reasons
    facts["remarks"] = exported.remarks
    return facts


def _say_exported(exported: Exported, format: str) -> None:
    for name, written in exported.parts.items():
        say(f"{os.path.join(exported.path, name)}: {_counts(written)}", err=False)
    say(f"{exported.path}: {_counts(exported.written)}", err=False)
    if exported.lost:
        say(f"{format} has no place for: {exported.losses()}")
    for line in exported.remarks:
        say(line)
    if exported.left_out:
        records = counted(exported.left_out, "record")
        say(f"left out: {records}, for example {'; '.join(exported.reasons)}")
