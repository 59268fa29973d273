"""`python -m dataflow_grounding` is the command line."""

from dataflow_grounding.cli.main import main

if __name__ == "__main__":
    main()
