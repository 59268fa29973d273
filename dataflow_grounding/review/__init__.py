"""Looking at results: the report."""

from dataflow_grounding.review.results import publish, report_folder, report_results

__all__ = ["publish", "report_folder", "report_results"]
