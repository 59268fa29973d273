"""Image files: facts from the header agree with a full decode, bytes go out as they are or upright,
hostile files fail.
"""

from __future__ import annotations

import base64
import io
import os
import struct
import threading
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy
import PIL.Image
import PIL.ImageOps
import PIL.PngImagePlugin
import pytest

from dataflow_grounding._util.errors import BrokenRow, ImageBroken, ImageMissing, RecordError
from dataflow_grounding.data.records import Record
from dataflow_grounding.images import files
from dataflow_grounding.images.files import read_header
from dataflow_grounding.images.image import Image, ImageLimits, open_image
from dataflow_grounding.images.in_memory import as_path

FORMATS = ["JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "PPM", "JPEG2000"]
WITH_EXIF = ["JPEG", "PNG", "WEBP", "TIFF"]


def pixels(image: Image) -> Any:
    with image.decoded() as picture:
        return picture


def picture(size: tuple[int, int] = (40, 24), mode: str = "RGB") -> PIL.Image.Image:
    """Four coloured quarters, so that every turn of it looks different."""
    width, height = size
    image = PIL.Image.new("RGB", size, "red")
    image.paste("lime", (width // 2, 0, width, height // 2))
    image.paste("blue", (0, height // 2, width // 2, height))
    image.paste("white", (width // 2, height // 2, width, height))
    return image.convert(mode)


def orientation(number: int) -> PIL.Image.Exif:
    exif = PIL.Image.Exif()
    exif[0x0112] = number
    return exif


def opened(path: Path, limits: ImageLimits | None = None) -> Image:
    return open_image(Record({"image_path": str(path)}), "image_path", limits)


def sent(image: Image) -> tuple[str, bytes]:
    """Media type and bytes of what goes to a model."""
    head, _, data = image.data_url().partition(b";base64,")
    return head.removeprefix(b"data:").decode(), base64.b64decode(data)


def quarters(image: PIL.Image.Image) -> list[str]:
    """The colours of the four quarters, named, from left to right and top to bottom."""
    names = {(1, 0, 0): "red", (0, 1, 0): "lime", (0, 0, 1): "blue", (1, 1, 1): "white"}
    rgb = image.convert("RGB")
    found = []
    for y in (rgb.height // 4, 3 * rgb.height // 4):
        for x in (rgb.width // 4, 3 * rgb.width // 4):
            pixel: Any = rgb.getpixel((x, y))
            found.append(names.get(tuple(int(value > 128) for value in pixel), str(pixel)))
    return found


def as_seen(path: Path) -> PIL.Image.Image:
    """The picture that a person sees: decoded whole, turned by its EXIF."""
    with PIL.Image.open(path) as image:
        image.load()
        return PIL.ImageOps.exif_transpose(image).convert("RGB")


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("format", WITH_EXIF)
def test_header_facts_and_what_is_sent_agree_with_the_upright_picture(
    tmp_path: Path, format: str, turn: int
) -> None:
    path = tmp_path / f"x.{format.lower()}"
    extra = {"lossless": True} if format == "WEBP" else {}
    picture().save(path, format, exif=orientation(turn), **extra)
    image = opened(path)
    seen = as_seen(path)
    assert image.size == seen.size == ((24, 40) if turn >= 5 else (40, 24))
    assert image.sent_size == image.size
    media_type, data = sent(image)
    with PIL.Image.open(io.BytesIO(data)) as out:
        assert out.size == image.sent_size
        assert out.getexif().get(0x0112, 1) == 1
        assert quarters(out) == quarters(seen)
    assert quarters(pixels(image)) == quarters(seen)
    if turn == 1 and format != "TIFF":
        assert (data, media_type) == (path.read_bytes(), f"image/{format.lower()}")
    else:
        assert media_type == "image/jpeg"


def test_a_picture_that_xmp_turns_is_upright_too(tmp_path: Path) -> None:
    xmp = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    picture().save(tmp_path / "x.jpg", xmp=xmp)
    assert opened(tmp_path / "x.jpg").size == (24, 40)
    assert not opened(tmp_path / "x.jpg").as_is


@pytest.mark.parametrize("format", FORMATS)
def test_files_that_the_endpoint_takes_go_out_byte_for_byte(tmp_path: Path, format: str) -> None:
    path = tmp_path / f"x.{format.lower()}"
    picture().save(path, format)
    taken = tuple(f"image/{name}" for name in ("jpeg", "png", "webp", "gif"))
    kind, data = sent(opened(path, ImageLimits(media_types=taken)))
    own = f"image/{format.lower()}"
    assert kind == (own if own in taken else "image/jpeg")
    assert (data == path.read_bytes()) is (own in taken)


LIMITS = {
    "just fits": (ImageLimits(max_side=400), True, (400, 100)),
    "a pixel too wide": (ImageLimits(max_side=399), False, (399, 100)),
    "ten times too wide": (ImageLimits(max_side=40), False, (40, 10)),
    "never under a pixel": (ImageLimits(max_side=2), False, (2, 1)),
    "too many bytes": (ImageLimits(max_bytes=100), False, (400, 100)),
    "other type": (ImageLimits(media_types=("image/png",)), False, (400, 100)),
}


@pytest.mark.parametrize(("limits", "as_is", "size"), LIMITS.values(), ids=LIMITS)
@pytest.mark.parametrize("turn", [1, 6])
def test_limits_of_the_endpoint(
    tmp_path: Path, limits: ImageLimits, as_is: bool, size: tuple[int, int], turn: int
) -> None:
    path = tmp_path / "x.jpg"
    stored = picture((400, 100) if turn == 1 else (100, 400))
    stored.save(path, exif=orientation(turn), quality=95)
    image = opened(path, limits)
    assert image.as_is == (as_is and turn == 1)
    assert image.size == (400, 100)
    assert image.sent_size == size
    with PIL.Image.open(io.BytesIO(sent(image)[1])) as out:
        assert out.size == size
        if min(size) > 4:
            assert quarters(out) == quarters(as_seen(path))


def test_a_jpeg_is_not_reduced_below_the_least_area(tmp_path: Path) -> None:
    path = tmp_path / "x.jpg"
    PIL.Image.new("RGB", (2300, 1150)).save(path)
    limits = ImageLimits(max_pixels=1_000_000, min_pixels=900_000)
    width, height = opened(path, limits).sent_size
    assert 890_000 < width * height <= 1_000_000


def chunk(kind: bytes, body: bytes) -> bytes:
    """A part of a PNG."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def with_chunk(png: bytes, kind: bytes, body: bytes, before: bytes) -> bytes:
    place = png.index(before) - 4
    return png[:place] + chunk(kind, body) + png[place:]


@pytest.mark.parametrize(
    "before", [b"IDAT", b"IEND"], ids=["before the pixels", "after the pixels"]
)
def test_a_png_may_keep_its_exif_before_or_after_its_pixels(tmp_path: Path, before: bytes) -> None:
    plain = io.BytesIO()
    picture().save(plain, "PNG")
    path = tmp_path / "x.png"
    path.write_bytes(with_chunk(plain.getvalue(), b"eXIf", orientation(6).tobytes()[6:], before))
    assert opened(path).size == as_seen(path).size == (24, 40)
    assert read_header(str(path)).size == (24, 40)


def test_a_picture_as_sent_is_at_hand_while_somebody_keeps_it(tmp_path: Path) -> None:
    picture().save(tmp_path / "a.png")
    first, second = opened(tmp_path / "a.png"), opened(tmp_path / "a.png")
    assert not second.ready
    url = first.data_url()
    assert second.ready
    del first
    third = opened(tmp_path / "a.png")
    assert third.ready
    assert third.data_url() == second.data_url() == url
    del second, third
    assert not opened(tmp_path / "a.png").ready


GARBAGE = {
    "empty": b"Exif\0\0",
    "no TIFF header": b"Exif\0\0garbage",
    "endless directory": b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\xff" * 40,
    "zeros": b"\0" * 60,
    **{f"turned by {n}": orientation(n).tobytes() for n in (0, 9, 65535)},
}


@pytest.mark.parametrize("exif", GARBAGE.values(), ids=GARBAGE)
def test_garbage_for_exif_or_orientation_counts_as_none(tmp_path: Path, exif: bytes) -> None:
    path = tmp_path / "x.jpg"
    picture().save(path, exif=exif)
    assert opened(path).size == as_seen(path).size == (40, 24)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
def test_the_size_is_read_without_decoding(tmp_path: Path, format: str) -> None:
    """A file whose pixels are garbage, but whose header and end are right, has a size
    all the same.
    """
    path = tmp_path / f"x.{format.lower()}"
    noise = numpy.random.default_rng(0).integers(0, 255, (300, 200, 3), dtype=numpy.uint8)
    PIL.Image.fromarray(noise).save(path, format)
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 2000] = bytes(2000)
    path.write_bytes(data)
    image = opened(path)
    assert image.size == (200, 300)
    assert image.data_url()
    if format == "PNG":
        with pytest.raises(ImageBroken):
            pixels(image)


MODES = {
    "JPEG": ("CMYK", "L"),
    "PNG": ("L", "LA", "1", "P", "P transparent", "RGBA", "I;16"),
    "GIF": ("P",),
    "WEBP": ("RGBA",),
    "TIFF": ("I;16", "F", "CMYK", "LAB"),
}


@pytest.mark.parametrize(
    ("mode", "format"), [(mode, format) for format, modes in MODES.items() for mode in modes]
)
def test_every_mode_becomes_a_picture_that_endpoints_read(
    tmp_path: Path, mode: str, format: str
) -> None:
    mode, _, transparent = mode.partition(" ")
    extra: dict[str, Any] = {"transparency": 0} if transparent else {}
    if format == "WEBP":
        extra = {"lossless": True}
    path = tmp_path / f"x.{format.lower()}"
    if mode == "I;16":
        PIL.Image.fromarray(numpy.full((24, 40), 40000, dtype=numpy.uint16)).save(path, format)
    elif mode == "P":
        picture().quantize(8).save(path, format, **extra)
    elif mode == "LAB":
        PIL.Image.new("LAB", (40, 24)).save(path, format)
    else:
        picture(mode=mode).save(path, format, **extra)
    image = opened(path)
    assert image.size == (40, 24)
    assert pixels(image).mode == "RGB"
    _, data = sent(image)
    with PIL.Image.open(io.BytesIO(data)) as out:
        assert out.size == (40, 24)
        assert out.mode in ("1", "L", "LA", "P", "RGB", "RGBA")
    if mode == "I;16":
        level: Any = pixels(image).getpixel((5, 5))
        assert abs(level[0] - 40000 / 257) < 2, "16 bits are scaled to 8, not cut"
    if mode == "CMYK":
        assert quarters(pixels(image)) == quarters(as_seen(path))


@pytest.mark.parametrize("given", ["file", "PIL", "NumPy"])
@pytest.mark.parametrize(
    ("mode", "format"),
    [("RGBA", "PNG"), ("LA", "PNG"), ("P", "PNG"), ("RGB", "PNG"), ("RGBA", "WEBP")],
)
def test_what_is_transparent_is_sent_white(
    tmp_path: Path, mode: str, format: str, given: str
) -> None:
    """Servers put black, white or the color beneath (vllm-project/vllm#18569, Qwen3-VL#661)."""
    path = tmp_path / f"x.{format.lower()}"
    seen = PIL.Image.new("RGBA", (8, 8), (255, 0, 0, 255))
    seen.paste((0, 200, 0, 0), (4, 0, 8, 8))
    extra: dict[str, Any] = {"lossless": True} if format == "WEBP" else {}
    if mode in ("P", "RGB"):
        seen = seen.convert("RGB").quantize(4) if mode == "P" else seen.convert("RGB")
        extra["transparency"] = seen.getpixel((6, 3))
    seen.convert(mode).save(path, format, **extra)
    whole: Any = str(path)
    if given != "file":
        whole = PIL.Image.open(path)
    if given == "NumPy":
        whole = numpy.asarray(whole.convert("RGBA"))
    _, data = sent(opened(Path(as_path(whole, "image"))))
    with PIL.Image.open(io.BytesIO(data)) as out:
        assert not out.has_transparency_data
        assert min(out.convert("RGB").getpixel((6, 3))) > 240  # type: ignore[arg-type, type-var]
        assert max(out.convert("RGB").getpixel((1, 3))) < 256  # type: ignore[arg-type, type-var]


def test_a_picture_whose_alpha_hides_nothing_is_sent_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    PIL.Image.new("RGBA", (8, 8), (255, 0, 0, 255)).save(path)
    assert sent(opened(path))[1] == path.read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("given", ["file", "PIL"])
def test_a_white_thing_on_a_transparent_ground_is_refused(tmp_path: Path, given: str) -> None:
    """On white, as transparent pictures are sent, nothing of it would be left."""
    path = tmp_path / "logo.png"
    logo = PIL.Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    logo.paste((255, 255, 255, 255), (2, 2, 6, 6))
    logo.save(path)
    whole: Any = path if given == "file" else PIL.Image.open(path)
    with pytest.raises(ImageBroken, match="nothing but white on a transparent ground"):
        opened(Path(as_path(whole, "image")))
    logo.putpixel((3, 3), (0, 0, 0, 255))
    logo.save(path)
    assert opened(path).size == (8, 8)
    # however far down the other colour is
    page = PIL.Image.new("RGBA", (1200, 1201), (255, 255, 255, 0))
    page.putpixel((0, 1200), (0, 0, 0, 255))
    page.save(path)
    assert opened(path).size == (1200, 1201)


@pytest.mark.parametrize("path", ["/proc/kmsg", "/proc/self/mem", "/dev/zero"])
def test_a_file_of_the_kernel_is_no_picture_and_not_read(path: str) -> None:
    """The first has no end: reading it hung."""
    if not os.path.exists(path):
        pytest.skip("this system has none")
    with pytest.raises(ImageBroken, match=r"is empty|a device"):
        opened(Path(path))


@pytest.mark.parametrize("given", ["file", "PIL"])
def test_a_transparent_value_of_16_bits_is_white(tmp_path: Path, given: str) -> None:
    values = numpy.zeros((8, 8), "uint16")
    values[2:6, 2:6] = 50_000
    values[3, 3] = 0
    values[:, :2] = 9
    path = tmp_path / "x.png"
    PIL.Image.fromarray(values).save(path, transparency=0)
    whole: Any = path if given == "file" else PIL.Image.open(path)
    shown = numpy.asarray(pixels(opened(Path(as_path(whole, "image")))))[..., 0]
    assert (shown[7, 7], shown[3, 3], shown[7, 0]) == (255, 255, 0)
    assert 150 < shown[2, 2] < 255 or given == "file"


@pytest.mark.parametrize("nothing", [65_535, 0], ids=["no data is the largest", "… the least"])
def test_a_value_that_stands_for_no_data_hides_nothing(tmp_path: Path, nothing: int) -> None:
    values = numpy.linspace(30_000, 31_000, 64).reshape(8, 8).astype("uint16")
    values[0, :4] = nothing
    path = tmp_path / "x.png"
    PIL.Image.fromarray(values).save(path)
    shown = numpy.asarray(pixels(opened(path)))[..., 0]
    assert shown[7, 7] == 255
    assert shown[1, 0] < 60


def test_colors_of_12_bits_in_16_are_refused(tmp_path: Path) -> None:
    """Pillow keeps the upper eight bits, in which next to nothing is left."""
    cv2 = pytest.importorskip("cv2")
    path = tmp_path / "x.png"
    cv2.imwrite(str(path), numpy.full((8, 8, 3), 4_000, "uint16"))
    with pytest.raises(ImageBroken, match="16 bits a color"):
        opened(path)
    cv2.imwrite(str(path), numpy.full((8, 8, 3), 40_000, "uint16"))
    assert opened(path).size == (8, 8)


DEEP = {
    "12 bits in 16": (0, 4080, "uint16"),
    "depth in mm": (500, 7300, "uint16"),
    "heat": (29_000, 33_000, "uint16"),
    "all 16 bits": (0, 65_535, "uint16"),
    "32 bits": (0, 900_000, "int32"),
    "0 to 1": (0, 1, "float32"),
    "Kelvin": (280, 310, "float32"),
}


@pytest.mark.parametrize(("least", "most", "kind"), DEEP.values(), ids=DEEP)
def test_pictures_of_many_bits_can_be_seen(
    tmp_path: Path, least: int, most: int, kind: str
) -> None:
    """python-pillow/Pillow#2574, #5991: they came out black or white."""
    path = tmp_path / "x.tif"
    ramp = numpy.linspace(least, most, 64).reshape(8, 8).astype(kind)
    if kind == "float32":
        ramp[0, 1] = numpy.nan
    PIL.Image.fromarray(ramp).save(path)
    image = opened(path)
    shown = numpy.asarray(pixels(image))[..., 0]
    assert (shown[0, 0], shown[7, 7]) == (0, 255)
    assert abs(int(shown[4, 0]) - 128) <= 3
    is_whole = most in (1, 65_535)
    assert image.facts.stretched is not is_whole
    assert image.sent_digest.endswith("+range") is not is_whole, "earlier replies saw no picture"


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG"])
def test_an_animation_is_sent_as_its_first_frame(tmp_path: Path, format: str) -> None:
    path = tmp_path / f"x.{format.lower()}"
    frames = [PIL.Image.new("RGB", (40, 24), color) for color in ("red", "blue", "lime")]
    frames[0].save(path, format, save_all=True, append_images=frames[1:], duration=100)
    limits = ImageLimits(media_types=("image/gif", "image/webp", "image/png"))
    media_type, data = sent(opened(path, limits))
    assert media_type == "image/jpeg"
    with PIL.Image.open(io.BytesIO(data)) as out:
        assert getattr(out, "n_frames", 1) == 1
        assert quarters(out)[0] == "red"


@pytest.mark.slow
@pytest.mark.parametrize(
    "size", [(1, 1), (20000, 200), (1, 5000)], ids=["one pixel", "a panorama", "a line"]
)
def test_odd_sizes(tmp_path: Path, size: tuple[int, int]) -> None:
    path = tmp_path / "x.png"
    PIL.Image.new("RGB", size, "red").save(path)
    image = opened(path)
    assert image.size == size
    with PIL.Image.open(io.BytesIO(sent(image)[1])) as out:
        assert out.size == image.sent_size
        assert max(out.size) <= 2048
        assert min(out.size) >= 1


def jpeg(**more: Any) -> bytes:
    out = io.BytesIO()
    picture((320, 200)).save(out, "JPEG", **more)
    return out.getvalue()


def png() -> bytes:
    out = io.BytesIO()
    picture((320, 200)).save(out, "PNG")
    return out.getvalue()


def with_thumbnail() -> bytes:
    """A JPEG whose EXIF holds a whole JPEG, end marker included."""
    return jpeg(exif=b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0" + jpeg())


def test_of_a_picture_that_is_too_large_to_be_decoded_the_size_is_known(tmp_path: Path) -> None:
    """Labels of an aerial photo are imported by its size alone."""
    path = tmp_path / "aerial.ppm"
    path.write_bytes(b"P6 25000 20000 255\n")
    assert read_header(str(path)).size == (25_000, 20_000)
    with pytest.raises(ImageBroken, match="more than 400 million pixels"):
        opened(path)


def bomb() -> bytes:
    """A PNG of 60 KB that claims 30,000 x 30,000 pixels."""
    header = struct.pack(">IIBBBBB", 30000, 30000, 8, 0, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(bytes(60000)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + pixels + chunk(b"IEND", b"")


BROKEN: dict[str, tuple[bytes, str]] = {
    "nothing in it": (b"", "empty"),
    "text": (b"<html>not found</html>", "not a readable image"),
    "a JPEG's first bytes alone": (b"\xff\xd8\xff", "image"),
    "half a JPEG": (jpeg()[: len(jpeg()) // 2], "cut off"),
    "half a JPEG with a whole thumbnail": (with_thumbnail()[:-400], "cut off"),
    "half a PNG": (png()[: len(png()) // 2], "cut off"),
    "a Git LFS pointer": (b"version https://git-lfs.github.com/spec/v1\noid", "git lfs pull"),
    "HEIC": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(200), "HEIC"),
    "a decompression bomb": (bomb(), "million pixels"),
    "PDF": (b"%PDF-1.7\n" + bytes(100), "not a readable image"),
}


@pytest.mark.parametrize(("data", "says"), BROKEN.values(), ids=BROKEN)
def test_a_broken_file_is_refused_in_one_line_that_names_it(
    tmp_path: Path, data: bytes, says: str
) -> None:
    path = tmp_path / "bad picture.jpg"
    path.write_bytes(data)
    with pytest.raises(ImageBroken, match=says) as caught:
        opened(path)
    assert "bad picture.jpg" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not caught.value.passing


def test_an_eps_is_never_handed_to_ghostscript(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ghostscript, ran = tmp_path / "gs", tmp_path / "ran"
    ghostscript.write_text(f"#!/bin/sh\ntouch {ran}\necho 10.01\n")
    ghostscript.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    path = tmp_path / "photo.jpg"
    path.write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 40 40\nshowpage\n%%EOF\n")
    with pytest.raises(ImageBroken, match="these can be read: JPEG, PNG"):
        opened(path).data_url()
    assert not ran.exists()


def held_by_threads(images: Sequence[Image], wanted: int, within: float) -> int:
    """How many of the pictures are decoded at the same time, a thread each; holds them until
    `wanted` are, or for that many seconds.
    """
    held: list[int] = []
    most = 0
    changed = threading.Condition()

    def hold(image: Image) -> None:
        nonlocal most
        with image.decoded() as decoded, changed:
            assert decoded.mode == "RGB"
            held.append(1)
            most = max(most, len(held))
            changed.notify_all()
            changed.wait_for(lambda: most >= wanted, timeout=within)
            held.pop()

    threads = [threading.Thread(target=hold, args=(image,)) for image in images]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return most


@pytest.mark.slow
def test_few_large_pictures_are_decoded_at_once_and_many_small_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of the large ones has a little more than half of the pixels that there is room for, or
    more than all.
    """
    monkeypatch.setattr(files, "_room", files._Room(1_000_000))
    sizes = {"small": (10, 10), "large": (800, 630), "larger than all": (1010, 1000)}
    images = {}
    for name, size in sizes.items():
        PIL.Image.new("1", size).save(tmp_path / f"{name}.png")
        images[name] = opened(tmp_path / f"{name}.png")
    assert held_by_threads([images["small"]] * 6, 6, 60) == 6
    assert held_by_threads([images["large"]] * 2, 2, 0.2) == 1
    assert held_by_threads([images["larger than all"], images["small"]], 2, 0.2) == 1


@pytest.mark.parametrize("length", range(0, 700, 69))
def test_a_file_cut_off_anywhere_is_an_image_error(tmp_path: Path, length: int) -> None:
    for name, data in (("x.jpg", jpeg()), ("x.png", png())):
        path = tmp_path / name
        path.write_bytes(data[: min(length, len(data) - 20)])
        with pytest.raises(ImageBroken):
            opened(path)


@pytest.mark.parametrize(
    "tail", [b"\0" * 200_000, b"ftypmp42" + bytes(300_000)], ids=["padding", "a phone's video"]
)
def test_what_is_appended_to_a_whole_picture_does_no_harm(tmp_path: Path, tail: bytes) -> None:
    for name, data in (("x.jpg", with_thumbnail()), ("x.png", png())):
        path = tmp_path / name
        path.write_bytes(data + tail)
        assert opened(path).size == (320, 200)


def test_a_folder_a_broken_link_and_a_pipe_are_no_images(tmp_path: Path) -> None:
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "link.jpg").symlink_to(tmp_path / "gone.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(ImageBroken, match="folder"):
        opened(tmp_path / "folder.jpg")
    with pytest.raises(ImageMissing):
        opened(tmp_path / "link.jpg")
    with pytest.raises(ImageBroken, match="device"):
        opened(tmp_path / "pipe.jpg")


@pytest.mark.parametrize("value", [None, "", 5, ["x.jpg"], {}, "x\0.jpg", True], ids=repr)
def test_a_column_that_holds_no_path_is_a_broken_row(value: Any) -> None:
    with pytest.raises(BrokenRow, match="image_path"):
        open_image(Record({"image_path": value}), "image_path")


@pytest.mark.parametrize(
    "name", ["gone.jpg", "x" * 5000, "\ud800.jpg", "a\nb.jpg", "..", "~", "%s{x}"], ids=ascii
)
def test_a_path_that_leads_nowhere_is_an_error_in_one_line(tmp_path: Path, name: str) -> None:
    with pytest.raises(RecordError) as caught:
        open_image(Record({"image_path": name}, folders=(str(tmp_path),)), "image_path")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name", ["a\nb.jpg", "süß 图.jpg", " .jpg", "'; rm -rf.jpg", "-rf"], ids=ascii
)
def test_odd_names_are_names(tmp_path: Path, name: str) -> None:
    picture().save(tmp_path / name, "JPEG")
    row = Record({"image_path": name}, folders=(str(tmp_path),))
    assert open_image(row, "image_path").size == (40, 24)


def test_folders_are_looked_through_in_order(tmp_path: Path) -> None:
    for folder, size in (("first", (10, 10)), ("second", (20, 20))):
        (tmp_path / folder).mkdir()
        picture(size).save(tmp_path / folder / "x.png")
    picture((30, 30)).save(tmp_path / "second" / "y.png")
    folders = (str(tmp_path / "first"), str(tmp_path / "second"))
    rows = [Record({"image_path": name}, folders) for name in ("x.png", "y.png", "z.png")]
    assert [open_image(row, "image_path").size for row in rows[:2]] == [(10, 10), (30, 30)]
    with pytest.raises(ImageMissing, match=r"first.*second"):
        open_image(rows[2], "image_path")


def test_a_file_that_is_replaced_between_reading_and_sending_is_not_sent(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    picture((41, 23)).save(path)
    image = opened(path)
    picture((24, 40)).save(path)
    with pytest.raises(ImageBroken, match="changed") as caught:
        image.data_url()
    assert caught.value.passing, "the same command, run again, does it"
    assert opened(path).size == (24, 40)
