"""The only code that attaches a hook: read and change what passes through a model, or record it for an explanation."""

from seewhy.capture.edits import clip, mask, noise, replace, scale, zero
from seewhy.capture.hooks import capture, edit

__all__ = ["capture", "clip", "edit", "mask", "noise", "replace", "scale", "zero"]
