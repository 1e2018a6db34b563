"""A model and its explanation as one program, for ONNX Runtime or torch, and what runs it."""

from seewhy.exporting._card import Card
from seewhy.exporting._export import Export, export
from seewhy.exporting._program import Program, load

__all__ = ["Card", "Export", "Program", "export", "load"]
