"""Write records in a format: select what is wanted, count what is lost, write the README."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files

from dataflow_grounding._util.errors import InputError, errors_as
from dataflow_grounding._util.terminal import counted
from dataflow_grounding._util.version import __version__
from dataflow_grounding.data.records import path_of
from dataflow_grounding.formats import FORMATS, WRITTEN
from dataflow_grounding.formats.export_folder import (
    MARK,
    README,
    ExportFolder,
    is_data_file,
)
from dataflow_grounding.formats.export_pictures import ExportPictures, Images
from dataflow_grounding.formats.format import NOT_IN_CAPTION, Format
from dataflow_grounding.formats.imported import COLUMN, kept_of
from dataflow_grounding.formats.samples import Exported, Rows, SampleMaker
from dataflow_grounding.formats.selection import Selection

# A path that ends so is meant as one file; a new folder of such a name would be a mistake.
_FILE_ENDINGS = (".json", ".jsonl", ".xml", ".yaml", ".txt", ".parquet", ".tar")
_SECTION = "\n## "  # begins a format's part of training.md, before the format's name


def export(
    records: Rows | Mapping[str, Rows],
    format: Format,
    path: str,
    images: Images | None,
    folders: Sequence[str],
    select: Selection,
    strict: bool,
) -> Exported:
    """Write records, or the parts of a split: all of it, or nothing if anything is raised.

    Without any records an empty export is written; a part of a split has to have some. With
    `strict` nothing may be lost, and no rare remark of the model be left without a person's
    decision.
    """
    part_names = list(records) if isinstance(records, Mapping) else []
    only_file = _only_file(path, format, images, part_names)
    if images is None:
        images = "copy" if only_file is None else "reference"
    exported = Exported(path)
    writer = _Writer(format, images, folders, select)
    out = ExportFolder(path, only_file, parts=part_names)
    with errors_as(InputError, f"can't write {path}"), out:
        with format.shared(out):  # what the parts share, such as the names of classes
            pictures = writer.write_all(records, out, exported)
        _refuse_losses(format, exported, strict)
        if strict:
            _refuse_rare_remarks(exported)
        remarks_of_model = exported.said.line()
        if remarks_of_model:
            exported.remarks.append(f"remarks of the model: {remarks_of_model}")
        exported.remarks += dict.fromkeys(format.remarks)  # parts of a split may have the same
        exported.remarks[:0] = exported.counted()
        # Where one file is wanted, the README is thrown away with the folder.
        with out.file(README) as file:
            file.write(_readme(format, exported, pictures, out))
    return exported


@dataclass(frozen=True)
class _Writer:
    """Writes records, or the parts of a split, with the same settings."""

    format: Format
    images: Images
    folders: Sequence[str]
    select: Selection

    def write_all(
        self, records: Rows | Mapping[str, Rows], out: ExportFolder, exported: Exported
    ) -> ExportPictures:
        """Write records, or each part into its folder; return how pictures were treated."""
        if not isinstance(records, Mapping):
            return self._write(records, out, exported)
        for name, rows in records.items():
            part = Exported(name)
            pictures = self._write(rows, out.part(name), part)
            _add_part(exported, part)
        return pictures  # they are treated in the same way in all parts

    def _write(self, rows: Rows, folder: ExportFolder, exported: Exported) -> ExportPictures:
        pictures = ExportPictures(
            folder,
            self.images,
            self.folders,
            packs=self.format.packs,
            flat=getattr(self.format, "flat", False),
            shows_upright=self.format.shows_upright,
        )
        maker = SampleMaker(self.format, pictures, self.select, exported)
        try:
            self.format.write(maker.samples(rows), folder)
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            # Nothing has checked the column of an import before. So any of these errors may mean
            # that somebody has damaged it, in the record that the format asked for last.
            if not kept_of(maker.last_record, self.format.name):
                raise
            raise InputError(
                f"{path_of(maker.last_record)}: its column {COLUMN!r} isn't as the import of"
                f" {self.format.name} wrote it: leave the column out, or import again"
            ) from error
        return pictures


def _only_file(
    path: str, format: Format, images: Images | None, parts: Sequence[str]
) -> str | None:
    """Return the name of the format's data file where `path` means that file; None for a folder."""
    if is_data_file(path, format.data_file):
        _refuse_one_file(path, images, parts)
        return format.data_file
    if path.endswith(_FILE_ENDINGS) and not os.path.isdir(path):
        raise InputError(
            f"{path} is no name for {format.name}'s {format.data_file}: end it so, or name a folder"
        )
    return None


def _refuse_one_file(path: str, images: Images | None, parts: Sequence[str]) -> None:
    if parts:
        raise InputError(
            f"{path} is one file, and {len(parts)} parts are to be written: name a folder"
        )
    if images in ("copy", "link"):
        raise InputError(f"{path} is one file: to {images} the pictures, name a folder")
    if os.path.lexists(path):
        raise InputError(f"{path} is there already: remove it, or choose another name")


def _add_part(whole: Exported, part: Exported) -> None:
    """Add a part's counts to those of the export; InputError for a part without records."""
    if not part.written:
        reasons = "; ".join(filter(None, _why_nothing(part)))
        if not reasons:
            reasons = "the file has none. Remove it, or split more pictures"
        raise InputError(f"nothing is written, because no record of {part.path} is left: {reasons}")
    whole.parts[part.path] = part.written
    whole.written += part.written
    whole.lost += part.lost
    whole.left_out += part.left_out
    whole.said.add_all(part.said)
    whole.reasons += [f"{part.path}, {reason}" for reason in part.reasons]
    whole.noted += part.noted
    whole.remarks += [f"{part.path}: {remark}" for remark in part.remarks]


def _refuse_losses(format: Format, exported: Exported, strict: bool) -> None:
    """Raise InputError where none of all records is left, or `strict` and anything is lost."""
    reasons: list[str] = []
    problem = f"{format.name} would lose"
    if not exported.written:
        reasons = _why_nothing(exported)  # each is "" where there were no records at all
        problem = "no record is left"
    elif strict:
        reasons = [exported.losses(), *exported.reasons]
    why = "; ".join(filter(None, reasons))
    if why:
        raise InputError(f"nothing is written, because {problem}: {why}")


def _refuse_rare_remarks(exported: Exported) -> None:
    if exported.said.rare:
        rare = counted(exported.said.rare, "record")
        raise InputError(
            f"nothing is written, because {rare} came with a remark of the model"
            " that is rare in this data set: decide on them in `dataflowgrounding review`, which"
            " shows them first, and export the reviewed records, or leave out --strict"
        )


def _why_nothing(exported: Exported) -> list[str]:
    """Return why no record is left, in words, of which some may be ""."""
    reasons = [exported.losses(), *exported.reasons, *exported.counted(), *exported.remarks]
    if NOT_IN_CAPTION in exported.lost:
        # detectors are trained on these, and they need no captions
        names = ", ".join(name for name in WRITTEN if "classes" in FORMATS[name]["says"])
        reasons.append(f"classes and phrases of no caption go into {names}, say")
    return reasons


def _readme(format: Format, exported: Exported, pictures: ExportPictures, out: ExportFolder) -> str:
    counts = ", ".join(f"{count:,} {what}" for what, count in exported.written.items())
    where_pictures_are = pictures.described(list(exported.parts))
    if format.packs:
        where_pictures_are = "The pictures are in it."
    paragraphs = [
        f"# {format.name}: {format.about}",
        f"{MARK} {__version__}: {counts or 'nothing'}. {where_pictures_are}",
    ]
    if exported.lost:
        paragraphs.append(f"Lost, because the format can't say it: {exported.losses()}.")
    if exported.left_out:
        paragraphs.append(
            f"Left out: {counted(exported.left_out, 'record')} ({'; '.join(exported.reasons)})."
        )
    paragraphs.append("\n".join(f"- {remark}" for remark in exported.remarks))
    paragraphs += ["## Training", _training_section(format.name), format.training()]
    paragraphs.append(out.named())  # the last line, by which an export is known to be ours
    return "\n\n".join(filter(None, paragraphs)) + "\n"


def _training_section(name: str) -> str:
    """Return what training.md says of a format; "" where it has no section of that name."""
    text = files(__package__).joinpath("training.md").read_text("utf-8")
    for section in f"\n{text}".split(_SECTION):
        title, _, body = section.partition("\n")
        if title == name:
            return body.strip()
    return ""
