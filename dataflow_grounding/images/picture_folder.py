"""Pictures that came as bytes, as files of the results folder, each once under its digest."""

import hashlib
import io
import os

from dataflow_grounding._util.errors import InputError, told_as
from dataflow_grounding._util.files import within
from dataflow_grounding.data.records import write_bytes
from dataflow_grounding.images.files import open_picture

FOLDER = "pictures"
"""The folder in `results_dir`."""
_ENDINGS = {"JPEG": ".jpg", "MPO": ".jpg", "TIFF": ".tif", "JPEG2000": ".jp2"}


def put_picture(data: bytes, results_dir: str) -> str:
    """Write a picture, once, under its digest; the path is relative to `results_dir`.

    Raises InputError.
    """
    try:
        with open_picture(io.BytesIO(data)) as picture:
            format_name = str(picture.format)
            ending = _ENDINGS.get(format_name, f".{format_name.lower()}")
    except Exception:
        # Pillow's readers raise all kinds; the record with this picture will fail, and say so.
        ending = ".bin"
    name = f"{FOLDER}/{hashlib.sha256(data).hexdigest()[:32]}{ending}"
    path = within(results_dir, name)
    with told_as(InputError, f"can't write {path}"):
        if not (os.path.exists(path) and os.path.getsize(path) == len(data)):
            os.makedirs(os.path.dirname(path), exist_ok=True)
            write_bytes(path, data, alone=False)  # of two equal pictures each thread writes its own
    return name
