"""What `replies` has, and where each stands; nothing is imported before it is used."""

from .reading import FoundBox as FoundBox
from .reading import Note as Note
from .reading import Reading as Reading
from .standalone import read_boxes as read_boxes
from .standalone import read_object as read_object
