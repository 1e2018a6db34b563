"""Read and change what passes through a model's layers. No other room attaches anything to a module."""

from seewhy.hooks._capture import capture
from seewhy.hooks._edit import edit
from seewhy.hooks.edits import clip, mask, noise, replace, scale, zero

__all__ = ["capture", "clip", "edit", "mask", "noise", "replace", "scale", "zero"]
