"""The explanation methods: pure functions of tensors, one file per family, one registry."""

from seewhy.methods.cam.combined import finer, refine
from seewhy.methods.outside import of_captum, of_zennit
from seewhy.methods.registry import Attribution, Method, available, get

__all__ = ["Attribution", "Method", "available", "finer", "get", "of_captum", "of_zennit", "refine"]
