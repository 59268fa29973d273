"""What `replies` has, and where each stands; nothing is imported before it is used."""

from .reader import read_boxes as read_boxes
from .reader import read_object as read_object
from .reading import FoundBox as FoundBox
from .reading import Note as Note
from .reading import Reading as Reading
