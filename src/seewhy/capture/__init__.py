"""The only code that attaches a hook: read and change what passes through a model, or record it for an explanation."""

from seewhy.capture.hooks import capture, edit

__all__ = ["capture", "edit"]
