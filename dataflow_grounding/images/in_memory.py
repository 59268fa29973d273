"""Pictures that are given in memory, kept as files while the process runs (`as_path`).

They are bytes of image files, PIL images or NumPy arrays. A file is named after a digest of its
content, so that equal pictures are one file.
"""

import atexit
import hashlib
import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dataflow_grounding._util.errors import BrokenRow, GroundingError, ImageBroken, machine_fault
from dataflow_grounding.images.files import on_white, parse_facts

if TYPE_CHECKING:
    from PIL.Image import Image as PillowImage

_EXACT = ("1", "L", "LA", "RGB", "RGBA", "I;16")  # modes whose pixels a PNG holds as they are
# The folder of the files, by process id: a forked process has its parent's variables.
_folders: dict[int, str] = {}


def is_picture(value: Any) -> bool:
    """Return whether `as_path` takes a value for a picture; not a text, which may be anything."""
    is_in_memory = _is_a(value, "ndarray", "numpy") or _is_a(value, "Image", "PIL.Image")
    return (
        is_in_memory
        or isinstance(value, (bytes, bytearray, memoryview, os.PathLike))
        or _is_stored(value)
    )


def as_path(value: Any, name: str) -> str:
    """Return the path of a picture, which is written to a file if it is given in memory.

    Raises BrokenRow for what is no picture, ImageBroken, MachineBusy, StorageFailed.
    """
    if _is_stored(value):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, (str, os.PathLike)):
        return os.fsdecode(value)
    try:
        if isinstance(value, (bytes, bytearray, memoryview)):
            return _file_of_bytes(bytes(value), name)
        if _is_a(value, "ndarray", "numpy"):
            return _file_of_pixels(_from_array(value, name))
        return _file_of_pixels(_from_pillow(value, name))
    except GroundingError:
        raise
    except Exception as error:  # Pillow raises all kinds
        why = " ".join(str(error).split())
        broken = ImageBroken(f"{name}: this {type(value).__name__} can't be read: {why}")
        raise machine_fault(error) or broken from None


def _file_of_bytes(data: bytes, name: str) -> str:
    facts = parse_facts(data, f"{name} of {len(data):,} bytes")
    ending = facts.media_type.partition("/")[2]
    return _written_once(f"{facts.digest[:32]}.{ending}", lambda path: path.write_bytes(data))


def _file_of_pixels(picture: "PillowImage") -> str:
    digest = hashlib.sha256(f"{picture.mode} {picture.size}".encode())
    digest.update(picture.tobytes())
    picture.info = {}  # the pixels alone are written: equal ones are one file
    return _written_once(
        f"{digest.hexdigest()[:32]}.png",
        lambda path: picture.save(path, "PNG", compress_level=1),
    )


def id_of(path: str) -> str:
    """Return what a picture's ids are made of: its path, or the file's name for one from memory."""
    return os.path.basename(path) if os.path.dirname(path) in _folders.values() else path


def _is_stored(value: Any) -> bool:
    """Return whether it is a picture of `datasets`: {"bytes": b"…", "path": "a.jpg"}."""
    return isinstance(value, Mapping) and "bytes" in value and value.keys() <= {"bytes", "path"}


def _is_a(value: Any, name: str, module: str) -> bool:
    """Return whether a value is of a module's class, without importing the module."""
    # None if nobody has imported it, so that no such object exists, or a thread is importing it.
    class_ = getattr(sys.modules.get(module), name, None)
    return isinstance(class_, type) and isinstance(value, class_)


def _from_array(array: Any, name: str) -> "PillowImage":
    import PIL.Image

    shape = tuple(array.shape)
    if str(array.dtype) != "uint8":
        raise BrokenRow(f"{name}: an array of {array.dtype} is not a picture: give uint8, 0 to 255")
    has_colors_last = len(shape) == 3 and shape[2] in (3, 4)
    has_colors_first = len(shape) == 3 and shape[0] in (3, 4)
    if has_colors_first and not has_colors_last:
        raise BrokenRow(
            f"{name}: shape {shape} has its colors first: transpose(1, 2, 0) puts them last"
        )
    is_grey = len(shape) == 2
    if 0 in shape or not (is_grey or has_colors_last):
        raise BrokenRow(
            f"{name}: an array of shape {shape} is not a picture: give H×W, H×W×3 (RGB) or H×W×4"
            " (RGBA)"
        )
    return PIL.Image.fromarray(array)


def _from_pillow(value: Any, name: str) -> "PillowImage":
    if not _is_a(value, "Image", "PIL.Image"):
        pictures = "a path, the bytes of an image file, a PIL image or a NumPy array of uint8"
        given = "None" if value is None else type(value).__name__
        raise BrokenRow(f"{name} should be {pictures}, not {given}")
    import PIL.ImageOps

    value.load()
    if not all(value.size):
        raise BrokenRow(f"{name}: a PIL image of {value.width}×{value.height} pixels is empty")
    if value.mode in ("F", "I"):
        numbers = "floating-point numbers" if value.mode == "F" else "32-bit numbers"
        raise BrokenRow(
            f"{name}: a PIL image of {numbers} is not a picture: scale them to 0 to 255, convert it"
            " to RGB"
        )
    return _in_mode_of_png(PIL.ImageOps.exif_transpose(value))


def _in_mode_of_png(upright: "PillowImage") -> "PillowImage":
    """Return the picture in one of the modes _EXACT."""
    # A picture of 16 bits may name a transparent value in its `info`. The PNG is written without
    # that, so pixels with this value are made white now.
    if upright.mode.startswith("I;16") and upright.has_transparency_data:
        return on_white(upright)
    if upright.has_transparency_data and upright.mode not in ("RGBA", "LA"):
        return upright.convert("RGBA")
    return upright if upright.mode in _EXACT else upright.convert("RGB")


def _written_once(name: str, write: Callable[[Path], object]) -> str:
    """Return the path of the file of this name, which is written where it doesn't exist."""
    path = os.path.join(_folder(), name)
    if not os.path.exists(path):
        # Each thread writes a separate file. The last to finish puts the same bytes in place.
        part = Path(f"{path}.{threading.get_ident()}")
        write(part)
        os.replace(part, path)
    return path


def _folder() -> str:
    """Return the folder of this process, which is made again where somebody has removed it."""
    process = os.getpid()
    if not os.path.isdir(_folders.get(process, "")):
        folder = tempfile.mkdtemp(prefix="dataflow_grounding_")
        _folders[process] = folder
        atexit.register(_remove, folder, process)
    return _folders[process]


def _remove(folder: str, process: int) -> None:
    if os.getpid() == process:  # a forked process, which inherits this, leaves it alone
        shutil.rmtree(folder, ignore_errors=True)
