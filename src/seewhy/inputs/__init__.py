"""What a caller passes to a model, laid out for one call of it."""

from seewhy.inputs.adapters import Canvas, Listed
from seewhy.inputs.call import Inputs

__all__ = ["Canvas", "Inputs", "Listed"]
