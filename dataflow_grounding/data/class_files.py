"""Files of class names: a name in each line, Ultralytics' YAML, COCO's JSON."""

import json
from os.path import splitext
from typing import Any, NamedTuple

from dataflow_grounding._util.errors import InputError, SpecError
from dataflow_grounding._util.paths import kind_of, open_input


class Names(NamedTuple):
    """The names of YOLO's classes, from class 0, and how many numbers of keypoints follow a box."""

    classes: list[str]
    keypoints: int = 0  # 0 for labels without keypoints


def read_names(path: str) -> Names:
    """Return the classes of a data set's YAML (.yaml, .yml), or of a file of one name per line.

    YAML has `names`, a list or a mapping from 0 on, and perhaps `kpt_shape`. Names are as they are
    written: `no` and `007` are texts, too. In other files, empty lines are left out. Raises
    InputError for a file that can't be read so.
    """
    text = text_of(path)
    if not path.lower().endswith((".yaml", ".yml")):
        return Names(_lines_of(text))
    data = yaml_of(path, text)
    try:
        names = _names_in(data)
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise TypeError("names should be texts")
        keypoints = 0
        kpt_shape = data.get("kpt_shape")
        if kpt_shape not in (None, "", "null", "~"):  # YAML writes null in several ways
            points, numbers_of_point = kpt_shape  # ["17", "3"]
            keypoints = int(points) * int(numbers_of_point)
        return Names(names, keypoints)
    except (LookupError, TypeError, ValueError, AttributeError):
        raise InputError(
            f"{path} has no 'names' of classes 0, 1, 2 ..., or no kpt_shape such as [17, 3]"
        ) from None


def read_class_file(path: str) -> Any:
    """Return what `data.classes` may name: the names of classes, or a YAML mapping of phrases.

    Raises SpecError.
    """
    ending = splitext(path)[1].lower()
    try:
        if kind_of(path) != "file":
            raise InputError(
                f"no file {path}. Name a file of class names, or give a list of them: [person, cup]"
            )
        text = text_of(path)
        if ending == ".json":
            classes = _of_json(json.loads(text))
        elif ending in (".yaml", ".yml"):
            data = yaml_of(path, text)
            is_data_set = isinstance(data, dict) and "names" in data
            classes = _names_in(data) if is_data_set else data
        else:
            classes = _lines_of(text)
    except InputError as error:
        raise SpecError(f"classes: {error}") from None
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        # from a file of another shape, such as one whose categories are numbers
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        if isinstance(error, KeyError):
            reason = f"a category has no {reason}"
        raise SpecError(f"classes: can't read the names of classes in {path}: {reason}") from None
    if not classes:
        raise SpecError(f"classes: {path} has no names of classes in it")
    return classes


def yaml_of(path: str, text: str) -> Any:
    """Return what a YAML text says, with every value a text: `no` is one, too."""
    import yaml

    from dataflow_grounding._util.yaml_limits import check_values

    try:
        check_values(text)  # a few lines with aliases may be more than memory holds
        return yaml.load(text, Loader=getattr(yaml, "CBaseLoader", yaml.BaseLoader))
    except yaml.YAMLError as error:
        why = f"it is not YAML: {str(error).splitlines()[0]}"
    except ValueError as error:
        why = str(error).splitlines()[0]
    raise InputError(f"can't read the names of classes in {path}: {why}")


def text_of(path: str) -> str:
    try:
        with open_input(path) as file:
            return file.read().decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(f"{path} is not a text in UTF-8: save it as one") from None
    except OSError as error:
        raise InputError(f"can't read the names of classes in {path}: {error}") from None


def _lines_of(text: str) -> list[str]:
    lines = [line.strip() for line in text.splitlines()]
    return [line for line in lines if line]


def _of_json(data: Any) -> Any:
    if isinstance(data, dict) and isinstance(data.get("categories"), list):
        categories = sorted(data["categories"], key=lambda category: category["id"])
        return [category["name"] for category in categories]
    return data


def _names_in(data: Any) -> Any:
    """Return `names` of a data set's YAML: [cat, dog], or {0: cat, 1: dog} in this order."""
    names = data["names"]
    if isinstance(names, dict):
        by_number = {int(number): name for number, name in names.items()}
        if sorted(by_number) != [*range(len(by_number))]:
            raise ValueError("its names should have the numbers 0, 1, 2 ...")
        return [by_number[number] for number in range(len(by_number))]
    return names
