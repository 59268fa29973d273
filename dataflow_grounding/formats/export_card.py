"""The README of an export: what is in it, what was lost, how to train with it, and the types of its columns."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from dataflow_grounding.formats.base import Format
from dataflow_grounding.formats.export_folder import MARK
from dataflow_grounding.formats.export_pictures import ExportPictures
from dataflow_grounding.version import __version__

if TYPE_CHECKING:
    from dataflow_grounding.formats.export import Exported

_DTYPES = {bytes: "image", bool: "bool", int: "int64", float: "float64", str: "string"}


def card(format: Format, done: Exported, pictures: ExportPictures, line: Any) -> str:
    """The text, in Markdown; for JSON lines, of which `line` is one, with their types as `datasets` wants them."""
    counts = ", ".join(f"{count:,} {what}" for what, count in done.written.items()) or "nothing"
    parts = [
        f"# {format.name}: {format.about}",
        f"{MARK} {__version__}: {counts}. {'The pictures are in it.' if format.packs else pictures.described()}",
        f"Lost, because the format can't say it: {done.losses()}." if done.lost else "",
        f"Left out: {done.left_out} records ({'; '.join(done.reasons)})." if done.left_out else "",
        "\n".join(f"- {remark}" for remark in done.remarks),
        "\n\n".join(filter(None, ["## Training", _training(format.name), format.training()])),
    ]
    return _front_matter(format.data_file, line) + "\n\n".join(filter(None, parts)) + "\n"


def _training(name: str) -> str:
    """The format's section of training.md."""
    text = files(__package__).joinpath("training.md").read_text("utf-8")
    sections = dict(part.partition("\n")[::2] for part in f"\n{text}".split("\n## "))
    return sections.get(name, "").strip()


def _front_matter(data_file: str, line: Any) -> str:
    """`dataset_info`: without it `datasets` fixes the types by the first 10 MB, and ends at what doesn't fit."""
    if line is None:
        return ""
    import yaml

    files = {"configs": [{"config_name": "default", "data_files": [{"split": "train", "path": data_file}]}]}
    data = {
        **({} if b"" in line.values() else files),  # it finds pictures, and what they are in, by itself
        "dataset_info": {"features": [{"name": key, **_feature(value)} for key, value in line.items()]},
    }
    return f"---\n{yaml.safe_dump(data, sort_keys=False, allow_unicode=True)}---\n"


def _feature(value: Any) -> dict[str, Any]:
    """The type of a value as `datasets` states it in a card; `null` where nothing tells it."""
    if isinstance(value, Mapping):
        return {"struct": [{"name": key, **_feature(item)} for key, item in value.items()]}
    if isinstance(value, list):
        inner = _feature(value[0] if value else None)
        return {"list": inner["dtype"] if inner.keys() == {"dtype"} else inner.get("struct", inner)}
    return {"dtype": _DTYPES.get(type(value), "null")}
