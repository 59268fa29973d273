"""What `metrics` has, and where each stands; nothing is imported before it is used."""

from .agreeing import agreement as agreement
from .annotations import read_annotations as read_annotations
from .evaluating import Evaluation as Evaluation
from .evaluating import evaluate as evaluate
from .pairs import Rules as Rules
