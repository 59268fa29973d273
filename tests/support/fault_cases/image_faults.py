"""Image files of every kind: each works, or fails its record alone with a reason; none goes unsent
and answered.
"""

from __future__ import annotations

import contextlib
import functools
import io
import os
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tests.support.fault_cases.fault_case import Case, Outcome, Witness, calm, lost_rows
from tests.support.fault_cases.picture_bombs import chunk
from tests.support.workplace import REPOSITORY, Workplace, caption

Write = Callable[[Path], Any]


def saved(mode: str, size: tuple[int, int], kind: str, **options: Any) -> bytes:
    """A picture of one colour as a file's bytes."""
    from PIL import Image

    out = io.BytesIO()
    Image.new(mode, size, 100 if mode in ("L", "P", "I;16") else None or 0).save(
        out, kind, **options
    )
    return out.getvalue()


def animated(kind: str) -> bytes:
    """Three frames."""
    from PIL import Image

    frames = [Image.new("RGB", (40, 30), color) for color in ("red", "green", "blue")]
    out = io.BytesIO()
    frames[0].save(out, kind, save_all=True, append_images=frames[1:], duration=50)
    return out.getvalue()


def see_through() -> bytes:
    """A palette with a transparent colour."""
    from PIL import Image

    picture = Image.new("P", (40, 30), 0)
    picture.paste(1, (0, 0, 20, 30))  # a picture with nothing to see is refused
    picture.putpalette([255, 0, 0, 0, 255, 0] + [0] * 762)
    out = io.BytesIO()
    picture.save(out, "PNG", transparency=0)
    return out.getvalue()


def bomb() -> bytes:
    """A PNG of a few hundred bytes that says it is 60,000 x 60,000."""
    head = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    body = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


HEIC = struct.pack(">I", 24) + b"ftypheic" + bytes(4) + b"mif1heic" + bytes(200)

EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 40 30\nshowpage\n%%EOF\n"


class Picture(NamedTuple):
    """A picture file: what the table calls it, what is promised of it, how it is written, the size
    of the upright picture or the failure's kind, and the file's name.
    """

    what: str
    promise: str
    write: Write
    expected: tuple[int, int] | str
    name: str = "odd.jpg"

    @property
    def works(self) -> bool:
        return not isinstance(self.expected, str)

    def case(self) -> Case:
        """As a line of the table."""
        return Case(f"image: {self.what}", self.promise, functools.partial(play, [self]))


def play(pictures: Sequence[Picture], place: Workplace, full: bool) -> Outcome:
    """Such pictures between two good ones: r1 is the first of them."""
    paths = [place.picture("good.jpg")]
    for number, picture in enumerate(pictures):
        paths.append(f"{number}/{picture.name}")
        (place.folder / str(number)).mkdir()
        picture.write(place.folder / paths[-1])
    paths.append("good.jpg")
    place.rows(
        {"image_path": path, "image_id": f"r{n}", "caption": caption(n)}
        for n, path in enumerate(paths)
    )
    with Witness() as witness:
        url = {"vlm.openai.base_url": witness.server.base_url}
        done = place.run(**url)
        calm(done)
        works = {f"r{n}": picture for n, picture in enumerate(pictures, 1) if picture.works}
        fails = {f"r{n}": picture for n, picture in enumerate(pictures, 1) if not picture.works}
        assert done.code == (1 if fails else 0), done
        records = {record["image_id"]: record for record in place.annotations()}
        assert list(records) == ["r0", *works, f"r{len(paths) - 1}"]
        for name, picture in works.items():
            size = (records[name]["width"], records[name]["height"])
            assert size == picture.expected, picture.what
            assert records[name]["image_path"] == paths[int(name[1:])]
        failures = {failure["id"]: failure for failure in place.failures()}
        assert list(failures) == list(fails)
        for name, picture in fails.items():
            assert failures[name]["kind"] == picture.expected, failures[name]
            assert len(failures[name]["message"]) > 20
            assert "\n" not in failures[name]["message"]
        sent = {
            (image.format, image.orientation)
            for request in witness.server.requests
            for image in request.images
        }
        assert sent <= {("JPEG", 1), ("PNG", 1), ("WEBP", 1)}, sent
        assert witness.sent == 2 * (len(works) + 2), "no request without its image"
        assert place.run(**url).summary["requests"] == 0
        return Outcome(witness.sent, witness.twice, lost_rows(place, len(paths)))


def peak_kib(pid: int) -> int:
    """The most memory that a process had since it began its program: what wait4 tells counts its
    parent's too.
    """
    with contextlib.suppress(OSError, StopIteration):
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM")).split()[1])
    return 0


def many_pixels(place: Workplace, full: bool) -> Outcome:
    """Four pictures that four threads could decode at once: memory stays far under what they take
    together.
    """
    from PIL import Image

    side = 19_000 if full else 7_200
    for number in range(4):
        Image.new("1", (side + number, side)).save(place.folder / f"{number}.png")
    place.rows(
        {"image_path": f"{n}.png", "image_id": f"r{n}", "caption": caption(n)} for n in range(4)
    )
    with Witness() as witness, tempfile.TemporaryFile() as out:
        settings = {"vlm.openai.base_url": witness.server.base_url, "vlm.openai.timeout": 300}
        line = [sys.executable, "-m", "dataflow_grounding", *place.arguments(**settings)]
        running = subprocess.Popen(
            line, env={**os.environ, "PYTHONPATH": str(REPOSITORY)}, stdout=out, stderr=out
        )
        peak = 0
        while running.poll() is None:
            peak = max(peak, peak_kib(running.pid))
            time.sleep(0.01)
        out.seek(0)
        assert running.returncode == 0, out.read()
        # MiB: Pillow takes a byte a pixel for black and white, and four for RGB
        one = 5 * side * side / 2**20
        assert 0 < peak / 1024 < 150 + 2.5 * one, (
            f"{peak / 1024:.0f} MiB, one picture has {one:.0f}"
        )
        return Outcome(witness.sent, witness.twice, lost_rows(place, 4))


def data(make: Callable[[], bytes]) -> Write:
    """A file with these bytes."""
    return lambda path: path.write_bytes(make())


FAILS = "Only the record fails."
WORKS = "The run takes it like any other picture."
SENT_AS_JPEG = "The first picture is sent as an upright RGB JPEG."
_LARGE = (3000, 2000)

PICTURES = [
    Picture(
        "truncated JPEG",
        FAILS,
        data(lambda: saved("RGB", _LARGE, "JPEG")[:-3000]),
        "image_broken",
    ),
    Picture(
        "truncated PNG", FAILS, data(lambda: saved("RGB", _LARGE, "PNG")[:-60]), "image_broken"
    ),
    Picture("decompression bomb", FAILS, data(bomb), "image_broken"),
    Picture("0 bytes", FAILS, data(bytes), "image_broken"),
    Picture("text", FAILS, data(lambda: b"this is not a picture\n" * 20), "image_broken"),
    Picture("HEIC", FAILS, data(lambda: HEIC), "image_broken", "odd.heic"),
    Picture(
        "EPS",
        FAILS,
        data(lambda: EPS),
        "image_broken",
    ),
    Picture("a folder", FAILS, lambda path: path.mkdir(), "image_broken"),
    Picture(
        "a broken link",
        FAILS,
        lambda path: os.symlink("nowhere", path),
        "image_missing",
    ),
    Picture("CMYK", SENT_AS_JPEG, data(lambda: saved("CMYK", (40, 30), "JPEG")), (40, 30)),
    Picture("16-bit PNG", SENT_AS_JPEG, data(lambda: saved("I;16", (40, 30), "PNG")), (40, 30)),
    Picture("GIF", SENT_AS_JPEG, data(lambda: animated("GIF")), (40, 30), "odd.gif"),
    Picture("WebP", SENT_AS_JPEG, data(lambda: animated("WEBP")), (40, 30), "odd.webp"),
    Picture(
        "TIFF", SENT_AS_JPEG, data(lambda: saved("RGB", (40, 30), "TIFF")), (40, 30), "odd.tif"
    ),
    Picture("BMP", SENT_AS_JPEG, data(lambda: saved("RGB", (40, 30), "BMP")), (40, 30), "odd.bmp"),
    Picture("palette with alpha", WORKS, data(see_through), (40, 30), "odd.png"),
    Picture("one pixel", WORKS, data(lambda: saved("RGB", (1, 1), "PNG")), (1, 1), "odd.png"),
    Picture(
        "20,000 x 200", WORKS, data(lambda: saved("RGB", (20_000, 200), "JPEG")), (20_000, 200)
    ),
    Picture(
        "2,000,000 x 2",
        WORKS,
        data(lambda: saved("1", (2_000_000, 2), "PNG")),
        (2_000_000, 2),
        "odd.png",
    ),
    Picture("PNG named .jpg", WORKS, data(lambda: saved("RGB", (40, 30), "PNG")), (40, 30)),
    Picture(
        "a newline in the name",
        WORKS,
        data(lambda: saved("RGB", (40, 30), "JPEG")),
        (40, 30),
        "two\nlines.jpg",
    ),
    Picture(
        "é 日 in the name",
        WORKS,
        data(lambda: saved("RGB", (40, 30), "JPEG")),
        (40, 30),
        "é 日 .jpg",
    ),
]
MANY_PIXELS = Case("image: four of 361 million pixels", WORKS, many_pixels)
IMAGES: list[Case] = [*(picture.case() for picture in PICTURES), MANY_PIXELS]
