"""Put into a folder what users copy: `api_pipelines/`, `extensions/`, and each whole script of the
README and the docs.

    python .ci/copied_scripts.py FOLDER
"""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


def main(folder: Path) -> None:
    """Write the scripts."""
    for name in ("api_pipelines", "extensions"):
        for path in (ROOT / name).glob("*.py"):
            shutil.copy(path, folder)
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        for number, script in enumerate(SCRIPT.findall(page.read_text(encoding="utf-8"))):
            if re.search(r"^from dataflow_grounding", script, re.MULTILINE):
                path = folder / f"{page.stem.lower()}_{number}.py"
                path.write_text(script, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
