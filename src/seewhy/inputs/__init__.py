"""What a caller passes to a model, laid out for one call of it."""

from seewhy.inputs.call import Canvas, Inputs, Listed

__all__ = ["Canvas", "Inputs", "Listed"]
