"""`python -m dataflow_grounding` is the command line."""

from __future__ import annotations

from dataflow_grounding.cli.main import main

if __name__ == "__main__":
    main()
