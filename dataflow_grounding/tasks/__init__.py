"""Tasks: what is asked of a model. Each makes a request and knows how its reply is read."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
