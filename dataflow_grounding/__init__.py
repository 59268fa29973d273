"""Turns images into grounded annotations with a vision-language model."""

import lazy_loader

# Not when it is first used: cloudpickle looks a class up in modules that are loaded, and would ship
# an error's class by its source otherwise, as another class than the receiver's.
from dataflow_grounding import errors as errors

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
