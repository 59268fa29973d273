"""Pictures that come as bytes, written to files in the results folder, each once by its digest."""

import hashlib
import io
import os

from dataflow_grounding._util.errors import InputError, errors_as
from dataflow_grounding._util.files import within, write_bytes
from dataflow_grounding._util.results_names import PICTURES
from dataflow_grounding.images.files import open_picture

# Pillow's name of a format → the ending of its files, where that isn't the name itself.
_ENDINGS = {"JPEG": ".jpg", "MPO": ".jpg", "TIFF": ".tif", "JPEG2000": ".jp2"}


def put_picture(data: bytes, results_dir: str) -> str:
    """Write a picture, broken or not, named after its digest; return its path in `results_dir`."""
    name = picture_name(data)
    path = within(results_dir, name)
    with errors_as(InputError, f"can't write {path}"):
        # A file of another length was not written to its end, or was damaged: it is replaced.
        is_whole = os.path.exists(path) and os.path.getsize(path) == len(data)
        if not is_whole:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            # Two threads may write equal pictures at once: each has a temporary file of its own.
            write_bytes(path, data, alone=False)
    return name


def picture_name(data: bytes) -> str:
    """Return the path in the results folder; it ends in `.bin` for what is no picture."""
    try:
        with open_picture(io.BytesIO(data)) as picture:
            format_name = str(picture.format)
            ending = _ENDINGS.get(format_name, f".{format_name.lower()}")
    except Exception:  # of all kinds; the record with this picture will fail later, and say why
        ending = ".bin"
    return f"{PICTURES}/{hashlib.sha256(data).hexdigest()[:32]}{ending}"
