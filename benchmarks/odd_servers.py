"""What a run notices of a server that treats some pictures, or some requests, in an odd way.

    python -m benchmarks.odd_servers [--seeds 1] [--only NAME ...] [--on-suspect warn] [--messages]

A gateway may shrink what is large, pad what is small, send every fifth request to another model, or
crop photographs alone. Each server here does one such thing, and a whole run of `generate` asks it
about 140 photographs of mixed sizes, with the usual checks. Boxes are as photos have them, off by
1% of the side, and one in twenty is anywhere at all.

An answer is wrong if the oddness moved an edge of its boxes by more than 5% of the side, as read in
the format that was asked for. After a server's name, the table says whether copies of the run's own
pictures, as probes, show its oddness: `yes`; `by chance`, if only some of them meet it, or none at
the wrong time; `no`, if none does, or if the oddness is too small to count. What isn't seen has no
goal. Honest servers must not be stopped, and hardly any of their records marked.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from functools import partial

from benchmarks.odd_runs import (
    CORNER_AND_SIZE,
    HEAVY,
    IN_PADDED_SQUARE,
    IN_PIXELS,
    IN_THOUSANDTHS,
    LANDSCAPE,
    MIRRORED,
    PIXELS,
    RECORDS,
    SLOT,
    Y_FIRST,
    FileKind,
    OddServer,
    Outcome,
    by_chance,
    by_content,
    cropped,
    drifting,
    every,
    from_request,
    in_pixels_of_reduced,
    moved,
    of_another_picture,
    of_photos,
    on_canvas,
    play,
    quarter_turned,
    scaled,
    shifted,
    upside_down,
    when,
    xs_before_ys,
)
from tests.support.measuring import Row, table
from tests.support.stand_ins.watched_model import PEOPLE, Scene

MOST_MARKED = 0.02  # of the records of an honest run
ONE_WEBP_IN_TEN: tuple[FileKind, ...] = (*("jpeg",) * 9, "webp")
ONE_GRAY_IN_FIVE: tuple[FileKind, ...] = (*("jpeg",) * 4, "gray")


of_portraits = partial(when, lambda request: request.is_portrait)
of_elongated = partial(when, lambda request: request.is_elongated)
of_large = partial(when, lambda request: request.is_large)
Counting = partial(
    OddServer, asked="auto", written=f"{PIXELS}@smart_resize_28", sizes=((640, 480), (480, 640))
)
Honest = partial(OddServer, is_honest=True)
SELDOM = "a probe picture has to be among the few"
AT_THE_TIME = "a probe picture has to be asked about just then"

BY_FILE = (
    OddServer(
        "png-pixels",
        "PNG in pixels, JPEG in thousandths",
        when(lambda request: request.file_type == "PNG", IN_PIXELS),
        files=("jpeg", "png"),
    ),
    OddServer(
        "png-y-first",
        "PNG y first",
        when(lambda request: request.file_type == "PNG", Y_FIRST),
        files=("jpeg", "png"),
    ),
    OddServer(
        "few-webp-pixels",
        "WebP, a tenth of all, in pixels",
        when(lambda request: request.file_type == "WEBP", IN_PIXELS),
        files=ONE_WEBP_IN_TEN,
    ),
    OddServer(
        "heavy-reduced",
        "files above 100 kB are reduced to 512 px, and answered in pixels of that",
        when(lambda request: request.file_bytes > HEAVY, in_pixels_of_reduced(512)),
        why="if their files are as heavy",
        files=("jpeg", "fine jpeg"),
    ),
    OddServer(
        "gray-file-pixels",
        "files in shades of gray, a fifth of all, in pixels",
        when(lambda request: request.has_no_color_channels, IN_PIXELS),
        "no",
        "colored rectangles are in no such file",
        files=ONE_GRAY_IN_FIVE,
    ),
    OddServer(
        "mostly-gray-mirrored",
        "pictures that are mostly gray, a fifth of all, mirrored",
        when(lambda request: request.is_mostly_gray, MIRRORED),
        files=ONE_GRAY_IN_FIVE,
    ),
    OddServer(
        "turned-upside-down",
        "pictures with an EXIF orientation, a third of all, upside down",
        when(lambda request: request.orientation != 1, moved(upside_down)),
        "no",
        "never applies while pictures are sent upright",
        files=("jpeg", "jpeg", "turned"),
    ),
)
BY_LOAD = (
    OddServer(
        "busy-reduced",
        "with more than 4 in flight, pixels of the picture reduced to 512 px",
        when(lambda request: request.in_flight > 4, in_pixels_of_reduced(512)),
        why="if they are asked about among other requests",
    ),
    OddServer(
        "batch-padded",
        "with others in flight, thousandths of the batch's largest picture",
        when(lambda request: request.in_flight > 1, on_canvas(1500, 1024)),
        why="if they are asked about among other requests",
    ),
    OddServer(
        "busy-shifted",
        "with more than 6 in flight, shifted by 8%",
        when(lambda request: request.in_flight > 6, moved(shifted(0.08))),
        "by chance",
        "as busy as that only now and then",
    ),
    OddServer(
        "turns-by-time",
        "in every second fifth of a second in pixels",
        when(lambda request: int(request.seconds / SLOT) % 2 == 1, IN_PIXELS),
        "by chance",
        AT_THE_TIME,
    ),
    OddServer(
        "restarted-y-first",
        "y first after a pause in the middle of the run",
        when(lambda request: request.was_restarted, Y_FIRST),
        restarts=True,
    ),
    OddServer(
        "a-while-shifted",
        "requests 40 to 80 shifted by 10%",
        when(lambda request: 40 <= request.number < 80, moved(shifted(0.1))),
        "by chance",
        AT_THE_TIME,
    ),
    OddServer(
        "a-while-y-first",
        "requests 40 to 80 y first",
        when(lambda request: 40 <= request.number < 80, Y_FIRST),
        "by chance",
        AT_THE_TIME,
    ),
    OddServer(
        "last-ones-mirrored",
        "mirrored from request 130 on",
        from_request(130, MIRRORED),
        why="if the run ends with one",
    ),
)
BY_SIZE = (
    OddServer(
        "small-on-canvas",
        "below 256 px thousandths of a canvas of 336 px",
        when(lambda request: request.is_small, on_canvas(336, 336, centered=True)),
        why="if they are as small",
    ),
    OddServer("portraits-y-first", "portraits y first", of_portraits(Y_FIRST)),
    OddServer("portraits-pixels", "portraits in pixels", of_portraits(IN_PIXELS)),
    OddServer(
        "portraits-turned",
        "portraits turned by a quarter",
        of_portraits(moved(quarter_turned)),
    ),
    OddServer(
        "elongated-square",
        "elongated pictures in a padded square",
        of_elongated(IN_PADDED_SQUARE),
    ),
    OddServer(
        "large-reduced",
        "above 700,000 px reduced to 768 px, and pixels of that",
        of_large(in_pixels_of_reduced(768)),
    ),
    OddServer("large-cropped", "above 700,000 px cropped by 10%", of_large(moved(cropped(0.1)))),
)
BY_CONTENT = (
    OddServer("photos-cropped", "photographs cropped by 10%", of_photos(moved(cropped(0.1)))),
    OddServer("photos-y-first", "photographs y first", of_photos(Y_FIRST)),
    OddServer("photos-pixels", "photographs in pixels", of_photos(IN_PIXELS)),
    OddServer("photos-xs-first", "photographs as [x1, x2, y1, y2]", of_photos(xs_before_ys)),
    OddServer("photos-sizes", "photographs as [x, y, w, h]", of_photos(CORNER_AND_SIZE)),
    OddServer("photos-mirrored", "photographs mirrored", of_photos(MIRRORED)),
    OddServer("photos-upside-down", "photographs upside down", of_photos(moved(upside_down))),
    OddServer("photos-shifted-10", "photographs shifted by 10%", of_photos(moved(shifted(0.1)))),
    OddServer("photos-shifted-6", "photographs shifted by 6%", of_photos(moved(shifted(0.06)))),
    OddServer(
        "photos-shifted-2",
        "photographs shifted by 2%",
        of_photos(moved(shifted(0.02))),
        "no",
        "hardly more than noise, and less than counts",
    ),
    OddServer("photos-scaled", "photographs at 0.9 of the scale", of_photos(moved(scaled(0.9)))),
    OddServer(
        "quarter-y-first",
        "a quarter of the pictures, by a hash of their bytes, y first",
        by_content(0.25, Y_FIRST),
        "by chance",
        SELDOM,
    ),
    OddServer(
        "tenth-mirrored",
        "a tenth of the pictures, by a hash of their bytes, mirrored",
        by_content(0.1, MIRRORED),
        "by chance",
        SELDOM,
    ),
    OddServer(
        "many-phrases-pixels",
        "with more than one phrase in pixels",
        when(lambda request: request.phrases > 1, IN_PIXELS),
    ),
    OddServer(
        "one-phrase-mirrored",
        "with one phrase alone mirrored",
        when(lambda request: request.phrases == 1, MIRRORED),
        "no",
        "they ask for several rectangles",
    ),
)
DRIFTING = (
    OddServer("scale-drifts", "scale from 1.00 to 1.10", drifting(lambda share: scaled(1 + share))),
    OddServer("shift-drifts", "shift from 0 to 10%", drifting(shifted)),
)
ALTERNATING = (
    OddServer("second-pixels", "every 2nd request in pixels", every(2, IN_PIXELS)),
    OddServer("second-mirrored", "every 2nd request mirrored", every(2, MIRRORED)),
    OddServer("fifth-y-first", "every 5th request y first", every(5, Y_FIRST), "by chance", SELDOM),
    OddServer(
        "fifth-sizes",
        "every 5th request as [x, y, w, h]",
        every(5, CORNER_AND_SIZE),
        "by chance",
        SELDOM,
    ),
    OddServer(
        "fifth-mirrored", "every 5th request mirrored", every(5, MIRRORED), "by chance", SELDOM
    ),
    OddServer(
        "random-5-y-first", "a random 5% y first", by_chance(0.05, Y_FIRST), "by chance", SELDOM
    ),
    OddServer(
        "random-20-pixels", "a random 20% in pixels", by_chance(0.2, IN_PIXELS), "by chance", SELDOM
    ),
    OddServer("random-50-sizes", "a random half as [x, y, w, h]", by_chance(0.5, CORNER_AND_SIZE)),
    OddServer(
        "tenth-of-another",
        "a random tenth gets the boxes of another picture",
        by_chance(0.1, moved(of_another_picture)),
        "by chance",
        SELDOM,
    ),
)
SECOND_BACKEND = (
    OddServer("later-y-first", "y first from request 40 on", from_request(40, Y_FIRST)),
    OddServer("later-pixels", "in pixels from request 40 on", from_request(40, IN_PIXELS)),
    OddServer(
        "later-xs-first", "as [x1, x2, y1, y2] from request 40 on", from_request(40, xs_before_ys)
    ),
    OddServer(
        "later-square",
        "in a padded square from request 40 on",
        from_request(40, IN_PADDED_SQUARE),
    ),
    OddServer(
        "later-scaled-8",
        "at 1.08 of the scale from request 40 on",
        from_request(40, moved(scaled(1.08))),
    ),
    OddServer(
        "later-scaled-5",
        "at 1.05 of the scale from request 40 on",
        from_request(40, moved(scaled(1.05))),
        "no",
        "less than counts",
    ),
)
COUNTING_PIXELS = (
    OddServer(
        "px-jpeg-thousandths",
        "asked for pixels: JPEG in thousandths, PNG in pixels",
        when(lambda request: request.file_type == "JPEG", IN_THOUSANDTHS),
        asked=PIXELS,
        files=("jpeg", "png"),
    ),
    OddServer(
        "px-photos-reduced",
        "asked for pixels: photographs reduced to 512 px",
        of_photos(in_pixels_of_reduced(512)),
        asked=PIXELS,
    ),
    Counting(
        "auto-photos-thousandths",
        "frames measured: photographs in thousandths",
        of_photos(IN_THOUSANDTHS),
    ),
    Counting(
        "auto-photos-reduced",
        "frames measured: photographs reduced to 512 px",
        of_photos(in_pixels_of_reduced(512)),
    ),
    Counting(
        "auto-busy-reduced",
        "frames measured: with more than 4 in flight reduced to 448 px",
        when(lambda request: request.in_flight > 4, in_pixels_of_reduced(448)),
        why="if they are asked about among other requests",
    ),
    Counting(
        "auto-later-reduced",
        "frames measured: reduced to 448 px from request 80 on",
        from_request(80, in_pixels_of_reduced(448)),
    ),
)
HONEST = (
    Honest("honest", "all things, as usual"),
    Honest(
        "honest-noisy",
        "edges off by 6%, a fifth of the boxes anywhere",
        noise=0.06,
        outliers=0.2,
    ),
    Honest("honest-small-things", "small things alone", scene=Scene(area=-6.5)),
    Honest("honest-corner", "all in a corner", scene=Scene(corner=True)),
    Honest("honest-people", "people alone", scene=Scene(things=PEOPLE)),
    Honest(
        "honest-files",
        "all types of files",
        files=("jpeg", "fine jpeg", "png", "webp", "gray", "turned"),
    ),
    Honest("honest-pixels", "asked for pixels", asked=PIXELS, files=("jpeg", "png")),
    Honest(
        "honest-auto",
        "frames measured",
        asked="auto",
        written=f"{PIXELS}@smart_resize_28",
        sizes=((640, 480), (480, 640)),
    ),
    Honest(
        "honest-of-photos",
        "drawings alone cropped by 10%, photographs right",
        when(lambda request: not request.is_photo, moved(cropped(0.1))),
        sizes=LANDSCAPE,
    ),
)
SERVERS = {
    server.name: server
    for server in (
        *BY_FILE,
        *BY_LOAD,
        *BY_SIZE,
        *BY_CONTENT,
        *DRIFTING,
        *ALTERNATING,
        *SECOND_BACKEND,
        *COUNTING_PIXELS,
        *HONEST,
    )
}


def row_of(server: OddServer, outcomes: Sequence[Outcome]) -> Row:
    answers = sum(outcome.answers for outcome in outcomes)
    unmarked = sum(outcome.unmarked for outcome in outcomes)
    marked = sum(outcome.marked for outcome in outcomes)
    stopped = sum(outcome.stopped for outcome in outcomes)
    codes = sorted({outcome.code for outcome in outcomes})
    figure = (
        f"exit {'/'.join(map(str, codes))}; stopped {stopped} of {len(outcomes)};"
        f" {sum(outcome.wrong for outcome in outcomes)} of {answers} answers wrong;"
        f" {unmarked} written unmarked; {marked} marked;"
        f" {sum(outcome.probes for outcome in outcomes)} probes;"
        f" {sum(outcome.requests for outcome in outcomes) / max(1, answers):.2f} requests a record"
    )
    if server.is_honest:
        reached = codes == [0] and marked <= MOST_MARKED * RECORDS * len(outcomes)
        goal = f"not stopped; marked ≤ {MOST_MARKED:.0%}"
        return Row(f"{server.name}: {server.does}", figure, goal, reached)
    told = f"{server.told}, {server.why}" if server.why else server.told
    what = f"{server.name}: {server.does} (told: {told})"
    return Row(what, figure)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=1, help="runs of each server (default: 1)")
    parser.add_argument("--only", nargs="+", choices=SERVERS, metavar="NAME", help="these servers")
    parser.add_argument(
        "--on-suspect", choices=("stop", "warn"), default="stop", help="vlm.on_suspect_boxes"
    )
    parser.add_argument("--messages", action="store_true", help="print what each run said")
    given = parser.parse_args()
    began = time.perf_counter()
    rows = []
    for name in given.only or SERVERS:
        outcomes = [play(SERVERS[name], seed, given.on_suspect) for seed in range(given.seeds)]
        rows.append(row_of(SERVERS[name], outcomes))
        if given.messages:
            for outcome in outcomes:
                print(f"{name}: {outcome.said}", flush=True)
    print(table(rows))
    print(f"{time.perf_counter() - began:.0f} s")
    return 1 if any(row.reached is False for row in rows) else 0


if __name__ == "__main__":
    raise SystemExit(main())
