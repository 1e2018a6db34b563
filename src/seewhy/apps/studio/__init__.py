"""The studio: explanations in a browser."""

from seewhy.apps.studio._page import page, serve

__all__ = ["page", "serve"]
