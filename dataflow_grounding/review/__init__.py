"""Looking at results: the static report."""

from dataflow_grounding.review.results import publish, report_both, report_folder, report_results

__all__ = ["publish", "report_both", "report_folder", "report_results"]
