"""Names of folders and files in a results folder."""

import os

CKPT = ".ckpt"
"""The folder in a results folder where a run keeps its replies and what it has found out."""
CALIBRATION = "calibration.json"
"""The file in CKPT that says how the run's model writes boxes, where it was calibrated."""
SHARDS = "shards"
"""The folder in a results folder where the folders of its shards are."""
LEGACY_STATE = os.path.join(CKPT, "labels.json")
"""The file in a step's folder that says what its label files in a legacy format were made of."""
PICTURES = "pictures"
"""The folder in a results folder for pictures that were unpacked or fetched."""
RUN_JSON = "run.json"
