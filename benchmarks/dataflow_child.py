"""Region captions as DataFlow runs them, on its own storage and serving: first all rows drawn, then
all asked.

    DF_API_KEY=... PYTHON dataflow_child.py BASE_URL ROWS FOLDER

PYTHON has `open-dataflow` and `opencv-python-headless`. DataFlow's ImageBboxGenerator is not part
of that package; drawing is done here, as it does it.
"""

from __future__ import annotations

import sys
import types

import cv2
import dataflow

# Its serving package imports PyTorch, vLLM and more for local models; only the API's serving is
# wanted here.
servings = types.ModuleType("dataflow.serving")
servings.__path__ = [f"{dataflow.__path__[0]}/serving"]
sys.modules["dataflow.serving"] = servings

from dataflow.serving.api_vlm_serving_openai import APIVLMServing_openai  # noqa: E402
from dataflow.utils.storage import FileStorage  # noqa: E402


def draw(row: dict, number: int, folder: str) -> dict:
    picture = cv2.imread(row["image"])
    for place, (x, y, w, h) in enumerate(row["bbox"], 1):
        cv2.rectangle(picture, (x, y), (x + w, y + h), (0, 255, 0), 2)
        cv2.putText(
            picture, str(place), (x + 4, y + 20), cv2.FONT_HERSHEY_SIMPLEX, 0.65, (255, 255, 255), 2
        )
    path = f"{folder}/{number}_bbox_vis.jpg"
    cv2.imwrite(path, picture)
    count = len(row["bbox"])
    prompt = f"Describe the content of each marked region in the image. There are {count} regions."
    return {**row, "image_with_bbox": path, "prompt": prompt}


def main(base_url: str, rows: str, folder: str) -> None:
    storage = FileStorage(rows, folder, "region_caption")
    step = storage.step()
    step.write([draw(row, number, folder) for number, row in enumerate(step.read("dict"), 1)])
    serving = APIVLMServing_openai(api_url=base_url, model_name="loopback", max_workers=10)
    step = storage.step()
    frame = step.read("dataframe")
    frame["answer"] = serving.generate_from_input_one_image(
        frame["image_with_bbox"].tolist(), frame["prompt"].tolist()
    )
    step.write(frame)


if __name__ == "__main__":
    main(*sys.argv[1:])
