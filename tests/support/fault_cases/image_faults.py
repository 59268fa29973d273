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
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.support.fault_cases.fault_case import Case, Outcome, Witness, calm, lost_rows
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

    def chunk(name: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    head = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    body = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


HEIC = struct.pack(">I", 24) + b"ftypheic" + bytes(4) + b"mif1heic" + bytes(200)

EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 40 30\nshowpage\n%%EOF\n"


def play(
    write: Write, name: str, expected: tuple[int, int] | str, place: Workplace, full: bool
) -> Outcome:
    """One such picture between two good ones. `expected`: size of the upright picture, or the
    failure's kind.
    """
    place.picture("good.jpg")
    write(place.folder / name)
    names = ["good.jpg", name, "good.jpg"]
    place.rows(
        {"image_path": path, "image_id": f"r{n}", "caption": caption(n)}
        for n, path in enumerate(names)
    )
    with Witness() as witness:
        url = {"vlm.openai.base_url": witness.server.base_url}
        done = place.run(**url)
        calm(done)
        works = not isinstance(expected, str)
        assert done.code == (0 if works else 1), done
        ids = [record["image_id"] for record in place.annotations()]
        assert ids == (["r0", "r1", "r2"] if works else ["r0", "r2"])
        if works:
            record = place.annotations()[1]
            assert (record["width"], record["height"]) == expected
            assert record["image_path"] == name
            sent = {
                (i.format, i.orientation)
                for request in witness.server.requests
                for i in request.images
            }
            assert sent <= {("JPEG", 1), ("PNG", 1), ("WEBP", 1)}, sent
        else:
            [failure] = place.failures()
            assert (failure["id"], failure["kind"]) == ("r1", expected), failure
            assert len(failure["message"]) > 20
            assert "\n" not in failure["message"]
        assert witness.sent == (6 if works else 4), "no request without its image"
        assert place.run(**url).summary["requests"] == 0
        return Outcome(witness.sent, witness.twice, 0)


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


def _case(
    what: str, promise: str, write: Write, expected: tuple[int, int] | str, name: str = "odd.jpg"
) -> Case:
    return Case(f"image: {what}", promise, functools.partial(play, write, name, expected))


FAILS = "Only the record fails."
WORKS = "The run takes it like any other picture."
SENT_AS_JPEG = "The first picture is sent as an upright RGB JPEG."
_LARGE = (3000, 2000)

IMAGES: list[Case] = [
    _case(
        "truncated JPEG",
        FAILS,
        data(lambda: saved("RGB", _LARGE, "JPEG")[:-3000]),
        "image_broken",
    ),
    _case("truncated PNG", FAILS, data(lambda: saved("RGB", _LARGE, "PNG")[:-60]), "image_broken"),
    _case("decompression bomb", FAILS, data(bomb), "image_broken"),
    _case("0 bytes", FAILS, data(bytes), "image_broken"),
    _case("text", FAILS, data(lambda: b"this is not a picture\n" * 20), "image_broken"),
    _case("HEIC", FAILS, data(lambda: HEIC), "image_broken", "odd.heic"),
    _case(
        "EPS",
        FAILS,
        data(lambda: EPS),
        "image_broken",
    ),
    _case("a folder", FAILS, lambda path: path.mkdir(), "image_broken"),
    _case(
        "a broken link",
        FAILS,
        lambda path: os.symlink("nowhere", path),
        "image_missing",
    ),
    _case("CMYK", SENT_AS_JPEG, data(lambda: saved("CMYK", (40, 30), "JPEG")), (40, 30)),
    _case("16-bit PNG", SENT_AS_JPEG, data(lambda: saved("I;16", (40, 30), "PNG")), (40, 30)),
    _case("GIF", SENT_AS_JPEG, data(lambda: animated("GIF")), (40, 30), "odd.gif"),
    _case("WebP", SENT_AS_JPEG, data(lambda: animated("WEBP")), (40, 30), "odd.webp"),
    _case("TIFF", SENT_AS_JPEG, data(lambda: saved("RGB", (40, 30), "TIFF")), (40, 30), "odd.tif"),
    _case("BMP", SENT_AS_JPEG, data(lambda: saved("RGB", (40, 30), "BMP")), (40, 30), "odd.bmp"),
    _case("palette with alpha", WORKS, data(see_through), (40, 30), "odd.png"),
    _case("one pixel", WORKS, data(lambda: saved("RGB", (1, 1), "PNG")), (1, 1), "odd.png"),
    _case("20,000 x 200", WORKS, data(lambda: saved("RGB", (20_000, 200), "JPEG")), (20_000, 200)),
    _case(
        "2,000,000 x 2",
        WORKS,
        data(lambda: saved("1", (2_000_000, 2), "PNG")),
        (2_000_000, 2),
        "odd.png",
    ),
    Case(
        "image: four of 361 million pixels",
        WORKS,
        many_pixels,
    ),
    _case("PNG named .jpg", WORKS, data(lambda: saved("RGB", (40, 30), "PNG")), (40, 30)),
    _case(
        "a newline in the name",
        WORKS,
        data(lambda: saved("RGB", (40, 30), "JPEG")),
        (40, 30),
        "two\nlines.jpg",
    ),
    _case(
        "é 日 in the name",
        WORKS,
        data(lambda: saved("RGB", (40, 30), "JPEG")),
        (40, 30),
        "é 日 .jpg",
    ),
]
