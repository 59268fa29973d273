"""What a setting is called: by its key where a spec is read, else by Python's argument."""

from contextvars import ContextVar

speaks_of_specs: ContextVar[bool] = ContextVar("speaks_of_specs", default=False)
"""Whether a spec is read: settings are then called as it has them, else as Python's arguments."""

# Arguments that are called otherwise than the last part of their key, by its last two parts.
_ARGUMENTS = {
    "openai.base_url": "api_url",
    "data.kitti_label_dir": "kitti",
    "data.coco_json": "coco",
    "data.yolo_label_dir": "yolo",
}


def setting(key: str, value: str | None = None) -> str:
    """Return `vlm.check_every: null` where a spec is read, else `check_every=None`."""
    if speaks_of_specs.get():
        return key if value is None else f"{key}: {value}"
    *_, block, name = key.split(".")  # `vlm.openai.base_url`: `openai` and `base_url`
    name = _ARGUMENTS.get(f"{block}.{name}", name)
    if value is None:
        return name
    in_python = "None" if value == "null" else repr(value)
    return f"{name}={in_python}"
