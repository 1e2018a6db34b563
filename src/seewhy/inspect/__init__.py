"""Look into a model: its layers, and what they return."""

from seewhy.inspect._features import features
from seewhy.inspect._kernels import kernels
from seewhy.inspect._summary import Row, Summary, summary

__all__ = ["Row", "Summary", "features", "kernels", "summary"]
