"""The README of an export: what is in it, what was lost, how to train with it, and the types of its columns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dataflow_grounding.formats.base import Format
from dataflow_grounding.formats.export_folder import MARK
from dataflow_grounding.formats.export_pictures import ExportPictures
from dataflow_grounding.version import __version__

if TYPE_CHECKING:
    from dataflow_grounding.formats.export import Exported

_DTYPES = {bool: "bool", int: "int64", float: "float64", str: "string"}


def card(format: Format, done: Exported, pictures: ExportPictures) -> str:
    """The text, in Markdown; for JSON lines with the front matter by which `datasets` knows their types."""
    counts = ", ".join(f"{count:,} {what}" for what, count in done.written.items()) or "nothing"
    parts = [
        f"# {format.name}: {format.about}",
        f"{MARK} {__version__}: {counts}. {pictures.described()}",
        f"Lost, because the format can't say it: {done.losses()}." if done.lost else "",
        f"Left out: {done.left_out} records ({'; '.join(done.reasons)})." if done.left_out else "",
        "\n".join(f"- {remark}" for remark in done.remarks),
        f"## Training\n\n{format.training}" if format.training else "",
    ]
    return _front_matter(format) + "\n\n".join(filter(None, parts)) + "\n"


def _front_matter(format: Format) -> str:
    """`dataset_info`: without it `datasets` fixes the types by the first 10 MB, and ends at what doesn't fit."""
    if format.line is None:
        return ""
    import yaml

    data = {
        "configs": [{"config_name": "default", "data_files": [{"split": "train", "path": format.data_file}]}],
        "dataset_info": {"features": [{"name": key, **_feature(value)} for key, value in format.line.items()]},
    }
    return f"---\n{yaml.safe_dump(data, sort_keys=False, allow_unicode=True)}---\n"


def _feature(value: Any) -> dict[str, Any]:
    """The type of a value as `datasets` states it in a card."""
    if isinstance(value, Mapping):
        return {"struct": [{"name": key, **_feature(item)} for key, item in value.items()]}
    if isinstance(value, list):
        inner = _feature(value[0])
        return {"list": inner["dtype"] if inner.keys() == {"dtype"} else inner.get("struct", inner)}
    return {"dtype": _DTYPES[type(value)]}
