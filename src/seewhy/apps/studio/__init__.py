"""The studio: explanations in a browser."""

from seewhy.apps.studio._page import check_address, page, serve

__all__ = ["check_address", "page", "serve"]
