"""Makes report.jpg, the README's picture: the first command's report, from the example data and
without a model.

python docs/pictures/report.py    # needs chromium
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

REPOSITORY = Path(__file__).resolve().parents[2]
PICTURE = Path(__file__).with_name("report.jpg")
WINDOW = "1000,830"
MOST_BYTES = 200_000


def main() -> None:
    """Run the script where nothing is set, and photograph the head of its report."""
    chromium = next(
        filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
    )
    if chromium is None:
        raise SystemExit("no chromium on the PATH")
    without_model = {
        name: value for name, value in os.environ.items() if not name.startswith("DF_")
    }
    with tempfile.TemporaryDirectory() as folder:
        for name in ("api_pipelines", "example_data"):
            shutil.copytree(REPOSITORY / name, Path(folder, name))
        script = Path(folder, "api_pipelines", "image_grounding_api_pipeline.py")
        subprocess.run([sys.executable, script], check=True, env=without_model)
        report, shot = (
            Path(folder, "cache", "image_grounding", "report.html"),
            Path(folder, "shot.png"),
        )
        options = [
            "--headless",
            "--no-sandbox",
            "--hide-scrollbars",
            f"--window-size={WINDOW}",
            f"--screenshot={shot}",
        ]
        subprocess.run(
            [chromium, *options, report.as_uri()], check=True, capture_output=True, timeout=60
        )
        with Image.open(shot) as picture:
            picture.convert("RGB").save(PICTURE, quality=82, optimize=True)
    if PICTURE.stat().st_size > MOST_BYTES:
        raise SystemExit(f"{PICTURE} has more than {MOST_BYTES:,} bytes")


if __name__ == "__main__":
    main()
