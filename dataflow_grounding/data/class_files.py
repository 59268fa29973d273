"""Files of class names, as `data.classes` may name one."""

import json
from os.path import splitext
from typing import Any

from dataflow_grounding._util.errors import InputError, SpecError
from dataflow_grounding._util.paths import kind_of, open_input


def read_class_file(path: str) -> Any:
    """Return the class names in COCO's JSON, Ultralytics' YAML, or a file with one in each line."""
    ending = splitext(path)[1].lower()
    text = _text_of(path)
    try:
        if ending == ".json":
            classes = _of_json(json.loads(text))
        elif ending in (".yaml", ".yml"):
            classes = _of_yaml(text)
        else:
            classes = [line.strip() for line in text.splitlines() if line.strip()]
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        # from a file of another shape, such as one whose categories are numbers
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        if isinstance(error, KeyError):
            reason = f"a category has no {reason}"
        raise SpecError(f"classes: can't read the names of classes in {path}: {reason}") from None
    if not classes:
        raise SpecError(f"classes: {path} has no names of classes in it")
    return classes


def _text_of(path: str) -> str:
    try:
        if kind_of(path) != "file":
            raise SpecError(
                f"classes: no file {path}. Name a file of class names, or give a list of them:"
                " [person, cup]"
            )
        with open_input(path) as file:
            return file.read().decode("utf-8-sig")
    except UnicodeDecodeError:
        raise SpecError(f"classes: {path} is not a text in UTF-8: save it as one") from None
    except (OSError, InputError) as error:
        raise SpecError(f"classes: can't read {path}: {error}") from None


def _of_json(data: Any) -> Any:
    if isinstance(data, dict) and isinstance(data.get("categories"), list):
        categories = sorted(data["categories"], key=lambda category: category["id"])
        return [category["name"] for category in categories]
    return data


def _of_yaml(text: str) -> Any:
    import yaml

    from dataflow_grounding._util.yaml_limits import check_values

    loader = getattr(yaml, "CBaseLoader", yaml.BaseLoader)  # every value is a text: `no` is, too
    try:
        check_values(text)
        data = yaml.load(text, Loader=loader)
    except yaml.YAMLError as error:
        raise ValueError(f"it is not YAML: {str(error).splitlines()[0]}") from None
    if not isinstance(data, dict) or "names" not in data:
        return data
    names = data["names"]  # [person, cup], or {0: person, 1: cup} by number
    if isinstance(names, dict):
        return [names[number] for number in sorted(names, key=int)]
    return names
