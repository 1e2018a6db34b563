"""The explanation methods: pure functions of tensors, one file per family, one registry."""

from seewhy.methods.cam.combined import finer, refine
from seewhy.methods.registry import Method, available, get

__all__ = ["Method", "available", "finer", "get", "refine"]
