"""What `metrics` has, and where each is; nothing is imported before it is used."""

from .annotations import read_annotations as read_annotations
from .comparing import Evaluation as Evaluation
from .comparing import Rules as Rules
from .comparing import evaluate as evaluate
