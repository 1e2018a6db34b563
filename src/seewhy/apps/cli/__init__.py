"""The command line."""

from seewhy.apps.cli.commands import app, main

__all__ = ["app", "main"]
